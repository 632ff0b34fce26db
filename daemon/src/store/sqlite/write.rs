//! Writing: one batch, one transaction, on the one connection that writes.
//!
//! Called by `Sqlite::commit`. Holds the schema's change counter as of its check and demands it
//! in every transaction, so that a trigger made while we run never acts in one of ours.

use sqlx::query_builder::Separated;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, QueryBuilder, Sqlite as Db};

use super::super::{Batch, CommitError, Spare, StoreError, TILES_AT_ONCE};
use super::schema::{self, Checked};
use super::{signed, unavailable};

/// Rows of one INSERT. SQLite takes 32,766 variables in a statement, a row has at most three.
const ROWS: usize = 1000;

/// `PRAGMA auto_vacuum` of a file that can be shortened in steps.
const INCREMENTAL: i64 = 2;
/// Spare pages are given back where there are so many, and one in so many of the file: what comes next needs
/// some anyway.
const MANY: i64 = 64;
const SHARE: i64 = 8;
/// Pages that one step gives back: a millisecond or two.
const STEP: i64 = 32;

#[derive(Debug)]
pub(super) struct Writer {
    connection: SqliteConnection,
    schema: Checked,
}

impl Writer {
    /// Opens the file and refuses any schema that is not exactly ours.
    pub(super) async fn open(options: &SqliteConnectOptions) -> Result<Self, StoreError> {
        let mut connection = SqliteConnection::connect_with(options)
            .await
            .map_err(unavailable("open the database"))?;
        let schema = schema::check(&mut connection).await?;
        Ok(Self { connection, schema })
    }

    /// After a crash here: before COMMIT returns, either nothing or everything of the batch is
    /// in the file (WAL, synchronous=FULL); after it returned, everything is.
    pub(super) async fn write(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let failed = |operation| move |e| CommitError::NotWritten(unavailable(operation)(e));
        let mut transaction = self
            .connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed("begin"))?;
        // The schema's counter stands in the file's header, under this transaction's lock. It is
        // asked in the statement that moves the head, because each statement costs thread hops.
        let moved = sqlx::query(
            "INSERT INTO head (one, seq, body, mac) SELECT 1, ?1, ?2, ?3 \
             WHERE (EXISTS (SELECT 1 FROM head WHERE one = 1 AND seq = ?4) OR (?4 = 0 AND NOT EXISTS (SELECT 1 FROM head))) \
             AND (SELECT schema_version FROM pragma_schema_version) = ?5 \
             ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, body = excluded.body, mac = excluded.mac",
        )
        .bind(signed(batch.head.seq))
        .bind(&batch.head.body)
        .bind(&batch.head.mac)
        .bind(signed(batch.parent))
        .bind(self.schema.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed("move the head"))?;
        if moved.rows_affected() != 1 {
            let found = schema::check(&mut transaction).await;
            return Err(match found {
                Err(altered) => CommitError::NotWritten(altered),
                Ok(found) if found != self.schema => CommitError::NotWritten(StoreError::Refused {
                    operation: "check the schema",
                    problem: "the schema was touched while custodyd runs; it is checked again"
                        .into(),
                }),
                Ok(_) => CommitError::LostRace,
            });
        }
        rows(batch)
            .build()
            .execute(&mut *transaction)
            .await
            .map_err(failed("write the rows"))?;
        transaction
            .commit()
            .await
            .map_err(|e| CommitError::Unknown(unavailable("commit")(e)))
    }

    /// One step of giving back what is spare: see [`super::Store::give_back`].
    pub(super) async fn give_back(&mut self) -> Result<Spare, StoreError> {
        const OPERATION: &str = "give back spare pages";
        let connection = &mut self.connection;
        let (pages, free, size, how): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT page_count, freelist_count, page_size, auto_vacuum FROM pragma_page_count, \
             pragma_freelist_count, pragma_page_size, pragma_auto_vacuum",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(unavailable(OPERATION))?;
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
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "PRAGMA incremental_vacuum({STEP})"
        )))
        .execute(&mut *connection)
        .await
        .map_err(unavailable(OPERATION))?;
        let left = spare(free.saturating_sub(STEP));
        if !left.much {
            // The file gets shorter when the log beside it is folded in.
            sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
                .execute(connection)
                .await
                .map_err(unavailable(OPERATION))?;
        }
        Ok(left)
    }

    /// The last connection that closes folds the WAL back into the file.
    pub(super) async fn close(self) {
        let _ = self.connection.close().await;
    }
}

