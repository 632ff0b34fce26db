//! The store on a server: one PostgreSQL database.
//!
//! Called by the ledger only. The server is the adversary's, and may answer what it likes: lengths are
//! bounded in SQL, so that an honest server with hostile rows fills no memory, and nothing read here
//! is believed. Each read is one statement, and so of one snapshot. Every call ends, answered or not,
//! within a time of ours (`answers`).

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
pub(crate) mod admin;
mod answers;
mod beside;
mod clocks;
mod connect;
mod extending;
mod notices;
mod readers;
mod scan;
mod schema;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a test fails by panicking; the end-to-end tests use more of it"
)]
#[path = "../../../tests/src/postgres.rs"]
pub(crate) mod server;
#[cfg(test)]
mod tests;
mod turn;
mod write;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use custodyd_hsm::RecordId;
use sqlx::Connection as _;
use sqlx::postgres::PgRow;
use tokio::sync::Mutex;

use self::answers::{
    bounded, is_the_servers, maybe_row, row, rows, says, scanning, unsigned, within,
};
use self::connect::Server;
use self::readers::{Lent, Readers};
use self::write::Writer;
use super::{
    Batch, BodyRow, CommitError, Declared, EventRow, HeadRow, MAX_BODY, MAX_HEAD, MAX_LEAF,
    MAX_MEMBERS, MAX_SEALED, MAX_TILE, Newer, RecordRow, SealedRow, Store, StoreError, StoredEntry,
    StoredRecord, TileRow,
};
use crate::config;
use crate::ledger::Unverified;

pub(crate) use self::connect::Held;
pub use self::connect::Share;

/// Whether the files that a connection needs can be read.
///
/// # Errors
/// Which can not, and why.
pub(crate) fn check(place: &config::Postgres) -> Result<(), StoreError> {
    Server::new(place).map(drop)
}

/// How long a read waits for a connection, and for a server that starts.
const CONNECTION: Duration = Duration::from_secs(2);
/// A connection that was used within this time is taken as it is.
const FRESH: Duration = Duration::from_secs(1);
/// How long a start waits for a predecessor whose connection the server has not missed yet.
const PREDECESSOR: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Postgres {
    readers: Readers,
    /// The committer is the only writer; the mutex says so to the compiler.
    writer: Mutex<Option<Writer>>,
    /// How many have written.
    writers: AtomicU64,
    server: Server,
    looks_only: bool,
    share: Share,
    /// What other nodes are told of this one.
    declared: std::sync::Mutex<Vec<Declared>>,
}

impl Postgres {
    /// The right to write, which `open` needs.
    ///
    /// # Errors
    /// When the server does not answer, another has it, or this host's clock is too far from the server's.
    pub async fn hold(place: &config::Postgres, share: Share) -> Result<Held, StoreError> {
        Held::begin(Server::new(place)?, share, PREDECESSOR).await
    }

    /// Refuses any schema that is not exactly ours.
    ///
    /// # Errors
    /// When the tables are missing or altered, or the server does not answer.
    pub async fn open(held: Held, place: &config::Postgres) -> Result<Self, StoreError> {
        let share = held.share;
        let writer = Writer::of(held).await?;
        let server = writer.server().clone();
        Ok(Self {
            readers: Readers::of(&server, place.connections).await?,
            writer: Mutex::new(Some(writer)),
            writers: AtomicU64::new(0),
            server,
            looks_only: false,
            share,
            declared: std::sync::Mutex::default(),
        })
    }

    /// Opens the database to look at it. Without the right to write it may be another process's at
    /// work: then no two statements see one moment.
    ///
    /// # Errors
    /// As `open`.
    pub async fn look(place: &config::Postgres, held: Option<Held>) -> Result<Self, StoreError> {
        let server = Server::new(place)?;
        // What is wrong with the schema is said here; a pool would try again, and then only say that it did.
        let reading = server.reading();
        let first = sqlx::postgres::PgConnection::connect_with(&reading);
        let mut first = within("open the database", first).await?;
        schema::check(&mut first).await?;
        connect::close(first).await;
        let readers = Readers::of(&server, place.connections).await?;
        let writer = match held {
            Some(held) => Some(Writer::of(held).await?),
            None => None,
        };
        Ok(Self {
            readers,
            writer: Mutex::new(writer),
            writers: AtomicU64::new(0),
            server,
            looks_only: true,
            share: Share::Alone,
            declared: std::sync::Mutex::default(),
        })
    }
}

