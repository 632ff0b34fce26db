//! The embedded store: one SQLite file, one process.
//!
//! Called by the ledger only. The file is the adversary's: its schema is compared to ours by
//! every connection that opens and watched by every commit (a trigger or a view would be their
//! code in our transaction), lengths and types are bounded in SQL before a value reaches our
//! memory, and nothing read here is believed.

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
pub(crate) mod admin;
mod bounds;
mod folding;
mod scan;
mod scanner;
mod schema;
mod write;

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use custodyd_hsm::RecordId;
use rustix::fs::{FlockOperation, flock};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection as _, QueryBuilder, Row as _, Sqlite as Db};
use tokio::sync::Mutex;

use self::folding::Folder;
use self::scanner::Scanner;
use self::write::Writer;
use super::{
    Batch, BodyRow, CommitError, EventRow, HashedRecord, HeadRow, MAX_BODY, MAX_HEAD, MAX_LEAF,
    MAX_MEMBERS, MAX_SEALED, MAX_TILE, RecordRow, SealedRow, Spare, Store, StoreError, StoredEntry,
    StoredRecord, TileRow,
};
use crate::ledger::Unverified;

/// How long a statement waits for another process that holds the file, such as a backup.
const BUSY: Duration = Duration::from_secs(5);
const READERS: u32 = 2;

/// The right to open the database: one process at a time.
///
/// Held by a lock on a file beside it, because SQLite's own locks come and go per transaction.
#[derive(Debug)]
pub struct Exclusive {
    database: PathBuf,
    _lock: std::fs::File,
}

impl Exclusive {
    /// # Errors
    /// When another process holds it, or the folder can not be written.
    pub fn take(database: &Path) -> Result<Self, StoreError> {
        let path = Self::lock_of(database);
        let refused = |problem: String| StoreError::Refused {
            operation: super::LOCKING,
            problem,
        };
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| refused(format!("{}: {e}", path.display())))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            refused(format!(
                "{} is held by another custodyd; stop it first",
                path.display()
            ))
        })?;
        Ok(Self {
            database: database.to_owned(),
            _lock: lock,
        })
    }

    /// The file that stands for the right to open `database`.
    pub(crate) fn lock_of(database: &Path) -> PathBuf {
        database.with_extension("lock")
    }

    #[must_use]
    pub fn database(&self) -> &Path {
        &self.database
    }
}

#[derive(Debug)]
pub struct Sqlite {
    readers: SqlitePool,
    scanner: Scanner,
    folder: Folder,
    path: PathBuf,
    /// The committer is the only writer; the mutex says so to the compiler.
    writer: Arc<Mutex<Option<Writer>>>,
    looks_only: bool,
    _lock: Option<Exclusive>,
}

