//! The ledger's way to the simulated database.
//!
//! Each statement takes its time before it is done and again before its answer is there, and in between others come. A
//! file's commit is the daemon's own work and dies with it; a server has been sent it, and goes on.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use custodyd_hsm::RecordId;
use tokio::sync::oneshot;

use super::disk::{head_row, malformed};
use super::world::{Fault, World};
use crate::ledger::Unverified;
use crate::ledger::faults::tables::{
    BODIES, DIGESTS, ENTRIES, MEMBERS, RECORDS, Row, TILES, Tables,
};
use crate::ledger::weakness::Weakness;
use crate::store::admin::Cell;
use crate::store::{
    Batch, BodyRow, CommitError, EventRow, HeadRow, RecordRow, SealedRow, Store, StoreError,
    StoredEntry, StoredRecord, TileRow,
};

type Read<T> = Result<Unverified<T>, StoreError>;

/// One life's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) world: Arc<World>,
    pub(super) life: u64,
    pub(super) weakness: Weakness,
}

fn failed(operation: &'static str) -> StoreError {
    StoreError::Refused {
        operation,
        problem: "the simulated database did not answer".to_owned(),
    }
}

fn number(value: u64) -> Cell {
    Cell::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn bytes_of(cell: Option<&Cell>) -> Result<Vec<u8>, StoreError> {
    match cell {
        Some(Cell::Bytes(bytes)) => Ok(bytes.to_vec()),
        _ => Err(malformed("not a byte string")),
    }
}

fn number_of(cell: Option<&Cell>) -> Result<u64, StoreError> {
    match cell {
        Some(Cell::Number(number)) => {
            u64::try_from(*number).map_err(|_| malformed("not a non-negative number"))
        }
        _ => Err(malformed("not a number")),
    }
}

fn body_of(row: &Row) -> Result<BodyRow, StoreError> {
    Ok(BodyRow {
        salt: bytes_of(row.get(1))?,
        body: bytes_of(row.get(2))?,
    })
}

/// Rows whose first column is in this range.
fn between<'a>(
    tables: &'a Tables,
    table: usize,
    from: &'a Cell,
    to: &'a Cell,
) -> impl Iterator<Item = &'a Row> {
    let rows = tables.rows(table);
    rows.filter(move |row| row.first().is_some_and(|key| key >= from && key < to))
}

fn record(tables: &Tables, id: &RecordId, bucket: u32) -> Result<RecordRow, StoreError> {
    let list = tables.row(MEMBERS, &[number(bucket.into())]);
    let row = tables.row(RECORDS, &[Cell::Bytes(id.as_bytes().as_slice().into())]);
    let sealed = |row: &Row| {
        Ok(SealedRow {
            generation: number_of(row.get(1))?,
            sealed: bytes_of(row.get(2))?,
        })
    };
    Ok(RecordRow {
        members: list.map(|row| bytes_of(row.get(1))).transpose()?,
        sealed: row.map(sealed).transpose()?,
    })
}

fn event(tables: &Tables, index: u64) -> Result<Option<EventRow>, StoreError> {
    let key = [number(index)];
    let Some(row) = tables.row(ENTRIES, &key) else {
        return Ok(None);
    };
    Ok(Some(EventRow {
        leaf: bytes_of(row.get(1))?,
        body: tables.row(BODIES, &key).map(body_of).transpose()?,
    }))
}

fn strays(tables: &Tables, size: u64) -> Vec<(&'static str, u64)> {
    let beyond = |table| {
        let rows = tables.rows(table);
        rows.filter(|row| row[0] >= number(size)).count() as u64
    };
    let found = [
        ("log_entries", beyond(ENTRIES)),
        ("log_bodies", beyond(BODIES)),
    ];
    found.into_iter().filter(|(_, count)| *count > 0).collect()
}

impl Connection {
    async fn read<T: Send>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&Tables) -> Result<T, StoreError> + Send,
    ) -> Read<T> {
        self.world.passes().await;
        let found = if self.world.is_away() || self.world.strikes(Fault::Read) {
            Err(failed(operation))
        } else {
            look(&self.world.state().disk.shown)
        };
        let well = found.is_ok();
        self.world
            .note(format_args!("{} {operation}: {well}", self.life));
        self.world.passes().await;
        found.map(Unverified::new)
    }
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Lost,
    AnswerLost,
    Full,
    Declined,
    Late,
    Dropped,
}

