//! Among other nodes: the batch of this one that is durable and not anchored yet, of which nobody was told.
//!
//! Called by the committer before anything else is done. It is anchored at once, mostly. Where the token was away, or somebody
//! was quicker, it is tried again, and until then everything may have happened: the database may have been replaced by one
//! that lacks it, another node may have written its number anew, or have built upon it and been told so. So before a second try
//! this node takes its turn, and looks at what the database shows by then. Must never tell of a batch that another of its number has
//! beaten, nor give one up that others have built on.
//!
//! After a crash here: the batch is in the database, or lost with it; a start goes on from what it finds.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::Anchor;

use super::Committer;
use super::following::{alert, forked, hash};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::{Ruling, contradicted};
use crate::ledger::head::Head;
use crate::ledger::keys;
use crate::ledger::newer::Shown;
use crate::store::{CommitError, HeadRow};

/// How long another node may take to write what it was told of again, before this one writes what nobody was told of: longer
/// than one that nobody asks anything looks away (`anchoring::several::LOOK`), and finds out that its connection is dead.
const FIRST_WORD: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

impl Committer {
    /// Anchors the batch that is durable, if there is one that is not anchored yet. Where others are quicker each time,
    /// it waits for its turn: while it has that, nobody writes. Where it was tried before it takes a turn first, to look: meanwhile
    /// the database may have been replaced by one that lacks this batch, and has another of its number.
    ///
    /// # Errors
    /// `Overtaken` where it was given up for another line: nobody was told of it; `Stopped` where this node can not go on;
    /// `Unconfirmed` where others were quicker even so; `Refused` as `give_way`; else the token's or the store's. After these
    /// it is tried again.
    pub(super) async fn cover_pending(&mut self) -> Result<(), LedgerError> {
        let Some((head, _)) = self.reader.memory().pending_with_end() else {
            return Ok(());
        };
        let pending = Some(hash(&head)?);
        if self.tried == pending {
            self.shows_still(&head).await?;
        } else {
            (self.tried, self.lacks) = (pending, None);
        }
        let covered = self.cover_all().await;
        if !matches!(covered, Err(LedgerError::Unconfirmed)) {
            return covered;
        }
        let store = Arc::clone(self.reader.store());
        let shown = store.take_turn().await?.examine();
        let covered = match self.is_shown(&head, shown).await {
            Ok(()) => self.cover_all().await,
            Err(error) => Err(error),
        };
        store.end_turn().await;
        covered
    }

    /// Before another try, in a turn of its own: as long as the database shows this batch, nobody writes another one of its number.
    async fn shows_still(&mut self, head: &Head) -> Result<(), LedgerError> {
        // Outside of it, first: whoever has a turn waits for nobody's token, and where this one hangs the others go on.
        let (believed, end) = self.believed();
        if let Shown::Same = self.anchoring.source()?.look(&believed, &end).await? {
            self.anchoring.rival(head).await?;
        }
        let store = Arc::clone(self.reader.store());
        let shown = store.take_turn().await?.examine();
        let shown = self.is_shown(head, shown).await;
        store.end_turn().await;
        shown
    }

    /// In this node's turn: whether the database shows the pending batch, of which nobody was told. If not, it has lost
    /// it. Another node's of that number is gone over to; where there is none, it is written again, as it was.
    ///
    /// # Errors
    /// `Overtaken` where another batch of its number is there and counts: this one was given up; `Refused` where the
    /// batch is to be written in a while; `Stopped` where the database shows another history; else why it could not be found out.
    async fn is_shown(&mut self, head: &Head, shown: Option<HeadRow>) -> Result<(), LedgerError> {
        #[cfg(test)]
        if self.reader.store().weakness().tries_blindly {
            return Ok(());
        }
        let (believed, end) = self.believed();
        let ours = (head.state.seq, hash(head)?);
        let source = self.anchoring.source()?;
        let shown = source.judge(shown, &believed, &end).await?;
        if !matches!(shown, Shown::Same) {
            self.lacks = None;
        }
        let newer = match shown {
            Shown::Newer(newer) if newer.line.contains(&ours) => return Ok(()),
            Shown::Newer(newer) => newer,
            Shown::Same => return self.write_pending_again(head).await,
            Shown::Older(older) => {
                self.replay(&older).await?;
                return Err(LedgerError::Unconfirmed);
            }
            Shown::Other(other) => return Err(forked(&believed, &other)),
        };
        let covered = self
            .anchoring
            .cover_anothers((&newer.head, &newer.end), &newer.line)
            .await?;
        let seq = believed.state.seq;
        match covered {
            Ruling::Covered { .. } => self.gives_up(head).await,
            Ruling::Outrun => Err(LedgerError::Unconfirmed),
            Ruling::Contradicted { theirs } => {
                self.anchoring.withdraw(&newer.head, seq).await?;
                // Ours stands in the other's way, and it waits for this node. Whether the other one counts, the next try finds out.
                if theirs.head == ours.1 && self.anchoring.has_made(head)? {
                    self.anchoring.withdraw(head, seq).await?;
                    return Err(LedgerError::Unconfirmed);
                }
                self.alerts(&newer.head, &theirs);
                Err(contradicted(&newer.head, &theirs))
            }
        }
    }

