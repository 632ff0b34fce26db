//! The growing edge of the log, in memory: enough to append and to know the root.
//!
//! Held by whoever believes a head. A batch appends to a copy, which takes the place of the
//! original once the batch is durable, so a tile that an administrator replaced is never built
//! upon. Also says which tile rows a batch makes: a full tile of leaves when it is full, a tile
//! above whenever it gains a hash. Pure: no I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use tlog_tiles::{Hash, node_hash, record_hash};

use crate::ledger::tree::Digest;

/// Hashes of a full tile (C2SP tlog-tiles).
pub(crate) const TILE: usize = 256;
const LEVELS_PER_TILE: u32 = 8;
/// Full tiles that stay at hand, 8 KiB each: an event's receipt is asked for within some batches, however large they are.
const RECENT: usize = 16;

/// A row of the tile cache: the tile's level, its place there, its hashes one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileRow {
    pub level: u8,
    pub index: u64,
    pub data: Vec<u8>,
}

#[derive(Clone, Default)]
pub(crate) struct LogEnd {
    size: u64,
    /// The roots of the perfect subtrees that the log consists of, the largest first.
    peaks: Vec<Hash>,
    /// The hashes of the last tile at each level, as long as it is not full.
    open: Vec<Vec<Hash>>,
    /// Tiles that became full, and were not taken yet.
    full: Vec<TileRow>,
    /// The last ones that did.
    recent: VecDeque<Arc<TileRow>>,
    /// Levels above the leaves whose last tile has gained a hash.
    grown: Vec<u8>,
}

impl std::fmt::Debug for LogEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogEnd({} entries)", self.size)
    }
}

impl LogEnd {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => tlog_tiles::EMPTY_HASH.0,
            Some(last) => peaks.fold(*last, |root, peak| node_hash(*peak, root)).0,
        }
    }

    pub(crate) fn append(&mut self, leaf: &[u8]) {
        self.append_hash(record_hash(leaf));
    }

    /// Appends an entry by its leaf hash.
    pub(crate) fn append_hash(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one of the size is a pair of equal subtrees that becomes one.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(left, hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
        self.fill_tiles(leaf);
    }

    fn fill_tiles(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.open.len() <= at {
                self.open.resize(at + 1, Vec::new());
            }
            let Some(tile) = self.open.get_mut(at) else {
                return;
            };
            tile.push(hash);
            if tile.len() < TILE {
                if level > 0 {
                    self.grown.push(level);
                }
                return;
            }
            let row = row(level, self.size, tile);
            hash = subtree(tile);
            tile.clear();
            self.recent.push_back(Arc::new(row.clone()));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
            self.full.push(row);
        }
    }

    /// The hashes of a tile that is not full yet.
    pub(crate) fn open_tile(&self, level: u8, index: u64) -> Option<Vec<u8>> {
        let hashes = self.size.checked_shr(LEVELS_PER_TILE * u32::from(level))?;
        let tile = self.open.get(usize::from(level))?;
        (hashes / TILE as u64 == index).then(|| tile.iter().flat_map(|hash| hash.0).collect())
    }

    /// The hashes of a tile that need not be read anywhere: it is not full yet, or became so lately.
    pub(crate) fn tile_at_hand(&self, level: u8, index: u64) -> Option<Vec<u8>> {
        self.open_tile(level, index).or_else(|| {
            let mut recent = self.recent.iter();
            let found = recent.find(|tile| tile.level == level && tile.index == index)?;
            Some(found.data.clone())
        })
    }

    /// The tile rows that have changed since they were taken last.
    pub(crate) fn take_rows(&mut self) -> Vec<TileRow> {
        let mut rows = std::mem::take(&mut self.full);
        let mut grown = std::mem::take(&mut self.grown);
        grown.sort_unstable();
        grown.dedup();
        for level in grown {
            match self.open.get(usize::from(level)) {
                Some(tile) if !tile.is_empty() => rows.push(row(level, self.size, tile)),
                _ => {}
            }
        }
        rows
    }

    /// The edge of a log of `size` entries, from its tiles: of each level the hashes of the last
    /// tile, unless it is full. To be believed once `root` is what an authenticated head says.
    pub(crate) fn from_open_tiles(size: u64, open: Vec<Vec<Hash>>) -> Option<Self> {
        let mut peaks = Vec::new();
        for (level, tile) in open.iter().enumerate().rev() {
            let level = u32::try_from(level).ok()?;
            let expected = size.checked_shr(LEVELS_PER_TILE * level).unwrap_or(0) % TILE as u64;
            if tile.len() as u64 != expected {
                return None;
            }
            let mut rest = tile.as_slice();
            while !rest.is_empty() {
                let width = 1 << rest.len().ilog2();
                let (subtree_of, after) = rest.split_at_checked(width)?;
                peaks.push(subtree(subtree_of));
                rest = after;
            }
        }
        (peaks.len() as u32 == size.count_ones()).then_some(Self {
            size,
            peaks,
            open,
            full: Vec::new(),
            recent: VecDeque::new(),
            grown: Vec::new(),
        })
    }
}

