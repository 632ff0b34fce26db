//! Whether a database is the one that was anchored, or descends from it.
//!
//! Called at the start. The adversary chose the database; the anchor is the token's word.

use std::sync::Arc;

use custodyd_hsm::anchor::Anchor;

use super::{LedgerError, hash};
use crate::ledger::log::{Prover, StateLeaf};
use crate::ledger::memory::Believed;
use crate::ledger::start;
use crate::store::Store;

/// Entries that are read at a time on the way back to the anchor.
const CHUNK: u64 = 256;

/// Refuses a database whose head is not this anchor's, nor one that follows it.
///
/// # Errors
/// `Tampered` names both: an older head, another history, another log epoch.
pub(in crate::ledger) async fn check(
    anchor: &Anchor,
    store: &Arc<dyn Store>,
    found: &Believed,
) -> Result<(), LedgerError> {
    #[cfg(test)]
    if store.weakness().any_anchor {
        return Ok(());
    }
    let state = &found.head.state;
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
            "it was rolled back; put the newest database in place",
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
