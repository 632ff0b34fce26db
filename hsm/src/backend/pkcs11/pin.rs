//! Presenting the PIN, and when it is not presented any more.
//!
//! Called by `token`, once for each epoch. A wrong PIN that is presented again and again locks the token for good, and
//! recovery would do that within seconds. A refusal by its own code is the end of it; but a module may tell a wrong
//! PIN by any code, so an answer that says neither yes nor no is judged by what the token tells
//! of its PIN afterwards, and is had three times at most.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki::{
    context::Pkcs11,
    error::{Error as Pkcs11Error, RvError},
    session::{Session, UserType},
    slot::{Slot, TokenInfo},
    types::RawAuthPin,
};

use super::{
    Options,
    mechanism::{Attempt, Trouble},
    module::Owner,
};
use crate::error::Error;

/// How often the PIN may be presented without the token's taking it. Tokens lock after three or more wrong ones, and
/// those that lock after three tell of the final try before it.
const MOST_UNCLEAR: u64 = 3;

/// The PIN of one backend, for the life of the process.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) owner: Owner,
    presented: AtomicU64,
    /// Since it was taken last.
    unclear: AtomicU64,
}

impl Pin {
    pub(super) fn new() -> Self {
        Self {
            owner: Owner::new(),
            presented: AtomicU64::new(0),
            unclear: AtomicU64::new(0),
        }
    }

    pub(super) fn presented(&self) -> u64 {
        self.presented.load(Ordering::SeqCst)
    }

    /// Logs in. `before` is what the token told of itself just now.
    pub(super) fn present(
        &self,
        session: &Session,
        options: &Options,
        (library, slot, before): (&Pkcs11, Slot, &TokenInfo),
    ) -> Attempt<()> {
        let pin = RawAuthPin::new(Box::new(options.pin.expose().to_vec()));
        self.presented.fetch_add(1, Ordering::SeqCst);
        // Counted before it is evaluated; an answer that says that it was not takes it back.
        let unclear = self.unclear.fetch_add(1, Ordering::SeqCst) + 1;
        let error = match session.login_with_raw(UserType::User, &pin) {
            Ok(()) => {
                self.unclear.store(0, Ordering::SeqCst);
                return Ok(());
            }
            Err(error) => error,
        };
        let Pkcs11Error::Pkcs11(code, _) = error else {
            return Err(error.into());
        };
        match code {
            RvError::UserAlreadyLoggedIn => {
                self.unclear.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
            // There was nobody to present it to.
            RvError::TokenNotPresent | RvError::DeviceRemoved | RvError::CryptokiNotInitialized => {
                self.unclear.fetch_sub(1, Ordering::SeqCst);
                Err(error.into())
            }
            RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked => refused(options, format!("{code:?}")),
            _ => {
                let after = library.get_token_info(slot);
                if let Ok(after) = &after {
                    check_state(after, options)?;
                    if after.user_pin_count_low() && !before.user_pin_count_low() {
                        let told = "and since then the token tells of a wrong PIN";
                        return refused(options, format!("C_Login answered {code:?}, {told}"));
                    }
                }
                if unclear >= MOST_UNCLEAR {
                    let told = "which says neither that it is right nor that it is wrong";
                    let times = format!("presented {unclear} times: C_Login answered {code:?}");
                    return refused(options, format!("{times}, {told}"));
                }
                Err(error.into())
            }
        }
    }
}

fn refused<T>(options: &Options, reason: String) -> Attempt<T> {
    Err(Trouble::Final(Error::PinRefused {
        token: options.token_label.clone(),
        reason,
    }))
}

/// What the token tells about its PIN before one is presented. At the final try
/// we do not spend it: a daemon that is restarted in a loop with a wrong PIN
/// would lock the token for good.
pub(super) fn check_state(info: &TokenInfo, options: &Options) -> Attempt<()> {
    let refused = |reason: &str| refused(options, reason.to_owned());
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
