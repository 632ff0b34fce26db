//! Reaching the token: load the module, initialize it, find the one token that
//! is meant, log in once; and the way back.
//!
//! Called by `epoch` under its write lock, so nothing else of this token is inside the module
//! meanwhile. A [`Connection`] must be ended by [`Connection::end`]: a session
//! handle that outlives C_Finalize would close a session of the next epoch. Where two tokens are in
//! slots of one module, `module` keeps it initialised until neither is in use.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error as Pkcs11Error, RvError},
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
    types::RawAuthPin,
};

pub(super) use super::module::Module;
use super::{
    Options,
    mechanism::{self, Attempt, Trouble},
};
use crate::{
    error::{Error, Result},
    report::TokenDescription,
};

/// A token that is initialized and logged in.
#[derive(Debug)]
pub(super) struct Connection {
    module: Module,
    /// The initialisation of the module that its sessions belong to.
    pub(super) life: u64,
    slot: Slot,
    /// Keeps the process logged in: closing the last session logs out.
    login: Mutex<Session>,
    pub(super) description: TokenDescription,
}

impl Connection {
    /// Initializes the module and logs in. Whatever fails, the module is left finalized.
    pub(super) fn begin(module: &Module, options: &Options, logins: &AtomicU64) -> Attempt<Self> {
        let life = module.enter()?;
        let connected = Self::connect(module, life, options, logins);
        if connected.is_err() {
            module.leave();
        }
        connected
    }

    fn connect(module: &Module, life: u64, options: &Options, logins: &AtomicU64) -> Attempt<Self> {
        let (slot, info) = find(module.library(), options)?;
        mechanism::require(module.library(), slot)?;
        check_pin_state(&info, options)?;
        module.take(slot.id())?;
        let session = logged_in(module, slot, options, logins).inspect_err(|_| {
            module.give_back(slot.id());
        })?;
        Ok(Self {
            module: module.clone(),
            life,
            slot,
            login: Mutex::new(session),
            description: describe(&info, options),
        })
    }

    /// A further session; it shares the login. To be closed by its owner, and
    /// only while this connection stands.
    pub(super) fn open_session(&self) -> Attempt<Session> {
        Ok(self.module.library().open_rw_session_no_drop(self.slot)?)
    }

    /// Makes something that lasts as long as the login: on its own session.
    pub(super) fn on_the_login<T>(&self, work: impl FnOnce(&Session) -> T) -> T {
        work(&self.login.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs something on a session of its own.
    pub(super) fn with_session<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Session) -> Attempt<T>,
    ) -> Result<T> {
        let attempt = self.open_session().and_then(|session| {
            let outcome = work(&session);
            let _ = session.close();
            outcome
        });
        attempt.map_err(|trouble| trouble.into_error(operation))
    }

    /// Closes the login deliberately and finalizes, unless another token needs the module. Errors are of no interest:
    /// the token may be gone, and the next start does not depend on them.
    pub(super) fn end(self) {
        let session = self
            .login
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let _ = session.close();
        self.module.give_back(self.slot.id());
        self.module.leave();
    }
}

/// What the token says of itself, without logging in.
pub(super) fn glance(module: &Module, options: &Options) -> Attempt<TokenDescription> {
    module.look(|library| find(library, options).map(|(_, info)| describe(&info, options)))
}

/// Finds the one token that is meant. Two of the same name are refused: which
/// one the keys come from must never be a matter of slot order.
fn find(library: &Pkcs11, options: &Options) -> Attempt<(Slot, TokenInfo)> {
    let mut matching = Vec::new();
    let mut seen = Vec::new();
    let mut silent = None;
    for slot in library.get_slots_with_token()? {
        let info = match library.get_token_info(slot) {
            Ok(info) => info,
            // Perhaps a neighbour that died: no reason to miss ours.
            Err(error) => {
                silent = Some(error);
                continue;
            }
        };
        if !info.token_initialized() {
            continue;
        }
        let serial_fits = match &options.token_serial {
            Some(serial) => serial == info.serial_number(),
            None => true,
        };
        seen.push(format!("\"{}\"", info.label()));
        if info.label() == options.token_label && serial_fits {
            matching.push((slot, info));
        }
    }
    let wanted = &options.token_label;
    if let (true, Some(error)) = (matching.is_empty(), silent) {
        return Err(error.into());
    }
    match (matching.pop(), matching.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(Trouble::Final(Error::Misconfigured(format!(
            "more than one token has the label \"{wanted}\"; name the serial number as well"
        )))),
        (None, _) => Err(Trouble::Sick(format!(
            "no token with the label \"{wanted}\" is present (present: {})",
            if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.join(", ")
            }
        ))),
    }
}

/// What the token tells about its PIN before one is presented. At the final try
/// we do not spend it: a daemon that is restarted in a loop with a wrong PIN
/// would lock the token for good.
fn check_pin_state(info: &TokenInfo, options: &Options) -> Attempt<()> {
    let refused = |reason: &str| {
        Err(Trouble::Final(Error::PinRefused {
            token: options.token_label.clone(),
            reason: reason.to_owned(),
        }))
    };
    if info.user_pin_locked() {
        return refused("the token has locked it; its security officer can set a new one");
    }
    if info.user_pin_final_try() {
        return refused("one try is left; log in once by hand to show that the PIN is right");
    }
    if !info.user_pin_initialized() {
        return Err(Trouble::Final(Error::Misconfigured(format!(
            "the token \"{}\" has no user PIN yet; let its security officer set one",
            options.token_label
        ))));
    }
    Ok(())
}

fn logged_in(
    module: &Module,
    slot: Slot,
    options: &Options,
    logins: &AtomicU64,
) -> Attempt<Session> {
    let session = module.library().open_rw_session_no_drop(slot)?;
    if let Err(trouble) = log_in(&session, options, logins) {
        let _ = session.close();
        return Err(trouble);
    }
    Ok(session)
}

fn log_in(session: &Session, options: &Options, logins: &AtomicU64) -> Attempt<()> {
    logins.fetch_add(1, Ordering::SeqCst);
    let pin = RawAuthPin::new(Box::new(options.pin.expose().to_vec()));
    match session.login_with_raw(UserType::User, &pin) {
        Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Pkcs11Error::Pkcs11(
            code @ (RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked),
            _,
        )) => Err(Trouble::Final(Error::PinRefused {
            token: options.token_label.clone(),
            reason: format!("{code:?}"),
        })),
        Err(error) => Err(error.into()),
    }
}

fn describe(info: &TokenInfo, options: &Options) -> TokenDescription {
    TokenDescription {
        module: options.module.clone(),
        manufacturer: info.manufacturer_id().to_owned(),
        model: info.model().to_owned(),
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        software_token: is_software(info.manufacturer_id(), info.model()),
    }
}

/// The known tokens that are files: SoftHSM, kryoptic, NSS softokn.
pub(super) fn is_software(manufacturer: &str, model: &str) -> bool {
    let text = format!("{manufacturer} {model}").to_ascii_lowercase();
    ["softhsm", "kryoptic", "nss", "mozilla"]
        .iter()
        .any(|name| text.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_tokens_are_known_by_their_maker() {
        assert!(is_software("SoftHSM project", "SoftHSM v2"));
        assert!(is_software("Kryoptic Project", "v1"));
        assert!(!is_software("Yubico (www.yubico.com)", "YubiHSM"));
    }
}
