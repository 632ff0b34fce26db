//! Among other nodes: this one's turn at writing, what they have written meanwhile, and forks.
//!
//! Called by the committer's loop where several nodes serve the realm. Whoever has the turn has locked the head's
//! row, catches up with the head that stands there, and decides upon that; so decisions run once, on the newest
//! state, and a lost race is what becomes of a lock that the server has taken away. Nothing of another node's batch
//! is believed before no fork can take it back: what one reader was told another must not find undone.
//!
//! After a crash here: the turn ends with the connection, and what was written stands or does not, as with one node.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::Anchor;

use super::{Committer, Failure};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::{Ruling, contradicted};
use crate::ledger::freshness::Instant;
use crate::ledger::head::Head;
use crate::ledger::log::LogEnd;
use crate::ledger::newer::{Newer, Shown};
use crate::ledger::writes::Step;
use crate::store::{HeadRow, Store};

/// How often the database and the token are looked at, one after the other, until they are of one moment.
const LOOKS: u32 = 5;
/// When no other look is begun, though others still write.
const LOOKING: Duration = Duration::from_millis(1500);

/// When no other turn is asked for, of a batch that may stand or not: another node may keep its own for longer than anybody waits.
const FINDING: Duration = Duration::from_secs(5);

/// Of a batch of ours that may stand or not, as long as others write.
const UNKNOWN: LedgerError = LedgerError::Late("to find out what became of the last batch");

/// Why what is shown is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// To write upon it: the token is asked once that is done.
    Writing,
    Reading,
}

impl Committer {
    /// Nothing is pending, and no other node writes until the next commit or the turn's end; what is believed is what
    /// stands in the database.
    ///
    /// # Errors
    /// `Stopped` as `follow`; else why nothing can be written now.
    pub(super) async fn turn(&mut self) -> Result<(), LedgerError> {
        self.reader.writes().begin();
        let taken = self.turn_unwatched().await;
        self.reader.writes().end(Step::Turn, taken.as_ref().err());
        taken
    }

    async fn turn_unwatched(&mut self) -> Result<(), LedgerError> {
        self.anchor_pending().await?;
        if !self.reader.store().is_shared() {
            return Ok(());
        }
        self.take_turn().await?;
        if self.reader.memory().head().state.seq >= self.spent {
            self.beaten = None;
            return Ok(());
        }
        if let Err(error) = self.write_what_was_beaten().await {
            self.end_turn().await;
            return Err(error);
        }
        // With its commit the turn was over.
        self.take_turn().await
    }

    /// The next number is one for which this node has made a head: of that, there is one.
    async fn write_what_was_beaten(&mut self) -> Result<(), LedgerError> {
        // What has beaten it may have been told of, and be gone all the same.
        self.reader.freshness().doubt();
        self.until_followed(None, For::Writing).await?;
        self.takes_up_what_was_beaten()?;
        self.anchor_pending().await
    }

    async fn take_turn(&mut self) -> Result<(), LedgerError> {
        let store = Arc::clone(self.reader.store());
        let waited = tokio::time::Instant::now();
        let shown = store.take_turn().await;
        // Also of one that was not had: whoever looks for a node that holds the others up looks here.
        metrics::histogram!("custodyd_turn_wait_seconds").record(waited.elapsed().as_secs_f64());
        let shown = shown?.examine();
        self.doubts_another_server(store.connections());
        let followed = self.until_followed(Some(shown), For::Writing).await;
        if followed.is_err() {
            store.end_turn().await;
        }
        followed
    }

    /// The token's word of before was of what the server showed that was there then. Another one may show the same head
    /// because it has lost what came after it.
    fn doubts_another_server(&mut self, connection: u64) {
        let before = std::mem::replace(&mut self.connection, connection);
        #[cfg(test)]
        if self.reader.store().weakness().any_server {
            return;
        }
        if before != connection {
            self.reader.freshness().doubt();
        }
    }

    pub(super) async fn end_turn(&self) {
        self.reader.store().end_turn().await;
    }

    /// What was found to be altered is another node's, where that has written since: the turn was taken away. Whoever
    /// asked comes again.
    pub(super) async fn judged(&self, error: LedgerError) -> LedgerError {
        if !self.reader.store().is_shared() || !matches!(error, LedgerError::Tampered(_)) {
            return error;
        }
        match self.still_stands().await {
            true => error,
            false => LedgerError::Overtaken,
        }
    }

    /// Whether the database shows the head that is believed. If not, another node has written.
    async fn still_stands(&self) -> bool {
        #[cfg(test)]
        if self.reader.store().weakness().stands {
            return true;
        }
        let believed = self.reader.memory().head().state.seq;
        let shown = self.reader.store().head().await;
        matches!(shown.map(|row| row.examine()), Ok(Some(row)) if row.seq == believed)
    }

