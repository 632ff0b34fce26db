//! Tokens that leave the set, and such that come in: each by a head that names the others, or it as well.
//!
//! Called by the committer. A token that was not anchored in is given up before anything of the batch that it
//! missed is told: the head that names the rest is written upon that batch, anchored in the rest, and only then is
//! either believed. Must never give up the last one, and never anchor in one that was given up.

use std::sync::Arc;

use custodyd_hsm::Member;
use custodyd_hsm::anchor::Anchor;

use super::durable::Unwritten;
use super::publishing::boot_leaf;
use super::{Committer, Failure};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::{Covered, Demand, Lost};
use crate::ledger::head::Head;
use crate::ledger::keys;
use crate::ledger::log::TokenChange;
use crate::store::Batch;

impl Committer {
    /// Anchors the batch that is durable, if there is one that is not anchored yet.
    pub(super) async fn anchor_pending(&mut self) -> Result<(), LedgerError> {
        let reader = Arc::clone(&self.reader);
        let memory = reader.memory();
        #[cfg(test)]
        if self.reader.store().weakness().lazy {
            memory.settle(true);
        }
        self.resubmit().await?;
        if self.reader.store().is_shared() {
            return self.cover_pending().await;
        }
        // Each turn gives up one token at least, and never the last.
        while let Some(head) = memory.pending() {
            let begun = reader.freshness().now();
            let in_token = match self.anchoring.cover(&head, &self.demand).await? {
                Covered::InToken => {
                    reader.freshness().confirm(begun);
                    true
                }
                Covered::Here => {
                    // Nobody was asked whether another daemon has gone on.
                    let lost = self.look().await?;
                    if !lost.is_empty() {
                        self.give_up(&head, lost).await?;
                        continue;
                    }
                    false
                }
                Covered::Except(lost) => {
                    self.give_up(&head, lost).await?;
                    continue;
                }
            };
            memory.settle(in_token);
            keys::follow(self.reader.pool(), &head);
        }
        Ok(())
    }

    /// Writes a head upon the pending one that names the tokens which have anchored that. Where it can not be
    /// written nothing has changed: nobody is told of the pending one, and all are tried again.
    async fn give_up(&mut self, pending: &Head, lost: Vec<Lost>) -> Result<(), LedgerError> {
        let reader = Arc::clone(&self.reader);
        let memory = reader.memory();
        let change = TokenChange {
            before: pending.state.tokens.clone(),
            after: without(pending, &lost),
        };
        if change.after.is_empty() {
            return Err(LedgerError::internal("find a token that is left"));
        }
        let mut batch = Batch::after(pending.state.seq);
        let leaf = boot_leaf(
            pending,
            memory.configuration(),
            Vec::new(),
            (None, Some(change.clone())),
        )?;
        batch.entries.push((pending.size, leaf));
        let mut head = pending.clone();
        let at = self.clock.now();
        head.state.time = at;
        head.state.configuration = memory.configuration();
        head.state.tokens = change.after;
        let further = memory.upon_pending(head, &mut batch)?;
        batch.head = further.head().authenticate(self.reader.pool()).await?;
        let unwritten = Unwritten {
            batch,
            at,
            further: Some(further),
            lost,
        };
        let written = self.write_or_keep(unwritten).await;
        let written = written.map_err(|failure| failure.error)?;
        if let Some(further) = written.further {
            memory.pend_further(further);
        }
        self.clock.committed(at);
        self.are_gone(&written.lost);
        Ok(())
    }

    pub(super) fn are_gone(&mut self, lost: &[Lost]) {
        let ids: Vec<String> = lost.iter().map(|lost| lost.id.clone()).collect();
        self.anchoring.without(&ids);
        for Lost { id, name, error } in lost {
            tracing::error!(
                token = name,
                serial = id,
                %error,
                "a token was given up: the realm goes on without it until `custodyd token readmit`"
            );
            metrics::counter!("custodyd_tokens_expelled_total").increment(1);
            if let Some(member) = self.reader.pool().set().and_then(|set| set.of_id(id)) {
                // It has every anchor until this one.
                member.was_heard();
                member.leaves();
            }
        }
        // The rest must know by whom it goes on, before anybody does.
        self.demand.at_once = true;
    }

    /// Gives up tokens while nothing is pending.
    pub(super) async fn expel(&mut self, lost: Vec<Lost>) -> Result<(), Failure> {
        let head = self.reader.memory().head();
        let after = without(&head, &lost);
        if after.is_empty() {
            return Err(LedgerError::Refused("no token of the realm would be left".into()).into());
        }
        if let Err(failure) = self.name(&head, after).await {
            if let Some(kept) = &mut self.unwritten {
                kept.lost = lost;
            }
            return Err(failure);
        }
        self.are_gone(&lost);
        self.settled().await
    }

    /// Takes a token in that was found to hold the same keys, and an anchor of this history. What it takes to find
    /// that is not done here, where everybody waits.
    pub(super) async fn readmit(
        &mut self,
        member: Arc<Member>,
        found: Option<Anchor>,
    ) -> Result<(), Failure> {
        self.settled().await?;
        let head = self.reader.memory().head();
        let id = member.id().map_err(LedgerError::from)?;
        let mut after = head.state.tokens.clone();
        if after.is_empty() || after.contains(&id) {
            return Err(LedgerError::Stale.into());
        }
        let newcomer = self.anchoring.bring_up(&member, found.as_ref(), &head);
        let newcomer = newcomer.await?;
        after.push(id);
        let named = self.name(&head, after).await;
        // A head that names it may be written later, and then it has to be anchored in: the next start sees to that.
        named.map_err(|failure| Failure {
            fatal: failure.fatal || failure.kept,
            ..failure
        })?;
        self.anchoring.with(newcomer);
        member.joins();
        tracing::warn!(
            token = member.name(),
            "a token was taken in: it is anchored in from now on"
        );
        self.settled().await
    }

    /// A batch that says nothing but which tokens there are; it is pending when this returns.
    async fn name(&mut self, head: &Head, after: Vec<String>) -> Result<(), Failure> {
        let reader = Arc::clone(&self.reader);
        let memory = reader.memory();
        let change = TokenChange {
            before: head.state.tokens.clone(),
            after: after.clone(),
        };
        let mut batch = Batch::after(head.state.seq);
        let leaf = boot_leaf(
            head,
            memory.configuration(),
            Vec::new(),
            (None, Some(change)),
        )?;
        batch.entries.push((head.size, leaf));
        self.demand = Demand {
            at_once: true,
            ..Demand::default()
        };
        self.commit(batch, (None, Some(after)), self.clock.now())
            .await
            .map(drop)
    }
}

fn without(head: &Head, lost: &[Lost]) -> Vec<String> {
    let named = head.state.tokens.iter();
    named
        .filter(|id| lost.iter().all(|lost| lost.id != **id))
        .cloned()
        .collect()
}
