//! One token of several: its pool, what it calls itself, and how it stands.
//!
//! Held by the set. A token is known by its serial number, which it tells: a name in a configuration
//! would be given to another token by a slip of the hand, and with it the right to serve.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    custody::{Backend, Custody},
    error::{Error, Result},
    pool::{Pool, PoolOptions},
    report::TokenDescription,
    versions::KeyVersions,
};

/// How a token stands in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In the set, and it has answered last.
    Well,
    /// In the set, and it has not answered: asked last, and given up by the ledger unless it comes back soon.
    Sick,
    /// Configured, and not in the set: given up, or never taken in.
    Outside,
}

impl Standing {
    /// For metrics and for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Sick => "sick",
            Self::Outside => "outside",
        }
    }
}

/// A configured token.
#[derive(Debug)]
pub struct Member {
    name: String,
    options: PoolOptions,
    backend: Handle,
    pool: Mutex<Option<Pool>>,
    standing: AtomicU8,
    /// Why it is not well.
    reason: Mutex<Option<String>>,
    observer: OnceLock<Observer>,
    /// The key versions in use, also once it is opened later.
    in_use: Mutex<Option<Arc<KeyVersions>>>,
    /// Threads that open it: more than one where one hangs.
    opening: AtomicUsize,
    /// The ledger knows what it remembers.
    heard: AtomicBool,
}

