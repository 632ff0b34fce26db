//! Anchoring: what is released was first made the newest in the token.
//!
//! Called by the committer after each durable batch, before it answers. Once a head is anchored,
//! no older database is ever served again: `Anchored::precedes` refuses it at the next start.
//!
//! After a crash here: the batch is durable and nobody was answered. The next start finds a head
//! that descends from the anchor, believes it, and anchors it.

use std::sync::Arc;

use custodyd_hsm::anchor::{self, Advanced, Anchor};
use custodyd_hsm::{Pool, RealmName};

use super::LedgerError;
use super::head::Head;
use super::log::{Prover, StateLeaf};
use super::memory::Believed;
use super::start;
use crate::store::Store;

/// Entries that are read at a time on the way back to the anchor.
const CHUNK: u64 = 256;

/// What the token holds as the newest.
#[derive(Clone, Debug)]
pub(crate) struct Anchored(Anchor);

impl Anchored {
    pub(crate) fn new(anchor: Anchor) -> Self {
        Self(anchor)
    }

    /// Whether the head that was found is the anchored one or descends from it.
    ///
    /// # Errors
    /// `Tampered` names both: an older head, another history, another log epoch.
    pub(super) async fn precedes(
        &self,
        store: &Arc<dyn Store>,
        found: &Believed,
    ) -> Result<(), LedgerError> {
        let (anchor, state) = (&self.0, &found.head.state);
        let refused = |what: &str| {
            LedgerError::Tampered(format!(
                "the token has anchored batch {} of log epoch {}, the database shows batch {} of \
                 log epoch {}: {what}",
                anchor.seq, anchor.log_epoch, state.seq, state.log_epoch
            ))
        };
        if state.log_epoch != anchor.log_epoch {
            return Err(refused("it is from before, or after, a restore"));
        }
        if state.seq < anchor.seq {
            return Err(refused(
                "it was rolled back; put the newest database in place, or run `custodyd ledger accept-restore`",
            ));
        }
        let expected = if state.seq == anchor.seq {
            hash(&found.head)?
        } else if anchor.clean {
            return Err(refused(
                "nothing was written after the clean stop that the token remembers",
            ));
        } else {
            successor(store, found, anchor.seq).await?
        };
        if expected == anchor.head {
            Ok(())
        } else {
            Err(refused("they are of two histories"))
        }
    }
}

/// What the batch after `seq` names as the head before it.
async fn successor(
    store: &Arc<dyn Store>,
    found: &Believed,
    seq: u64,
) -> Result<[u8; 32], LedgerError> {
    let prover = Prover {
        store,
        end: &found.end,
    };
    let mut upper = found.head.size;
    while upper > 0 {
        let lower = upper.saturating_sub(CHUNK);
        let leaves = start::leaves(store, lower, upper - lower).await?;
        for (index, leaf) in (lower..upper).rev().zip(leaves.into_iter().rev()) {
            if let Some(parsed) = StateLeaf::parse(&leaf)
                && parsed.state.seq == seq + 1
            {
                prover.inclusion(index, &leaf).await?;
                return Ok(parsed.state.previous);
            }
        }
        upper = lower;
    }
    Err(LedgerError::Tampered(format!(
        "the log names no batch {}",
        seq + 1
    )))
}

/// Keeps the token's anchor up with the database.
#[derive(Debug)]
pub(crate) struct Anchoring {
    pool: Pool,
    realm: RealmName,
    last: Anchor,
    /// What was tried last, if nobody knows how it ended.
    unsure: Option<Anchor>,
}

impl Anchoring {
    pub(crate) fn new(pool: Pool, realm: RealmName, anchored: Anchored) -> Self {
        Self {
            pool,
            realm,
            last: anchored.0,
            unsure: None,
        }
    }

    /// Makes the first head of a realm the newest, in a token that has none.
    ///
    /// # Errors
    /// As `advance`; the token's refusal where it holds an anchor of the realm.
    pub(crate) async fn first(pool: &Pool, head: &Head) -> Result<(), LedgerError> {
        let of = head.state.realm.clone();
        let first = anchor_of(head, None)?;
        let advanced = pool
            .call("anchor", move |custody| {
                anchor::advance(custody, &of, None, &first)
            })
            .await?;
        match advanced {
            Advanced::Anchored => Ok(()),
            Advanced::Raced(_) => Err(LedgerError::Stopped),
        }
    }

    /// Makes this head the newest in the token. May be called again after an error, with the same
    /// head or a later one: what an earlier try has done is found.
    ///
    /// # Errors
    /// `Token` where it does not answer: nothing of the batch may be released. `Stopped` where
    /// somebody else has moved the anchor: this process is not the one that writes.
    pub(crate) async fn advance(&mut self, head: &Head) -> Result<(), LedgerError> {
        let started = std::time::Instant::now();
        let mut to = anchor_of(head, Some(&self.last))?;
        let mut advanced = self.step(&to).await?;
        if let Advanced::Raced(other) = &advanced
            && self.unsure.as_ref() == Some(other)
        {
            // A try of ours whose answer was lost: it is there, and this head comes after it.
            self.last = other.clone();
            to = anchor_of(head, Some(&self.last))?;
            advanced = self.step(&to).await?;
        }
        metrics::histogram!("custodyd_anchor_seconds").record(started.elapsed().as_secs_f64());
        match advanced {
            Advanced::Anchored => {
                self.last = to;
                self.unsure = None;
                Ok(())
            }
            Advanced::Raced(other) => {
                tracing::error!(ours = ?to, theirs = ?other, "somebody else has moved the anchor");
                Err(LedgerError::Stopped)
            }
        }
    }

    async fn step(&mut self, to: &Anchor) -> Result<Advanced, LedgerError> {
        let (of, from, next) = (self.realm.clone(), self.last.clone(), to.clone());
        let advanced = self
            .pool
            .call("anchor", move |custody| {
                anchor::advance(custody, &of, Some(&from), &next)
            })
            .await;
        if advanced.is_err() {
            self.unsure = Some(to.clone());
        }
        Ok(advanced?)
    }
}

fn anchor_of(head: &Head, last: Option<&Anchor>) -> Result<Anchor, LedgerError> {
    Ok(Anchor {
        serial: Anchor::serial_after(last),
        log_epoch: head.state.log_epoch,
        seq: head.state.seq,
        head: hash(head)?,
        boot_epoch: head.state.boot_epoch,
        clean: false,
        dirty: false,
    })
}

fn hash(head: &Head) -> Result<[u8; 32], LedgerError> {
    head.hash()
        .map_err(|_| LedgerError::internal("encode a head"))
}
