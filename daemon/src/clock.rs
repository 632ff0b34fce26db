//! The daemon's one clock: the host's, but never behind what has been committed.
//!
//! `now = max(host clock, time of the last committed head)`. A host clock set back can
//! therefore not reopen what has expired. No time is ever taken from the database.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use custodyd_policies::Timestamp;
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug, Default)]
pub struct Clock {
    committed: AtomicU64,
    host: Host,
    /// Somebody was told that another clock is ahead of this host's.
    told: AtomicBool,
}

/// Clocks that are further apart are told of: what they decide differs by more than a request takes.
pub(crate) const APART: u64 = 60;

/// Who tells the time.
#[derive(Debug, Default)]
enum Host {
    #[default]
    System,
    #[cfg(test)]
    Simulated(std::sync::Arc<simulated::Host>),
}

impl Clock {
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.host.now().max(self.committed.load(Ordering::Acquire)))
    }

    /// Called by the committer, and by nobody else, once a batch is durable.
    pub(crate) fn committed(&self, at: Timestamp) {
        self.committed.fetch_max(at.0, Ordering::AcqRel);
    }

    /// A head says this time: another node's clock, or this host's of before, may be ahead. What it says counts all the
    /// same, or what has expired there would be good here again; so somebody has to know.
    pub(crate) fn heard(&self, at: Timestamp) {
        let host = self.host.now();
        let ahead = at.0.saturating_sub(host);
        metrics::gauge!("custodyd_clock_behind_seconds").set(ahead as f64);
        if ahead <= APART {
            self.told.store(false, Ordering::Relaxed);
        } else if !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                newest_batch = at.0,
                this_host = host,
                ahead,
                "the newest batch is from the future of this host's clock (seconds since 1970): either this clock is slow, or \
                 that of the host that wrote it is fast. Every node goes by the fastest one: set both by one source"
            );
        }
    }

    /// As far as the host's clock can be compared with one that nobody believes: seconds that it is ahead, or behind.
    pub(crate) fn host_against(other: u64) -> i64 {
        let host = Host::System.now();
        i64::try_from(host).unwrap_or(i64::MAX) - i64::try_from(other).unwrap_or(i64::MAX)
    }

    /// Since the host was started, its sleep included: nobody sets it.
    pub(crate) fn since_boot(&self) -> Duration {
        self.host.since_boot()
    }
}

impl Host {
    fn now(&self) -> u64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            #[cfg(test)]
            Self::Simulated(host) => host.now(),
        }
    }

    fn since_boot(&self) -> Duration {
        match self {
            Self::System => {
                let now = clock_gettime(ClockId::Boottime);
                let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
                let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
                Duration::new(seconds, nanos)
            }
            #[cfg(test)]
            Self::Simulated(host) => host.since_boot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_from_the_future_is_told_of_once_until_it_is_past() {
        let host = simulated::Host::new(1000);
        let clock = host.clock();
        for (at, told) in [
            (1000, false),
            (1060, false),
            (1061, true),
            (5000, true),
            (1001, false),
            (1061, true),
        ] {
            clock.heard(Timestamp(at));
            assert_eq!(clock.told.load(Ordering::Relaxed), told, "{at}");
        }
        // Whoever is told goes by it all the same.
        clock.committed(Timestamp(5000));
        assert_eq!(clock.now(), Timestamp(5000));
    }
}

/// For tests: a host whose clocks go with tokio's, which may be paused.
#[cfg(test)]
pub(crate) mod simulated {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::time::Instant;

    #[derive(Debug)]
    pub(crate) struct Host {
        began: Instant,
        /// What somebody has set the clock to at the beginning; it may be set again.
        wall: AtomicU64,
        /// Milliseconds in which the host slept.
        slept: AtomicU64,
    }

    impl Host {
        pub(crate) fn new(wall: u64) -> Arc<Self> {
            Arc::new(Self {
                began: Instant::now(),
                wall: AtomicU64::new(wall),
                slept: AtomicU64::new(0),
            })
        }

        pub(crate) fn clock(self: &Arc<Self>) -> super::Clock {
            super::Clock {
                committed: AtomicU64::new(0),
                told: super::AtomicBool::new(false),
                host: super::Host::Simulated(Arc::clone(self)),
            }
        }

        /// Somebody sets the clock, forward or back.
        pub(crate) fn set(&self, wall: u64) {
            self.wall.store(wall, Ordering::SeqCst);
        }

        pub(crate) fn wall(&self) -> u64 {
            self.wall.load(Ordering::SeqCst)
        }

        /// Timers do not go on while a host sleeps; the time since its start does.
        pub(crate) fn sleeps(&self, millis: u64) {
            self.slept.fetch_add(millis, Ordering::SeqCst);
        }

        pub(super) fn now(&self) -> u64 {
            self.wall() + self.since_boot().as_secs()
        }

        pub(super) fn since_boot(&self) -> Duration {
            self.began.elapsed() + Duration::from_millis(self.slept.load(Ordering::SeqCst))
        }
    }
}