/// Is told of each call, and how long it took.
#[derive(Clone)]
pub(crate) struct Observer(pub(crate) Arc<dyn Fn(&'static str, Duration) + Send + Sync>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

struct Handle(Arc<dyn Backend>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

/// A token that is being opened, by a thread that may hang in its module.
pub(super) struct Opening {
    name: String,
    outcome: mpsc::Receiver<Result<()>>,
}

impl Opening {
    pub(super) fn outcome(self, until: Instant) -> Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        self.outcome.recv_timeout(left).unwrap_or_else(|_| {
            let reason = format!("the token {} does not open in time", self.name);
            Err(Error::unavailable("open", reason))
        })
    }
}

impl Member {
    pub(super) fn new(name: String, backend: Arc<dyn Backend>, options: PoolOptions) -> Self {
        Self {
            name,
            options,
            backend: Handle(backend),
            pool: Mutex::default(),
            standing: AtomicU8::new(number(Standing::Well)),
            reason: Mutex::default(),
            observer: OnceLock::new(),
            in_use: Mutex::default(),
            opening: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
        }
    }

    /// Has its anchors believed by these alone, while it is in the set.
    pub(crate) fn is_held_to(&self, versions: &Arc<KeyVersions>) {
        *self.in_use() = Some(Arc::clone(versions));
        if let Some(pool) = &*self.slot() {
            pool.believe_by(self.believed_by());
        }
    }

    /// Outside of the set it remembers what was true when it left, by the keys of then.
    fn believed_by(&self) -> Option<Arc<KeyVersions>> {
        match self.standing() {
            Standing::Outside => None,
            Standing::Well | Standing::Sick => self.in_use().clone(),
        }
    }

    fn in_use(&self) -> std::sync::MutexGuard<'_, Option<Arc<KeyVersions>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has its calls measured from now on, also once it is opened later.
    pub(crate) fn observe(&self, observer: &Observer) {
        let _ = self.observer.set(observer.clone());
        if let Some(pool) = &*self.slot() {
            measured(pool, observer);
        }
    }

    /// Opens it, unless it is open. What comes too late for whoever waits is kept all the same.
    pub(super) fn begin_to_reach(self: &Arc<Self>) -> Opening {
        let (sender, outcome) = mpsc::sync_channel(1);
        let opening = Opening {
            name: self.name.clone(),
            outcome,
        };
        let member = Arc::clone(self);
        let failed = sender.clone();
        self.opening.fetch_add(1, Ordering::SeqCst);
        let spawned = thread::Builder::new()
            .name("token-opening".to_owned())
            .spawn(move || {
                let opened = member.open();
                member.opening.fetch_sub(1, Ordering::SeqCst);
                let _ = sender.try_send(opened);
            });
        if let Err(error) = spawned {
            self.opening.fetch_sub(1, Ordering::SeqCst);
            let _ = failed.try_send(Err(Error::unavailable("open", error.to_string())));
        }
        opening
    }

    fn open(&self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        let pool = Pool::start(Arc::clone(&self.backend.0), self.options.clone())?;
        let mut slot = self.slot();
        if let Some(observer) = self.observer.get() {
            measured(&pool, observer);
        }
        pool.believe_by(self.believed_by());
        if slot.is_none() {
            *slot = Some(pool);
        }
        Ok(())
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Pool>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As the configuration calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.slot().is_some()
    }

    /// Has it opened, and does not wait for that. A thread may hang at it, in its module: no other one is begun beside that.
    pub fn open_by_and_by(self: &Arc<Self>) {
        if !self.is_open() && self.opening.load(Ordering::SeqCst) == 0 {
            let _ = self.begin_to_reach();
        }
    }

    /// What the head calls it: the serial number that it tells.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it was never reached; [`Error::Misconfigured`] where it tells none.
    pub fn id(&self) -> Result<String> {
        self.pool()?;
        identity(&self.name, &self.backend.0.describe())
    }

    /// The token alone, whether in the set or not.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while it was never reached.
    pub fn pool(&self) -> Result<Pool> {
        let pool = self.slot().clone();
        pool.ok_or_else(|| {
            let reason = format!("the token {} was not reached", self.name);
            Error::unavailable("open", reason)
        })
    }

    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::SeqCst) {
            WELL => Standing::Well,
            SICK => Standing::Sick,
            _ => Standing::Outside,
        }
    }

    /// Why it is not well, if it is not.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone()
    }

    fn stands(&self, standing: Standing, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        self.standing.store(number(standing), Ordering::SeqCst);
        if let Some(pool) = &*self.slot() {
            pool.believe_by(self.believed_by());
        }
    }

    /// It has answered as it must. A token outside of the set stays there.
    pub fn is_well(&self) {
        if self.changes(Standing::Sick, Standing::Well, None) {
            tracing::info!(token = self.name, "a token of the set answers again");
        }
    }

    /// It has not; others are asked first from now on.
    pub fn is_sick(&self, operation: &'static str, error: &Error) {
        if self.changes(Standing::Well, Standing::Sick, Some(error.to_string())) {
            tracing::warn!(
                token = self.name,
                operation,
                %error,
                "a token of the set does not answer; the others are asked"
            );
        }
    }

    /// From exactly this standing: one that was given up meanwhile must not come back by an old answer.
    fn changes(&self, from: Standing, to: Standing, reason: Option<String>) -> bool {
        let (from, to) = (number(from), number(to));
        let order = Ordering::SeqCst;
        let changed = self.standing.compare_exchange(from, to, order, order);
        if changed.is_ok() {
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        }
        changed.is_ok()
    }

    /// Whether it is outside of the set, and nobody knows what it remembers: it has not answered since this process began.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.standing() == Standing::Outside && !self.heard.load(Ordering::SeqCst)
    }

    /// It has said what it remembers, or was told of everything until now. That holds for as long as this process lives: no other
    /// one anchors in it meanwhile.
    pub fn was_heard(&self) {
        self.heard.store(true, Ordering::SeqCst);
    }

    /// It is in the set from now on.
    pub fn joins(&self) {
        self.stands(Standing::Well, None);
    }

    /// It is in the set no more.
    pub fn leaves(&self) {
        let reason = self.reason();
        self.stands(Standing::Outside, reason);
    }

    pub(super) fn ask<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce(&mut dyn Custody) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.pool()?.blocking_call(operation, job)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.backend.0.epoch()
    }

    pub(super) fn left_behind(&self) -> usize {
        self.backend.0.left_behind()
    }

    pub(super) fn describe(&self) -> TokenDescription {
        self.backend.0.describe()
    }

    /// Calls that the token has not come back from.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.slot().as_ref().map_or(0, |pool| pool.status().stuck)
    }

    pub(super) fn shutdown(&self) {
        if let Some(pool) = self.slot().take() {
            pool.shutdown();
        }
    }
}

fn measured(pool: &Pool, observer: &Observer) {
    let Observer(observer) = observer.clone();
    pool.observe(move |operation, took| observer(operation, took));
}

/// What a token is known by in a head.
///
/// # Errors
/// [`Error::Misconfigured`] where it tells no serial number.
pub(crate) fn identity(name: &str, token: &TokenDescription) -> Result<String> {
    let serial = token.serial.trim();
    if serial.is_empty() || serial.len() > MAX_ID || serial.chars().any(char::is_control) {
        return Err(Error::Misconfigured(format!(
            "the token {name} tells no serial number by which it could be known: it can be a realm's only \
             token, and none of several"
        )));
    }
    Ok(serial.to_owned())
}

/// A TPM's is a digest in hexadecimal, that of a PKCS#11 token 16 bytes.
const MAX_ID: usize = 128;

const WELL: u8 = 0;
const SICK: u8 = 1;
const OUTSIDE: u8 = 2;

fn number(standing: Standing) -> u8 {
    match standing {
        Standing::Well => WELL,
        Standing::Sick => SICK,
        Standing::Outside => OUTSIDE,
    }
}
