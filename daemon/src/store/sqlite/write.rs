//! Writing: one batch, one transaction, on the one connection that writes.
//!
//! Called by `Sqlite`, on a thread that may wait. Holds the schema's change counter as of its check and
//! demands it in every transaction before anything that names a table, so that a trigger, a table or a view
//! made while we run never acts in one of ours. A PRAGMA tells it: what is looked up by name, such as
//! `pragma_schema_version`, may be a table of somebody else's. The whole transaction is one visit to that
//! thread, and each statement is prepared but once in the connection's life: a commit has little else to do.

use std::path::Path;

use rusqlite::types::ToSql;
use rusqlite::{Connection, Statement, TransactionBehavior, params};

use super::super::{Batch, CommitError, Spare, StoreError, TILES_AT_ONCE};
use super::scanner::{self, unavailable};
use super::schema::{self, Checked};
use super::signed;

/// `PRAGMA auto_vacuum` of a file that can be shortened in steps.
const INCREMENTAL: i64 = 2;
/// Spare pages are given back where there are so many, and one in so many of the file: what comes next needs
/// some anyway.
const MANY: i64 = 64;
const SHARE: i64 = 8;
/// Pages that one step gives back: a millisecond or two.
const STEP: i64 = 32;
/// Bytes of the write-ahead log that stay allocated.
const JOURNAL: i64 = 64 << 20;
/// Pages of the log with which a commit folds it in by itself: where writing never rests, what is done beside it never
/// comes to the log's end, and only from there the log begins anew.
pub(super) const AT_THE_LATEST: i64 = 8192;
/// KiB of pages that are kept: those of the largest batch, or they would be written twice, and what leads to them.
const PAGES: i64 = 8 << 10;

#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    schema: Checked,
}

impl Writer {
    /// Opens the file and refuses any schema that is not exactly ours.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = || -> rusqlite::Result<Connection> {
            let connection = scanner::connect(path)?;
            let set = |name, value: &dyn ToSql| {
                connection.pragma_update_and_check(None, name, value, |_| Ok(()))
            };
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", "OFF")?;
            // The answers to these are rows.
            set("journal_mode", &"WAL")?;
            // What is erased is overwritten where that costs no further write.
            set("secure_delete", &"FAST")?;
            // After a burst the log beside the file is cut to this again.
            set("journal_size_limit", &JOURNAL)?;
            set("wal_autocheckpoint", &AT_THE_LATEST)?;
            connection.pragma_update(None, "cache_size", -PAGES)?;
            Ok(connection)
        };
        let connection = opened().map_err(unavailable("open the database"))?;
        let schema = schema::check_here(&connection)?;
        Ok(Self { connection, schema })
    }

    /// After a crash here: before COMMIT returns, either nothing or everything of the batch is
    /// in the file (WAL, synchronous=FULL); after it returned, everything is.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let failed = |operation| move |e| CommitError::NotWritten(unavailable(operation)(e));
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed("begin"))?;
        let counter = number(&transaction, "PRAGMA schema_version");
        if counter.map_err(failed("check the schema"))? != self.schema.0 {
            let touched = StoreError::Refused {
                operation: "check the schema",
                problem: "the schema was touched while custodyd runs; it is checked again".into(),
            };
            let found = schema::check_here(&transaction);
            return Err(CommitError::NotWritten(found.err().unwrap_or(touched)));
        }
        if !move_head(&transaction, batch).map_err(failed("move the head"))? {
            return Err(CommitError::LostRace);
        }
        rows(&transaction, batch)
            .and_then(|()| caches(&transaction, batch))
            .map_err(failed("write the rows"))?;
        transaction
            .commit()
            .map_err(|e| CommitError::Unknown(unavailable("commit")(e)))
    }

    /// Pages that are in the log and not in the file yet.
    pub(super) fn unfolded(&self) -> rusqlite::Result<i64> {
        let looks = "PRAGMA wal_checkpoint(NOOP)";
        let mut statement = self.connection.prepare_cached(looks)?;
        statement.query_row([], |row| {
            let (in_log, in_file): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(in_log - in_file)
        })
    }

    /// One step of giving back what is spare: see [`super::Store::give_back`].
    pub(super) fn give_back(&mut self) -> Result<Spare, StoreError> {
        self.step().map_err(unavailable("give back spare pages"))
    }

    fn step(&mut self) -> rusqlite::Result<Spare> {
        let connection = &self.connection;
        let pages = number(connection, "PRAGMA page_count")?;
        let free = number(connection, "PRAGMA freelist_count")?;
        let size = number(connection, "PRAGMA page_size")?;
        let how = number(connection, "PRAGMA auto_vacuum")?;
        let spare = |free: i64| {
            let much = how == INCREMENTAL && free >= MANY && free >= pages / SHARE;
            let bytes = free.saturating_mul(size);
            Spare {
                bytes: u64::try_from(bytes).unwrap_or_default(),
                much,
            }
        };
        if !spare(free).much {
            return Ok(spare(free));
        }
        to_the_end(connection, &format!("PRAGMA incremental_vacuum({STEP})"))?;
        let left = spare(free.saturating_sub(STEP));
        if !left.much {
            // The file gets shorter when the log beside it is folded in.
            to_the_end(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        }
        Ok(left)
    }
}

