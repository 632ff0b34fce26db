//! One pass over the log as the database shows it: entries, bodies and tiles.
//!
//! Reads in parts, never the whole log. Called by `verify` against the head that the token
//! authenticated, and by the scrub against the one in memory.

use std::collections::{BTreeMap, HashMap};

use tlog_tiles::Hash;

use super::bodies::Bodies;
use super::chain::Chain;
use super::findings::Findings;
use super::{Pace, Task};
use crate::ledger::log::{LogEnd, TILE, TileRow};
use crate::ledger::{Head, LedgerError};
use crate::store::StoreError;

/// What the pass has gone over.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) chain: Chain,
    pub(super) bodies: Bodies,
    pub(super) findings: Findings,
}

/// The entries of a part, as far as they are there, and the hashes that cached tiles hold for them.
struct Part {
    leaves: BTreeMap<u64, Option<Vec<u8>>>,
    tiles: HashMap<u64, Vec<u8>>,
}

impl Part {
    fn tile(&self, index: u64) -> Option<Hash> {
        let data = self.tiles.get(&(index / TILE as u64))?;
        let at = usize::try_from(index % TILE as u64).ok()?;
        data.as_chunks::<32>().0.get(at).map(|hash| Hash(*hash))
    }
}

impl Task {
    /// Goes over the entries of a log of this head; `edge` is what is believed of its end, if
    /// something is.
    pub(super) async fn entries(
        &self,
        head: &Head,
        edge: Option<&LogEnd>,
        pace: Pace,
    ) -> Result<Walked, LedgerError> {
        let mut walked = Walked {
            chain: Chain::new(&self.realm),
            bodies: Bodies::new(head.size),
            findings: self.findings(),
        };
        while walked.chain.size() < head.size {
            let from = walked.chain.size();
            let to = head.size.min(from + pace.entries);
            let part = self.part(from, to, edge).await?;
            self.take(from..to, part, &mut walked).await?;
            let full = walked.chain.full_tiles();
            self.compare(&full, &mut walked.findings).await?;
            self.progress.advance(to - from);
            pace.pause().await;
        }
        let rest = walked.chain.finish(head, &mut walked.findings);
        self.compare(&rest, &mut walked.findings).await?;
        walked.bodies.returned(&mut walked.findings);
        Ok(walked)
    }

    async fn part(&self, from: u64, to: u64, edge: Option<&LogEnd>) -> Result<Part, LedgerError> {
        let first = from / TILE as u64;
        let wanted: Vec<(u8, u64)> = (first..to.div_ceil(TILE as u64))
            .map(|index| (0, index))
            .collect();
        let rows = self.store.tiles(&wanted).await?.examine();
        let full = rows.into_iter().filter(|row| row.data.len() == TILE * 32);
        let mut tiles: HashMap<u64, Vec<u8>> = full.map(|row| (row.index, row.data)).collect();
        if let Some(edge) = edge {
            // What is believed tells better than a cache.
            let last = edge.size() / TILE as u64;
            tiles.extend(edge.open_tile(0, last).map(|data| (last, data)));
        }
        let leaves = match self.store.leaves(from, to - from).await {
            Ok(rows) => {
                let rows = rows.examine().into_iter();
                rows.map(|(index, leaf)| (index, Some(leaf))).collect()
            }
            // One of them is out of bounds: each by itself.
            Err(StoreError::Oversized { .. } | StoreError::Malformed { .. }) => {
                let mut leaves = BTreeMap::new();
                for index in from..to {
                    match self.store.leaves(index, 1).await {
                        Ok(rows) => leaves.extend(
                            rows.examine()
                                .into_iter()
                                .map(|(index, leaf)| (index, Some(leaf))),
                        ),
                        Err(StoreError::Oversized { .. } | StoreError::Malformed { .. }) => {
                            leaves.insert(index, None);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                leaves
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Part { leaves, tiles })
    }

    /// The entries of a part with their bodies, which may take several statements.
    async fn take(
        &self,
        range: std::ops::Range<u64>,
        mut part: Part,
        walked: &mut Walked,
    ) -> Result<(), LedgerError> {
        let mut next = range.start;
        while next < range.end {
            let rows = self.store.bodies(next, range.end).await?.examine();
            let upto = rows.last().map_or(range.end, |(index, _)| index + 1);
            let mut rows: HashMap<u64, _> = rows.into_iter().collect();
            for index in next..upto.max(next + 1) {
                let (tile, body) = (part.tile(index), rows.remove(&index));
                match part.leaves.remove(&index) {
                    Some(Some(leaf)) => {
                        walked.chain.take(&leaf, tile, &mut walked.findings);
                        walked.bodies.take(index, leaf, body, &mut walked.findings);
                    }
                    Some(None) => {
                        let what = "it is larger than any, or no byte string";
                        walked.findings.entry(index, what);
                        walked.chain.skip(tile);
                    }
                    None => {
                        walked.findings.entry(index, "is missing");
                        walked.chain.skip(tile);
                    }
                }
            }
            next = upto.max(next + 1);
        }
        Ok(())
    }

    /// Tiles as the entries make them, against the cache. While a daemon writes, one that is not
    /// full goes on.
    async fn compare(
        &self,
        expected: &[TileRow],
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        for rows in expected.chunks(256) {
            let wanted: Vec<(u8, u64)> = rows.iter().map(|row| (row.level, row.index)).collect();
            let shown = self.store.tiles(&wanted).await?.examine();
            let shown: HashMap<(u8, u64), Vec<u8>> = shown
                .into_iter()
                .map(|row| ((row.level, row.index), row.data))
                .collect();
            for row in rows {
                let data = shown.get(&(row.level, row.index));
                let right = data.is_some_and(|data| {
                    *data == row.data || (self.beside.is_some() && data.starts_with(&row.data))
                });
                if !right {
                    findings.note(
                        "log_tiles",
                        format!(
                            "tile {} of level {}: it is not what its entries make (a cache: nothing \
                             is believed of it)",
                            row.index, row.level
                        ),
                    );
                }
            }
        }
        Ok(())
    }
}
