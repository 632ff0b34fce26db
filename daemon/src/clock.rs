//! The daemon's one clock: the host's, but never behind what has been committed.
//!
//! `now = max(host clock, time of the last committed head)`. A host clock set back can
//! therefore not reopen what has expired. No time is ever taken from the database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use custodyd_policies::Timestamp;

#[derive(Debug, Default)]
pub struct Clock {
    committed: AtomicU64,
}

impl Clock {
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let host = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Timestamp(host.max(self.committed.load(Ordering::Acquire)))
    }

    /// Called by the committer, and by nobody else, once a batch is durable.
    pub(crate) fn committed(&self, at: Timestamp) {
        self.committed.fetch_max(at.0, Ordering::AcqRel);
    }
}
