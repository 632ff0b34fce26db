//! Presenting the PIN, and when it is not presented any more.
//!
//! Called by `token`, once for each epoch. A wrong PIN that is presented again and again locks the token for good, and
//! recovery would do that within seconds. A refusal by its own code is the end of it; but a module may tell a wrong
//! PIN by any code, so an answer that says neither yes nor no is judged by what the token tells
//! of its PIN afterwards, and is had three times at most. Then it rests: for good where it was never taken, and for an
//! hour where it was, because a token in trouble may answer so as well, and is to be served again once it is well.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
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
    turn: Mutex<Turn>,
    unclear: Mutex<Unclear>,
}

/// Who may present it, and whether somebody does.
#[derive(Debug, Default)]
struct Turn {
    /// The newest. Whoever was given up meanwhile has an older one, and must not come to present the PIN beside another.
    ticket: u64,
    /// The token has been asked and has not answered yet.
    asked: bool,
    /// When it answered last.
    answered: Option<Instant>,
    /// It was refused: whoever waited for their turn must not present it either.
    refused: Option<Error>,
}

/// Of one attempt to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The right to present the PIN, for one.
#[derive(Debug)]
pub(super) struct Claimed<'p>(&'p Pin);

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let mut turn = self.0.turn();
        turn.asked = false;
        turn.answered = Some(Instant::now());
    }
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
            turn: Mutex::default(),
            unclear: Mutex::default(),
        }
    }

    pub(super) fn presented(&self) -> u64 {
        self.presented.load(Ordering::SeqCst)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether C_Login is under way: it may hang, and nobody presents the PIN beside it.
    pub(super) fn is_being_presented(&self) -> bool {
        self.turn().asked
    }

    /// For an attempt to log in: the newest one alone may present the PIN.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.turn().ticket)
    }

    /// Takes the right to present the PIN away from those who have not begun to; false where somebody is at it, or was
    /// within the `patience` that whoever has just logged in is given.
    pub(super) fn is_for_the_next(&self, patience: Duration) -> bool {
        let mut turn = self.turn();
        let answered = turn.answered.is_none_or(|at| at.elapsed() >= patience);
        let goes_on = answered && !turn.asked;
        if goes_on {
            turn.ticket += 1;
        }
        goes_on
    }

    /// From here on nobody else presents it, until this one has its answer.
    pub(super) fn claim(&self, Ticket(ticket): Ticket) -> Attempt<Claimed<'_>> {
        let mut turn = self.turn();
        if let Some(refused) = &turn.refused {
            return Err(Trouble::Final(refused.clone()));
        }
        if turn.asked || turn.ticket != ticket {
            let reason = "another attempt to open the token presents the PIN";
            return Err(Trouble::Sick(reason.to_owned()));
        }
        turn.asked = true;
        Ok(Claimed(self))
    }

    fn unclear<T>(&self, change: impl FnOnce(&mut Unclear) -> T) -> T {
        change(&mut self.unclear.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn was_not_evaluated(&self) {
        self.unclear(|unclear| unclear.times = unclear.times.saturating_sub(1));
    }
}

impl Claimed<'_> {
    /// Logs in. `before` is what the token told of itself just now.
    pub(super) fn present(
        self,
        session: &Session,
        options: &Options,
        token: (&Pkcs11, Slot, &TokenInfo),
    ) -> Attempt<()> {
        let answer = self.ask(session, options, token);
        if let Err(Trouble::Final(error @ Error::PinRefused { .. })) = &answer {
            self.0.turn().refused = Some(error.clone());
        }
        answer
    }

    fn ask(
        &self,
        session: &Session,
        options: &Options,
        (library, slot, before): (&Pkcs11, Slot, &TokenInfo),
    ) -> Attempt<()> {
        let Self(pin) = self;
        // Counted before it is evaluated; an answer that says that it was not takes it back.
        let unclear = pin.unclear(|unclear| match unclear.rests(options.pin_rest) {
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
        let raw = RawAuthPin::new(Box::new(options.pin.expose().to_vec()));
        pin.presented.fetch_add(1, Ordering::SeqCst);
        let answer = session.login_with_raw(UserType::User, &raw);
        let error = match answer {
            Ok(()) => {
                pin.unclear(|unclear| {
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
                pin.was_not_evaluated();
                Ok(())
            }
            // There was nobody to present it to.
            RvError::TokenNotPresent | RvError::DeviceRemoved | RvError::CryptokiNotInitialized => {
                pin.was_not_evaluated();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_given_up_does_not_present_the_pin_beside_another() {
        let pin = Pin::new();
        let late = pin.ticket();
        assert!(pin.is_for_the_next(Duration::from_secs(600)));
        let next = pin.ticket();
        assert!(pin.claim(late).is_err());
        let presents = pin.claim(next).unwrap();
        assert!(pin.is_being_presented());
        // While one is at it nobody takes that away, and nobody else begins.
        assert!(!pin.is_for_the_next(Duration::ZERO));
        assert!(pin.claim(pin.ticket()).is_err());
        drop(presents);
        assert!(!pin.is_being_presented());
        // Nor is anybody given up who has just logged in.
        assert!(!pin.is_for_the_next(Duration::from_secs(600)));
        // The control: the same ticket is good once the other has its answer.
        pin.claim(next).unwrap();
        assert!(pin.is_for_the_next(Duration::ZERO));
        assert!(pin.claim(next).is_err());
    }

    #[test]
    fn a_refused_one_is_claimed_by_nobody() {
        let pin = Pin::new();
        let refused = Error::PinRefused {
            token: "t".to_owned(),
            reason: "wrong".to_owned(),
        };
        pin.claim(pin.ticket()).unwrap();
        pin.turn().refused = Some(refused.clone());
        let told = pin.claim(pin.ticket()).map(drop);
        assert!(matches!(told, Err(Trouble::Final(error)) if error == refused));
    }
}
