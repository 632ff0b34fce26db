//! Replaying: a database that has lost the newest batches gets them back from the nodes that wrote them.
//!
//! Called where the database shows an ancestor of what this node believes: an asynchronous standby was promoted, or an
//! administrator has put an older state back. Each node keeps the batches that it wrote last, and writes them again
//! as they were, each upon its parent and under its own head, which the token has made and anchored; where the
//! next one is another node's, it waits for that. Must never make another batch of an old number: what a server that is
//! lost by now refused, because another node's batch had that number, is kept for where that was lost with the server.
//!
//! After a crash here: the database stands at one of the batches of the line. What is missing still is missing for a
//! start as well, which is refused until another node has written it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Committer;
use super::durable::Unwritten;
use super::following::forked;
use crate::ledger::LedgerError;
use crate::ledger::head::Head;
use crate::store::{Batch, CommitError};

/// Batches that are kept, and their bytes; the newest one, however large it is. Under load that is what a standby may lag
/// behind by some seconds.
const BATCHES: usize = 1024;
const BYTES: usize = 32 << 20;
/// Repairs that one entry of the log names: it has a bound, and whoever shows old states again and again must not lead
/// to one that nobody can read. The lines and the metric tell of all.
const TOLD: usize = 16;

impl Committer {
    /// Keeps a batch that is durable.
    pub(super) fn retain(&mut self, batch: &Batch) {
        if !self.reader.store().is_shared() {
            return;
        }
        self.retained.push_back((weight(batch), batch.clone()));
        forget_oldest(&mut self.retained);
    }

    /// Another node's batch has this one's number. Whoever asked for it was told to come again.
    pub(super) fn is_beaten(&mut self, unwritten: Unwritten) {
        if let Some(next) = self.reader.memory().take_back() {
            self.beaten = Some((unwritten, next));
        }
    }

    /// In this node's turn, and upon what the token knows to be the newest, which is of before a number for which it has made a head:
    /// the batch that came before that one is lost, of which nobody was told, and this one is pending again, as it was.
    ///
    /// # Errors
    /// `Refused` where that batch has given way to an anchor of another line.
    pub(super) fn takes_up_what_was_beaten(&mut self) -> Result<(), LedgerError> {
        let seq = self.reader.memory().head().state.seq;
        match self.beaten.take() {
            Some((unwritten, next)) if unwritten.batch.parent == seq => {
                tracing::error!(
                    batch = unwritten.batch.head.seq,
                    "the database has lost a batch of another node, of which nobody was told; what this node had made under \
                     its number is written in its place"
                );
                self.remember(format!(
                    "batch {} of another node, which the database had lost before it was told of",
                    unwritten.batch.head.seq
                ));
                // What it replaces must not be found, or a batch would be written upon that.
                self.reader.cache().forget(&unwritten.batch);
                self.reader.memory().pend(next);
                self.unwritten = Some(unwritten);
                Ok(())
            }
            beaten => {
                self.beaten = beaten;
                Err(LedgerError::Refused(format!(
                    "the database shows batch {seq}, and this node has given up its own batch {} for another node's, which is \
                     not there any more: put the newest database in place, or start this node again",
                    self.spent
                )))
            }
        }
    }

    fn remember(&mut self, repaired: String) {
        if self.repaired.len() < TOLD {
            self.repaired.push(repaired);
        }
    }

    /// Writes the batches after this head again, as far as this node has them.
    ///
    /// # Errors
    /// `Stopped` where it is no ancestor of what is believed; `Refused` where the next batch is not kept here; else why
    /// it could not be written.
    pub(super) async fn replay(&mut self, older: &Head) -> Result<(), LedgerError> {
        let believed = self.reader.memory().head();
        let at = older.state.seq;
        let hash = older
            .hash()
            .map_err(|_| LedgerError::internal("encode a head"))?;
        if self
            .anchoring
            .head_at(at)?
            .is_some_and(|known| known != hash)
        {
            return Err(forked(&believed, older));
        }
        let store = Arc::clone(self.reader.store());
        let mut written = at;
        for (_, batch) in &self.retained {
            if batch.parent != written || written >= believed.state.seq {
                continue;
            }
            match store.commit(batch).await {
                Ok(()) => written = batch.head.seq,
                // Another node does the same, or does not wait for its turn.
                Err(CommitError::LostRace) => break,
                Err(CommitError::NotWritten(error) | CommitError::Declined(error)) => {
                    return Err(error.into());
                }
                // The next look says how far it has come.
                Err(CommitError::Unknown(_)) => break,
            }
        }
        if written == at {
            tracing::error!(
                shown = ?older,
                believed = ?believed,
                "the database shows an older state than this node has told of, and this node did not write what is missing"
            );
            return Err(LedgerError::Refused(format!(
                "the database shows batch {at}, and batch {} was told of: it was rolled back. Every node writes again what it \
                 wrote last; where none has the next one, put the newest database in place",
                believed.state.seq
            )));
        }
        tracing::error!(
            from = at,
            to = written,
            "the database had lost batches that were told of; this node has written them again"
        );
        metrics::counter!("custodyd_batches_replayed_total").increment(written - at);
        self.remember(format!(
            "batches {} to {written}, which the database had lost",
            at + 1
        ));
        Ok(())
    }
}

fn forget_oldest(retained: &mut VecDeque<(usize, Batch)>) {
    let mut bytes: usize = retained.iter().map(|(weight, _)| weight).sum();
    while retained.len() > 1 && (retained.len() > BATCHES || bytes > BYTES) {
        bytes -= retained.pop_front().map_or(0, |(weight, _)| weight);
    }
}

/// About what a batch takes in memory.
fn weight(batch: &Batch) -> usize {
    let records = batch.records.iter().map(|(.., sealed)| sealed.len());
    let members = batch.members.iter().map(|(_, list)| list.len());
    let entries = batch.entries.iter().map(|(_, leaf)| leaf.len());
    let bodies = batch
        .bodies
        .iter()
        .map(|(_, row)| row.salt.len() + row.body.len());
    let tiles = batch.tiles.iter().map(|tile| tile.data.len());
    let rows = records
        .chain(members)
        .chain(entries)
        .chain(bodies)
        .chain(tiles);
    rows.map(|bytes| bytes + 64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(weights: &[usize]) -> Vec<u64> {
        let mut retained = VecDeque::new();
        for (parent, weight) in (0..).zip(weights) {
            retained.push_back((*weight, Batch::after(parent)));
            forget_oldest(&mut retained);
        }
        retained.iter().map(|(_, batch)| batch.parent).collect()
    }

    #[test]
    fn the_newest_batch_is_kept_however_large_it_is() {
        assert_eq!(kept(&[1, 1, BYTES + 1]), [2]);
        // And only as long as it is the newest.
        assert_eq!(kept(&[BYTES + 1, 1]), [1]);
        assert_eq!(kept(&[BYTES / 2, BYTES / 2, 1]), [1, 2]);
        let many: Vec<u64> = (10..10 + BATCHES as u64).collect();
        assert_eq!(kept(&vec![1; BATCHES + 10]), many);
    }
}
