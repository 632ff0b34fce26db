//! From sealed rows to a head that is durable, believed and anchored, in this order.
//!
//! Called by the committer, once for each batch. A batch whose anchor failed is durable all the
//! same: it stays pending, nobody is told of it, and nothing is written before it is anchored.

use custodyd_hsm::{KeyVersions, RecordId};
use custodyd_policies::Timestamp;

use super::durable::Unwritten;
use super::{Committer, Failure, Lists, Members};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::{Covered, Demand, Lost};
use crate::ledger::head::Head;
use crate::ledger::log::{BootLeaf, KeyChange, TokenChange};
use crate::ledger::start::Repairs;
use crate::ledger::tokens;
use crate::ledger::tree::Digest;
use crate::ledger::writes::Step;
use crate::store::Batch;

impl Committer {
    /// A batch upon what is believed, the place of its next log entry, and its number. It is
    /// empty, but for the entry that says that the policies are others than before.
    pub(super) fn begin(&self) -> Result<(Batch, u64, u64), LedgerError> {
        let memory = self.reader.memory();
        let (head, mut size) = {
            let believed = memory.read();
            (believed.head.clone(), believed.end.size())
        };
        let mut batch = Batch::after(head.state.seq);
        if memory.configuration() != head.state.configuration || !self.repaired.is_empty() {
            let repaired = self.repaired.clone();
            batch.entries.push((
                size,
                boot_leaf(&head, memory.configuration(), repaired, (None, None))?,
            ));
            size += 1;
        }
        Ok((batch, size, head.state.seq + 1))
    }

    /// Makes a batch of sealed rows the newest state of the realm.
    pub(super) async fn publish(
        &mut self,
        batch: Batch,
        members: &Members,
        lists: &Lists,
        (now, demand): (Timestamp, Demand),
    ) -> Result<(), Failure> {
        self.demand = demand;
        let batch = self.commit(batch, (None, None), now).await?;
        #[cfg(test)]
        if self.reader.store().weakness().hurries {
            self.end_turn().await;
        }
        // Before it is anchored nobody may find it here; what it replaced must not be found
        // either, or a commit upon it would be taken for stale.
        self.reader.cache().forget(&batch);
        self.settled().await?;
        self.reader.cache().committed(batch, members, lists);
        Ok(())
    }

    /// Writes the batch with the head over it, and believes it. `keys` and `tokens` are others from
    /// this head on, which the batch's boot leaf names.
    pub(super) async fn commit(
        &mut self,
        batch: Batch,
        changed: (Option<(KeyVersions, RecordId)>, Option<Vec<String>>),
        now: Timestamp,
    ) -> Result<Batch, Failure> {
        self.reader.writes().begin();
        let committed = self.commit_unwatched(batch, changed, now).await;
        let failure = committed.as_ref().err().map(|failure| &failure.error);
        self.reader.writes().end(Step::Commit, failure);
        committed
    }

    async fn commit_unwatched(
        &mut self,
        mut batch: Batch,
        (keys, tokens): (Option<(KeyVersions, RecordId)>, Option<Vec<String>>),
        now: Timestamp,
    ) -> Result<Batch, Failure> {
        let memory = self.reader.memory();
        let mut head = memory.head();
        head.state.time = now;
        head.state.configuration = memory.configuration();
        head.state.boot_epoch = memory.boot_epoch();
        if let Some((keys, realm_record)) = keys {
            head.state.goes_over_to(keys, realm_record);
        }
        head.state.tokens = tokens.unwrap_or(head.state.tokens);
        head.state.extended();
        #[cfg(test)]
        if let Some((schema, least)) = self.reader.store().weakness().schema {
            (head.state.schema, head.state.least_schema) = (schema, Some(least));
        }
        let next = memory.read().next(head, &mut batch)?;
        // Where a race was lost, the turn has gone on from another number, or written the batch of then.
        if self.reader.store().is_shared() && next.head.state.seq <= self.spent {
            return Err(Failure::internal("make a second head of one number"));
        }
        batch.head = next.head.authenticate(self.reader.pool()).await?;
        // Before it is written: a reader who finds it in the database has to wait, however long it
        // takes until its outcome is known.
        memory.pend(next);
        self.forget_what_others_may_replace(&batch);
        let written = self.write_or_keep(Unwritten::of(batch, now)).await;
        match written {
            Ok(written) => {
                self.repaired.clear();
                self.clock.committed(now);
                Ok(written.batch)
            }
            Err(failure) => {
                // Where nobody knows, this daemon ends, and nobody is told of the batch until then; one that was
                // kept is still the next.
                if !failure.fatal && !failure.kept {
                    let _ = self.reader.memory().take_back();
                }
                Err(failure)
            }
        }
    }