fn fate(world: &World) -> Fate {
    if world.is_away() {
        // A server that is not there has not seen anything; a connection that breaks says less.
        return match world.setup.server && world.chance(50) {
            true => Fate::Lost,
            false => Fate::Full,
        };
    }
    let fates = [
        (Fault::Lost, Fate::Lost),
        (Fault::AnswerLost, Fate::AnswerLost),
        (Fault::Full, Fate::Full),
        (Fault::Declined, Fate::Declined),
        (Fault::Late, Fate::Late),
        (Fault::Dropped, Fate::Dropped),
    ];
    let mut fates = fates.into_iter();
    let struck = fates.find(|(fault, _)| world.strikes(*fault));
    struck.map_or(Fate::Done, |(_, fate)| fate)
}

/// The database's part of a commit; says how it went as soon as the daemon is to know.
async fn execute(
    world: &World,
    life: u64,
    batch: &Batch,
    say: impl FnOnce(Result<(), CommitError>),
) {
    let seq = batch.head.seq;
    let unknown = || Err(CommitError::Unknown(failed("commit")));
    world.passes().await;
    let fate = fate(world);
    world.note(format_args!("{life} commit {seq}: {fate:?}"));
    if !matches!(fate, Fate::Full) && !world.state().disk.sees(life, batch) {
        world.violated(format!("life {life} has shown two heads of batch {seq}"));
    }
    let take = |shown| {
        let taken = world.state().disk.take(batch, shown);
        let well = taken.is_ok();
        world.note(format_args!("{life} batch {seq} is written: {well}"));
        if let Err(CommitError::NotWritten(error)) = &taken {
            world.violated(format!("batch {seq}: {error}"));
        }
        taken
    };
    match fate {
        Fate::Done => {
            let taken = take(true);
            world.passes().await;
            say(taken);
        }
        Fate::Dropped => say(take(false)),
        Fate::Lost => say(unknown()),
        Fate::AnswerLost => say(take(true).and_then(|()| unknown())),
        Fate::Full => say(Err(CommitError::NotWritten(failed("write")))),
        Fate::Declined => say(Err(CommitError::Declined(failed("write")))),
        Fate::Late => {
            say(unknown());
            let millis = 1 + world.below(15_000) as u64;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            // Another of the same batch may have been first.
            let _ = take(true);
        }
    }
}

#[async_trait]
impl Store for Connection {
    async fn record(&self, id: &RecordId, bucket: u32) -> Read<RecordRow> {
        self.read("record", |tables| record(tables, id, bucket))
            .await
    }

    async fn members(&self, buckets: &[u32]) -> Read<Vec<(u32, Vec<u8>)>> {
        let found = self.read("members", |tables| {
            let rows = buckets.iter().filter_map(|bucket| {
                let row = tables.row(MEMBERS, &[number((*bucket).into())])?;
                Some(bytes_of(row.get(1)).map(|list| (*bucket, list)))
            });
            rows.collect()
        });
        let found = found.await;
        if self.world.strikes(Fault::Between) {
            let mut state = self.world.state();
            let state = &mut *state;
            let at = state.disk.puts_back(&mut state.dice);
            state.note(format_args!("a record of state {at} is put back"));
        }
        found
    }

    async fn head(&self) -> Read<Option<HeadRow>> {
        self.read("head", |tables| head_row(tables).transpose())
            .await
    }

    async fn event(&self, index: u64) -> Read<Option<EventRow>> {
        self.read("event", |tables| event(tables, index)).await
    }

    async fn leaves(&self, from: u64, count: u64) -> Read<Vec<(u64, Vec<u8>)>> {
        let (from, to) = (number(from), number(from.saturating_add(count)));
        let found = self.read("leaves", |tables| {
            let rows = between(tables, ENTRIES, &from, &to);
            rows.map(|row| Ok((number_of(row.first())?, bytes_of(row.get(1))?)))
                .collect()
        });
        found.await
    }

