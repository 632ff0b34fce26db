//! How many changes a batch takes: no more than the token seals well within its deadline.
//!
//! Called by the committer. A batch is sealed in one call, and one that misses the deadline is refused whole, the
//! outcomes of guesses with it: a queue that has grown once would be refused again and again, and each time would be
//! as long. What is measured is the token's own time, without what others did there before.

use std::time::Duration;

use super::MAX_BATCH;

/// How long the token is to take for a batch at the most: who came while one batch was sealed waits for that and its own.
const LONGEST: Duration = Duration::from_secs(1);
/// The part of a call's deadline that is planned with; others wait for the token, too.
const PART: u32 = 4;
/// Before anything was measured.
const FIRST: usize = 16;

#[derive(Debug)]
pub(super) struct Pace {
    /// For a batch.
    sealing: Duration,
    /// For one record.
    takes: Option<Duration>,
}

impl Pace {
    pub(super) fn within(deadline: Duration) -> Self {
        Self {
            sealing: LONGEST.min(deadline / PART),
            takes: None,
        }
    }

    /// Changes of the next batch.
    pub(super) fn most(&self) -> usize {
        let Some(takes) = self.takes else {
            return FIRST;
        };
        let most = self.sealing.as_nanos() / takes.as_nanos().max(1);
        usize::try_from(most)
            .unwrap_or(MAX_BATCH)
            .clamp(1, MAX_BATCH)
    }

    /// So many records were sealed in that time. One that took long for once is not taken for the rule.
    pub(super) fn sealed(&mut self, records: usize, time: Duration) {
        let Some(each) = u32::try_from(records).ok().filter(|&records| records > 0) else {
            return;
        };
        let each = time / each;
        self.takes = Some(match self.takes {
            Some(before) => (before * 3 + each) / 4,
            None => each,
        });
    }

    /// So many were too many: the next batch has half as many at the most.
    pub(super) fn missed(&mut self, records: usize) {
        let half = u32::try_from(records / 2).unwrap_or(u32::MAX).max(1);
        let each = self.sealing / half;
        self.takes = Some(self.takes.map_or(each, |before| before.max(each)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_as_many_as_the_token_seals_in_time() {
        let mut pace = Pace::within(Duration::from_secs(5));
        assert_eq!(pace.most(), FIRST);
        // A token in software is no bound at all.
        pace.sealed(1, Duration::from_micros(300));
        assert_eq!(pace.most(), MAX_BATCH);
        // A chip with 20 operations a second.
        let mut pace = Pace::within(Duration::from_secs(5));
        pace.sealed(4, Duration::from_millis(200));
        assert_eq!(pace.most(), 20);
        let mut hasty = Pace::within(Duration::from_millis(400));
        hasty.sealed(4, Duration::from_millis(200));
        assert_eq!(hasty.most(), 2);
        // Once it was busy elsewhere, and that is forgotten again.
        pace.sealed(1, Duration::from_secs(2));
        assert!((1..=2).contains(&pace.most()), "{}", pace.most());
        for _ in 0..20 {
            pace.sealed(1, Duration::from_millis(50));
        }
        assert!(pace.most() >= 18, "{}", pace.most());
    }

    #[test]
    fn what_missed_the_deadline_is_tried_with_half_as_many() {
        let mut pace = Pace::within(Duration::from_secs(5));
        for at_most in [128, 64, 32] {
            pace.missed(at_most * 2);
            assert_eq!(pace.most(), at_most);
        }
        // Never none, whatever is told.
        for records in [1, 0, usize::MAX] {
            pace.missed(records);
            assert!(pace.most() >= 1);
        }
        pace.sealed(0, Duration::MAX);
        pace.sealed(1, Duration::from_secs(1 << 40));
        assert_eq!(pace.most(), 1);
    }
}
