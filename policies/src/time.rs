//! Points in time for all decisions of this crate: whole seconds since the Unix epoch, handed in by the caller.
//!
//! Called by every module here and by the daemon, which stores the values in sealed envelopes and tokens.
//! Must never read a clock. The caller's `now` is never earlier than the newest committed state, so that a
//! host clock that was set back cannot make a wait or a lifetime start again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z (POSIX time, no leap seconds). Serialises as a bare integer.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `span` later. A started second counts in full, so a wait is never cut short; a sum past the
    /// end of the range stays at its end, so an absurd span means "never" and not "long ago".
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let started = u64::from(span.subsec_nanos() > 0);
        Self(
            self.0
                .saturating_add(span.as_secs())
                .saturating_add(started),
        )
    }

    /// How long after `earlier` this is; zero where `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_second_counts_in_full() {
        assert_eq!(Timestamp(10).plus(Duration::from_millis(1)), Timestamp(11));
        assert_eq!(Timestamp(10).plus(Duration::from_secs(5)), Timestamp(15));
    }

    #[test]
    fn sums_and_differences_saturate() {
        assert_eq!(Timestamp(u64::MAX).plus(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(3).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(3)), Duration::from_secs(6));
    }
}
