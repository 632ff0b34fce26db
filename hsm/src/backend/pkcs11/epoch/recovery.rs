//! Recovery: one thread ends the sick epoch and tries until the next one stands.
//!
//! Started by the first worker that finds the token sick. It never presents a
//! PIN that was refused, and it holds nothing while it pauses.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    thread,
};

use super::{FIRST_PAUSE, Phase, Shared, end};
use crate::error::Error;

impl Shared {
    /// Starts the one recovery thread, unless it runs or the sick epoch is
    /// over already.
    pub(in crate::backend::pkcs11) fn recover(self: &Arc<Self>, sick: u64, reason: &str) {
        if self.recovering.swap(true, Ordering::SeqCst) {
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
    fn recover_once(&self, sick: u64, reason: &str) -> bool {
        let mut phase = self.write();
        if matches!(&*phase, Phase::Up(epoch) if epoch.number != sick) {
            self.recovering.store(false, Ordering::SeqCst);
            return true;
        }
        end(
            &mut phase,
            Phase::Down(Error::unavailable("recover", reason)),
        );
        let outcome = self
            .begin()
            .map_err(|trouble| self.remember(trouble.into_error("recover")));
        let done = match outcome {
            Ok(epoch) => {
                tracing::info!(epoch = epoch.number, "the token is back");
                *phase = Phase::Up(Box::new(epoch));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the token is not back yet");
                let refused = matches!(error, Error::PinRefused { .. });
                *phase = Phase::Down(error);
                refused
            }
        };
        if done {
            self.recovering.store(false, Ordering::SeqCst);
        }
        done
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
        if shared.recover_once(sick, reason) {
            return;
        }
        let longest = shared.options.recovery_pause;
        drop(shared);
        thread::sleep(pause.min(longest));
        pause = pause.saturating_mul(2).min(longest);
    }
}