/// Every row of a batch in one text of several statements: each statement that is sent by
/// itself costs two thread hops, and a commit has little else to do. The bound on variables
/// holds for each statement of the text, so many rows become several statements.
fn rows(batch: &Batch) -> QueryBuilder<Db> {
    let mut query = QueryBuilder::new("");
    delete(
        &mut query,
        "DELETE FROM records WHERE id IN (",
        &batch.removed,
        |list, id| {
            list.push_bind(id.as_bytes().as_slice());
        },
    );
    delete(
        &mut query,
        "DELETE FROM log_bodies WHERE idx IN (",
        &batch.erased,
        |list, index| {
            list.push_bind(signed(*index));
        },
    );
    insert(
        &mut query,
        "INSERT INTO records (id, generation, sealed) ",
        &batch.records,
        |row, (id, generation, sealed)| {
            row.push_bind(id.as_bytes().as_slice())
                .push_bind(signed(*generation))
                .push_bind(sealed.as_slice());
        },
        " ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, sealed = excluded.sealed;",
    );
    insert(
        &mut query,
        "INSERT INTO bucket_members (bucket, members) ",
        &batch.members,
        |row, (bucket, members)| {
            row.push_bind(i64::from(*bucket))
                .push_bind(members.as_slice());
        },
        " ON CONFLICT (bucket) DO UPDATE SET members = excluded.members;",
    );
    insert(
        &mut query,
        "INSERT INTO log_entries (idx, leaf) ",
        &batch.entries,
        |row, (index, leaf)| {
            row.push_bind(signed(*index)).push_bind(leaf.as_slice());
        },
        ";",
    );
    insert(
        &mut query,
        "INSERT INTO log_bodies (idx, salt, body) ",
        &batch.bodies,
        |row, (index, body)| {
            row.push_bind(signed(*index))
                .push_bind(body.salt.as_slice())
                .push_bind(body.body.as_slice());
        },
        ";",
    );
    caches(&mut query, batch);
    query
}

/// What can be built anew from the other tables.
fn caches(query: &mut QueryBuilder<Db>, batch: &Batch) {
    let seq = batch.head.seq;
    let digests: Vec<_> = batch.digests.iter().collect();
    insert(
        query,
        "INSERT INTO bucket_digests (bucket, digest, seq) ",
        &digests,
        |row, (bucket, digest)| {
            row.push_bind(i64::from(**bucket))
                .push_bind(digest.to_vec())
                .push_bind(signed(seq));
        },
        " ON CONFLICT (bucket) DO UPDATE SET digest = excluded.digest, seq = excluded.seq;",
    );
    insert(
        query,
        "INSERT INTO log_tiles (level, idx, data) ",
        &batch.tiles,
        |row, tile| {
            row.push_bind(i64::from(tile.level))
                .push_bind(signed(tile.index))
                .push_bind(tile.data.as_slice());
        },
        " ON CONFLICT (level, idx) DO UPDATE SET data = excluded.data;",
    );
    if let Some(before) = batch.tiles_before {
        let oldest = "DELETE FROM log_tiles WHERE rowid IN \
            (SELECT rowid FROM log_tiles WHERE level = 0 AND idx < ";
        query.push(oldest).push_bind(signed(before));
        query.push(" ORDER BY idx LIMIT ").push_bind(TILES_AT_ONCE);
        query.push(");");
    }
}

fn insert<T>(
    query: &mut QueryBuilder<Db>,
    into: &'static str,
    rows: &[T],
    bind: impl Fn(&mut Separated<'_, Db, &'static str>, &T),
    end: &'static str,
) {
    for rows in rows.chunks(ROWS) {
        query.push(into);
        query.push_values(rows, |mut row, values| bind(&mut row, values));
        query.push(end);
    }
}

fn delete<'a, T>(
    query: &mut QueryBuilder<Db>,
    from: &'static str,
    keys: &'a [T],
    bind: impl Fn(&mut Separated<'_, Db, &'static str>, &'a T),
) {
    for keys in keys.chunks(ROWS) {
        query.push(from);
        let mut list = query.separated(", ");
        for key in keys {
            bind(&mut list, key);
        }
        query.push(");");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

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
    async fn a_batch_with_more_rows_than_a_statement_has_variables_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let store = Sqlite::create(Exclusive::take(&file).unwrap())
            .await
            .unwrap();
        // 32,766 variables are 10,922 rows of three.
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
        // Each row holds its own values, across the statements' borders.
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
            let refused = store.commit(&batch(1, 2)).await;
            assert!(
                matches!(
                    refused,
                    Err(CommitError::NotWritten(StoreError::Refused { .. }))
                ),
                "{refused:?}"
            );
        }
        let planted = "SELECT count(*) FROM log_tiles WHERE level = 1";
        assert_eq!(count(&mut admin, planted).await, 0);
        // Control: for anybody who does not look, it acts.
        sqlx::query("UPDATE records SET generation = 1")
            .execute(&mut admin)
            .await
            .unwrap();
        assert_eq!(count(&mut admin, planted).await, 1);
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