impl Sqlite {
    /// Makes the tables in a file that does not exist yet.
    ///
    /// # Errors
    /// When the file exists: a realm's database is never overwritten.
    pub async fn create(lock: Exclusive) -> Result<Self, StoreError> {
        let path = lock.database();
        if path.exists() {
            return Err(StoreError::Refused {
                operation: "create the database",
                problem: format!(
                    "{} exists already; move it away if the realm in it is not wanted any more",
                    path.display()
                ),
            });
        }
        // Its spare pages can be given back. Said once: said again, it would be a write.
        let making = options(path)?
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental);
        let mut connection = SqliteConnection::connect_with(&making)
            .await
            .map_err(unavailable("create the database"))?;
        let mut made = connection
            .begin()
            .await
            .map_err(unavailable("create the tables"))?;
        schema::make(&mut made).await?;
        made.commit()
            .await
            .map_err(unavailable("create the tables"))?;
        drop(connection);
        Self::open(lock).await
    }

    /// Opens the file and refuses any schema that is not exactly ours.
    ///
    /// # Errors
    /// When the file is missing, not a custodyd database, of another version, or altered.
    pub async fn open(lock: Exclusive) -> Result<Self, StoreError> {
        let path = lock.database().to_owned();
        if !path.exists() {
            return Err(StoreError::Refused {
                operation: "open the database",
                problem: format!(
                    "{} does not exist. `custodyd init` makes a new realm; where there was one, its newest database has to \
                     come back (docs/handbook/backup.md)",
                    path.display()
                ),
            });
        }
        let file = path.clone();
        let writer = on_a_thread("open the database", move || Writer::open(&file)).await??;
        Ok(Self {
            readers: readers(&options(&path)?).await?,
            scanner: Scanner::new(&path),
            folder: Folder::new(&path),
            writer: Arc::new(Mutex::new(Some(writer))),
            path,
            looks_only: false,
            _lock: Some(lock),
        })
    }

    /// Opens the file to look at it. Without the lock it may be another process's at work: then
    /// no two statements see one moment.
    ///
    /// # Errors
    /// As `open`.
    pub async fn look(path: &Path, lock: Option<Exclusive>) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Refused {
                operation: "open the database",
                problem: format!("{} does not exist", path.display()),
            });
        }
        Ok(Self {
            readers: readers(&options(path)?).await?,
            scanner: Scanner::new(path),
            folder: Folder::new(path),
            writer: Arc::default(),
            path: path.to_owned(),
            looks_only: true,
            _lock: lock,
        })
    }

    /// The rows of a statement, so many at the most.
    async fn rows(
        &self,
        operation: &'static str,
        query: bounds::Query<'_>,
        most: usize,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        bounds::rows((&self.readers, bounds::READ), operation, query, most).await
    }

    /// The row of one that has no more.
    async fn row(
        &self,
        operation: &'static str,
        query: bounds::Query<'_>,
    ) -> Result<Option<SqliteRow>, StoreError> {
        Ok(self.rows(operation, query, 1).await?.pop())
    }

    /// Has the writer work, to the end of the work even where nobody waits for it any more: whoever comes next, `close`
    /// too, comes after it.
    async fn with_writer<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Option<Writer>, &Path) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut slot = Arc::clone(&self.writer).lock_owned().await;
        let path = self.path.clone();
        on_a_thread(operation, move || work(&mut slot, &path)).await
    }
}

/// Work on a thread that may wait.
async fn on_a_thread<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    let working = tokio::task::spawn_blocking(work);
    working.await.map_err(|error| StoreError::Unavailable {
        operation,
        source: sqlx::Error::Io(std::io::Error::other(error)),
    })
}

/// The connections that read. Each has checked the schema, and can not write.
async fn readers(options: &SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    // What is wrong, is said now: a pool tries again for half a minute, and then only says that it did.
    let mut first = SqliteConnection::connect_with(options)
        .await
        .map_err(unavailable("open the database"))?;
    schema::check(&mut first).await?;
    drop(first);
    let opening = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(BUSY)
        // A file does not go away like a network peer does.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        // Whoever waits between two of our opens finds no connection that was not checked.
        .after_connect(|connection, _| {
            Box::pin(async move {
                let checked = schema::check(connection).await;
                checked
                    .map(drop)
                    .map_err(|e| sqlx::Error::Configuration(e.into()))
            })
        })
        .connect_with(options.clone().pragma("query_only", "ON"));
    let pool = opening.await.map_err(unavailable("open the database"))?;
    // All of them now. A pool that is told how many to keep opens the others behind our back, goes on trying for five
    // minutes where the schema was altered meanwhile, and is not closed before.
    let mut all = Vec::new();
    for _ in 0..READERS {
        let reader = pool.acquire().await;
        all.push(reader.map_err(unavailable("open the database"))?);
    }
    Ok(pool)
}

fn options(path: &Path) -> Result<SqliteConnectOptions, StoreError> {
    let defaults =
        SqliteConnectOptions::from_str("sqlite:").map_err(unavailable("configure SQLite"))?;
    Ok(defaults
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .busy_timeout(BUSY)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("mmap_size", "0"))
}

/// What SQLite answered, told apart: a file that is not one is damage, which trying again does
/// not mend; everything else is an outage.
fn unavailable(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    // SQLITE_CORRUPT and SQLITE_NOTADB; the low byte of an extended code is its primary code.
    const DAMAGED: [i32; 2] = [11, 26];
    move |source| {
        let code = source.as_database_error().and_then(|error| error.code());
        let code = code.and_then(|code| code.parse::<i32>().ok());
        match code {
            Some(code) if DAMAGED.contains(&(code & 0xff)) => StoreError::Malformed {
                operation,
                problem: format!("the database file is damaged: {source}"),
            },
            _ => StoreError::Unavailable { operation, source },
        }
    }
}

