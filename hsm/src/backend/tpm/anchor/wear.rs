//! The wear budget: so many writes of the NV index in a day, saved up for one day at most.
//!
//! Called before each extension. NV memory is good for a hundred thousand to some hundred thousand
//! writes; a daemon that anchors every second would use that up in a day. Past the budget an anchor
//! is refused, with the time at which the next one may be made: in bounded mode the daemon then goes
//! on, and only what must be anchored at once waits. What is left stands in the record, so
//! neither a restart nor an older file gives anything back.
//!
//! The host's clock says how much has come since. One that was ahead for a while leaves a time that is yet to come:
//! it counts as now, or nothing would come until then. That gives nothing either; but a clock that goes to and fro
//! gives a day's budget each time. Who sets the clock has the host, and with it the secret that extends the index.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::error::{Error, Result};

const DAY: u64 = 86_400;

/// What is left, and from when on it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::tpm) struct Budget {
    pub(super) left: u64,
    /// Seconds since the Unix epoch.
    pub(super) since: u64,
}

#[derive(Debug)]
pub(in crate::backend::tpm) struct Wear {
    per_day: u64,
    now: fn() -> u64,
    /// Where the record names a time that is yet to come: when this process first saw that, else zero. In the record it stands
    /// with the next write, which a spent budget has to wait for; a restart before waits from the beginning.
    first_seen: AtomicU64,
    told: AtomicBool,
}

