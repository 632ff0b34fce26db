//! A loaded module, shared by all tokens of this process that are in its slots.
//!
//! Called by `token`, `epoch` and `survey`. PKCS#11 state belongs to the process: C_Finalize ends the
//! sessions of every slot. So the module is initialised for the first token that is in use and finalised
//! after the last. A token that recovers while its neighbour serves, or while a call of its own hangs, does without
//! both; it opens new sessions. Nothing here may hold its lock while anything but C_Initialize or C_Finalize runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as Pkcs11Error, RvError},
};

use super::mechanism::{Attempt, Trouble};
use crate::{
    backend::inside::Inside,
    error::{Error, Result},
};

/// The modules of this process, by their files.
static LOADED: Mutex<BTreeMap<PathBuf, Weak<Loaded>>> = Mutex::new(BTreeMap::new());

/// Loaded once, it stays while somebody has it; only its state comes and goes.
#[derive(Debug, Clone)]
pub(super) struct Module(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    context: Pkcs11,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who may be inside: one for each epoch of a token that somebody still has, and for each look.
    users: usize,
    /// Our initialization stands: also after a C_Finalize that failed.
    initialized: bool,
    /// Counts initialisations: a session handle means something in its own one alone.
    life: u64,
    /// Slots whose token has a backend in this process: whose it is, and how many seats it has there. A second
    /// backend would share its login and its anchors.
    taken: BTreeMap<u64, (Owner, usize)>,
}

/// A backend, for whoever counts seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(u64);

impl Owner {
    pub(super) fn new() -> Self {
        static OWNERS: AtomicU64 = AtomicU64::new(0);
        Self(OWNERS.fetch_add(1, Ordering::Relaxed))
    }
}

/// The right to be inside. The module is finalised when nobody has one any more, so never beneath a call.
#[derive(Debug)]
pub(super) struct Seat {
    module: Module,
    /// In which initialisation: a session handle means something in its own one alone.
    pub(super) life: u64,
    slot: Option<u64>,
    /// Gone after C_Finalize.
    _inside: Inside,
}

impl Seat {
    pub(super) fn library(&self) -> &Pkcs11 {
        &self.module.0.context
    }

    /// Takes a slot for one backend, which may have it already: of an epoch that a call hangs in.
    pub(super) fn take(&mut self, slot: u64, owner: Owner) -> Attempt<()> {
        let mut state = locked(&self.module.0.state);
        let (whose, seats) = state.taken.entry(slot).or_insert((owner, 0));
        if *whose != owner {
            return Err(Trouble::Final(Error::Misconfigured(
                "the token is in use in this process already; one backend per token".to_owned(),
            )));
        }
        *seats += 1;
        self.slot = Some(slot);
        Ok(())
    }
}

impl Drop for Seat {
    /// One user less; the last one finalises.
    fn drop(&mut self) {
        let mut state = locked(&self.module.0.state);
        if let Some(slot) = self.slot
            && let Some((_, seats)) = state.taken.get_mut(&slot)
        {
            *seats = seats.saturating_sub(1);
            if *seats == 0 {
                state.taken.remove(&slot);
            }
        }
        state.users = state.users.saturating_sub(1);
        if state.users > 0 {
            return;
        }
        match self.module.0.context.clone().finalize() {
            Ok(()) => state.initialized = false,
            Err(error) => tracing::warn!(%error, "C_Finalize failed"),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Module {
    pub(super) fn load(path: &Path) -> Result<Self> {
        let module = path.display();
        // A bare name would be searched for in places that others may write to.
        if !path.is_absolute() {
            return Err(Error::Misconfigured(format!(
                "the PKCS#11 module {module} must be given by its absolute path"
            )));
        }
        // One file under two names is one state.
        let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut loaded = locked(&LOADED);
        if let Some(there) = loaded.get(&file).and_then(Weak::upgrade) {
            return Ok(Self(there));
        }
        let context = Pkcs11::new(path).map_err(|error| {
            Error::Misconfigured(format!(
                "the PKCS#11 module {module} does not load ({error}); check the path and install \
                 the module (Debian: apt install softhsm2)"
            ))
        })?;
        let module = Arc::new(Loaded {
            context,
            state: Mutex::default(),
        });
        loaded.insert(file, Arc::downgrade(&module));
        Ok(Self(module))
    }

    /// One user more; the first one initialises.
    pub(super) fn enter(&self) -> Attempt<Seat> {
        let inside = Inside::enter();
        let inside =
            inside.ok_or_else(|| Trouble::Final(Error::unavailable("open", "the process ends")))?;
        let mut state = locked(&self.0.state);
        if state.users == 0 {
            let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
            match self.0.context.initialize(arguments) {
                Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _))
                    if state.initialized => {}
                Err(Pkcs11Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                    return Err(Trouble::Final(Error::Misconfigured(
                        "the PKCS#11 module is already in use in this process, by another file of \
                         the same library; name every token of it by one file"
                            .to_owned(),
                    )));
                }
                initialized => {
                    initialized?;
                    state.life += 1;
                }
            }
            state.initialized = true;
        }
        state.users += 1;
        Ok(Seat {
            module: self.clone(),
            life: state.life,
            slot: None,
            _inside: inside,
        })
    }

    /// Looks without any login.
    pub(super) fn look<T>(&self, work: impl FnOnce(&Pkcs11) -> Attempt<T>) -> Attempt<T> {
        work(self.enter()?.library())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_not_there_is_named_with_what_to_do() {
        for path in ["libsofthsm2.so", "/nowhere/libsofthsm2.so"] {
            let error = Module::load(Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
    }
}
