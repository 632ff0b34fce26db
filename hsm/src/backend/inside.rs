//! Who may be inside a module, or in what is in front of a TPM, when the process ends.
//!
//! A seat in a module and a connection to a TPM count from before the library is asked for the first time until after the last.
//! The end of the process asks [`rests`] before anything of the libraries' own is run: their exit handlers and destructors take down
//! what a thread inside works on, and that thread ends the process by a signal, after all was said and done.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Of this process.
static PLACES: Places = Places(AtomicUsize::new(0));

/// How many are taken; with [`CLOSED`], nobody takes one any more.
struct Places(AtomicUsize);

const CLOSED: usize = 1 << (usize::BITS - 1);

/// A place, until it goes.
#[derive(Debug)]
pub(super) struct Inside(());

impl Inside {
    /// None where the process ends.
    pub(super) fn enter() -> Option<Self> {
        PLACES.take().then_some(Self(()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        PLACES.give_back();
    }
}

/// Closes the way in for the rest of this process's life, and waits until nobody is inside, for so long at the most. Where that is
/// false, whoever ends the process must not run what the libraries have for its end.
#[must_use]
pub fn rests(within: Duration) -> bool {
    PLACES.rest(within)
}

impl Places {
    fn take(&self) -> bool {
        let order = Ordering::SeqCst;
        let taken = self.0.fetch_update(order, order, |taken| {
            (taken & CLOSED == 0).then_some(taken + 1)
        });
        taken.is_ok()
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn rest(&self, within: Duration) -> bool {
        self.0.fetch_or(CLOSED, Ordering::SeqCst);
        let give_up = Instant::now() + within;
        while self.0.load(Ordering::SeqCst) != CLOSED {
            if Instant::now() >= give_up {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_inside_is_waited_for_but_not_for_ever_and_nobody_comes_after() {
        let places = Places(AtomicUsize::new(0));
        assert!(places.take() && places.take());
        places.give_back();
        let began = Instant::now();
        assert!(!places.rest(Duration::from_millis(50)));
        assert!(began.elapsed() >= Duration::from_millis(50));
        assert!(!places.take());
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                places.give_back();
            });
            assert!(places.rest(Duration::from_secs(60)));
        });
        assert!(!places.take() && places.rest(Duration::ZERO));
    }
}
