//! Making a batch durable, until its outcome is known.
//!
//! Called by the committer, once for each batch. A commit can fail in two ways that look alike:
//! nothing was written, or everything was and the answer was lost. Must never call a batch
//! failed once a try of it may be durable: its guesses may be charged, its answers not given.

use std::time::Duration;

use super::Failure;
use crate::ledger::LedgerError;
use crate::store::{Batch, CommitError, Store};

const ATTEMPTS: u32 = 5;
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Of so many tries at a server that is away, one is told of.
const TOLD: u32 = 30;

/// Writes the batch. The identical batch is written again after a failure: its head names its
/// content, so whichever try arrived, it is found to be ours.
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
            Err(error) => unsure = Some(error),
        }
        let Some(reason) = &unsure else { continue };
        match store.head().await.map(|row| row.examine()) {
            Ok(Some(row)) if row == batch.head => return Ok(()),
            Ok(Some(row)) if row.seq == batch.parent => {}
            // Another head: somebody else writes, or wrote over ours.
            Ok(_) => return Err(Failure::fatal(reason)),
            Err(_) => {}
        }
    }
    match (unsure, refused) {
        (None, Some(error)) => Err(Failure::from(LedgerError::from(error))),
        (Some(reason), _) => Err(Failure::fatal(&reason)),
        (None, None) => Err(Failure::internal("try a commit")),
    }
}