impl Wear {
    pub(in crate::backend::tpm) fn new(per_day: u32) -> Self {
        Self {
            per_day: u64::from(per_day).max(1),
            now: seconds,
            first_seen: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }

    /// What a TPM begins with.
    pub(in crate::backend::tpm) fn full(&self) -> Budget {
        Budget {
            left: self.per_day,
            since: (self.now)(),
        }
    }

    /// What is left after one more write.
    ///
    /// # Errors
    /// [`Error::Worn`] where nothing is, with the time to wait.
    pub(super) fn spend(&self, budget: Budget) -> Result<Budget> {
        let grown = self.grown(budget);
        match grown.left.checked_sub(1) {
            Some(left) => Ok(Budget { left, ..grown }),
            None => {
                let per_write = DAY.div_ceil(self.per_day);
                let waited = (self.now)().saturating_sub(grown.since);
                Err(Error::Worn {
                    operation: "write an anchor",
                    reason: format!(
                        "{} writes a day, token.nv_writes_per_day; the next one may be made in {} s",
                        self.per_day,
                        per_write.saturating_sub(waited).max(1)
                    ),
                })
            }
        }
    }

    /// Little is left: said once, and again after there was more.
    pub(super) fn runs_low(&self, budget: Budget) -> bool {
        let little = self.per_day / 10;
        if budget.left > little.saturating_mul(2) {
            self.told.store(false, Ordering::Relaxed);
        }
        budget.left <= little && !self.told.swap(true, Ordering::Relaxed)
    }

    /// From when on it grows: what the record says, unless that is yet to come.
    fn since(&self, budget: Budget, now: u64) -> u64 {
        if budget.since <= now {
            self.first_seen.store(0, Ordering::Relaxed);
            return budget.since;
        }
        let seen = self.first_seen.load(Ordering::Relaxed);
        if (1..=now).contains(&seen) {
            return seen;
        }
        self.first_seen.store(now, Ordering::Relaxed);
        now
    }

    /// With what has come since. A clock that went back gives nothing; one that went forward
    /// gives a day's budget at most.
    fn grown(&self, budget: Budget) -> Budget {
        let now = (self.now)();
        let since = self.since(budget, now);
        let elapsed = now.saturating_sub(since);
        let gained = u128::from(elapsed) * u128::from(self.per_day) / u128::from(DAY);
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        let left = budget.left.saturating_add(gained);
        if left >= self.per_day {
            return Budget {
                left: self.per_day,
                since: now,
            };
        }
        // The time moves by what was gained for, so that the rest counts next time.
        let counted = (u128::from(gained) * u128::from(DAY)).div_ceil(u128::from(self.per_day));
        let counted = u64::try_from(counted).unwrap_or(u64::MAX);
        Budget {
            left,
            since: since.saturating_add(counted),
        }
    }
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    fn wear(per_day: u32) -> Wear {
        Wear {
            now: || NOW.get(),
            ..Wear::new(per_day)
        }
    }

    /// Spends until refused; how often it went.
    fn spent(wear: &Wear, budget: &mut Budget) -> u64 {
        let mut times = 0;
        while let Ok(left) = wear.spend(*budget) {
            *budget = left;
            times += 1;
            assert!(times < 10_000);
        }
        times
    }

    #[test]
    fn a_day_gives_a_days_writes_however_they_are_spread() {
        let wear = wear(1000);
        NOW.set(1_800_000_000);
        let mut budget = wear.full();
        assert_eq!(spent(&wear, &mut budget), 1000);
        let mut total = 0;
        for _ in 0..DAY / 60 {
            NOW.set(NOW.get() + 60);
            total += spent(&wear, &mut budget);
        }
        assert!((990..=1000).contains(&total), "{total}");
        // A week of rest saves up one day.
        NOW.set(NOW.get() + 7 * DAY);
        assert_eq!(spent(&wear, &mut budget), 1000);
    }

    #[test]
    fn a_spent_budget_says_when_the_next_write_may_be_made() {
        let wear = wear(100);
        NOW.set(1_800_000_000);
        let mut budget = wear.full();
        spent(&wear, &mut budget);
        let error = wear.spend(budget).unwrap_err();
        assert!(error.is_retryable());
        assert!(error.to_string().contains("in 864 s"), "{error}");
        NOW.set(NOW.get() + 863);
        assert!(wear.spend(budget).is_err());
        NOW.set(NOW.get() + 1);
        assert!(wear.spend(budget).is_ok());
    }

    #[test]
    fn a_clock_that_was_ahead_gives_nothing_and_takes_nothing() {
        let wear = wear(1000);
        NOW.set(1_800_000_000);
        let mut budget = wear.full();
        assert_eq!(spent(&wear, &mut budget), 1000);
        // A month ahead for a moment, in which one write is made; then right again.
        NOW.set(NOW.get() + 30 * DAY);
        budget = wear.spend(budget).unwrap();
        assert_eq!(budget.left, 999);
        NOW.set(NOW.get() - 30 * DAY);
        assert_eq!(spent(&wear, &mut budget), 999);
        // From now on it comes as ever, and not only in a month.
        let mut total = 0;
        for _ in 0..DAY / 60 {
            NOW.set(NOW.get() + 60);
            total += spent(&wear, &mut budget);
        }
        assert!((990..=1000).contains(&total), "{total}");
    }

    #[test]
    fn a_budget_that_a_wrong_clock_left_spent_grows_when_it_says_so() {
        let wear = wear(1000);
        NOW.set(1_800_000_000);
        let ahead = Budget {
            left: 0,
            since: NOW.get() + 30 * DAY,
        };
        let error = wear.spend(ahead).unwrap_err().to_string();
        assert!(error.contains("in 87 s"), "{error}");
        // Refused, it is not written: the next call has the same record before it.
        NOW.set(NOW.get() + 60);
        let error = wear.spend(ahead).unwrap_err().to_string();
        assert!(error.contains("in 27 s"), "{error}");
        NOW.set(NOW.get() + 27);
        let healed = wear.spend(ahead).unwrap();
        assert_eq!(healed.left, 0);
        assert!(healed.since <= NOW.get(), "{healed:?}");
        // The control: one whose time has come grows from that time on, whatever was seen before.
        let past = Budget {
            left: 0,
            since: NOW.get() - 10 * 87,
        };
        assert_eq!(wear.spend(past).map(|budget| budget.left), Ok(9));
        // And one that is new to this process begins from now.
        assert!(wear.spend(ahead).is_err());
    }

    #[test]
    fn that_little_is_left_is_said_once_on_the_way_down() {
        let wear = wear(100);
        let low = |left| wear.runs_low(Budget { left, since: 0 });
        assert!(!low(11));
        assert!(low(10));
        assert!(!low(9) && !low(10) && !low(11) && !low(10));
        assert!(!low(21));
        // Also where the budget was made smaller in between, or the process is a new one.
        assert!(low(7));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let wear = wear(10);
        NOW.set(1_800_000_000);
        let mut budget = wear.full();
        spent(&wear, &mut budget);
        NOW.set(5);
        assert!(wear.spend(budget).is_err());
        assert_eq!(
            wear.grown(Budget {
                left: u64::MAX,
                since: u64::MAX
            })
            .left,
            10
        );
    }
}
