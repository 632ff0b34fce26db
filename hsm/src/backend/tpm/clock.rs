//! Since when the TPM has had its present command, and from when on that command hangs.
//!
//! Restarted by `token` before each command, looked at by `epoch`. One turn may be many commands: a chip of five operations a
//! second needs several seconds for the known answers of some dozen keys. So it is never the turn that hangs, but a command.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A command that has taken so long hangs. The slowest that chips have, making a key, takes about a second.
pub(super) const HANGS: Duration = Duration::from_secs(3);

/// Of one connection; clones are the same clock.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<Mutex<Instant>>);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// A command begins.
    pub(super) fn restart(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether somebody hangs who has been at it since then: neither have they just begun, nor has any command of theirs.
    pub(super) fn hangs(&self, since: Instant) -> bool {
        let command = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.max(command).elapsed() > HANGS
    }
}
