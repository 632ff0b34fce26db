//! One pass over the log as the database shows it: entries, bodies and tiles.
//!
//! Reads in parts, never the whole log. Called by `verify` against the head that the token
//! authenticated, and by the scrub against the one in memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use tlog_tiles::Hash;
use tokio::task::JoinError;

use super::bodies::{Bodies, Body};
use super::chain::{Chain, Link};
use super::findings::Findings;
use super::{AHEAD, Pace, Task};
use crate::ledger::log::{LogEnd, TILE, TileRow, may_be_gone};
use crate::ledger::{Head, LedgerError};
use crate::store::{Store, StoredEntry};

/// Entries that are read and hashed at once.
const PART: usize = 1024;

/// What stands at a place of the log.
enum Shown {
    Missing,
    /// Larger than any, or no byte string.
    Unreadable,
    Entry(Link, Body),
}

/// What the pass has gone over.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) chain: Chain,
    pub(super) bodies: Bodies,
    pub(super) findings: Findings,
}

/// The hashes that cached tiles hold for the entries of a part.
#[derive(Default)]
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
            let tiles = self.tiles(from, to, edge).await;
            let tiles = walked.findings.of("log_tiles", tiles)?.unwrap_or_default();
            self.take(from..to, &tiles, &mut walked).await?;
            let full = walked.chain.full_tiles();
            self.compare(head.size, &full, &mut walked.findings).await?;
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

    /// The entries of a range, one after another. What each says by itself is found out on all cores beforehand.
    async fn take(
        &self,
        range: Range<u64>,
        tiles: &Tiles,
        walked: &mut Walked,
    ) -> Result<(), LedgerError> {
        let (mut index, end) = (range.start, range.end);
        let mut parts = self.parts(range);
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| LedgerError::internal("read the log"))?;
            let Some(part) = walked.findings.of("log_entries", part)? else {
                let to = end.min(index.saturating_add(PART as u64));
                let what = format!("log entries {index} to {}: they can not be read", to - 1);
                walked.findings.note("log_entries", what);
                for at in index..to {
                    walked.chain.skip(tiles.hash(at));
                }
                self.progress.advance(to - index);
                index = to;
                continue;
            };
            self.progress.advance(part.len() as u64);
            for shown in part {
                let tile = tiles.hash(index);
                match shown {
                    Shown::Entry(link, body) => {
                        walked.chain.take(link, tile, &mut walked.findings);
                        walked.bodies.take(index, body, &mut walked.findings);
                    }
                    Shown::Unreadable => {
                        let what = "it is larger than any, or no byte string";
                        walked.findings.entry(index, what);
                        walked.chain.skip(tile);
                    }
                    Shown::Missing => {
                        walked.findings.entry(index, "is missing");
                        walked.chain.skip(tile);
                    }
                }
                index += 1;
            }
        }
        Ok(())
    }

    /// The parts of a range in their order, some of them under way at the same time.
    fn parts(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Result<Vec<Shown>, LedgerError>, JoinError>> + Unpin + use<>
    {
        let (store, end) = (Arc::clone(&self.store), range.end);
        let parts = range.step_by(PART).map(move |from| {
            let to = end.min(from.saturating_add(PART as u64));
            tokio::spawn(part(Arc::clone(&store), from..to))
        });
        stream::iter(parts).buffered(1 + AHEAD)
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
            let shown = self.store.tiles(&wanted).await.map_err(LedgerError::from);
            let Some(shown) = findings.of("log_tiles", shown)? else {
                continue;
            };
            let shown: HashMap<(u8, u64), Vec<u8>> = shown
                .examine()
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

/// What stands at each place of a part.
async fn part(store: Arc<dyn Store>, range: Range<u64>) -> Result<Vec<Shown>, LedgerError> {
    let mut shown = Vec::with_capacity(PART);
    let mut next = range.start;
    while next < range.end {
        let rows = store.entries(next, range.end).await?.examine();
        // A server may show any number.
        let upto = rows
            .last()
            .map_or(range.end, |row| row.index.saturating_add(1))
            .clamp(next + 1, range.end);
        let mut rows = rows.into_iter().peekable();
        shown.extend(
            (next..upto).map(|index| match rows.next_if(|row| row.index == index) {
                Some(StoredEntry {
                    leaf: Some(leaf),
                    body,
                    ..
                }) => Shown::Entry(Link::read(&leaf), Body::judge(leaf, body)),
                Some(_) => Shown::Unreadable,
                None => Shown::Missing,
            }),
        );
        if rows.next().is_some() {
            return Err(LedgerError::Tampered(
                "log entries come out of order: the database file is damaged".into(),
            ));
        }
        next = upto;
    }
    Ok(shown)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use custodyd_hsm::RealmName;
    use custodyd_policies::Timestamp;

    use super::*;
    use crate::ledger::journal::event_leaf;
    use crate::ledger::memory::Believed;
    use crate::ledger::verify::Progress;
    use crate::store::{Batch, BodyRow, Exclusive, HeadRow, Sqlite};

    /// Parts come when they are ready; what is said of their entries comes in the order of the log, each at its place.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn entries_of_many_parts_are_judged_in_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Exclusive::take(&dir.path().join("a.sqlite")).unwrap();
        let store = Sqlite::create(lock).await.unwrap();
        let size = 5 * PART as u64 + 7;
        let (missing, altered, huge) = (PART as u64, 2 * PART as u64 + 1, size - 1);
        let body = |at: u64| BodyRow {
            salt: vec![7; 32],
            body: at.to_be_bytes().to_vec(),
        };
        let leaf = |at: u64| match at {
            at if at == huge => vec![1; 20_000],
            at if at == altered => event_leaf(&[8; 32], &body(at).body),
            at => event_leaf(&[7; 32], &body(at).body),
        };
        let head = HeadRow {
            seq: 1,
            body: vec![1],
            mac: Vec::new(),
        };
        let places = (0..size).filter(|at| *at != missing);
        let batch = Batch {
            head,
            entries: places.map(|at| (at, leaf(at))).collect(),
            bodies: (0..size).map(|at| (at, body(at))).collect(),
            ..Batch::after(0)
        };
        store.commit(&batch).await.unwrap();
        let realm = RealmName::parse("test.example").unwrap();
        let task = Task {
            store: Arc::new(store),
            realm: realm.clone(),
            progress: Arc::new(Progress::default()),
            beside: None,
        };
        let mut head = Believed::nothing(&realm, Timestamp(0)).head;
        head.size = size;
        let walked = task.entries(&head, None, Pace::FAST).await.unwrap();
        assert_eq!(walked.chain.size(), size);
        assert_eq!(walked.bodies.checked, size - 2);
        let said: Vec<_> = walked.findings.listed().iter().collect();
        let said: Vec<_> = said.iter().map(|found| found.evidence.as_str()).collect();
        let expected = [
            format!("log entry {missing}: is missing"),
            format!("log entry {altered}: its body does not match its commitment"),
            format!("log entry {huge}: it is larger than any, or no byte string"),
        ];
        assert_eq!(said.get(..3).unwrap(), expected, "{said:?}");
        assert_eq!(task.progress.seen().0, size);
        task.store.close().await;
    }
}
