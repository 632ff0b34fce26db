//! The wear budget: so many writes of the NV index in a day, saved up for one day at most.
//!
//! Called before each extension. NV memory is good for a hundred thousand to some hundred thousand
//! writes; a daemon that anchors every second would use that up in a day. Past the budget an anchor
//! is refused, with the time at which the next one may be made: in bounded mode the daemon then goes
//! on, and only what must be anchored at once waits. What is left stands in the record, so
//! neither a restart nor an older file gives anything back.
//!
//! The host's clock says how much has come since. One that was ahead for a while leaves a time that is yet to come:
//! it counts as the moment at which that was first seen, or nothing would come until then. That moment stands in a file beside
//! the records, which wears nothing: a spent budget makes no write that could hold it, and a daemon that is started anew more often
//! than a write comes would wait from the beginning each time. That gives nothing either; but a clock that goes to and fro
//! gives a day's budget each time, and so does, as long as a record is ahead, who can write that file. Who sets the clock has the
//! host, and with it the secret that extends the index.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    backend::tpm::files,
    error::{Error, Result},
};

const DAY: u64 = 86_400;
/// When a record that names a time yet to come was first seen: that time, and the moment.
const SEEN: &str = "clock-was-ahead";
/// Bytes of it.
const PAIR: u64 = 16;

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
    /// Where [`SEEN`] is; nowhere for who only wants a full budget.
    directory: Option<PathBuf>,
    /// Where the record names a time that is yet to come: when that was first seen, else zero. Without a look at the file so far,
    /// [`UNKNOWN`].
    first_seen: AtomicU64,
    told: AtomicBool,
}

const UNKNOWN: u64 = u64::MAX;

impl Wear {
    pub(in crate::backend::tpm) fn new(per_day: u32) -> Self {
        Self {
            per_day: u64::from(per_day).max(1),
            now: seconds,
            directory: None,
            first_seen: AtomicU64::new(UNKNOWN),
            told: AtomicBool::new(false),
        }
    }

    /// For who writes: what was first seen outlives the process.
    pub(in crate::backend::tpm) fn beside_records(per_day: u32, directory: &Path) -> Self {
        Self {
            directory: Some(directory.to_owned()),
            ..Self::new(per_day)
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
            if self.first_seen.swap(0, Ordering::Relaxed) != 0 {
                self.forget();
            }
            return budget.since;
        }
        let seen = match self.first_seen.load(Ordering::Relaxed) {
            UNKNOWN => self.remembered(budget.since),
            seen => seen,
        };
        let first = match (1..=now).contains(&seen) {
            true => seen,
            false => {
                self.remember(budget.since, now);
                now
            }
        };
        self.first_seen.store(first, Ordering::Relaxed);
        first
    }

    /// Zero where nothing is known of that time.
    fn remembered(&self, ahead: u64) -> u64 {
        let Some(directory) = &self.directory else {
            return 0;
        };
        let read = match files::read(&directory.join(SEEN), PAIR + 1) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, file = SEEN, "whether the clock was ahead before cannot be read");
                return 0;
            }
        };
        let Some(bytes) = read else {
            return 0;
        };
        let Some((time, seen)) = pair(&bytes) else {
            let length = bytes.len();
            tracing::warn!(
                length,
                file = SEEN,
                "the file says nothing: expected {PAIR} bytes"
            );
            return 0;
        };
        match time == ahead {
            true => seen,
            false => 0,
        }
    }

    /// After a crash it is there, or the time is waited for from the next start on.
    fn remember(&self, ahead: u64, seen: u64) {
        let Some(directory) = &self.directory else {
            return;
        };
        let pair = [ahead.to_be_bytes(), seen.to_be_bytes()].concat();
        if let Err(error) = files::put(directory, SEEN, &pair) {
            tracing::warn!(%error, file = SEEN, "that the clock was ahead is not remembered over a restart");
        }
    }

    /// It must not be believed of another time that is the same.
    fn forget(&self) {
        let Some(directory) = &self.directory else {
            return;
        };
        match fs::remove_file(directory.join(SEEN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = SEEN, "it is not needed any more, and stays");
            }
            _ => {}
        }
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

fn pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let (time, seen) = bytes.split_first_chunk()?;
    let seen = seen.try_into().ok()?;
    Some((u64::from_be_bytes(*time), u64::from_be_bytes(seen)))
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

    /// Started anew every minute, where a write comes every 87 seconds.
    #[test]
    fn what_was_ahead_is_remembered_by_the_next_process() {
        let start = 1_800_000_000;
        let ahead = Budget {
            left: 0,
            since: start + 30 * DAY,
        };
        let written_at = |directory: Option<&Path>| {
            (0..10).map(|minute| start + minute * 60).find(|now| {
                NOW.set(*now);
                let anew = Wear {
                    directory: directory.map(Path::to_owned),
                    ..wear(1000)
                };
                anew.spend(ahead).is_ok()
            })
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(SEEN);
        assert_eq!(written_at(Some(directory.path())), Some(start + 120));
        // The control: without the file it never comes.
        assert_eq!(written_at(None), None);
        // Neither what is said of another time, nor a moment that is yet to come, nor rubbish counts.
        let pair = |ahead: u64, seen: u64| [ahead.to_be_bytes(), seen.to_be_bytes()].concat();
        NOW.set(start);
        for other in [
            pair(ahead.since + 1, start - DAY),
            pair(ahead.since, start + DAY),
            pair(ahead.since, 0),
            b"rubbish".to_vec(),
            [pair(ahead.since, start - DAY), vec![0]].concat(),
        ] {
            fs::write(&file, &other).unwrap();
            let anew = Wear {
                directory: Some(directory.path().to_owned()),
                ..wear(1000)
            };
            assert!(anew.spend(ahead).is_err(), "{other:?}");
            assert_eq!(fs::read(&file).unwrap(), pair(ahead.since, start));
        }
        // Nor does what is no file, however well what it leads to reads; one is made in its place.
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, pair(ahead.since, start - DAY)).unwrap();
        fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        let anew = || Wear {
            directory: Some(directory.path().to_owned()),
            ..wear(1000)
        };
        assert!(anew().spend(ahead).is_err());
        assert!(!file.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), pair(ahead.since, start));
        // The control: the same bytes, in a file.
        fs::write(&file, pair(ahead.since, start - DAY)).unwrap();
        assert!(anew().spend(ahead).is_ok());
        // Once the record's time has come it is forgotten.
        let anew = Wear {
            directory: Some(directory.path().to_owned()),
            ..wear(1000)
        };
        let past = Budget {
            left: 1,
            since: start - 1,
        };
        anew.spend(past).unwrap();
        assert!(!file.exists());
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
