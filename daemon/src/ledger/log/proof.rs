//! Proofs that an entry is in the log, and that one log continues another (RFC 6962, section 2.1).
//!
//! Hashes come from the tiles in memory, which are open or became full lately, and from full tiles in the database, or from
//! the entries where an old tile of leaves is not kept. The latter are
//! a cache that anybody may have altered, so no proof leaves here before it was checked against
//! the root that is believed: an altered tile makes an error, never a wrong proof.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tlog_tiles::{
    Error, Hash, HashReader, Tile, check_record, check_tree, prove_record, prove_tree, record_hash,
    tree_hash,
};

use super::pruning::made_anew;
use super::{LogEnd, TILE};
use crate::ledger::LedgerError;
use crate::ledger::tree::Digest;
use crate::store::Store;

/// Two to the eighth hashes make a tile.
const HEIGHT: u8 = 8;
/// Tiles that are read in one statement.
const AT_ONCE: usize = 512;

/// Proves against one edge of the log, as it was when somebody believed it.
pub(crate) struct Prover<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) end: &'a LogEnd,
}

impl Prover<'_> {
    /// The audit path of an entry.
    ///
    /// # Errors
    /// `Tampered` where the log does not hold this leaf at this place, or a tile was altered.
    pub(crate) async fn inclusion(
        &self,
        index: u64,
        leaf: &[u8],
    ) -> Result<Vec<Digest>, LedgerError> {
        let mut proofs = self.inclusions(&[(index, leaf)]).await?;
        proofs
            .pop()
            .ok_or_else(|| LedgerError::internal("prove a log entry"))
    }

    /// The audit paths of several entries, in their order; tiles that they share are read once.
    ///
    /// # Errors
    /// As `inclusion`.
    pub(crate) async fn inclusions(
        &self,
        entries: &[(u64, &[u8])],
    ) -> Result<Vec<Vec<Digest>>, LedgerError> {
        let (size, root) = (self.end.size(), Hash(self.end.root()));
        let altered = |index: u64| {
            LedgerError::Tampered(format!(
                "log entry {index}: it is not the one that the log's root names"
            ))
        };
        let prove = |hashes: &Hashes| {
            let proofs = entries
                .iter()
                .map(|(at, _)| prove_record(size, *at, hashes));
            proofs.collect::<Result<Vec<_>, _>>()
        };
        let first = entries.first().map_or(0, |(index, _)| *index);
        let proofs = self.run(prove).await?.ok_or_else(|| altered(first))?;
        for (proof, (index, leaf)) in proofs.iter().zip(entries) {
            check_record(proof, size, root, *index, record_hash(leaf))
                .map_err(|_| altered(*index))?;
        }
        Ok(proofs.into_iter().map(plain).collect())
    }

    /// That this log continues its own first `size` entries. Whether somebody was shown the same
    /// ones then, only they can tell.
    ///
    /// # Errors
    /// `Tampered` where a tile was altered.
    pub(crate) async fn consistency(&self, size: u64) -> Result<Vec<Digest>, LedgerError> {
        Ok(plain(self.continued(size).await?.0))
    }

    /// The root of the first `size` entries.
    ///
    /// # Errors
    /// As `consistency`.
    pub(crate) async fn root_at(&self, size: u64) -> Result<Digest, LedgerError> {
        Ok(self.continued(size).await?.1.0)
    }

    /// A proof from the first `size` entries, and their root.
    async fn continued(&self, size: u64) -> Result<(Vec<Hash>, Hash), LedgerError> {
        let (new, new_root) = (self.end.size(), Hash(self.end.root()));
        let prove =
            |hashes: &Hashes| Ok((prove_tree(new, size, hashes)?, tree_hash(size, hashes)?));
        let proven = self.run(prove).await?;
        let proven =
            proven.filter(|(proof, old)| check_tree(proof, new, new_root, size, *old).is_ok());
        proven.ok_or_else(|| {
            LedgerError::Tampered(format!(
                "the log does not continue its first {size} entries"
            ))
        })
    }

    /// Runs a computation twice: once to learn which hashes it takes, once with them. `None` where
    /// it can not be done with what the database shows.
    async fn run<T>(
        &self,
        compute: impl Fn(&Hashes) -> Result<T, Error>,
    ) -> Result<Option<T>, LedgerError> {
        let mut hashes = Hashes::default();
        if compute(&hashes).is_err() {
            return Ok(None);
        }
        let wanted: BTreeSet<(u8, u64)> = std::mem::take(&mut *hashes.wanted.borrow_mut());
        let mut missing = Vec::new();
        for (level, index) in wanted {
            match self.end.tile_at_hand(level, index) {
                Some(data) => drop(hashes.tiles.insert((level, index), data)),
                None => missing.push((level, index)),
            }
        }
        for tiles in missing.chunks(AT_ONCE) {
            let rows = self.store.tiles(tiles).await?.examine();
            let shown: BTreeSet<(u8, u64)> =
                rows.iter().map(|row| (row.level, row.index)).collect();
            let full = rows.into_iter().filter(|row| row.data.len() == 32 * TILE);
            hashes
                .tiles
                .extend(full.map(|row| ((row.level, row.index), row.data)));
            // One that is shown and altered is not mended.
            let gone = tiles.iter().filter(|at| at.0 == 0 && !shown.contains(*at));
            for (level, index) in gone {
                let data = made_anew(self.store, *index).await?;
                hashes.tiles.insert((*level, *index), data);
            }
        }
        hashes.known = true;
        Ok(compute(&hashes).ok())
    }
}

fn plain(proof: Vec<Hash>) -> Vec<Digest> {
    proof.into_iter().map(|hash| hash.0).collect()
}

/// The hashes of a computation, first asked for, then known.
#[derive(Default)]
struct Hashes {
    known: bool,
    wanted: RefCell<BTreeSet<(u8, u64)>>,
    tiles: HashMap<(u8, u64), Vec<u8>>,
}

impl HashReader for Hashes {
    /// As many hashes as indexes, always: the crate takes anything else for a fault of its own.
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        indexes
            .iter()
            .map(|index| {
                let tile = Tile::from_index(HEIGHT, *index);
                let at = (tile.level(), tile.level_index());
                if !self.known {
                    self.wanted.borrow_mut().insert(at);
                    return Ok(Hash::default());
                }
                let data = self.tiles.get(&at).ok_or(Error::IndexesNotInTree)?;
                tile.hash_at_index(data, *index)
            })
            .collect()
    }
}
