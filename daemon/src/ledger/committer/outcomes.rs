//! Outcomes of what was charged already: where nobody can write at the moment, or what they are about can not be read, they
//! wait and go first into the next batch.
//!
//! Called by the committer. Anything else is refused at once, before it cost anybody anything. An outcome that is refused
//! makes a right guess a wrong one: its charge stands, and counts as a failure. Must only ever keep a change that was
//! not decided yet: of one that was, nobody knows whether it stands.
//!
//! After a crash here: none of these has happened, and nobody was told otherwise.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::Change;

/// How long one waits: less than the request that it belongs to, and more than another node's turn may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries, where nothing else is to be written meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// Until when a change that is an outcome waits.
pub(crate) fn patience() -> Instant {
    Instant::now() + PATIENCE
}

/// Whether somebody still waits for it, and has the patience.
pub(super) fn can_wait(change: &Change) -> bool {
    let patient = change
        .waits_until
        .is_some_and(|until| Instant::now() < until);
    patient && !change.reply.is_closed()
}

#[derive(Default)]
pub(super) struct Outcomes {
    waiting: VecDeque<Change>,
    again: Option<Instant>,
}

impl Outcomes {
    /// Keeps those that can wait, and gives back the others.
    pub(super) fn put_off(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let now = Instant::now();
        let (waiting, others): (Vec<_>, Vec<_>) = changes.into_iter().partition(can_wait);
        // They were first in their batch, and are again.
        for change in waiting.into_iter().rev() {
            self.waiting.push_front(change);
        }
        self.again = (!self.waiting.is_empty()).then(|| now + AGAIN);
        others
    }

    /// The next batch's, so many at the most.
    pub(super) fn take(&mut self, most: usize) -> Vec<Change> {
        let taken = self.waiting.drain(..most.min(self.waiting.len())).collect();
        self.again = (!self.waiting.is_empty()).then(Instant::now);
        taken
    }

    /// How many more changes may be in a batch of so many. One that is new is always looked at.
    pub(super) fn leave(&self, most: usize) -> usize {
        most.saturating_sub(self.waiting.len()).max(1)
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }
}
