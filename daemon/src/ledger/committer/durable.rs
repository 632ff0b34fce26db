//! Making a batch durable, until its outcome is known.
//!
//! Called by the committer, once for each batch. A commit can fail in two ways that look alike:
//! nothing was written, or everything was and the answer was lost. Must never call a batch
//! failed once a try of it may be durable: its guesses may be charged, its answers not given.

use std::sync::Arc;
use std::time::Duration;

use custodyd_policies::Timestamp;

use super::{Committer, Failure};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::Lost;
use crate::ledger::memory::Further;
use crate::store::{Batch, CommitError, Store, StoreError};

const ATTEMPTS: u32 = 5;
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Of so many tries at a server that is away, one is told of.
const TOLD: u32 = 30;

/// A batch whose head a server has seen and not taken. One MAC for each number: nothing is written before it.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) batch: Batch,
    /// Its time.
    pub(super) at: Timestamp,
    /// It follows the pending one, which is durable.
    pub(super) further: Option<Further>,
    /// The tokens that it gives up.
    pub(super) lost: Vec<Lost>,
}

impl Unwritten {
    pub(super) fn of(batch: Batch, at: Timestamp) -> Self {
        Self {
            batch,
            at,
            further: None,
            lost: Vec::new(),
        }
    }
}

/// Writes the batch. The identical batch is written again after a failure: its head names its
/// content, so whichever try arrived, it is found to be ours. A failure says whether a server has seen the head: then
/// no other one may be made for its number, and the caller keeps the batch.
pub(super) async fn write(
    store: &dyn Store,
    batch: &Batch,
    first_wait: Duration,
) -> Result<(), Failure> {
    let mut wait = first_wait;
    // Set by the first try whose outcome is not known, and never taken back: even where the
    // head shows our parent, what a failed sync left in the file may come back after a crash.
    let mut unsure: Option<CommitError> = None;
    let mut refused = None;
    let mut seen = false;
    let mut attempt = 0;
    // A server that is away has our batch or has it not, and can be asked once it is back. Until then
    // nothing is written, and whoever asks for something is told to come again.
    while attempt < ATTEMPTS || (unsure.is_some() && store.comes_back()) {
        if attempt > 0 {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        attempt = attempt.saturating_add(1);
        if attempt % TOLD == ATTEMPTS
            && let Some(reason) = &unsure
        {
            tracing::warn!(%reason, "the outcome of a commit is not known; the database is asked until it answers");
        }
        match store.commit(batch).await {
            Ok(()) => return Ok(()),
            #[cfg(test)]
            Err(CommitError::Unknown(_)) if store.weakness().unknown_is_done => return Ok(()),
            Err(CommitError::NotWritten(error)) => refused = Some(error),
            Err(CommitError::Declined(error)) => {
                seen = true;
                refused = Some(error);
            }
            Err(error) => unsure = Some(error),
        }
        let Some(reason) = &unsure else { continue };
        match store.head().await.map(|row| row.examine()) {
            // By a commit that nobody has answered: who shows it may lose it yet.
            Ok(Some(row)) if row == batch.head => {
                if store.acknowledge(&row).await.is_ok() {
                    return Ok(());
                }
            }
            Ok(Some(row)) if row.seq == batch.parent => {}
            // Another head: another node has written, or somebody wrote over ours.
            Ok(_) if store.is_shared() => return Err(Failure::elsewhere()),
            Ok(_) => return Err(Failure::fatal(reason)),
            // Damage is not an outage: it does not pass, however long everybody waits.
            Err(StoreError::Malformed { .. } | StoreError::Oversized { .. }) => {
                return Err(Failure::fatal(reason));
            }
            Err(_) => {}
        }
    }
    match (unsure, refused) {
        (None, Some(error)) => Err(Failure {
            error: LedgerError::from(error),
            fatal: false,
            kept: seen,
            elsewhere: false,
        }),
        (Some(reason), _) => Err(Failure::fatal(&reason)),
        (None, None) => Err(Failure::internal("try a commit")),
    }
}

impl Failure {
    fn elsewhere() -> Self {
        Self::kept(LedgerError::Overtaken)
    }

    /// Another head stands, and the batch may be beneath it or come to be.
    pub(super) fn kept(error: LedgerError) -> Self {
        Self {
            error,
            fatal: false,
            kept: true,
            elsewhere: true,
        }
    }
}

impl Committer {
    /// Writes a batch, and finds out what became of it where another head stands.
    async fn write_and_find(&mut self, batch: &Batch) -> Result<(), Failure> {
        let store = Arc::clone(self.reader.store());
        let written = match write(&*store, batch, self.first_wait).await {
            Err(failure) if failure.elsewhere => self.find(&*store).await,
            written => written,
        };
        match &written {
            Ok(()) => self.retain(batch),
            Err(failure) if !failure.kept && !failure.elsewhere => return written,
            Err(_) => {}
        }
        self.spent = batch.head.seq;
        written
    }

    /// Writes the batch, and keeps it where it is the only one that its number may ever have.
    pub(super) async fn write_or_keep(
        &mut self,
        unwritten: Unwritten,
    ) -> Result<Unwritten, Failure> {
        match self.write_and_find(&unwritten.batch).await {
            Ok(()) => Ok(unwritten),
            Err(failure) => {
                if failure.kept {
                    // What it replaces must not be found meanwhile, as if it was written.
                    self.reader.cache().forget(&unwritten.batch);
                    self.unwritten = Some(unwritten);
                } else if failure.elsewhere && !failure.fatal {
                    self.is_beaten(unwritten);
                }
                Err(failure)
            }
        }
    }

    /// Writes the batch that was kept, before anything else is. Whoever asked for what is in it was told that it may
    /// have happened.
    ///
    /// # Errors
    /// As the first time; it is kept still, unless another node has written first.
    pub(super) async fn resubmit(&mut self) -> Result<(), LedgerError> {
        let Some(mut unwritten) = self.unwritten.take() else {
            return Ok(());
        };
        let reader = Arc::clone(&self.reader);
        if let Err(failure) = self.write_and_find(&unwritten.batch).await {
            if failure.elsewhere && !failure.kept && !failure.fatal {
                self.is_beaten(unwritten);
                return Ok(());
            }
            if !failure.fatal {
                self.unwritten = Some(unwritten);
            }
            return Err(failure.error);
        }
        tracing::warn!(
            batch = unwritten.batch.head.seq,
            "a batch that the database had not taken is written now"
        );
        if let Some(further) = unwritten.further.take() {
            reader.memory().pend_further(further);
        }
        self.clock.committed(unwritten.at);
        if !unwritten.lost.is_empty() {
            self.are_gone(&unwritten.lost);
        }
        Ok(())
    }
}
