//! The signed state that a head stands for, and how a declared change makes
//! the next one. Pure: the committer of the model and the property that
//! checks it both call `apply`.

use crate::config::{Ledger, Mutant};

/// One account's envelope, and its neighbour in the bucket: the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    /// Charges resolved without success, penalties included.
    pub(crate) failed: u8,
    /// Charges in flight, a bit for each guess.
    pub(crate) in_flight: u8,
    /// Boot epoch in which the envelope was written last.
    pub(crate) boot: u8,
    pub(crate) consumed: bool,
    /// The neighbour: is the credential revoked?
    pub(crate) revoked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    Genesis,
    Charge(u8),
    /// `cleared` names the charges that were resolved when this was sealed.
    Outcome {
        guess: u8,
        right: bool,
        cleared: u8,
    },
    Revoke,
    Use,
    Consume,
    /// The restore ceremony.
    Restore,
}

pub(crate) const FRESH: Record = Record {
    failed: 0,
    in_flight: 0,
    boot: 0,
    consumed: false,
    revoked: false,
};

pub(crate) fn bit(index: u8) -> u8 {
    1 << index
}

impl Ledger {
    /// What counts against the budget for a node in this boot epoch: an
    /// envelope of an older one may have lost charges in each epoch between.
    pub(crate) fn attempts(&self, record: &Record, boot: u8) -> u8 {
        let missed = boot.saturating_sub(record.boot);
        record.failed + record.in_flight.count_ones() as u8 + self.unanchored * missed
    }

    pub(crate) fn apply(&self, record: &Record, change: Change, boot: u8) -> Record {
        let mut next = *record;
        match change {
            Change::Genesis | Change::Use => {}
            Change::Revoke => next.revoked = true,
            Change::Consume => next.consumed = true,
            Change::Charge(guess) => {
                self.settle(&mut next, boot);
                next.in_flight |= bit(guess);
            }
            Change::Outcome {
                guess,
                right,
                cleared,
            } => {
                self.settle(&mut next, boot);
                self.resolve(&mut next, guess, right, cleared);
            }
            Change::Restore => {
                // No charge of before can succeed any more.
                let spent = record.failed + record.in_flight.count_ones() as u8;
                next.failed = if self.is(Mutant::RestoreKeepsBudget) {
                    record.failed
                } else if self.is(Mutant::RestoreLeavesAll) && self.left > 0 {
                    0
                } else {
                    // The approvers' number at most, and never more than before.
                    spent.clamp(self.budget - self.left, self.budget)
                };
                next.in_flight = 0;
                next.consumed = true;
                // Stands for the quarantine: nothing tells whether it was revoked.
                next.revoked = true;
            }
        }
        next
    }

    /// Writes the penalty down, so that it is charged once.
    fn settle(&self, record: &mut Record, boot: u8) {
        let missed = boot.saturating_sub(record.boot);
        record.failed = self
            .budget
            .min(record.failed.saturating_add(self.unanchored * missed));
        record.boot = boot.max(record.boot);
    }

    fn resolve(&self, record: &mut Record, guess: u8, right: bool, cleared: u8) {
        if !right {
            if record.in_flight & bit(guess) != 0 {
                record.in_flight &= !bit(guess);
                record.failed += 1;
            }
        } else if self.is(Mutant::AttemptsToZero) {
            record.failed = 0;
            record.in_flight = 0;
        } else {
            record.failed = 0;
            record.in_flight &= !cleared;
        }
    }
}
