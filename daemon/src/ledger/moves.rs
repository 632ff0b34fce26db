//! Which member lists have moved, so that a reader knows what proves anything.
//!
//! A reader compares what the database shows with memory, one after the other. A batch that comes in between makes an
//! honest answer look like an old one. So whoever finds something odd asks here whether its list was the same all the
//! time: if it was, no honest database could have shown that; if not, nothing is proven, and it is read again.
//!
//! Noted by `memory`, within the same lock as the change and before it can be seen. Counters are shared by lists: one
//! that moves elsewhere costs a reader one more look, and never hides anything for good, because each look is judged
//! anew.

use std::sync::atomic::{AtomicU64, Ordering};

/// Few enough to be small, many enough that a busy realm's lists seldom meet.
const COUNTERS: usize = 1024;

#[derive(Debug)]
pub(super) struct Moves(Vec<AtomicU64>);

impl Default for Moves {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Moves {
    /// Another number whenever what an honest database may show for this bucket has become another.
    pub(super) fn of(&self, bucket: u32) -> u64 {
        self.counter(bucket)
            .map_or(0, |counter| counter.load(Ordering::SeqCst))
    }

    /// These are about to change.
    pub(super) fn note<'a>(&self, buckets: impl IntoIterator<Item = &'a u32>) {
        for bucket in buckets {
            if let Some(counter) = self.counter(*bucket) {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    fn counter(&self, bucket: u32) -> Option<&AtomicU64> {
        let bucket = usize::try_from(bucket).ok()?;
        self.0.get(bucket % COUNTERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_moves_is_noticed_and_another_one_is_not() {
        let moves = Moves::default();
        let (before, other) = (moves.of(7), moves.of(8));
        moves.note(&[7, u32::MAX]);
        assert_ne!(moves.of(7), before);
        assert_eq!(moves.of(8), other);
    }
}
