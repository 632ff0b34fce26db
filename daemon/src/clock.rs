//! The daemon's one clock: the host's, but never behind what has been committed, and never still.
//!
//! `now = max(host clock, time of the last committed head, what was told before and half of what has passed since)`.
//! A host clock set back can therefore not reopen what has expired, and nothing lives for longer than twice its time
//! while it is behind. Half, because it may have been the jump forward that was wrong: then the host's clock catches up
//! after as long again, where one that goes on as fast would stay ahead for ever. What passes is counted by a clock that
//! nobody sets; a daemon that was started since begins at the last head. No time is ever taken from the database.
//!
//! What can not be taken back is not done by that time: one batch of a clock that was years ahead would have every node erase
//! what is unused since. It goes by the host's own, and waits where somebody has set that forward (`for_good`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use custodyd_policies::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The beginning of 2026: a host's clock before that was never set.
pub(crate) const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// A clock that is set forward by more than that is not believed for good, until a start at which somebody has looked. What is
/// deleted was kept for a month at least.
const SET_FORWARD: u64 = 24 * 3600;

#[derive(Debug)]
pub struct Clock {
    committed: AtomicU64,
    host: Host,
    /// The host's time at the beginning, and when that was since the host's start.
    began: OnceLock<(u64, Duration)>,
    told: Mutex<Told>,
    /// It was said that another clock is ahead of this host's.
    warned: AtomicBool,
}

/// The latest time that came from the host or a head, and when that was since the host's start.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    time: u64,
    at: Duration,
}

/// One look: the time that counts, and the times between which a device's clock is right as far as anybody here knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub now: Timestamp,
    /// The host's clock where it is behind.
    pub earliest: Timestamp,
    /// Where it was right before it was set back.
    pub latest: Timestamp,
}

impl From<Timestamp> for Reading {
    fn from(now: Timestamp) -> Self {
        Self {
            now,
            earliest: now,
            latest: now,
        }
    }
}

/// The year 10000, which has no form of its own.
const LAST_SHOWN: u64 = 253_402_300_800;

/// Seconds since 1970 for people (RFC 3339), of whichever number a database or another host has come up with.
pub(crate) fn shown(time: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(time));
    match at.filter(|_| time < LAST_SHOWN) {
        Some(at) => humantime::format_rfc3339_seconds(at).to_string(),
        None => format!("{time} s since 1970"),
    }
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

impl Default for Clock {
    fn default() -> Self {
        Self::of(Host::default())
    }
}

impl Clock {
    fn of(host: Host) -> Self {
        let clock = Self {
            committed: AtomicU64::default(),
            host,
            began: OnceLock::new(),
            told: Mutex::default(),
            warned: AtomicBool::default(),
        };
        let _ = clock.began();
        clock
    }

    /// None before the host's clock is set for the first time.
    fn began(&self) -> Option<(u64, Duration)> {
        let host = self.host.now();
        let began = || (host, self.host.since_boot());
        (host >= EARLIEST.as_secs()).then(|| *self.began.get_or_init(began))
    }

    /// The time by which something may be deleted that nobody can bring back: the host's own, however far ahead the realm
    /// is. None where it has moved much further since this daemon's start than time has passed.
    #[must_use]
    pub fn for_good(&self) -> Option<Timestamp> {
        let (began, at) = self.began()?;
        let host = self.host.now();
        let passed = self.host.since_boot().saturating_sub(at).as_secs();
        let latest = began.saturating_add(passed).saturating_add(SET_FORWARD);
        (host <= latest).then_some(Timestamp(host))
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.read().now
    }

    #[must_use]
    pub fn read(&self) -> Reading {
        let host = self.host.now();
        let source = host.max(self.committed.load(Ordering::Acquire));
        // Two numbers that are always of one look: a panic between them is not possible.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // Behind the lock, so that it is never before what another has just noted.
        let boot = self.host.since_boot();
        let passed = boot.saturating_sub(told.at);
        let slow = told.time.saturating_add((passed / 2).as_secs());
        // Only what is news is noted: else the halves of seconds between two looks would be lost.
        if source > slow {
            *told = Told {
                time: source,
                at: boot,
            };
            return Reading {
                now: Timestamp(source),
                earliest: Timestamp(host),
                latest: Timestamp(source),
            };
        }
        Reading {
            now: Timestamp(slow),
            earliest: Timestamp(host),
            latest: Timestamp(told.time.saturating_add(passed.as_secs())),
        }
    }

    /// Seconds that the host's clock is behind the time that counts: it was set back, or had been set forward wrongly.
    #[must_use]
    pub fn behind(&self) -> u64 {
        let reading = self.read();
        reading.now.0 - reading.earliest.0.min(reading.now.0)
    }

    /// # Errors
    /// What is wrong with the host's clock, so that no device's proof can be told from an old one.
    pub(crate) fn is_set(&self) -> Result<(), String> {
        let host = self.host.now();
        match host < EARLIEST.as_secs() {
            true => Err(format!(
                "the host's clock was never set: it says {host} s since 1970; set it, and keep it set \
                 (systemd-timesyncd or chrony)"
            )),
            false => Ok(()),
        }
    }