    async fn tiles(&self, tiles: &[(u8, u64)]) -> Read<Vec<TileRow>> {
        let found = self.read("tiles", |tables| {
            let rows = tiles.iter().filter_map(|(level, index)| {
                let row = tables.row(TILES, &[number((*level).into()), number(*index)])?;
                let data = bytes_of(row.get(2));
                Some(data.map(|data| TileRow {
                    level: *level,
                    index: *index,
                    data,
                }))
            });
            rows.collect()
        });
        found.await
    }

    async fn digests(&self) -> Read<Vec<(u32, Vec<u8>)>> {
        let found = self.read("digests", |tables| {
            let digest = |row: &Row| {
                let bucket = number_of(row.first())?;
                Ok((u32::try_from(bucket).unwrap_or(0), bytes_of(row.get(1))?))
            };
            tables.rows(DIGESTS).map(digest).collect()
        });
        found.await
    }

    async fn entries(&self, from: u64, to: u64) -> Read<Vec<StoredEntry>> {
        let (from, to) = (number(from), number(to));
        let found = self.read("entries", |tables| {
            let entry = |row: &Row| {
                let body = tables.row(BODIES, &row[..1]);
                Ok(StoredEntry {
                    index: number_of(row.first())?,
                    leaf: bytes_of(row.get(1)).ok(),
                    body: body.map(|row| body_of(row).ok()),
                })
            };
            between(tables, ENTRIES, &from, &to).map(entry).collect()
        });
        found.await
    }

    async fn lists(&self, from: u32, to: u32) -> Read<Vec<(u32, Option<Vec<u8>>)>> {
        let (from, to) = (number(from.into()), number(to.into()));
        let found = self.read("lists", |tables| {
            let list = |row: &Row| {
                let bucket = number_of(row.first())?;
                Ok((
                    u32::try_from(bucket).unwrap_or(0),
                    bytes_of(row.get(1)).ok(),
                ))
            };
            between(tables, MEMBERS, &from, &to).map(list).collect()
        });
        found.await
    }

    async fn records(&self, from: &[u8], to: &[u8]) -> Read<Vec<StoredRecord>> {
        let (from, to) = (Cell::Bytes(from.into()), Cell::Bytes(to.into()));
        let found = self.read("records", |tables| {
            let rows = between(tables, RECORDS, &from, &to).filter_map(|row| {
                let id = bytes_of(row.first()).ok()?;
                Some(StoredRecord {
                    id: RecordId(id.try_into().ok()?),
                    generation: number_of(row.get(1)).ok(),
                    sealed: bytes_of(row.get(2)).ok(),
                })
            });
            Ok(rows.collect())
        });
        found.await
    }

    async fn strays(&self, size: u64) -> Read<Vec<(&'static str, u64)>> {
        self.read("strays", |tables| Ok(strays(tables, size))).await
    }

    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        if !self.world.setup.server {
            let mut said = None;
            execute(&self.world, self.life, batch, |how| said = Some(how)).await;
            return said.unwrap_or(Err(CommitError::Unknown(failed("commit"))));
        }
        let (say, said) = oneshot::channel();
        let (world, life, batch) = (Arc::clone(&self.world), self.life, batch.clone());
        self.world.state().in_flight += 1;
        tokio::spawn(async move {
            execute(&world, life, &batch, |how| drop(say.send(how))).await;
            world.state().in_flight -= 1;
        });
        let said = said.await;
        self.world.passes().await;
        said.unwrap_or(Err(CommitError::Unknown(failed("commit"))))
    }

    fn comes_back(&self) -> bool {
        self.world.setup.server
    }

    async fn acknowledge(&self, _head: &HeadRow) -> Result<(), CommitError> {
        self.world.passes().await;
        match self.world.is_away() || self.world.strikes(Fault::Acknowledgement) {
            true => Err(CommitError::Unknown(failed("acknowledge"))),
            false => Ok(()),
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match self.world.is_away() {
            true => Err(failed("ping")),
            false => Ok(()),
        }
    }

    async fn close(&self) {}

    fn weakness(&self) -> Weakness {
        self.weakness
    }
}