/// A byte column selected as `CASE WHEN typeof(c)='blob' AND length(c)<=max THEN c END`:
/// null where the row is there means that the bound or the type does not hold.
fn bounded(
    row: &SqliteRow,
    column: &str,
    limit: usize,
    operation: &'static str,
) -> Result<Vec<u8>, StoreError> {
    row.try_get::<Option<Vec<u8>>, _>(column)
        .ok()
        .flatten()
        .ok_or(StoreError::Oversized { operation, limit })
}

fn unsigned(row: &SqliteRow, column: &str, operation: &'static str) -> Result<u64, StoreError> {
    row.try_get::<i64, _>(column)
        .ok()
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| StoreError::Malformed {
            operation,
            problem: format!("{column} is not a non-negative number"),
        })
}

fn signed(value: u64) -> i64 {
    // Sequence numbers and generations are ours and count by one: 2^63 is never reached, and
    // a clamp would only make the compare-and-set fail.
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn limit(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for Sqlite {
    async fn record(
        &self,
        id: &RecordId,
        bucket: u32,
    ) -> Result<Unverified<RecordRow>, StoreError> {
        const OPERATION: &str = "read a record";
        // One statement, so one snapshot.
        let query = sqlx::query(
            "SELECT m.bucket IS NOT NULL AS listed, r.id IS NOT NULL AS present, r.generation AS generation, \
             CASE WHEN typeof(m.members) = 'blob' AND length(m.members) <= ?3 THEN m.members END AS members, \
             CASE WHEN typeof(r.sealed) = 'blob' AND length(r.sealed) <= ?4 THEN r.sealed END AS sealed \
             FROM (SELECT 1) LEFT JOIN bucket_members m ON m.bucket = ?2 LEFT JOIN records r ON r.id = ?1 LIMIT 1",
        )
        .bind(id.as_bytes().as_slice())
        .bind(i64::from(bucket))
        .bind(limit(MAX_MEMBERS))
        .bind(limit(MAX_SEALED));
        let row = self.row(OPERATION, query).await?;
        let row = row.ok_or_else(|| unavailable(OPERATION)(sqlx::Error::RowNotFound))?;
        let has = |column| row.try_get::<bool, _>(column).unwrap_or(false);
        let mut found = RecordRow::default();
        if has("listed") {
            found.members = Some(bounded(&row, "members", MAX_MEMBERS, OPERATION)?);
        }
        if has("present") {
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
        let mut query = QueryBuilder::<Db>::new(
            "SELECT bucket, CASE WHEN typeof(members) = 'blob' AND length(members) <= ",
        );
        query.push_bind(limit(MAX_MEMBERS));
        query.push(" THEN members END AS members FROM bucket_members WHERE bucket IN (");
        let mut list = query.separated(", ");
        for bucket in buckets {
            list.push_bind(i64::from(*bucket));
        }
        list.push_unseparated(")");
        let rows = self.rows(OPERATION, query.build(), buckets.len()).await?;
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
            "SELECT seq, CASE WHEN typeof(body) = 'blob' AND length(body) <= ?1 THEN body END AS body, \
             CASE WHEN typeof(mac) = 'blob' AND length(mac) <= ?1 THEN mac END AS mac FROM head WHERE one = 1 LIMIT 1",
        )
        .bind(limit(MAX_HEAD));
        let Some(row) = self.row(OPERATION, query).await? else {
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
             CASE WHEN typeof(e.leaf) = 'blob' AND length(e.leaf) <= ?2 THEN e.leaf END AS leaf, \
             CASE WHEN typeof(b.salt) = 'blob' AND length(b.salt) <= 64 THEN b.salt END AS salt, \
             CASE WHEN typeof(b.body) = 'blob' AND length(b.body) <= ?3 THEN b.body END AS body \
             FROM log_entries e LEFT JOIN log_bodies b ON b.idx = e.idx WHERE e.idx = ?1 LIMIT 1",
        )
        .bind(signed(index))
        .bind(limit(MAX_LEAF))
        .bind(limit(MAX_BODY));
        let Some(row) = self.row(OPERATION, query).await? else {
            return Ok(Unverified::new(None));
        };
        let body = if row.try_get::<bool, _>("kept").unwrap_or(false) {
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
            "SELECT idx, CASE WHEN typeof(leaf) = 'blob' AND length(leaf) <= ?3 THEN leaf END AS leaf \
             FROM log_entries WHERE idx >= ?1 AND idx < ?2 ORDER BY idx",
        )
        .bind(signed(from))
        .bind(signed(from.saturating_add(count)))
        .bind(limit(MAX_LEAF));
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        let rows = self.rows(OPERATION, query, most).await?;
        let leaf = |row: &SqliteRow| {
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
        let mut query = QueryBuilder::<Db>::new(
            "SELECT level, idx, CASE WHEN typeof(data) = 'blob' AND length(data) <= ",
        );
        query.push_bind(limit(MAX_TILE));
        query.push(" THEN data END AS data FROM log_tiles WHERE (level, idx) IN (VALUES ");
        let mut list = query.separated(", ");
        for (level, index) in tiles {
            list.push("(")
                .push_bind_unseparated(i64::from(*level))
                .push_unseparated(", ")
                .push_bind_unseparated(signed(*index))
                .push_unseparated(")");
        }
        list.push_unseparated(")");
        let rows = self.rows(OPERATION, query.build(), tiles.len()).await?;
        // What is larger than any comes back empty, which no tile is: it is there, and whoever verifies wants to name it.
        let tile = |row: &SqliteRow| {
            Some(TileRow {
                level: u8::try_from(unsigned(row, "level", OPERATION).ok()?).ok()?,
                index: unsigned(row, "idx", OPERATION).ok()?,
                data: bounded(row, "data", MAX_TILE, OPERATION).unwrap_or_default(),
            })
        };
        Ok(Unverified::new(rows.iter().filter_map(tile).collect()))
    }

    async fn digests(&self) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError> {
        scan::digests(&self.scanner).await
    }

    async fn entries(
        &self,
        from: u64,
        to: u64,
    ) -> Result<Unverified<Vec<StoredEntry>>, StoreError> {
        scan::entries(&self.scanner, from, to).await
    }

    async fn lists(
        &self,
        from: u32,
        to: u32,
    ) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
        scan::lists(&self.scanner, from, to).await
    }

    async fn records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
        scan::records(&self.scanner, from, to).await
    }

    async fn hashed_records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Unverified<Vec<HashedRecord>>, StoreError> {
        scan::hashed_records(&self.scanner, from, to).await
    }

    async fn strays(&self, size: u64) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
        scan::strays(&self.readers, size).await
    }

    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        if self.looks_only {
            return Err(CommitError::only_looking());
        }
        // Its own, for it goes on writing when whoever waits is gone.
        let batch = batch.clone();
        let written = self.with_writer("commit", move |slot, path| {
            let mut writer = match slot.take() {
                Some(writer) => writer,
                None => Writer::open(path).map_err(CommitError::NotWritten)?,
            };
            // What is durable is so whatever becomes of the look after it.
            let outcome = (writer.write(&batch)).map(|()| writer.unfolded().unwrap_or_default());
            // After a failure the connection's state is not known: the next commit opens another.
            if matches!(outcome, Ok(_) | Err(CommitError::LostRace)) {
                *slot = Some(writer);
            }
            outcome
        });
        // Nobody knows how far it came.
        let unknown = |error| Err(CommitError::Unknown(error));
        self.folder.look(written.await.unwrap_or_else(unknown)?);
        Ok(())
    }

    async fn give_back(&self) -> Result<Spare, StoreError> {
        let given = self.with_writer("give back spare pages", |slot, _| match slot {
            Some(writer) => writer.give_back(),
            // The committer opens the writer; without one there is nothing to shorten now.
            None => Ok(Spare::default()),
        });
        given.await?
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let asked = sqlx::query("SELECT one FROM head LIMIT 1");
        self.row("ping", asked).await.map(drop)
    }

    async fn close(&self) {
        self.scanner.close().await;
        self.readers.close().await;
        self.folder.close().await;
        // The last connection that closes folds the WAL back into the file.
        let _ = self.with_writer("close", |slot, _| drop(slot.take())).await;
    }
}
