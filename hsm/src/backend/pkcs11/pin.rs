//! Presenting the PIN, and when it is not presented any more.
//!
//! Called by `token`, once for each epoch. A wrong PIN that is presented again and again locks the token for good, and
//! recovery would do that within seconds. A refusal by its own code is the end of it; but a module may tell a wrong
//! PIN by any code, so an answer that says neither yes nor no is judged by what the token tells
//! of its PIN afterwards, and is had three times at most. Then it rests: for good where it was never taken, and for an
//! hour where it was, because a token in trouble may answer so as well, and is to be served again once it is well.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

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
    /// The token has been asked and has not answered yet.
    asked: AtomicBool,
    unclear: Mutex<Unclear>,
}

/// Since the PIN was taken last.
#[derive(Debug, Default, Clone, Copy)]
struct Unclear {
    times: u64,
    last: Option<Instant>,
    /// Whether it was ever.
    taken: bool,
}

impl Unclear {
    /// How long the PIN rests yet.
    fn rests(&self, pin_rest: Duration) -> Option<Duration> {
        let last = self.last.filter(|_| self.times >= MOST_UNCLEAR)?;
        pin_rest.checked_sub(last.elapsed())
    }
}

impl Pin {
    pub(super) fn new() -> Self {
        Self {
            owner: Owner::new(),
            presented: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            unclear: Mutex::default(),
        }
    }

    pub(super) fn presented(&self) -> u64 {
        self.presented.load(Ordering::SeqCst)
    }

    /// Whether C_Login is under way: it may hang, and nobody presents the PIN beside it.
    pub(super) fn is_being_presented(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn unclear<T>(&self, change: impl FnOnce(&mut Unclear) -> T) -> T {
        change(&mut self.unclear.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Logs in. `before` is what the token told of itself just now.
    pub(super) fn present(
        &self,
        session: &Session,
        options: &Options,
        (library, slot, before): (&Pkcs11, Slot, &TokenInfo),
    ) -> Attempt<()> {
        // Counted before it is evaluated; an answer that says that it was not takes it back.
        let unclear = self.unclear(|unclear| match unclear.rests(options.pin_rest) {
            Some(rests) => Err(rests),
            None => {
                unclear.times += 1;
                unclear.last = Some(Instant::now());
                Ok(*unclear)
            }
        });
        let unclear = unclear.map_err(|rests| {
            Trouble::Sick(format!(
                "the PIN was presented, and the token said neither that it is right nor that it is wrong; so as not to lock \
                 it, it is presented again in {} s, or by a restart",
                rests.as_secs() + 1
            ))
        })?;
        let pin = RawAuthPin::new(Box::new(options.pin.expose().to_vec()));
        self.presented.fetch_add(1, Ordering::SeqCst);
        self.asked.store(true, Ordering::SeqCst);
        let answer = session.login_with_raw(UserType::User, &pin);
        self.asked.store(false, Ordering::SeqCst);
        let error = match answer {
            Ok(()) => {
                self.unclear(|unclear| {
                    *unclear = Unclear {
                        taken: true,
                        ..Unclear::default()
                    };
                });
                return Ok(());
            }
            Err(error) => error,
        };
        let Pkcs11Error::Pkcs11(code, _) = error else {
            return Err(error.into());
        };
        match code {
            RvError::UserAlreadyLoggedIn => {
                self.was_not_evaluated();
                Ok(())
            }
            // There was nobody to present it to.
            RvError::TokenNotPresent | RvError::DeviceRemoved | RvError::CryptokiNotInitialized => {
                self.was_not_evaluated();
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
                if unclear.times >= MOST_UNCLEAR && !unclear.taken {
                    let told = "which says neither that it is right nor that it is wrong";
                    let times = unclear.times;
                    let times = format!("presented {times} times: C_Login answered {code:?}");
                    return refused(options, format!("{times}, {told}"));
                }
                Err(error.into())
            }
        }
    }

    fn was_not_evaluated(&self) {
        self.unclear(|unclear| unclear.times = unclear.times.saturating_sub(1));
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
