//! Tiles and entries as C2SP tlog-tiles has them, each verified before it leaves.
//!
//! Called by `auditing`. Old tiles of leaves are made anew from the entries (`pruning`). Rows of the database may be
//! altered, so a full tile is believed because
//! its root is a hash of the tile above it, and so on up to a tile that is not full: those are in
//! the memory of whoever believes the log's root. Entries are believed because their hashes are
//! the tile's.

use std::collections::HashMap;
use std::sync::Arc;

use tlog_tiles::{Hash, record_hash};

use super::end::subtree;
use super::pruning::made_anew;
use super::{LogEnd, TILE};
use crate::ledger::LedgerError;
use crate::ledger::start;
use crate::store::Store;

/// Levels of a log with 2^64 entries.
const LEVELS: u8 = 8;

/// Reads tiles of a log, as it was when its root was believed.
pub(crate) struct TileReader<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) end: &'a LogEnd,
}

impl TileReader<'_> {
    /// The first `width` hashes of a tile, one after another. `None` where the log does not have
    /// so many there.
    ///
    /// # Errors
    /// `Tampered` where the database shows another tile than the log's root names.
    pub(crate) async fn tile(
        &self,
        level: u8,
        index: u64,
        width: usize,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        if level >= LEVELS || width == 0 || width > TILE {
            return Ok(None);
        }
        let hashes = self.end.size() >> (8 * u32::from(level));
        let wanted = index
            .checked_mul(TILE as u64)
            .and_then(|start| start.checked_add(width as u64));
        if wanted.is_none_or(|wanted| wanted > hashes) {
            return Ok(None);
        }
        let mut data = self.verified(level, index).await?;
        data.truncate(32 * width);
        Ok(Some(data))
    }

    /// The entries of a bundle, each behind its length. `None` as `tile`.
    ///
    /// # Errors
    /// As `tile`; also where an entry is missing or another.
    pub(crate) async fn entries(
        &self,
        index: u64,
        width: usize,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        let Some(hashes) = self.tile(0, index, width).await? else {
            return Ok(None);
        };
        let from = index.saturating_mul(TILE as u64);
        let leaves = start::leaves(self.store, from, width as u64).await?;
        let mut bundle = Vec::new();
        for ((at, leaf), hash) in (from..).zip(leaves).zip(hashes.as_chunks::<32>().0) {
            if record_hash(&leaf).0 != *hash {
                return Err(LedgerError::Tampered(format!(
                    "log entry {at}: it is not the one that the log's root names"
                )));
            }
            let length = u16::try_from(leaf.len())
                .map_err(|_| LedgerError::internal("tell the length of a log entry"))?;
            bundle.extend_from_slice(&length.to_be_bytes());
            bundle.extend_from_slice(&leaf);
        }
        Ok(Some(bundle))
    }

    /// A tile that the log has, all of its hashes.
    async fn verified(&self, level: u8, index: u64) -> Result<Vec<u8>, LedgerError> {
        if let Some(open) = self.end.open_tile(level, index) {
            return Ok(open);
        }
        // From the tile up to the first one that is not full.
        let mut way = Vec::new();
        let (mut above, mut at) = (level, index);
        while self.end.open_tile(above, at).is_none() && above < LEVELS {
            way.push((above, at));
            above += 1;
            at /= TILE as u64;
        }
        let rows = self.store.tiles(&way).await?.examine();
        let mut rows: HashMap<(u8, u64), Vec<u8>> = rows
            .into_iter()
            .map(|row| ((row.level, row.index), row.data))
            .collect();
        let mut parent = self.end.open_tile(above, at).unwrap_or_default();
        for (level, index) in way.into_iter().rev() {
            let data = match rows.remove(&(level, index)) {
                None if level == 0 => made_anew(self.store, index).await?,
                shown => shown.unwrap_or_default(),
            };
            if !is_below(&parent, index, &data) {
                return Err(LedgerError::Tampered(format!(
                    "tile {index} of level {level} of the log: it is missing or was altered"
                )));
            }
            parent = data;
        }
        Ok(parent)
    }
}

/// Whether a full tile's root is its hash in the tile above.
fn is_below(parent: &[u8], index: u64, data: &[u8]) -> bool {
    let hashes: Vec<Hash> = data
        .as_chunks::<32>()
        .0
        .iter()
        .map(|hash| Hash(*hash))
        .collect();
    let place = usize::try_from(index % TILE as u64).unwrap_or(TILE);
    let named = parent.as_chunks::<32>().0.get(place);
    data.len() == 32 * TILE && named == Some(&subtree(&hashes).0)
}
