//! What strangers wait for, and when there are so many wrong guesses that they wait longer.
//!
//! Called by the daemon for every answer to a caller who is not bound to the account that was named, and for every
//! guess that failed. The adversary here measures answers to learn whether an account exists, or tries one guess on
//! each of very many accounts, so that no account's own budget ever notices. Must never concern a bound device.

use std::time::Duration;

use crate::time::Timestamp;

/// Seconds that the failure rate looks back.
const WINDOW: u64 = 60;

/// How long after its request an answer leaves that took `worked`: at the next multiple of `period`, and never at
/// once. A period of zero holds nothing back.
#[must_use]
pub fn leaves_after(worked: Duration, period: Duration) -> Duration {
    let (worked, period) = (worked.as_nanos(), period.as_nanos());
    if period == 0 {
        return Duration::ZERO;
    }
    let periods = worked.div_ceil(period).max(1);
    Duration::from_nanos(u64::try_from(periods.saturating_mul(period)).unwrap_or(u64::MAX))
}

/// What a change of the mode is called in the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Begins,
    Ends,
}

/// The failures of guesses in the whole realm over the last minute, and whether they are too many.
///
/// It begins at `per_minute` failures within a minute and ends when there are less than half as many, so that it
/// does not flutter around the threshold.
#[derive(Clone, Debug)]
pub struct SlowMode {
    per_minute: u32,
    /// Failures of each second of the last minute, by the second modulo [`WINDOW`].
    seconds: [(Timestamp, u32); WINDOW as usize],
    on: bool,
}

impl SlowMode {
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self {
            per_minute,
            seconds: [(Timestamp(0), 0); WINDOW as usize],
            on: false,
        }
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Counts one failure.
    pub fn failed(&mut self, now: Timestamp) -> Option<Turn> {
        let place = usize::try_from(now.0 % WINDOW).unwrap_or_default();
        if let Some(slot) = self.seconds.get_mut(place) {
            if slot.0 != now {
                *slot = (now, 0);
            }
            slot.1 = slot.1.saturating_add(1);
        }
        self.look(now)
    }

    /// Looks at the rate again; called now and then, so that the mode also ends where nothing happens any more.
    pub fn look(&mut self, now: Timestamp) -> Option<Turn> {
        let failures = self.failures(now);
        let bound = u64::from(self.per_minute);
        let on = if self.on {
            failures.saturating_mul(2) >= bound
        } else {
            failures >= bound
        };
        if on == self.on {
            return None;
        }
        self.on = on;
        Some(if on { Turn::Begins } else { Turn::Ends })
    }

    /// Failures within the last minute.
    #[must_use]
    pub fn failures(&self, now: Timestamp) -> u64 {
        self.seconds
            .iter()
            .filter(|(at, _)| at.0 <= now.0 && now.0 - at.0 < WINDOW)
            .map(|(_, count)| u64::from(*count))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_leaves_at_a_multiple_and_never_at_once() {
        let period = Duration::from_millis(100);
        for (worked, leaves) in [(0, 100), (1, 100), (100, 100), (101, 200), (950, 1000)] {
            let held = leaves_after(Duration::from_millis(worked), period);
            assert_eq!(held, Duration::from_millis(leaves), "{worked}");
        }
        assert_eq!(
            leaves_after(Duration::from_secs(1), Duration::ZERO),
            Duration::ZERO
        );
    }

    #[test]
    fn the_mode_begins_at_the_threshold_and_ends_below_half_of_it() {
        let mut mode = SlowMode::new(4);
        let start = Timestamp(1_000_000);
        for _ in 0..3 {
            assert_eq!(mode.failed(start), None);
        }
        assert_eq!(
            mode.failed(start.plus(Duration::from_secs(30))),
            Some(Turn::Begins)
        );
        assert_eq!(mode.look(start.plus(Duration::from_secs(59))), None);
        // The three of the first second are out of the window, one is left of four.
        assert_eq!(
            mode.look(start.plus(Duration::from_secs(60))),
            Some(Turn::Ends)
        );
        assert!(!mode.is_on());
    }

    proptest! {
        #[test]
        fn leaving_is_after_the_work_and_less_than_a_period_later(worked in 0u64..10_000_000, period in 1u64..100_000) {
            let (worked, period) = (Duration::from_micros(worked), Duration::from_micros(period));
            let leaves = leaves_after(worked, period);
            prop_assert!(leaves >= worked && leaves >= period);
            prop_assert!(leaves < worked + period || leaves == period);
            prop_assert_eq!(leaves.as_nanos() % period.as_nanos(), 0);
        }

        /// The slots count exactly what a list of all failures counts.
        #[test]
        fn the_rate_is_that_of_the_last_minute(steps in proptest::collection::vec(0u64..40, 1..200)) {
            let mut mode = SlowMode::new(1000);
            let mut all = Vec::new();
            let mut now = 1_000_000;
            for step in steps {
                now += step;
                mode.failed(Timestamp(now));
                all.push(now);
                let recent = all.iter().filter(|at| now - **at < 60).count();
                prop_assert_eq!(mode.failures(Timestamp(now)), recent as u64);
            }
        }
    }
}
