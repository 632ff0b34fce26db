//! One pass over the log as the database shows it: entries, bodies and tiles.
//!
//! Reads in parts, never the whole log. Called by `verify` against the head that the token
//! authenticated, and by the scrub against the one in memory.

use std::collections::HashMap;
use std::sync::Arc;

use tlog_tiles::Hash;
use tokio::sync::mpsc;

use super::bodies::Bodies;
use super::chain::Chain;
use super::findings::Findings;
use super::{AHEAD, Pace, Task};
use crate::ledger::log::{LogEnd, TILE, TileRow, may_be_gone};
use crate::ledger::{Head, LedgerError};
use crate::store::{StoreError, StoredEntry};

/// Entries, and the number up to which the log has no others.
type Part = Result<(Vec<StoredEntry>, u64), StoreError>;

/// What the pass has gone over.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) chain: Chain,
    pub(super) bodies: Bodies,
    pub(super) findings: Findings,
}

/// The hashes that cached tiles hold for the entries of a part.
struct Tiles(HashMap<u64, Vec<u8>>);

impl Tiles {
    fn hash(&self, index: u64) -> Option<Hash> {
        let data = self.0.get(&(index / TILE as u64))?;
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
            let tiles = self.tiles(from, to, edge).await?;
            self.take(from..to, &tiles, &mut walked).await?;
            let full = walked.chain.full_tiles();
            self.compare(head.size, &full, &mut walked.findings).await?;
            self.progress.advance(to - from);
            pace.pause().await;
        }
        let rest = walked.chain.finish(head, &mut walked.findings);
        self.compare(head.size, &rest, &mut walked.findings).await?;
        walked.bodies.returned(&mut walked.findings);
        Ok(walked)
    }

    async fn tiles(&self, from: u64, to: u64, edge: Option<&LogEnd>) -> Result<Tiles, LedgerError> {
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
        Ok(Tiles(tiles))
    }

    /// The entries of a part with their bodies, which takes several statements. The next ones are
    /// under way while these are hashed.
    async fn take(
        &self,
        range: std::ops::Range<u64>,
        tiles: &Tiles,
        walked: &mut Walked,
    ) -> Result<(), LedgerError> {
        let (mut next, end) = (range.start, range.end);
        let mut reading = self.entries_ahead(range);
        while next < end {
            let part = reading.recv().await;
            let (rows, upto) = part.ok_or_else(|| LedgerError::internal("read the log"))??;
            let mut rows = rows.into_iter().peekable();
            for index in next..upto {
                let tile = tiles.hash(index);
                match rows.next_if(|row| row.index == index) {
                    Some(StoredEntry {
                        leaf: Some(leaf),
                        body,
                        ..
                    }) => {
                        walked.chain.take(&leaf, tile, &mut walked.findings);
                        walked.bodies.take(index, leaf, body, &mut walked.findings);
                    }
                    Some(_) => {
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
            if rows.next().is_some() {
                return Err(LedgerError::Tampered(
                    "log entries come out of order: the database file is damaged".into(),
                ));
            }
            next = upto;
        }
        Ok(())
    }

    fn entries_ahead(&self, range: std::ops::Range<u64>) -> mpsc::Receiver<Part> {
        let (parts, reading) = mpsc::channel(AHEAD);
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let mut next = range.start;
            while next < range.end {
                let part = store.entries(next, range.end).await.map(|rows| {
                    let rows = rows.examine();
                    // A server may show any number.
                    let upto = rows
                        .last()
                        .map_or(range.end, |row| row.index.saturating_add(1))
                        .clamp(next + 1, range.end);
                    (rows, upto)
                });
                // After an error nothing follows.
                next = part.as_ref().map_or(range.end, |(_, upto)| *upto);
                if parts.send(part).await.is_err() {
                    break;
                }
            }
        });
        reading
    }

    /// Tiles as the entries make them, against the cache, which need not have the old ones. While a daemon writes,
    /// one that is not full goes on.
    async fn compare(
        &self,
        size: u64,
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
            // A daemon goes on, and removes more of them with each tile that it fills.
            let grown = self.beside.as_ref().map_or(size, |reader| {
                let memory = reader.memory();
                memory.pending().unwrap_or_else(|| memory.head()).size
            });
            for row in rows {
                let right = match shown.get(&(row.level, row.index)) {
                    Some(data) => {
                        let goes_on = self.beside.is_some() && data.starts_with(&row.data);
                        *data == row.data || goes_on
                    }
                    None => may_be_gone(grown, row.level, row.index),
                };
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