    /// What the host alone says.
    #[cfg(test)]
    pub(crate) fn of_the_host(&self) -> Timestamp {
        Timestamp(self.host.now())
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
        if ahead <= APART {
            self.warned.store(false, Ordering::Relaxed);
        } else if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::error!(
                newest_batch = at.0,
                this_host = host,
                ahead,
                "the newest batch is from the future of this host's clock (seconds since 1970): either this clock is slow, or \
                 that of the host that wrote it is fast. Every node goes by the fastest one: set both by one source"
            );
        }
    }

    /// For whoever compares it with a clock that nobody believes.
    pub(crate) fn of_this_host() -> u64 {
        Host::System.now()
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
            super::Clock::of(super::Host::Simulated(Arc::clone(self)))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use tokio::time::advance;

    use super::*;

    const HOUR: u64 = 3600;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_goes_on_at_half_its_pace() {
        let host = simulated::Host::new(1_000_000);
        let clock = host.clock();
        assert_eq!(clock.now(), Timestamp(1_000_000));
        host.set(1_000_000 - HOUR);
        for second in 0..600 {
            let now = clock.now().0;
            assert_eq!(now, 1_000_000 + second / 2, "however often it is asked");
            assert_eq!(clock.behind(), now - (1_000_000 - HOUR + second));
            advance(Duration::from_secs(1)).await;
        }
        // The host's own is right again, or what was set back catches up.
        host.set(1_000_000);
        assert_eq!(clock.now(), Timestamp(1_000_600));
        assert_eq!(clock.behind(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_that_was_set_forward_wrongly_is_gone_after_two() {
        let host = simulated::Host::new(1_000_000);
        let clock = host.clock();
        host.set(1_000_000 + HOUR);
        let ahead = clock.now();
        clock.committed(ahead);
        host.set(1_000_000);
        advance(Duration::from_secs(2 * HOUR - 2)).await;
        assert_eq!(clock.behind(), 1);
        advance(Duration::from_secs(4)).await;
        assert_eq!((clock.now(), clock.behind()), (Timestamp(1_007_202), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_goes_on_from_the_last_head_and_does_not_stand_still() {
        let host = simulated::Host::new(1_000_000);
        let clock = host.clock();
        clock.committed(Timestamp(1_000_000 + HOUR));
        assert_eq!(clock.now(), Timestamp(1_000_000 + HOUR));
        advance(Duration::from_secs(100)).await;
        assert_eq!(clock.now(), Timestamp(1_000_050 + HOUR));
        // Another node's batch is news.
        clock.committed(Timestamp(1_000_060 + HOUR));
        assert_eq!(clock.now(), Timestamp(1_000_060 + HOUR));
    }

    /// A device whose clock is right is one of them, whichever jump was the wrong one.
    #[tokio::test(start_paused = true)]
    async fn what_may_be_right_lies_between_the_hosts_time_and_all_that_has_passed() {
        let host = simulated::Host::new(1_000_000);
        let clock = host.clock();
        assert_eq!(clock.read(), Reading::from(Timestamp(1_000_000)));
        host.set(1_000_000 - HOUR);
        advance(Duration::from_secs(200)).await;
        let Reading {
            now,
            earliest,
            latest,
        } = clock.read();
        assert_eq!(
            [earliest.0, now.0, latest.0],
            [1_000_200 - HOUR, 1_000_100, 1_000_200]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_taken_back_is_done_by_the_hosts_time_unless_that_was_set_forward() {
        const YEAR: u64 = 365 * 24 * HOUR;
        let began = EARLIEST.as_secs();
        let host = simulated::Host::new(began);
        let clock = host.clock();
        advance(Duration::from_secs(100)).await;
        assert_eq!(clock.for_good(), Some(Timestamp(began + 100)));
        // Another node's batch, or one of this host's of before.
        clock.committed(Timestamp(began + 2 * YEAR));
        assert_eq!(clock.for_good(), Some(Timestamp(began + 100)));
        for (set, believed) in [
            (began + 2 * YEAR, false),
            (began + SET_FORWARD + 1, false),
            (began + SET_FORWARD, true),
            (began - HOUR, false),
            (began, true),
        ] {
            host.set(set);
            let expected = believed.then_some(Timestamp(set + 100));
            assert_eq!(clock.for_good(), expected, "{set}");
        }
        // A host that slept is no host whose clock was set.
        host.sleeps(YEAR * 1000);
        assert_eq!(clock.for_good(), Some(Timestamp(began + YEAR + 100)));
        // One that had none begins when it has one.
        let host = simulated::Host::new(86_400);
        let clock = host.clock();
        assert_eq!(clock.for_good(), None);
        host.set(began);
        assert_eq!(clock.for_good(), Some(Timestamp(began)));
    }

    #[test]
    fn every_number_is_shown_as_a_time() {
        for (time, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (LAST_SHOWN - 1, "9999-12-31T23:59:59Z"),
            (LAST_SHOWN, "253402300800 s since 1970"),
            (u64::MAX, "18446744073709551615 s since 1970"),
        ] {
            assert_eq!(shown(time), expected);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_told_of() {
        let never = simulated::Host::new(86_400).clock();
        assert!(never.is_set().unwrap_err().contains("never set"));
        let set = simulated::Host::new(EARLIEST.as_secs()).clock();
        set.is_set().unwrap();
    }

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
            assert_eq!(clock.warned.load(Ordering::Relaxed), told, "{at}");
        }
        // Whoever is told goes by it all the same.
        clock.committed(Timestamp(5000));
        assert_eq!(clock.now(), Timestamp(5000));
    }
}
