//! How a pass over all accounts takes its time, and how it waits for what is away.
//!
//! Called by the pass. The token and the committer are there for people first; but a pass that is begun anew whenever
//! something was away for a moment, or that takes longer than a daemon runs, never comes round, and nothing says so for days.

use std::time::Duration;

use super::super::LedgerError;
use super::super::rewrap::passes;
use super::pass::SLICES;

/// Tries of an account or a slice, and the pauses between them: an outage of an hour is waited for.
const TRIES: u32 = 130;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between two looks at a clock that is not believed.
pub(super) const CLOCK: Duration = Duration::from_secs(60);

/// What a pass may take.
#[derive(Clone, Copy, Debug)]
pub struct Leisure {
    /// From one account to the next.
    pub between: Duration,
    /// All of them together; with many the steps are shorter.
    pub all: Duration,
}

impl Leisure {
    /// Before the next one of so many in a slice, after work that took so long: as long as that at least, up to `between`.
    pub(super) fn pause(self, accounts: usize, worked: Duration) -> Duration {
        let accounts = u32::try_from(accounts).unwrap_or(u32::MAX).max(1);
        let step = self.between.min(self.all / SLICES / accounts);
        step.saturating_sub(worked).max(worked.min(self.between))
    }
}

/// For one account, or one slice.
pub(super) struct Patience {
    tries: u32,
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: TRIES,
            pause: FIRST_PAUSE,
        }
    }
}

impl Patience {
    /// Waits where it may pass, and says whether to try again.
    pub(super) async fn waits_for(&mut self, error: &LedgerError) -> bool {
        if !passes(error) || self.tries == 0 {
            return false;
        }
        if self.pause == LONGEST_PAUSE {
            tracing::warn!(%error, "retention waits");
        }
        tokio::time::sleep(self.pause).await;
        self.tries -= 1;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEISURE: Leisure = Leisure {
        between: Duration::from_millis(200),
        all: Duration::from_secs(86_400),
    };

    #[test]
    fn a_million_accounts_are_gone_over_in_a_day_and_few_without_haste() {
        for (accounts, work) in [(10, 1), (1000, 1), (1_000_000, 3), (1_000_000, 40)] {
            let work = Duration::from_millis(work);
            let slice: u32 = accounts / SLICES;
            let step = work + LEISURE.pause(slice as usize, work);
            let all = step * slice * SLICES;
            assert!(all <= LEISURE.all, "{accounts}: {all:?}");
            assert!(step <= LEISURE.between);
            // Others have the token for as long at least.
            assert!(LEISURE.pause(slice as usize, work) >= work);
        }
        assert_eq!(LEISURE.pause(1, Duration::ZERO), Duration::from_millis(200));
        // Where the work itself is too much, half of the time is everybody else's.
        let slow = Duration::from_millis(150);
        assert_eq!(LEISURE.pause(100_000, slow), slow);
        assert_eq!(LEISURE.pause(0, Duration::MAX), LEISURE.between);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_and_what_does_not_pass_is_not() {
        let begun = tokio::time::Instant::now();
        let mut patience = Patience::default();
        while patience.waits_for(&LedgerError::Busy).await {}
        let hours = begun.elapsed().as_secs() / 3600;
        assert_eq!(hours, 1);
        let begun = tokio::time::Instant::now();
        for error in [LedgerError::Stopped, LedgerError::Stale] {
            assert!(!Patience::default().waits_for(&error).await);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
