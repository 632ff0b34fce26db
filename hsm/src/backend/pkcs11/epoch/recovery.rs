//! Recovery: one thread ends the sick epoch and tries until the next one stands.
//!
//! Started by the first worker that finds the token sick. It never presents a
//! PIN that was refused, and it holds nothing while it pauses. A call that hangs in the sick epoch does not
//! hold it up: every caller is told so meanwhile, and then served by the epoch beside.

use std::{
    hash::{BuildHasher as _, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak, atomic::Ordering},
    thread,
    time::Duration,
};

use super::{Phase, Shared, locked};
use crate::{backend::patience::FIRST_PAUSE, error::Error};

impl Shared {
    /// Starts the one recovery thread, unless it runs or the sick epoch is
    /// over already.
    pub(in crate::backend::pkcs11) fn recover(self: &Arc<Self>, sick: u64, reason: &str) {
        // A refused PIN is not presented again, so there is nothing to try.
        if self.check_refused().is_err() || self.recovering.swap(true, Ordering::SeqCst) {
            return;
        }
        if self.epoch() != sick {
            self.recovering.store(false, Ordering::SeqCst);
            return;
        }
        tracing::warn!(epoch = sick, reason, "the token is sick; recovering");
        let shared = Arc::downgrade(self);
        let reason = reason.to_owned();
        let spawned = thread::Builder::new()
            .name("token-recovery".to_owned())
            .spawn(move || recover(&shared, sick, &reason));
        if spawned.is_err() {
            self.recovering.store(false, Ordering::SeqCst);
        }
    }

    /// One round of recovery; true when there is nothing more to do.
    fn recover_once(self: &Arc<Self>, sick: u64, reason: &str) -> bool {
        let _turn = locked(&self.turn);
        match self.standing().map(|epoch| epoch.number) {
            Some(standing) if standing != sick => return true,
            Some(_) => self.end(Phase::Down(Error::unavailable("recover", reason))),
            // What the attempt before found stays said.
            None => {}
        }
        let outcome = self
            .begin()
            .map_err(|trouble| self.remember(trouble.into_error("recover")));
        match outcome {
            Ok(epoch) => {
                let epoch = self.stands(epoch);
                tracing::info!(epoch, "the token is back");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the token is not back yet");
                let refused = matches!(error, Error::PinRefused { .. });
                self.now(Phase::Down(error));
                refused
            }
        }
    }
}

/// Tries until the token is back, with growing pauses. It holds nothing while
/// it pauses, and ends when the backend is gone.
fn recover(shared: &Weak<Shared>, sick: u64, reason: &str) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let done = catch_unwind(AssertUnwindSafe(|| shared.recover_once(sick, reason)));
        // After a panic it is over as well: whoever misses the token next has it begun anew.
        if done.unwrap_or(true) {
            shared.recovering.store(false, Ordering::SeqCst);
            return;
        }
        let longest = shared.options.recovery_pause;
        drop(shared);
        thread::sleep(apart(pause.min(longest)));
        pause = pause.saturating_mul(2).min(longest);
    }
}

/// A little less than the pause. Nodes of one token miss it in the same moment; in step, their logins would
/// disturb each other again and again once it is back.
fn apart(pause: Duration) -> Duration {
    let chance = RandomState::new().hash_one(thread::current().id()) % 256;
    pause - pause.mul_f64(chance as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_never_longer_and_differ() {
        let pause = Duration::from_secs(2);
        let taken: Vec<_> = (0..20).map(|_| apart(pause)).collect();
        assert!(
            taken
                .iter()
                .all(|taken| (pause * 3 / 4..=pause).contains(taken))
        );
        assert!(taken.iter().any(|other| *other != taken[0]));
    }
}
