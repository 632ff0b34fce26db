//! Patience with a token: for how long a start is tried again, and for how long somebody waits until they are alone with it.
//!
//! Used inside the backends.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    thread,
    time::{Duration, Instant},
};

use super::attempt::{Attempt, Trouble};
use crate::error::Result;

pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Repeats what fails in passing: at a start a network token or a TPM's daemon may be a moment late, and two processes that
/// start on one SoftHSM2 token disturb each other.
pub(super) fn patiently<T>(patience: Duration, attempt: impl Fn() -> Attempt<T>) -> Result<T> {
    let give_up = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Trouble::Sick(_)) if Instant::now() + pause < give_up => {
                thread::sleep(pause);
                pause = pause.saturating_mul(2);
            }
            Err(trouble) => return Err(trouble.into_error("start")),
        }
    }
}

/// Takes a turn that somebody may have who hangs; none where it does not come in time.
pub(super) fn turn_within(turn: &Mutex<()>, longest: Duration) -> Option<MutexGuard<'_, ()>> {
    let give_up = Instant::now() + longest;
    loop {
        match turn.try_lock() {
            Ok(turn) => return Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => {
                return Some(PoisonError::into_inner(poisoned));
            }
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    #[test]
    fn what_passes_is_tried_again_and_nothing_else() {
        let tries = Cell::new(0);
        let counted = |trouble: fn() -> Trouble, well_at: u32| {
            tries.set(0);
            patiently(Duration::from_secs(1), || {
                tries.set(tries.get() + 1);
                match tries.get() >= well_at {
                    true => Ok(tries.get()),
                    false => Err(trouble()),
                }
            })
        };
        let sick = || Trouble::Sick("a moment late".to_owned());
        assert_eq!(counted(sick, 3), Ok(3));
        assert!(matches!(
            counted(sick, u32::MAX),
            Err(Error::Unavailable { .. })
        ));
        assert!(tries.get() > 1);
        let refused = || {
            Trouble::Final(Error::PinRefused {
                token: String::new(),
                reason: String::new(),
            })
        };
        assert!(matches!(counted(refused, 2), Err(Error::PinRefused { .. })));
        assert_eq!(tries.get(), 1);
    }

    #[test]
    fn nobody_waits_for_a_turn_for_ever_and_a_panic_takes_none_away() {
        let turn = Mutex::new(());
        let held = turn.lock().unwrap();
        assert!(turn_within(&turn, Duration::from_millis(20)).is_none());
        drop(held);
        assert!(turn_within(&turn, Duration::ZERO).is_some());
        let panicked = thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _turn = turn.lock();
                panic!("on purpose")
            });
            panics.join()
        });
        assert!(panicked.is_err() && turn.is_poisoned());
        assert!(turn_within(&turn, Duration::ZERO).is_some());
    }
}
