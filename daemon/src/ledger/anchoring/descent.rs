//! Whether a database is the one that was anchored, or descends from it.
//!
//! Called at the start. The adversary chose the database; the anchor is the token's word.

use std::sync::Arc;

use custodyd_hsm::anchor::Anchor;

use super::{LedgerError, hash};
use crate::ledger::head::Head;
use crate::ledger::log::{LogEnd, Prover, StateLeaf};
use crate::ledger::start;
use crate::store::Store;

/// Entries that are read at a time on the way back to the anchor.
const CHUNK: u64 = 256;

/// Refuses a head that is not this anchor's, nor one that follows it; `who` remembers the anchor.
///
/// # Errors
/// `Tampered` names both: an older head, another history, another log epoch.
pub(in crate::ledger) async fn check(
    who: &str,
    anchor: &Anchor,
    store: &Arc<dyn Store>,
    (head, end): (&Head, &LogEnd),
) -> Result<(), LedgerError> {
    #[cfg(test)]
    if store.weakness().any_anchor {
        return Ok(());
    }
    let state = &head.state;
    let refused = |what: &str| {
        LedgerError::Tampered(format!(
            "{who} has anchored batch {} of log epoch {}, the database shows batch {} of \
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
        hash(head)?
    } else if anchor.clean {
        return Err(refused(
            "nothing was written after the clean stop that it remembers",
        ));
    } else {
        successor(store, (head.size, end), anchor.seq).await?
    };
    if expected == anchor.head {
        Ok(())
    } else {
        Err(refused("they are of two histories"))
    }
}

/// What the batch after `seq` names as the head before it.
pub(in crate::ledger) async fn successor(
    store: &Arc<dyn Store>,
    of: (u64, &LogEnd),
    seq: u64,
) -> Result<[u8; 32], LedgerError> {
    let next = batch(store, of, seq.saturating_add(1)).await?;
    Ok(next.state.previous)
}

/// The entry that ends this batch, as a log of this size and root has it.
pub(in crate::ledger) async fn batch(
    store: &Arc<dyn Store>,
    (size, end): (u64, &LogEnd),
    seq: u64,
) -> Result<StateLeaf, LedgerError> {
    let prover = Prover { store, end };
    let mut upper = size;
    while upper > 0 {
        let lower = upper.saturating_sub(CHUNK);
        let leaves = start::leaves(store, lower, upper - lower).await?;
        for (index, leaf) in (lower..upper).rev().zip(leaves.into_iter().rev()) {
            if let Some(parsed) = StateLeaf::parse(&leaf)
                && parsed.state.seq == seq
            {
                prover.inclusion(index, &leaf).await?;
                return Ok(parsed);
            }
        }
        upper = lower;
    }
    Err(LedgerError::Tampered(format!(
        "the log names no batch {seq}"
    )))
}