    /// Answers the readers.
    ///
    /// # Errors
    /// `Stopped` as `follow`.
    pub(super) async fn confirm_among(&mut self) -> Result<(), LedgerError> {
        let reader = Arc::clone(&self.reader);
        if reader.freshness().suffices() {
            return Ok(());
        }
        #[cfg(test)]
        if reader.store().weakness().no_look {
            reader.freshness().confirm(reader.freshness().now());
            return Ok(());
        }
        let confirmed = match self.anchor_pending().await {
            Ok(()) => match self.until_followed(None, For::Reading).await {
                // Others write faster than this one can look: they wait for once.
                Err(LedgerError::Overtaken) => self.confirm_in_turn().await,
                followed => followed,
            },
            Err(error) => Err(error),
        };
        self.tell_readers(confirmed)
    }

    async fn confirm_in_turn(&mut self) -> Result<(), LedgerError> {
        self.turn().await?;
        let followed = self.until_followed(None, For::Reading).await;
        self.end_turn().await;
        followed
    }

    async fn until_followed(
        &mut self,
        mut shown: Option<Option<HeadRow>>,
        purpose: For,
    ) -> Result<(), LedgerError> {
        let until = tokio::time::Instant::now() + LOOKING;
        for look in 0..LOOKS {
            if look > 0 && tokio::time::Instant::now() >= until {
                break;
            }
            let begun = self.reader.freshness().now();
            let row = match shown.take() {
                Some(row) => row,
                None => self.reader.store().head().await?.examine(),
            };
            match self.follow(row, begun, purpose).await {
                Ok(true) => return Ok(()),
                // Another node has written since.
                Ok(false) | Err(LedgerError::Overtaken) => {}
                Err(error) => return Err(error),
            }
        }
        Err(LedgerError::Overtaken)
    }

    /// Goes over to the head that was shown, if it is newer. Says whether what is believed is as new as was asked for.
    ///
    /// # Errors
    /// `Stopped` where the database shows another line than the one that this node has told of, or where another node
    /// has changed what a daemon can only start with; `Refused` where the database is older than what the token
    /// remembers; else why it could not be found out.
    async fn follow(
        &mut self,
        row: Option<HeadRow>,
        begun: Instant,
        purpose: For,
    ) -> Result<bool, LedgerError> {
        let (head, end) = self.believed();
        match self.anchoring.source()?.judge(row, &head, &end).await? {
            Shown::Same if purpose == For::Writing && self.may_be_newest(&head)? => Ok(true),
            Shown::Same => match self.anchoring.cover_among(&head, &end).await? {
                Ruling::Covered { newest: true } => {
                    self.reader.freshness().confirm(begun);
                    Ok(true)
                }
                // In its turn the database shows the newest, if it is honest and the turn was not taken away. A batch upon
                // this one would be a second history, in the database and for ever.
                Ruling::Covered { newest: false }
                    if purpose == For::Writing && self.still_stands().await =>
                {
                    Err(LedgerError::Refused(format!(
                        "the database shows batch {}, and the token remembers a later one of another node: it was \
                         rolled back, or shows each node something else. Put the newest database in place",
                        head.state.seq
                    )))
                }
                Ruling::Covered { newest: false } => Ok(false),
                Ruling::Outrun => Err(LedgerError::Overtaken),
                Ruling::Contradicted { theirs } => {
                    alert(&head, &theirs);
                    Err(contradicted(&head, &theirs))
                }
            },
            Shown::Newer(newer) => {
                let newest = self.catch_up_with(*newer, begun).await?;
                Ok(newest)
            }
            Shown::Older(older) => {
                self.replay(&older).await?;
                Ok(false)
            }
            Shown::Other(other) => Err(forked(&head, &other)),
        }
    }

    /// Whether this may be written upon without asking the token first: it has said so lately, and nothing later is known.
    fn may_be_newest(&mut self, head: &Head) -> Result<bool, LedgerError> {
        let reader = Arc::clone(&self.reader);
        #[cfg(test)]
        if reader.store().weakness().unasked {
            return Ok(true);
        }
        Ok(reader.freshness().suffices() && !self.anchoring.knows_after(head.state.seq)?)
    }

    /// Believes what another node has written, once no fork can take it back.
    async fn catch_up_with(&mut self, newer: Newer, begun: Instant) -> Result<bool, LedgerError> {
        let reader = Arc::clone(&self.reader);
        let memory = reader.memory();
        let believed = memory.head();
        goes_on(&believed, &newer.head)?;
        let (update, changed) = self.anchoring.source()?.state(memory, &newer).await?;
        let covered = self
            .anchoring
            .cover_anothers((&newer.head, &newer.end), &newer.line)
            .await?;
        let newest = match covered {
            Ruling::Covered { newest } => newest,
            Ruling::Outrun => return Err(LedgerError::Overtaken),
            Ruling::Contradicted { theirs } => {
                alert(&newer.head, &theirs);
                self.anchoring
                    .withdraw(&newer.head, believed.state.seq)
                    .await?;
                return Err(contradicted(&newer.head, &theirs));
            }
        };
        let Newer { head, end, .. } = newer;
        if head.state.configuration != believed.state.configuration
            && head.state.configuration != memory.configuration()
        {
            tracing::warn!(
                batch = head.state.seq,
                "another node decides under other policies than this one; the log names both"
            );
        }
        reader.cache().forget_buckets(&changed);
        self.clock.heard(head.state.time);
        self.clock.committed(head.state.time);
        metrics::counter!("custodyd_batches_followed_total")
            .increment(head.state.seq.saturating_sub(believed.state.seq));
        let seq = head.state.seq;
        memory.catch_up((head, end), (update, &changed));
        reader.freshness().believes(seq);
        #[cfg(test)]
        let newest = newest || reader.store().weakness().any_newer;
        if newest {
            reader.freshness().confirm(begun);
        }
        Ok(newest)
    }