/// What a pragma says.
fn number(connection: &Connection, pragma: &'static str) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached(pragma)?;
    statement.query_row([], |row| row.get(0))
}

/// A pragma that works as long as its rows are asked for.
pub(super) fn to_the_end(connection: &Connection, pragma: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(pragma)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Whether the head was the batch's parent.
fn move_head(connection: &Connection, batch: &Batch) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO head (one, seq, body, mac) SELECT 1, ?1, ?2, ?3 \
         WHERE (EXISTS (SELECT 1 FROM head WHERE one = 1 AND seq = ?4) OR (?4 = 0 AND NOT EXISTS (SELECT 1 FROM head))) \
         ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, body = excluded.body, mac = excluded.mac",
    )?;
    let moved = statement.execute(params![
        signed(batch.head.seq),
        batch.head.body,
        batch.head.mac,
        signed(batch.parent)
    ])?;
    Ok(moved == 1)
}

fn rows(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    each(
        connection,
        "DELETE FROM records WHERE id = ?1",
        &batch.removed,
        |row, id| row.execute(params![id.as_bytes()]),
    )?;
    each(
        connection,
        "DELETE FROM log_bodies WHERE idx = ?1",
        &batch.erased,
        |row, index| row.execute(params![signed(*index)]),
    )?;
    each(
        connection,
        "INSERT INTO records (id, generation, sealed) VALUES (?1, ?2, ?3) \
         ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, sealed = excluded.sealed",
        &batch.records,
        |row, (id, generation, sealed)| {
            row.execute(params![id.as_bytes(), signed(*generation), sealed])
        },
    )?;
    each(
        connection,
        "INSERT OR REPLACE INTO bucket_members (bucket, members) VALUES (?1, ?2)",
        &batch.members,
        |row, (bucket, members)| row.execute(params![bucket, members]),
    )?;
    each(
        connection,
        "INSERT INTO log_entries (idx, leaf) VALUES (?1, ?2)",
        &batch.entries,
        |row, (index, leaf)| row.execute(params![signed(*index), leaf]),
    )?;
    each(
        connection,
        "INSERT INTO log_bodies (idx, salt, body) VALUES (?1, ?2, ?3)",
        &batch.bodies,
        |row, (index, body)| row.execute(params![signed(*index), body.salt, body.body]),
    )
}

/// What can be built anew from the other tables.
fn caches(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let seq = signed(batch.head.seq);
    each(
        connection,
        "INSERT OR REPLACE INTO bucket_digests (bucket, digest, seq) VALUES (?1, ?2, ?3)",
        &batch.digests,
        |row, (bucket, digest)| row.execute(params![bucket, digest, seq]),
    )?;
    each(
        connection,
        "INSERT INTO log_tiles (level, idx, data) VALUES (?1, ?2, ?3) \
         ON CONFLICT (level, idx) DO UPDATE SET data = excluded.data",
        &batch.tiles,
        |row, tile| row.execute(params![tile.level, signed(tile.index), tile.data]),
    )?;
    each(
        connection,
        "DELETE FROM log_tiles WHERE rowid IN \
         (SELECT rowid FROM log_tiles WHERE level = 0 AND idx < ?1 ORDER BY idx LIMIT ?2)",
        batch.tiles_before,
        |row, before| row.execute(params![signed(before), TILES_AT_ONCE]),
    )
}