/// The row of the last tile of a level, in a log of `size` entries.
fn row(level: u8, size: u64, tile: &[Hash]) -> TileRow {
    let hashes = size
        .checked_shr(LEVELS_PER_TILE * u32::from(level))
        .unwrap_or(0);
    TileRow {
        level,
        index: hashes.saturating_sub(1) / TILE as u64,
        data: tile.iter().flat_map(|hash| hash.0).collect(),
    }
}

/// The root of a perfect subtree.
pub(super) fn subtree(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(*left, *right))
            .collect();
    }
    level.first().copied().unwrap_or_default()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// RFC 6962, section 2.1, read literally.
    fn root_of(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => tlog_tiles::EMPTY_HASH,
            [one] => *one,
            many => {
                let half = many.len().next_power_of_two() / 2;
                let (left, right) = many.split_at(half);
                node_hash(root_of(left), root_of(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_at_every_size() {
        let mut end = LogEnd::default();
        let mut leaves = Vec::new();
        assert_eq!(end.root(), root_of(&leaves).0);
        for n in 0u32..300 {
            end.append(&n.to_be_bytes());
            leaves.push(record_hash(&n.to_be_bytes()));
            assert_eq!(end.root(), root_of(&leaves).0, "{n}");
        }
    }

    #[test]
    fn rows_that_were_kept_lead_back_to_the_same_edge() {
        let mut end = LogEnd::default();
        let mut kept: BTreeMap<(u8, u64), Vec<u8>> = BTreeMap::new();
        let mut leaves: Vec<Hash> = Vec::new();
        for n in 0u32..66_500 {
            end.append(&n.to_be_bytes());
            leaves.push(record_hash(&n.to_be_bytes()));
            for row in end.take_rows() {
                kept.insert((row.level, row.index), row.data);
            }
            if n % 9_973 != 0 && n % 65_536 > 2 && n % 256 != 7 {
                continue;
            }
            let size = end.size();
            let mut open = Vec::new();
            for level in 0u8..4 {
                let count = size >> (8 * u32::from(level));
                if count == 0 {
                    break;
                }
                let (index, width) = (count / 256, usize::try_from(count % 256).unwrap());
                let hashes: Vec<Hash> = if level == 0 {
                    leaves[leaves.len() - width..].to_vec()
                } else if width == 0 {
                    Vec::new()
                } else {
                    kept[&(level, index)]
                        .as_chunks::<32>()
                        .0
                        .iter()
                        .map(|hash| Hash(*hash))
                        .collect()
                };
                open.push(hashes);
            }
            let again = LogEnd::from_open_tiles(size, open).unwrap();
            assert_eq!(again.root(), end.root(), "{n}");
        }
    }

    #[test]
    fn tiles_that_became_full_lately_are_at_hand_and_older_ones_are_not() {
        let mut end = LogEnd::default();
        let mut full = Vec::new();
        for n in 0u32..68_000 {
            end.append(&n.to_be_bytes());
            let rows = end.take_rows().into_iter();
            full.extend(rows.filter(|row| row.data.len() == 32 * TILE));
        }
        let (older, recent) = full.split_at(full.len() - RECENT);
        assert!(recent.iter().any(|tile| tile.level == 1));
        for tile in recent {
            let at_hand = end.tile_at_hand(tile.level, tile.index);
            assert_eq!(at_hand.as_ref(), Some(&tile.data));
            assert_eq!(end.open_tile(tile.level, tile.index), None);
        }
        for tile in older {
            assert_eq!(end.tile_at_hand(tile.level, tile.index), None);
        }
        // What is not full yet is the open one, of any level.
        for level in 0..2 {
            let index = end.size() >> (8 * (u32::from(level) + 1));
            let open = end.open_tile(level, index).unwrap();
            assert_eq!(end.tile_at_hand(level, index), Some(open));
        }
    }

    #[test]
    fn an_edge_of_the_wrong_width_is_refused() {
        let hash = record_hash(b"x");
        assert!(LogEnd::from_open_tiles(2, vec![vec![hash]]).is_none());
        assert!(LogEnd::from_open_tiles(257, vec![vec![hash]]).is_none());
        assert!(LogEnd::from_open_tiles(257, vec![vec![hash], vec![hash]]).is_some());
        assert!(LogEnd::from_open_tiles(u64::MAX, Vec::new()).is_none());
    }
}
