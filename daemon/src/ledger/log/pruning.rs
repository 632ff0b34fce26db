//! Which tiles are kept, and how one that is not comes back.
//!
//! Called by whoever completes a batch, and by the readers of tiles. A tile of leaves is 256 hashes of
//! entries that stand in the database anyway, so that it can be had again for reading these and hashing them: the
//! newest ones are kept, because whoever follows the log asks for those, and older ones go, some in each
//! batch that fills another. Tiles above the leaves stay: they are a 256th, and would take 256 times the work.
//! What is made anew is believed no more than a row: it must be what the tile above it says.

use std::sync::Arc;

use tlog_tiles::record_hash;

use super::{TILE, TileRow};
use crate::ledger::LedgerError;
use crate::ledger::start;
use crate::store::Store;

/// Full tiles of leaves that are kept.
pub(crate) const KEPT: u64 = 8;

/// Whether, in a log of so many entries, this tile may be missing.
pub(crate) fn may_be_gone(size: u64, level: u8, index: u64) -> bool {
    level == 0 && index < first_kept(size)
}

/// Where a batch that ends at this size fills a tile of leaves: the place before which they may go.
pub(crate) fn due(size: u64, filled: &[TileRow]) -> Option<u64> {
    let first = first_kept(size);
    let fills = filled.iter().any(|row| row.level == 0);
    (fills && first > 0).then_some(first)
}

fn first_kept(size: u64) -> u64 {
    (size / TILE as u64).saturating_sub(KEPT)
}

/// A full tile of leaves, from the entries.
///
/// # Errors
/// `Tampered` where an entry is missing. Whether they are the right ones, the tile above says.
pub(super) async fn made_anew(store: &Arc<dyn Store>, index: u64) -> Result<Vec<u8>, LedgerError> {
    let width = TILE as u64;
    let leaves = start::leaves(store, index.saturating_mul(width), width).await?;
    Ok(leaves.iter().flat_map(|leaf| record_hash(leaf).0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(level: u8, index: u64) -> TileRow {
        TileRow {
            level,
            index,
            data: vec![0; 32 * TILE],
        }
    }

    #[test]
    fn the_newest_full_tiles_of_leaves_are_kept() {
        let size = 20 * 256 + 7;
        assert!(may_be_gone(size, 0, 11) && !may_be_gone(size, 0, 12));
        assert!(!may_be_gone(size, 1, 0), "they are few, and dear");
        assert!(!may_be_gone(KEPT * 256 + 255, 0, 0));
        assert_eq!(due(size, &[full(0, 19)]), Some(12));
        assert_eq!(due(size, &[full(1, 0)]), None, "only where one came");
        assert_eq!(due(KEPT * 256, &[full(0, KEPT - 1)]), None);
        assert_eq!(due((KEPT + 1) * 256, &[full(0, KEPT)]), Some(1));
    }
}