/// Runs a statement for each row of a table; where there is none, it is not even looked up.
fn each<T>(
    connection: &Connection,
    sql: &'static str,
    rows: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Statement<'_>, T) -> rusqlite::Result<usize>,
) -> rusqlite::Result<()> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(sql)?;
    rows.try_for_each(|row| write(&mut statement, row).map(drop))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
    use sqlx::{AssertSqlSafe, Connection as _, Row as _};

    use super::super::{Exclusive, Sqlite};
    use super::*;
    use crate::store::Store as _;
    use crate::store::batches::batch;

    async fn admin(file: &std::path::Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(file);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    async fn count(admin: &mut SqliteConnection, sql: &str) -> i64 {
        sqlx::query(AssertSqlSafe(sql))
            .fetch_one(admin)
            .await
            .unwrap()
            .get(0)
    }

    #[tokio::test]
    async fn a_large_batch_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let store = Sqlite::create(Exclusive::take(&file).unwrap())
            .await
            .unwrap();
        let rows = 16_500;
        store.commit(&batch(0, rows)).await.unwrap();
        store.commit(&batch(1, rows)).await.unwrap();
        let mut admin = admin(&file).await;
        assert_eq!(
            count(
                &mut admin,
                "SELECT count(*) FROM records WHERE generation = 2"
            )
            .await,
            16_500
        );
        for table in ["log_entries", "log_bodies"] {
            let sql = format!("SELECT count(DISTINCT idx) FROM {table}");
            assert_eq!(count(&mut admin, &sql).await, 33_000, "{table}");
        }
        // Each row holds its own values.
        let torn = "SELECT count(*) FROM log_entries e JOIN log_bodies b USING (idx) WHERE e.leaf <> b.salt";
        assert_eq!(count(&mut admin, torn).await, 0);
        // As many deletions as rows, beside an insertion; what is not named stays.
        let mut last = batch(2, 1);
        last.entries = vec![(33_000, vec![1])];
        last.bodies = Vec::new();
        last.removed = batch(0, rows)
            .records
            .iter()
            .skip(1)
            .map(|(id, ..)| *id)
            .collect();
        last.erased = (1..33_000).collect();
        store.commit(&last).await.unwrap();
        for (table, left) in [("records", 1), ("log_bodies", 1), ("log_entries", 33_001)] {
            let sql = format!("SELECT count(*) FROM {table}");
            assert_eq!(count(&mut admin, &sql).await, left, "{table}");
        }
    }

    async fn refused(store: &Sqlite, batch: &Batch) {
        let refused = store.commit(batch).await;
        assert!(
            matches!(
                refused,
                Err(CommitError::NotWritten(StoreError::Altered { .. }))
            ),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_trigger_made_while_we_run_never_acts_and_a_vacuum_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let store = Sqlite::create(Exclusive::take(&file).unwrap())
            .await
            .unwrap();
        store.commit(&batch(0, 2)).await.unwrap();
        let mut admin = admin(&file).await;
        let trigger = "CREATE TRIGGER sqliteXstat AFTER UPDATE ON records \
                       BEGIN INSERT INTO log_tiles VALUES (1, 1, x'01') ON CONFLICT DO NOTHING; END";
        sqlx::query(trigger).execute(&mut admin).await.unwrap();
        for _ in 0..2 {
            refused(&store, &batch(1, 2)).await;
        }
        let planted = "SELECT count(*) FROM log_tiles WHERE level = 1";
        assert_eq!(count(&mut admin, planted).await, 0);
        // Control: for anybody who does not look, it acts.
        sqlx::query("UPDATE records SET generation = 1")
            .execute(&mut admin)
            .await
            .unwrap();
        assert_eq!(count(&mut admin, planted).await, 1);
        // Nor where a table of that name says what the counter was.
        let counter = "SELECT schema_version - 1 AS schema_version FROM pragma_schema_version";
        let shadow = format!("CREATE TABLE pragma_schema_version AS {counter}");
        sqlx::query(AssertSqlSafe(shadow))
            .execute(&mut admin)
            .await
            .unwrap();
        refused(&store, &batch(1, 2)).await;
        let untouched = "SELECT count(*) FROM records WHERE generation = 1";
        assert_eq!(count(&mut admin, untouched).await, 2);
        sqlx::query("DROP TABLE pragma_schema_version")
            .execute(&mut admin)
            .await
            .unwrap();
        sqlx::query("DROP TRIGGER sqliteXstat")
            .execute(&mut admin)
            .await
            .unwrap();
        sqlx::query("VACUUM").execute(&mut admin).await.unwrap();
        let _first_may_only_reopen = store.commit(&batch(1, 2)).await;
        let again = store.commit(&batch(1, 2)).await;
        assert!(
            matches!(again, Ok(()) | Err(CommitError::LostRace)),
            "{again:?}"
        );
        assert_eq!(count(&mut admin, "SELECT seq FROM head").await, 2);
    }

    /// A pool that still opens what it has to keep would hold it up for minutes.
    #[tokio::test]
    async fn a_store_is_closed_at_once_whatever_was_done_to_its_schema() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let made = Sqlite::create(Exclusive::take(&file).unwrap()).await;
        made.unwrap().close().await;
        let store = Sqlite::open(Exclusive::take(&file).unwrap()).await.unwrap();
        let trigger = "CREATE TRIGGER t AFTER UPDATE ON records BEGIN DELETE FROM log_tiles; END";
        let admin = rusqlite::Connection::open(&file).unwrap();
        admin.execute_batch(trigger).unwrap();
        let closed = tokio::time::timeout(std::time::Duration::from_secs(3), store.close());
        closed.await.unwrap();
        assert_eq!(store.readers.options().get_min_connections(), 0);
    }

    /// What deleted rows leave is given back step by step, and every row stays what it was.
    #[tokio::test]
    async fn a_file_that_holds_much_less_than_it_did_gets_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let store = Sqlite::create(Exclusive::take(&file).unwrap())
            .await
            .unwrap();
        let large = |mut batch: Batch| {
            for (_, body) in &mut batch.bodies {
                body.body = vec![7; 8192];
            }
            batch
        };
        store.commit(&large(batch(0, 400))).await.unwrap();
        store.commit(&large(batch(1, 400))).await.unwrap();
        // Nothing is spare, so nothing is done.
        assert!(!store.give_back().await.unwrap().much);
        let mut gone = batch(2, 1);
        gone.entries = vec![(800, vec![1])];
        gone.bodies = Vec::new();
        gone.erased = (0..600).collect();
        store.commit(&gone).await.unwrap();
        let mut admin = admin(&file).await;
        let pages = count(&mut admin, "SELECT page_count FROM pragma_page_count").await;
        let mut steps = 0;
        while store.give_back().await.unwrap().much {
            steps += 1;
            assert!(steps < 200);
        }
        assert!(steps > 3, "{steps}");
        let left = count(&mut admin, "SELECT page_count FROM pragma_page_count").await;
        assert!(left < pages / 2, "{left} of {pages}");
        assert_eq!(
            count(&mut admin, "SELECT count(*) FROM log_bodies").await,
            200
        );
        assert_eq!(
            count(&mut admin, "SELECT count(*) FROM log_entries").await,
            801
        );
        let sound: String = sqlx::query("PRAGMA integrity_check")
            .fetch_one(&mut admin)
            .await
            .unwrap()
            .get(0);
        assert_eq!(sound, "ok");
        // And the writer goes on.
        let mut next = batch(3, 1);
        next.entries = vec![(801, vec![1])];
        next.bodies = Vec::new();
        store.commit(&next).await.unwrap();
    }

    /// Old tiles of leaves go some at a time, the oldest first, and no other.
    #[tokio::test]
    async fn tiles_before_a_place_go_some_in_each_batch() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let store = Sqlite::create(Exclusive::take(&file).unwrap())
            .await
            .unwrap();
        let mut first = batch(0, 40);
        first.tiles.push(crate::store::TileRow {
            level: 1,
            index: 0,
            data: vec![5; 32],
        });
        store.commit(&first).await.unwrap();
        let mut admin = admin(&file).await;
        let leaves = "SELECT count(*) FROM log_tiles WHERE level = 0";
        let mut left = Vec::new();
        for parent in 1..5 {
            let mut next = batch(parent, 1);
            next.entries = vec![(40 + parent, vec![1])];
            next.bodies = Vec::new();
            next.tiles = Vec::new();
            next.tiles_before = Some(35);
            store.commit(&next).await.unwrap();
            left.push(count(&mut admin, leaves).await);
        }
        assert_eq!(left, [24, 8, 5, 5]);
        let oldest = "SELECT min(idx) FROM log_tiles WHERE level = 0";
        assert_eq!(count(&mut admin, oldest).await, 35);
        assert_eq!(count(&mut admin, "SELECT count(*) FROM log_tiles").await, 6);
    }
}
