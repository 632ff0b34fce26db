//! Orders: batches about no account, made by the ledger itself.
//!
//! Called by the committer's loop between two batches of changes. Each is durable and anchored before
//! its giver is answered, like every other batch.

use std::sync::Arc;

use custodyd_hsm::KeyVersions;
use tokio::sync::oneshot;

use super::publishing::boot_leaf;
use super::{Committer, Failure};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::Demand;
use crate::ledger::log::KeyChange;
use crate::store::Batch;

pub(super) type Answer<T> = oneshot::Sender<Result<T, Arc<LedgerError>>>;

pub(crate) enum Order {
    /// Other key versions from now on.
    Keys {
        before: KeyVersions,
        after: KeyVersions,
        reply: Answer<()>,
    },
}

impl Committer {
    pub(super) async fn carry_out(&mut self, order: Order) -> Result<(), LedgerError> {
        match order {
            Order::Keys {
                before,
                after,
                reply,
            } => answer(reply, self.change_keys(before, after).await),
        }
    }

    /// One batch with an entry that names both, anchored in the token at once.
    async fn change_keys(
        &mut self,
        before: KeyVersions,
        after: KeyVersions,
    ) -> Result<(), Failure> {
        self.settled().await?;
        let memory = self.reader.memory();
        let (head, size) = {
            let believed = memory.read();
            (believed.head.clone(), believed.end.size())
        };
        if head.state.keys != before {
            return Err(LedgerError::Stale.into());
        }
        let mut batch = Batch::after(head.state.seq);
        let change = KeyChange {
            before,
            after: after.clone(),
        };
        let leaf = boot_leaf(&head, memory.configuration(), Vec::new(), Some(change))?;
        batch.entries.push((size, leaf));
        self.commit(batch, Some(after), self.clock.now()).await?;
        self.demand = Demand {
            at_once: true,
            ..Demand::default()
        };
        self.settled().await
    }

    /// Nothing is written upon a batch that is not anchored.
    pub(super) async fn settled(&mut self) -> Result<(), Failure> {
        self.anchor_pending().await.map_err(|error| Failure {
            fatal: matches!(error, LedgerError::Stopped),
            error,
        })
    }
}

/// Tells the giver; an outcome that nobody knows ends the committer.
pub(super) fn answer<T>(reply: Answer<T>, done: Result<T, Failure>) -> Result<(), LedgerError> {
    match done {
        Ok(done) => {
            let _ = reply.send(Ok(done));
            Ok(())
        }
        Err(Failure { error, fatal }) => {
            tracing::error!(%error, "an order of the ledger was not committed");
            let _ = reply.send(Err(Arc::new(error)));
            match fatal {
                true => Err(LedgerError::Stopped),
                false => Ok(()),
            }
        }
    }
}