    /// What became of the pending batch, where the database shows neither it nor its parent.
    ///
    /// # Errors
    /// A failure that is `kept` where it may be written yet; one that is not where it never will be.
    pub(super) async fn find(&mut self, store: &dyn Store) -> Result<(), Failure> {
        let until = tokio::time::Instant::now() + FINDING;
        for _ in 0..LOOKS {
            // In a turn: of what is shown without one, others have written the next batch before it is acknowledged,
            // where they write all the time.
            let shown = match store.take_turn().await {
                Ok(shown) => shown.examine(),
                Err(_) if tokio::time::Instant::now() < until => continue,
                Err(error) => return Err(Failure::kept(error.into())),
            };
            #[cfg(test)]
            if store.weakness().out_of_turn {
                store.end_turn().await;
            }
            let found = self.find_beneath(store, shown).await;
            store.end_turn().await;
            if let Some(()) = found? {
                return Ok(());
            }
        }
        Err(Failure::kept(UNKNOWN))
    }

    /// The same, in a turn: nothing where it has to be looked at once more.
    async fn find_beneath(
        &mut self,
        store: &dyn Store,
        shown: Option<HeadRow>,
    ) -> Result<Option<()>, Failure> {
        let Some((ours, _)) = self.reader.memory().pending_with_end() else {
            return Err(Failure::internal("find the pending batch"));
        };
        let ours = (ours.state.seq, hash(&ours)?);
        let (believed, end) = self.believed();
        let source = self.anchoring.source()?;
        let newer = match source.judge(shown, &believed, &end).await {
            Ok(Shown::Newer(newer)) => newer,
            // It is not written, and may be yet.
            Ok(Shown::Same) => return Err(Failure::kept(UNKNOWN)),
            Ok(Shown::Older(older)) => {
                let replayed = self.replay(&older).await;
                return replayed.map(|()| None).map_err(|error| match error {
                    LedgerError::Stopped => Failure::from(error),
                    error => Failure::kept(error),
                });
            }
            Ok(Shown::Other(other)) => return Err(forked(&believed, &other).into()),
            Err(error) => return Err(Failure::kept(error)),
        };
        #[cfg(test)]
        let forgets = store.weakness().forgets_own;
        #[cfg(not(test))]
        let forgets = false;
        if !newer.line.contains(&ours) || forgets {
            tracing::warn!(
                batch = ours.0,
                "another node has written first; nothing of this batch was done"
            );
            return Err(Failure {
                error: LedgerError::Overtaken,
                fatal: false,
                kept: false,
                elsewhere: true,
            });
        }
        // Another node has built on it. With the commit of this the turn is over.
        Ok(store.acknowledge(&newer.row).await.ok())
    }

    pub(super) fn believed(&self) -> (Head, LogEnd) {
        let believed = self.reader.memory().read();
        (believed.head.clone(), believed.end.clone())
    }
}

/// Refuses to go on under what a daemon can only start with.
fn goes_on(believed: &Head, newer: &Head) -> Result<(), LedgerError> {
    let (ours, theirs) = (&believed.state, &newer.state);
    let what = if ours.keys != theirs.keys {
        "the realm's keys"
    } else if ours.tokens != theirs.tokens {
        "the realm's tokens"
    } else if ours.boot_epoch != theirs.boot_epoch {
        "the boot epoch"
    } else {
        return Ok(());
    };
    tracing::error!(
        batch = theirs.seq,
        "another node has changed {what}: this one ends, and goes on when it is started again"
    );
    Err(LedgerError::Stopped)
}

pub(super) fn alert(head: &Head, theirs: &Anchor) {
    tracing::error!(ours = ?head, theirs = ?theirs, "the token remembers what is not of this node's line");
    metrics::counter!("custodyd_forks_total").increment(1);
}

pub(super) fn hash(head: &Head) -> Result<[u8; 32], LedgerError> {
    head.hash()
        .map_err(|_| LedgerError::internal("encode a head"))
}

/// Evidence of two histories: this node goes on with neither.
pub(super) fn forked(ours: &Head, theirs: &Head) -> LedgerError {
    tracing::error!(
        ?ours,
        ?theirs,
        "the database shows another history than this node has told of"
    );
    metrics::counter!("custodyd_forks_total").increment(1);
    LedgerError::Stopped
}
