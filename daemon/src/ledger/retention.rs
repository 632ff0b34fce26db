//! Retention: the bodies of events go when they have been kept for as long as the policy says.
//!
//! In one commit the bodies go, a leaf of its own type names their entries (`deletions`), and the
//! account's mark moves up to the oldest event that stays. So a trail that ends at its mark is
//! whole, and a body that is missing above it is noticed. `pass` goes over all accounts. Must
//! never move a mark down, nor delete a body without moving the mark past it.
//!
//! After a crash: before the commit is durable nothing has happened; after it, everything.

mod holders;
mod leisure;
mod pass;

use std::collections::BTreeSet;

use custodyd_policies::Timestamp;

pub use self::holders::{Counted, PARTS};
pub use self::leisure::Leisure;
pub use self::pass::Pass;
use super::deletions::PER_LEAF;
use super::record::Loaded;
use super::trail::LogEntry;
use super::{Base, Ledger, LedgerError, Meanwhile};
use crate::account::{Mark, Trail};

/// Events that are kept lie between the oldest and the mark halfway: one in so many, but not
/// fewer than the other number.
const SHARE: usize = 16;
const FEW: usize = 64;

/// What one commit of retention does to a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The oldest event that has its body, as the walk found it; its entry is the first below.
    from: Mark,
    /// The entries whose bodies go, in ascending order.
    entries: Vec<u64>,
    /// How many events the account had.
    count: u64,
    /// The oldest event that stays; none where none of those had to.
    to: Option<Mark>,
    halfway: Option<Mark>,
}

impl Step {
    /// The entries that lose their bodies, or that the account will name.
    fn touches(&self) -> impl Iterator<Item = u64> {
        let named = self.to.into_iter().chain(self.halfway);
        let named = named.map(|mark| mark.index);
        self.entries.iter().copied().chain(named)
    }

    /// Moves the mark, and gives the entries whose bodies go.
    ///
    /// # Errors
    /// `Stale` where the trail is not the one that was walked: another run was here, or an event
    /// has come that stays, and would have to be the mark.
    pub(super) fn take_from(self, trail: &mut Trail) -> Result<Vec<u64>, LedgerError> {
        let grown = self.to.is_none() && trail.count != self.count;
        if trail.oldest != Some(self.from) || grown {
            return Err(LedgerError::Stale);
        }
        trail.oldest = self.to;
        trail.halfway = self.halfway;
        Ok(self.entries)
    }
}

/// From a trail as it was walked, oldest first, to the commits that take what has ended. An event
/// that ends ahead of an older one, as after a clock was set back, waits for that one.
fn steps(trail: &Trail, walked: &[Mark], ends: impl Fn(Timestamp) -> bool) -> Vec<Step> {
    let due = walked.iter().take_while(|mark| ends(mark.at)).count();
    let (ended, kept) = walked.split_at(due);
    let apart = (kept.len() / SHARE).max(FEW);
    let halfway = match trail.halfway.filter(|mark| !ends(mark.at)) {
        Some(halfway) => Some(halfway),
        None => kept.get(apart).copied(),
    };
    let mut steps = Vec::new();
    for (nth, chunk) in ended.chunks(PER_LEAF).enumerate() {
        let Some(from) = chunk.first() else { continue };
        steps.push(Step {
            from: *from,
            entries: chunk.iter().map(|mark| mark.index).collect(),
            count: trail.count,
            to: walked.get(nth * PER_LEAF + chunk.len()).copied(),
            halfway,
        });
    }
    steps
}