    /// Beside other nodes: one of them may read the batch and tell of it before its answer is here.
    fn forget_what_others_may_replace(&self, batch: &Batch) {
        #[cfg(test)]
        if self.reader.store().weakness().shows_replaced {
            return;
        }
        if self.reader.store().is_shared() {
            self.reader.cache().forget(batch);
        }
    }

    /// Logs that this daemon took the realm over, with what it had to mend.
    ///
    /// # Errors
    /// `Store` and `Token` where the entry can not be written or anchored: then nothing is served.
    pub(in crate::ledger) async fn boot(&mut self, repairs: Repairs) -> Result<(), LedgerError> {
        let memory = self.reader.memory();
        let (head, end) = {
            let believed = memory.read();
            (believed.head.clone(), believed.end.clone())
        };
        let size = end.size();
        #[cfg(test)]
        let lazy = self.reader.store().weakness().lazy;
        #[cfg(not(test))]
        let lazy = false;
        if !lazy {
            self.anchoring.adopt(&head, &end).await?;
        }
        let mut batch = Batch::after(head.state.seq);
        let change = tokens::change(self.reader.pool(), &head);
        let tokens = change.as_ref().map(|change| change.after.clone());
        let leaf = boot_leaf(&head, memory.configuration(), repairs.what, (None, change))?;
        batch.entries.push((size, leaf));
        batch.digests = repairs.digests;
        batch.tiles = repairs.tiles;
        let written = self.commit(batch, (None, tokens), self.clock.now()).await;
        written.map_err(|failure| failure.error)?;
        self.demand.at_once = true;
        let anchored = self.anchor_pending().await;
        self.end_turn().await;
        anchored
    }

    /// Tells the token of what it does not know yet. Where it does not answer, the next batch or
    /// the next try does it.
    pub(super) async fn catch_up(&mut self) -> Result<(), LedgerError> {
        if self.reader.store().is_shared() {
            // Nobody may have asked this node for long.
            self.anchoring.looks();
            return self.confirm_among().await;
        }
        let memory = self.reader.memory();
        let caught_up = if memory.pending().is_some() {
            // A warm anchor may do for it: what the token knows is not said here.
            self.anchor_pending().await
        } else {
            match self.anchoring.catch_up(&memory.head()).await {
                Ok(Covered::InToken) => {
                    memory.token_knows_all();
                    Ok(())
                }
                Ok(Covered::Here) => Ok(()),
                Ok(Covered::Except(lost)) => {
                    self.expel(lost).await.map_err(|failure| failure.error)
                }
                Err(error) => Err(error),
            }
        };
        match caught_up {
            Err(LedgerError::Stopped) => Err(LedgerError::Stopped),
            Err(error) => {
                tracing::warn!(%error, "the newest state could not be anchored; it is tried again");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// The end of a daemon that was told to stop.
    pub(super) async fn rest(mut self) -> Result<(), LedgerError> {
        self.anchor_pending().await.inspect_err(|error| {
            tracing::warn!(%error, "the last batch is not anchored; the next start anchors it");
        })?;
        let head = self.reader.memory().head();
        let rested = self.anchoring.rest(&head).await.inspect_err(|error| {
            tracing::warn!(%error, "the clean stop is not anchored; the next start does without it");
        })?;
        // Nobody is given up for it: another token may say "clean" already, and nothing may be written after that.
        for Lost { name, error, .. } in rested {
            tracing::warn!(token = name, %error, "the clean stop is not anchored in a token; the next start does it");
        }
        Ok(())
    }
}

/// The entry of a daemon that goes on from this head, under its policies, and its keys and tokens where
/// those change.
pub(super) fn boot_leaf(
    head: &Head,
    configuration: Digest,
    repaired: Vec<String>,
    (keys, tokens): (Option<KeyChange>, Option<TokenChange>),
) -> Result<Vec<u8>, LedgerError> {
    let encoding = |_| LedgerError::internal("encode a log entry");
    let leaf = BootLeaf {
        version: env!("CARGO_PKG_VERSION").into(),
        adopted: head.hash().map_err(encoding)?,
        configuration_before: head.state.configuration,
        configuration,
        repaired,
        keys,
        tokens,
    };
    leaf.encode().map_err(encoding)
}