fn signed(value: u64) -> i64 {
    // As with SQLite: 2^63 is never reached, and a clamp would only make the compare-and-set fail.
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn limit(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for Postgres {
    async fn record(
        &self,
        id: &RecordId,
        bucket: u32,
    ) -> Result<Unverified<RecordRow>, StoreError> {
        const OPERATION: &str = "read a record";
        let query = sqlx::query(
            "SELECT m.bucket IS NOT NULL AS listed, r.id IS NOT NULL AS present, r.generation AS generation, \
             CASE WHEN octet_length(m.members) <= $3 THEN m.members END AS members, \
             CASE WHEN octet_length(r.sealed) <= $4 THEN r.sealed END AS sealed \
             FROM (SELECT 1) AS one LEFT JOIN bucket_members m ON m.bucket = $2 LEFT JOIN records r ON r.id = $1 LIMIT 1",
        )
        .bind(id.as_bytes().as_slice())
        .bind(i64::from(bucket))
        .bind(limit(MAX_MEMBERS))
        .bind(limit(MAX_SEALED));
        let row = within(OPERATION, row(self.readers.of_whoever_asks(), query)).await?;
        let mut found = RecordRow::default();
        if says(&row, "listed") {
            found.members = Some(bounded(&row, "members", MAX_MEMBERS, OPERATION)?);
        }
        if says(&row, "present") {
            found.sealed = Some(SealedRow {
                generation: unsigned(&row, "generation", OPERATION)?,
                sealed: bounded(&row, "sealed", MAX_SEALED, OPERATION)?,
            });
        }
        Ok(Unverified::new(found))
    }

    async fn members(
        &self,
        buckets: &[u32],
    ) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError> {
        const OPERATION: &str = "read member lists";
        let wanted: Vec<i64> = buckets.iter().copied().map(i64::from).collect();
        let query = sqlx::query(
            "SELECT bucket, CASE WHEN octet_length(members) <= $2 THEN members END AS members \
             FROM bucket_members WHERE bucket = ANY($1)",
        )
        .bind(wanted)
        .bind(limit(MAX_MEMBERS));
        let rows = within(
            OPERATION,
            rows(self.readers.of_whoever_asks(), query, buckets.len()),
        )
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let bucket = unsigned(&row, "bucket", OPERATION)?;
            // An oversized list harms its own bucket only: it comes back empty and is refused
            // there, because an empty list has no header.
            let members = bounded(&row, "members", MAX_MEMBERS, OPERATION).unwrap_or_default();
            if let Ok(bucket) = u32::try_from(bucket) {
                found.push((bucket, members));
            }
        }
        Ok(Unverified::new(found))
    }

    async fn head(&self) -> Result<Unverified<Option<HeadRow>>, StoreError> {
        const OPERATION: &str = "read the head";
        let query = sqlx::query(
            "SELECT seq, CASE WHEN octet_length(body) <= $1 THEN body END AS body, \
             CASE WHEN octet_length(mac) <= $1 THEN mac END AS mac FROM head WHERE one = 1 LIMIT 1",
        )
        .bind(limit(MAX_HEAD));
        let row = within(OPERATION, maybe_row(self.readers.of_whoever_asks(), query)).await?;
        let Some(row) = row else {
            return Ok(Unverified::new(None));
        };
        Ok(Unverified::new(Some(HeadRow {
            seq: unsigned(&row, "seq", OPERATION)?,
            body: bounded(&row, "body", MAX_HEAD, OPERATION)?,
            mac: bounded(&row, "mac", MAX_HEAD, OPERATION)?,
        })))
    }

    async fn event(&self, index: u64) -> Result<Unverified<Option<EventRow>>, StoreError> {
        const OPERATION: &str = "read an event";
        let query = sqlx::query(
            "SELECT b.idx IS NOT NULL AS kept, \
             CASE WHEN octet_length(e.leaf) <= $2 THEN e.leaf END AS leaf, \
             CASE WHEN octet_length(b.salt) <= 64 THEN b.salt END AS salt, \
             CASE WHEN octet_length(b.body) <= $3 THEN b.body END AS body \
             FROM log_entries e LEFT JOIN log_bodies b ON b.idx = e.idx WHERE e.idx = $1 LIMIT 1",
        )
        .bind(signed(index))
        .bind(limit(MAX_LEAF))
        .bind(limit(MAX_BODY));
        let row = within(OPERATION, maybe_row(self.readers.of_whoever_asks(), query)).await?;
        let Some(row) = row else {
            return Ok(Unverified::new(None));
        };
        let body = if says(&row, "kept") {
            Some(BodyRow {
                salt: bounded(&row, "salt", 64, OPERATION)?,
                body: bounded(&row, "body", MAX_BODY, OPERATION)?,
            })
        } else {
            None
        };
        Ok(Unverified::new(Some(EventRow {
            leaf: bounded(&row, "leaf", MAX_LEAF, OPERATION)?,
            body,
        })))
    }

    async fn leaves(
        &self,
        from: u64,
        count: u64,
    ) -> Result<Unverified<Vec<(u64, Vec<u8>)>>, StoreError> {
        const OPERATION: &str = "read the log";
        let query = sqlx::query(
            "SELECT idx, CASE WHEN octet_length(leaf) <= $3 THEN leaf END AS leaf \
             FROM log_entries WHERE idx >= $1 AND idx < $2 ORDER BY idx",
        )
        .bind(signed(from))
        .bind(signed(from.saturating_add(count)))
        .bind(limit(MAX_LEAF));
        let rows = within(
            OPERATION,
            rows(
                self.readers.of_whoever_asks(),
                query,
                usize::try_from(count).unwrap_or(usize::MAX),
            ),
        )
        .await?;
        let leaf = |row: &PgRow| {
            Ok((
                unsigned(row, "idx", OPERATION)?,
                bounded(row, "leaf", MAX_LEAF, OPERATION)?,
            ))
        };
        let leaves: Result<Vec<_>, StoreError> = rows.iter().map(leaf).collect();
        Ok(Unverified::new(leaves?))
    }

    async fn tiles(&self, tiles: &[(u8, u64)]) -> Result<Unverified<Vec<TileRow>>, StoreError> {
        const OPERATION: &str = "read tiles of the log";
        if tiles.is_empty() {
            return Ok(Unverified::new(Vec::new()));
        }
        let (levels, indices): (Vec<i64>, Vec<i64>) = tiles
            .iter()
            .map(|(level, index)| (i64::from(*level), signed(*index)))
            .unzip();
        let query = sqlx::query(
            "SELECT level, idx, CASE WHEN octet_length(data) <= $3 THEN data END AS data FROM log_tiles \
             WHERE (level, idx) IN (SELECT * FROM unnest($1::bigint[], $2::bigint[]))",
        )
        .bind(levels)
        .bind(indices)
        .bind(limit(MAX_TILE));
        let rows = within(
            OPERATION,
            rows(self.readers.of_whoever_asks(), query, tiles.len()),
        )
        .await?;
        // What is larger than any comes back empty, which no tile is: it is there, and whoever verifies wants to name it.
        let tile = |row: &PgRow| {
            Some(TileRow {
                level: u8::try_from(unsigned(row, "level", OPERATION).ok()?).ok()?,
                index: unsigned(row, "idx", OPERATION).ok()?,
                data: bounded(row, "data", MAX_TILE, OPERATION).unwrap_or_default(),
            })
        };
        Ok(Unverified::new(rows.iter().filter_map(tile).collect()))
    }

    async fn digests(&self) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError> {
        const OPERATION: &str = "read digests";
        let query = sqlx::query(
            "SELECT bucket, CASE WHEN octet_length(digest) = 32 THEN digest END AS digest \
             FROM bucket_digests WHERE bucket BETWEEN 0 AND $1 LIMIT $1 + 1",
        )
        .bind(i64::from(u32::from(u16::MAX)));
        let rows = scanning(
            OPERATION,
            rows(self.readers.of_whoever_asks(), query, 1 << 16),
        )
        .await?;
        let digest = |row: &PgRow| {
            let bucket = u32::try_from(unsigned(row, "bucket", OPERATION).ok()?).ok()?;
            Some((bucket, bounded(row, "digest", 32, OPERATION).ok()?))
        };
        Ok(Unverified::new(rows.iter().filter_map(digest).collect()))
    }

    async fn entries(
        &self,
        from: u64,
        to: u64,
    ) -> Result<Unverified<Vec<StoredEntry>>, StoreError> {
        scan::entries(&self.readers.scans, from, to).await
    }

    async fn lists(
        &self,
        from: u32,
        to: u32,
    ) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
        scan::lists(&self.readers.scans, from, to).await
    }

    async fn records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
        scan::records(&self.readers.scans, from, to).await
    }

    async fn strays(&self, size: u64) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
        scan::strays(&self.readers.scans, size).await
    }

    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        if self.looks_only {
            return Err(CommitError::only_looking());
        }
        let mut slot = self.writer.lock().await;
        let mut writer = self.writer_in(&mut slot).await?;
        let outcome = writer.write(batch).await;
        // After a failure the connection's state is not known: the next commit opens another.
        if matches!(outcome, Ok(()) | Err(CommitError::LostRace)) {
            *slot = Some(writer);
        }
        outcome
    }

    async fn acknowledge(&self, head: &HeadRow) -> Result<(), CommitError> {
        let mut slot = self.writer.lock().await;
        let mut writer = self.writer_in(&mut slot).await?;
        let outcome = writer.touch(head).await;
        if matches!(outcome, Ok(()) | Err(CommitError::LostRace)) {
            *slot = Some(writer);
        }
        outcome
    }

    fn is_shared(&self) -> bool {
        self.share == Share::Among
    }

    async fn take_turn(&self) -> Result<Unverified<Option<HeadRow>>, StoreError> {
        if !self.is_shared() {
            return self.head().await;
        }
        let mut slot = self.writer.lock().await;
        let mut writer = match slot.take() {
            Some(writer) => writer,
            None => self.again().await?,
        };
        let shown = match writer.take_turn().await {
            Ok(shown) => shown,
            // It may have lain idle until the server forgot it, or was started anew; nothing was done with it.
            Err(error) if !is_the_servers(&error) => {
                writer = self.again().await?;
                writer.take_turn().await?
            }
            Err(error) => return Err(error),
        };
        *slot = Some(writer);
        Ok(Unverified::new(shown))
    }

    async fn end_turn(&self) {
        let mut slot = self.writer.lock().await;
        if let Some(mut writer) = slot.take()
            && writer.end_turn().await.is_ok()
        {
            *slot = Some(writer);
        }
    }

    fn connections(&self) -> u64 {
        self.writers.load(Ordering::Acquire)
    }

    fn readers(&self) -> u64 {
        self.readers.opened()
    }

    async fn newer(&self, after: Option<u64>) -> Result<Unverified<Newer>, StoreError> {
        scan::newer(self.readers.of_whoever_asks(), after).await
    }

    async fn further(&self) -> Result<Unverified<Vec<String>>, StoreError> {
        const OPERATION: &str = "read the schema";
        let mut lent = within(OPERATION, Lent::of(self.readers.of_whoever_asks())).await?;
        let connection = lent.connection().map_err(answers::unavailable(OPERATION))?;
        let checked = schema::check(connection).await?;
        lent.give_back();
        Ok(Unverified::new(checked.further))
    }

    async fn declare(&self, declared: Vec<Declared>) -> Result<(), StoreError> {
        let mut slot = self.writer.lock().await;
        *self.declared.lock().unwrap_or_else(PoisonError::into_inner) = declared;
        // Each connection that is made from now on says so by itself.
        let writer = match slot.take() {
            Some(mut writer) => {
                self.declare_on(&mut writer).await?;
                writer
            }
            None => self.again().await?,
        };
        *slot = Some(writer);
        Ok(())
    }

    async fn differing(&self, ours: &[Declared]) -> Result<Vec<Declared>, StoreError> {
        beside::differing(self.readers.of_whoever_asks(), ours).await
    }

    async fn extend(&self) -> Result<(), StoreError> {
        let mut slot = self.writer.lock().await;
        let mut writer = match slot.take() {
            Some(writer) => writer,
            None => self.again().await?,
        };
        writer.extend().await?;
        *slot = Some(writer);
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let asked = sqlx::query("SELECT one FROM head LIMIT 1");
        within("ping", maybe_row(self.readers.of_whoever_asks(), asked))
            .await
            .map(drop)
    }

    fn comes_back(&self) -> bool {
        true
    }

    async fn close(&self) {
        self.readers.close().await;
        if let Some(writer) = self.writer.lock().await.take() {
            writer.close().await;
        }
    }
}

impl Postgres {
    /// The connection that writes, taken out of its place.
    async fn writer_in(&self, slot: &mut Option<Writer>) -> Result<Writer, CommitError> {
        match slot.take() {
            Some(writer) => Ok(writer),
            None => self.again().await.map_err(CommitError::NotWritten),
        }
    }

    /// Another connection that writes. The one before may not be missed yet by the server: then the
    /// caller tries again.
    async fn again(&self) -> Result<Writer, StoreError> {
        self.writers.fetch_add(1, Ordering::AcqRel);
        let held = Held::take(self.server.clone(), self.share, FRESH).await?;
        let mut writer = Writer::of(held).await?;
        // Nothing is decided by it. A connection that is lost says so when it is used.
        if let Err(error) = self.declare_on(&mut writer).await {
            tracing::warn!(%error, "the other nodes are not told how this one was configured");
        }
        Ok(writer)
    }

    async fn declare_on(&self, writer: &mut Writer) -> Result<(), StoreError> {
        // Set whole, and by nothing that could panic.
        let declared = self
            .declared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        writer.declare(declared).await
    }
}