impl Ledger {
    /// Deletes the bodies of the account's oldest events for which `ends` says yes, at most so
    /// many in one commit, and says how many went. Nothing is read where the oldest stays.
    ///
    /// # Errors
    /// As `commit`; `Stale` where somebody else did the same; `Tampered` where the trail is broken.
    pub async fn retire(
        &self,
        mut loaded: Loaded,
        ends: impl Fn(Timestamp) -> bool,
    ) -> Result<u64, LedgerError> {
        let trail = &loaded.account.trail;
        let Some(oldest) = trail.oldest.filter(|mark| ends(mark.at)) else {
            return Ok(0);
        };
        let above = trail.halfway.filter(|mark| !ends(mark.at));
        let walked = self.reader.walk(&loaded, above).await;
        let walked = match self.meanwhile(&loaded, walked).await? {
            Meanwhile::Nothing(walked) => walked,
            Meanwhile::Retired(_) => return Err(LedgerError::Stale),
        };
        let (marks, entries): (Vec<Mark>, Vec<LogEntry>) = walked.into_iter().unzip();
        if marks.first() != Some(&oldest) {
            return Err(LedgerError::Tampered(format!(
                "log entry {}: it is not the event that its account's mark names",
                oldest.index
            )));
        }
        let steps = steps(trail, &marks, ends);
        let touched: BTreeSet<u64> = steps.iter().flat_map(Step::touches).collect();
        let touched = entries
            .into_iter()
            .filter(|entry| touched.contains(&entry.index));
        let touched: Vec<LogEntry> = touched.collect();
        self.reader.are_in_the_log(&touched).await?;
        let mut gone = 0;
        for step in steps {
            let bodies = step.entries.len() as u64;
            let submitted = self.submit(Base::Loaded(loaded), None, move |_, _, journal| {
                journal.retirement = Some(step);
                Ok::<_, LedgerError>(())
            });
            ((), loaded) = submitted.await??;
            gone += bodies;
        }
        Ok(gone)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use custodyd_hsm::SecretBytes;
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::SharedSecret;

    fn trail(times: &[u64]) -> (Trail, Vec<Mark>) {
        let mut trail = Trail::new(SharedSecret::new(SecretBytes::from(vec![7; 32])));
        let mut marks = Vec::new();
        for (nth, at) in times.iter().enumerate() {
            let nth = nth as u64;
            let mark = Mark {
                number: nth + 1,
                index: nth * 3 + 5,
                at: Timestamp(*at),
            };
            trail.moved_on(mark);
            marks.push(mark);
        }
        (trail, marks)
    }

    #[test]
    fn a_step_for_another_trail_is_stale() {
        let (mut trail, marks) = trail(&[1, 2, 3]);
        let all = steps(&trail, &marks, |_| true).remove(0);
        let some = steps(&trail, &marks, |at| at.0 < 2).remove(0);
        let fourth = Mark {
            number: 4,
            index: 40,
            at: Timestamp(4),
        };
        let mut grown = trail.clone();
        grown.moved_on(fourth);
        // A newer event does not hinder the oldest from going, unless it would be the mark.
        assert!(matches!(
            all.clone().take_from(&mut grown),
            Err(LedgerError::Stale)
        ));
        assert_eq!(some.clone().take_from(&mut grown).unwrap(), [5]);
        assert_eq!(grown.complete_from(), 2);
        assert!(matches!(
            some.take_from(&mut grown),
            Err(LedgerError::Stale)
        ));
        assert_eq!(all.take_from(&mut trail).unwrap(), [5, 8, 11]);
        assert_eq!((trail.oldest, trail.complete_from()), (None, 4));
        trail.moved_on(fourth);
        assert_eq!((trail.oldest, trail.complete_from()), (Some(fourth), 4));
    }

    proptest! {
        /// Run after run, each at its own time: what goes is what has ended and nothing before
        /// it has not, each once, and the mark stands where that ends.
        #[test]
        fn runs_take_exactly_what_has_ended(
            mut times in prop::collection::vec(0u64..1000, 1..400),
            set_back in any::<bool>(),
            mut runs in prop::collection::vec(0u64..1100, 1..8),
        ) {
            if !set_back {
                times.sort_unstable();
            }
            runs.sort_unstable();
            let (mut trail, marks) = trail(&times);
            let mut gone = Vec::new();
            for until in runs {
                let ends = |at: Timestamp| at.0 < until;
                // As the ledger walks.
                let Some(oldest) = trail.oldest.filter(|mark| ends(mark.at)) else { continue };
                let above = trail.halfway.filter(|mark| !ends(mark.at));
                let top = above.map_or(marks.len(), |mark| mark.number as usize);
                let walked = &marks[oldest.number as usize - 1..top];
                for step in steps(&trail, walked, ends) {
                    gone.extend(step.take_from(&mut trail).unwrap());
                }
                let due = times.iter().take_while(|at| **at < until).count();
                let expected: Vec<u64> = marks[..due].iter().map(|mark| mark.index).collect();
                prop_assert_eq!(&gone, &expected);
                prop_assert_eq!(trail.complete_from(), due as u64 + 1);
                prop_assert_eq!(trail.oldest, marks.get(due).copied());
                prop_assert!(trail.halfway.is_none_or(|mark| trail.keeps(mark.number)));
            }
        }
    }

    #[test]
    fn a_long_trail_goes_in_bounded_steps_and_is_not_walked_from_the_top_each_time() {
        let times: Vec<u64> = (0..20_000).collect();
        let (mut trail, marks) = trail(&times);
        let first = steps(&trail, &marks, |at| at.0 < 10_000);
        assert_eq!(first.len(), 3);
        for step in first {
            assert!(step.entries.len() <= PER_LEAF);
            step.take_from(&mut trail).unwrap();
        }
        assert_eq!(trail.complete_from(), 10_001);
        let halfway = trail.halfway.unwrap();
        assert_eq!(halfway.number, 10_001 + 10_000 / 16);
        // The next walk begins there, finds what has ended since, and leaves the mark.
        let walked = &marks[10_000..halfway.number as usize];
        let next = steps(&trail, walked, |at| at.0 < 10_100);
        assert_eq!((next.len(), next[0].entries.len()), (1, 100));
        assert_eq!(next[0].halfway, Some(halfway));
    }
}
