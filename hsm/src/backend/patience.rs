//! Patience with a token: for how long a start is tried again, and for how long somebody waits until they are alone with it.
//!
//! Used inside the backends.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        mpsc::{self, RecvTimeoutError},
    },
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

/// Does work on a token that may hang in it, and that nobody may break off: what it makes could be half there, with nobody who
/// waits for the rest. So it is waited for, and after this long that is told.
pub(super) fn watched<T>(
    (longest, told): (Duration, impl FnOnce() + Send),
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        let (over, watch) = mpsc::channel::<()>();
        // Gone with the work, also by a panic. Where there is no thread to be had, nobody is told.
        let _over = over;
        let _ = thread::Builder::new().spawn_scoped(scope, move || {
            if watch.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
                told();
            }
        });
        work()
    })
}

/// As long as a slow token takes to make all of its keys.
pub(super) const ALONE: Duration = Duration::from_secs(60);

/// What is told of work that is alone with a token.
pub(super) fn hangs_alone() {
    tracing::warn!(
        lasts = ALONE.as_secs(),
        "the token has not come back from what it was asked; it is waited for, because a change may be half done. Where it hangs for \
         good, end this command, start again what is in front of the token, and run the same command once more"
    );
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    #[test]
    fn work_that_takes_long_is_told_of_and_not_broken_off() {
        for (longest, told) in [(Duration::from_millis(10), true), (Duration::MAX, false)] {
            let (sender, heard) = mpsc::channel();
            let tell = move || sender.send(()).unwrap();
            let done = watched((longest, tell), || {
                heard.recv_timeout(Duration::from_millis(if told { 60_000 } else { 50 }))
            });
            assert_eq!(done.is_ok(), told, "{longest:?}");
        }
        // A panic of the work is the caller's, and leaves nobody waiting.
        let panicked = thread::scope(|scope| {
            let watched = || watched::<()>((Duration::MAX, || ()), || panic!("on purpose"));
            scope.spawn(watched).join()
        });
        assert!(panicked.is_err());
    }

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