    /// The database shows what the pending batch follows. It may have lost another one of that number, too, of a node
    /// that was told it counts: that has the first word.
    async fn write_pending_again(&mut self, head: &Head) -> Result<(), LedgerError> {
        let seq = head.state.seq;
        let since = *self.lacks.get_or_insert_with(tokio::time::Instant::now);
        if since.elapsed() < FIRST_WORD {
            return Err(LedgerError::Refused(format!(
                "the database has lost batch {seq}, of which nobody was told: this node writes it again unless another node \
                 does first"
            )));
        }
        if let Some(theirs) = self.anchoring.rival(head).await? {
            self.alerts(head, &theirs);
            return Err(contradicted(head, &theirs));
        }
        let store = Arc::clone(self.reader.store());
        let batch = self
            .retained
            .iter()
            .rev()
            .find(|(_, batch)| batch.head.seq == seq);
        let Some((_, batch)) = batch else {
            return Err(LedgerError::internal("find the pending batch"));
        };
        tracing::error!(
            batch = seq,
            "the database had lost a batch that nobody was told of; this node writes it again"
        );
        self.lacks = None;
        // Whatever came of it, the next turn looks.
        store.commit(batch).await.map_err(|error| match error {
            CommitError::NotWritten(error) | CommitError::Declined(error) => error.into(),
            CommitError::LostRace | CommitError::Unknown(_) => LedgerError::Unconfirmed,
        })
    }

    /// Of each anchor once.
    fn alerts(&mut self, head: &Head, theirs: &Anchor) {
        if self.rival.as_ref() != Some(theirs) {
            alert(head, theirs);
            self.rival = Some(theirs.clone());
        }
    }

    /// Another batch of its number counts: the pending one never will, and nobody was told of it.
    async fn gives_up(&mut self, head: &Head) -> Result<(), LedgerError> {
        let believed = self.reader.memory().head().state.seq;
        self.anchoring.withdraw(head, believed).await?;
        let _ = self.reader.memory().take_back();
        self.retained
            .retain(|(_, batch)| batch.head.seq <= believed);
        Err(LedgerError::Overtaken)
    }

    async fn cover_all(&mut self) -> Result<(), LedgerError> {
        let reader = Arc::clone(&self.reader);
        while let Some((head, end)) = reader.memory().pending_with_end() {
            let begun = reader.freshness().now();
            match self.anchoring.cover_among(&head, &end).await? {
                Ruling::Outrun => return Err(LedgerError::Unconfirmed),
                Ruling::Covered { newest } => {
                    reader.memory().settle(true);
                    reader.freshness().believes(head.state.seq);
                    keys::follow(reader.pool(), &head);
                    if newest {
                        reader.freshness().confirm(begun);
                    }
                }
                Ruling::Contradicted { theirs } => self.give_way(&head, &theirs).await?,
            }
        }
        Ok(())
    }

    /// A batch of ours, of which nobody was told, against an anchor of another line: goes over to that, where it goes on
    /// from what this node has told of. Where the database shows ours, it is the other one that gives way, once it looks:
    /// both were made of one number, as where a lost batch of another node's is written again by it while this one replaces it. Until
    /// then nothing of ours is told, and nothing written upon it; of a node that never looks again approvers decide.
    ///
    /// # Errors
    /// `Overtaken` where it has given way; `Refused` where the other one has to; `Stopped` where neither can.
    async fn give_way(&mut self, head: &Head, theirs: &Anchor) -> Result<(), LedgerError> {
        self.alerts(head, theirs);
        let (believed, end) = self.believed();
        let ours = (head.state.seq, hash(head)?);
        let shown = self.anchoring.source()?.look(&believed, &end).await?;
        match shown {
            Shown::Newer(newer)
                if newer.line.contains(&(theirs.seq, theirs.head))
                    && !newer.line.contains(&ours) =>
            {
                self.gives_up(head).await
            }
            Shown::Newer(newer)
                if newer.line.contains(&ours)
                    && (theirs.log_epoch, theirs.seq) == (head.state.log_epoch, ours.0) =>
            {
                Err(LedgerError::Refused(format!(
                    "the token holds another node's anchor of batch {}, and the database shows this node's batch of that number, \
                     of which nobody was told: it waits until that node gives way. Where that one has ended, approvers decide",
                    ours.0
                )))
            }
            // What was built upon ours is gone from the database, or ours with it: whoever has it writes it again, each in turn.
            Shown::Newer(_) | Shown::Same | Shown::Older(_) if is_later(theirs, head) => {
                Err(later(&ours, theirs))
            }
            // One of the same number is lost with it, which may have been told of.
            Shown::Same if theirs.seq == ours.0 => Err(contradicted(head, theirs)),
            _ => Err(LedgerError::Stopped),
        }
    }
}

/// Whether an anchor is of a batch after this one.
fn is_later(theirs: &Anchor, ours: &Head) -> bool {
    theirs.log_epoch == ours.state.log_epoch && theirs.seq > ours.state.seq
}

fn later(ours: &(u64, [u8; 32]), theirs: &Anchor) -> LedgerError {
    LedgerError::Refused(format!(
        "the token holds another node's anchor of batch {}, which the database does not show, and this node's batch {} is not \
         anchored: the database was rolled back. Every node writes again what it wrote last; where none has the next one, put \
         the newest database in place",
        theirs.seq, ours.0
    ))
}
