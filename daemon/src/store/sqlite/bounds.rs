//! How long a statement that reads may take, and how much it may return.
//!
//! Used by the connections that read. Each has compared the schema with ours when it was opened; whoever administers the file
//! can put a view in the place of a table afterwards, and one over a query that recurs has no end. SQLite would work at
//! it for ever, on the thread and the connection of whoever asked, and the next who asks would take the last one. So every
//! statement begins with a time, after which SQLite breaks it off; who was broken off looks at the schema again, and says what was
//! found there. (A commit demands the schema that it knows, in its transaction, before anything that names a table.)

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};

use super::super::StoreError;
use super::{schema, unavailable};

/// What a request waits for; and a statement that goes over a whole table.
pub(super) const READ: Duration = Duration::from_secs(5);
pub(super) const SCAN: Duration = Duration::from_secs(120);
/// Steps of SQLite's machine between two looks at the clock: a fraction of a millisecond, and more than a look takes by far.
const STEPS: i32 = 10_000;
/// SQLITE_INTERRUPT.
const BROKEN_OFF: &str = "9";

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, SqliteArguments>;

/// The rows of a statement, of which there can be so many.
///
/// # Errors
/// `Refused` where the schema was altered, or the time was not enough; `Malformed` where there are more.
pub(super) async fn rows(
    (readers, time): (&SqlitePool, Duration),
    operation: &'static str,
    query: Query<'_>,
    most: usize,
) -> Result<Vec<SqliteRow>, StoreError> {
    let mut reader = readers.acquire().await.map_err(unavailable(operation))?;
    limit(&mut reader, time)
        .await
        .map_err(unavailable(operation))?;
    match fetch(&mut reader, query, most).await {
        Ok(Some(rows)) => Ok(rows),
        Ok(None) => Err(StoreError::Malformed {
            operation,
            problem: "there are more rows than places for them".into(),
        }),
        Err(error) if is_broken_off(&error) => {
            limit(&mut reader, time)
                .await
                .map_err(unavailable(operation))?;
            schema::check(&mut reader).await?;
            Err(too_long(operation, time))
        }
        Err(error) => Err(unavailable(operation)(error)),
    }
}

async fn fetch(
    reader: &mut SqliteConnection,
    query: Query<'_>,
    most: usize,
) -> sqlx::Result<Option<Vec<SqliteRow>>> {
    let mut answer = query.fetch(reader);
    let mut rows = Vec::new();
    while let Some(row) = answer.try_next().await? {
        if rows.len() >= most {
            return Ok(None);
        }
        rows.push(row);
    }
    Ok(Some(rows))
}

/// Its next statements have so long together.
async fn limit(reader: &mut SqliteConnection, time: Duration) -> sqlx::Result<()> {
    let until = Instant::now() + time;
    let mut handle = reader.lock_handle().await?;
    handle.set_progress_handler(STEPS, move || Instant::now() < until);
    Ok(())
}

/// The same of a connection that goes over whole tables.
pub(super) fn limit_here(
    connection: &rusqlite::Connection,
    time: Duration,
) -> rusqlite::Result<()> {
    let until = Instant::now() + time;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))
}

fn is_broken_off(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(BROKEN_OFF)
}

pub(super) fn too_long(operation: &'static str, time: Duration) -> StoreError {
    StoreError::Refused {
        operation,
        problem: format!(
            "SQLite was at it for more than {} s, and was told to stop; the schema is custodyd's own: see whether the disk \
             or this host is so slow",
            time.as_secs()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use custodyd_hsm::RecordId;
    use rusqlite::{Connection, ErrorCode};
    use tempfile::TempDir;

    use super::super::scanner::Scanner;
    use super::super::{Exclusive, Sqlite};
    use super::*;
    use crate::store::Store as _;

    const SHORT: Duration = Duration::from_millis(300);
    const COUNT: &str = "SELECT count(*) FROM records";

    async fn store() -> (TempDir, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let lock = Exclusive::take(&dir.path().join("a.sqlite")).unwrap();
        let store = Sqlite::create(lock).await.unwrap();
        (dir, store)
    }

    /// An administrator puts rows without an end in the place of a table, while the store is open.
    fn endless(dir: &TempDir) -> Connection {
        let admin = Connection::open(dir.path().join("a.sqlite")).unwrap();
        let sql = "ALTER TABLE records RENAME TO kept; \
            CREATE VIEW records(id, generation, sealed) AS \
            WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x, x FROM n";
        admin.execute_batch(sql).unwrap();
        admin
    }

    fn is_named<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
        let said = answer.unwrap_err().to_string();
        assert!(said.contains("did not make"), "{said}");
    }

    #[tokio::test]
    async fn what_has_no_end_is_broken_off_and_named() {
        let (dir, store) = store().await;
        let id = RecordId([1; 32]);
        store.record(&id, 1).await.unwrap();
        let admin = endless(&dir);
        // The control: nothing but a clock of ours ends it.
        let (begun, patience) = (Instant::now(), 4 * SHORT);
        let handler = move || begun.elapsed() > patience;
        admin.progress_handler(STEPS, Some(handler)).unwrap();
        let counted = admin.query_row(COUNT, [], |row| row.get::<_, i64>(0));
        let code = counted.unwrap_err().sqlite_error_code();
        assert_eq!(code, Some(ErrorCode::OperationInterrupted));
        assert!(begun.elapsed() > patience);
        // Of all readers at once, and they are there again afterwards.
        for _ in 0..2 {
            let count = || rows((&store.readers, SHORT), "test", sqlx::query(COUNT), 1);
            let (one, two, three) = tokio::join!(count(), count(), count());
            [one, two, three].into_iter().for_each(is_named);
        }
        let all = rows(
            (&store.readers, SHORT),
            "test",
            sqlx::query("SELECT id FROM records"),
            9,
        );
        assert!(matches!(all.await, Err(StoreError::Malformed { .. })));
        is_named(store.record(&id, 1).await);
        let scanner = Scanner::new(&dir.path().join("a.sqlite"));
        // One that opens now is refused at once.
        is_named(scanner.read("test", |_| Ok(())).await);
        store.close().await;
    }

    #[tokio::test]
    async fn a_scan_is_broken_off_as_well() {
        let (dir, store) = store().await;
        let scanner = Scanner::new(&dir.path().join("a.sqlite"));
        let count =
            |connection: &Connection| connection.query_row(COUNT, [], |row| row.get::<_, i64>(0));
        scanner.read("test", count).await.unwrap();
        endless(&dir);
        is_named(scanner.read_within(SHORT, "test", count).await);
        scanner.close().await;
        store.close().await;
    }

    /// A host that is slow is no administrator.
    #[tokio::test]
    async fn who_is_only_slow_is_told_so() {
        let (_dir, store) = store().await;
        let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
        let slow = rows((&store.readers, SHORT), "test", sqlx::query(endless), 1);
        let said = slow.await.unwrap_err().to_string();
        assert!(said.contains("see whether the disk"), "{said}");
        store.ping().await.unwrap();
        store.close().await;
    }
}
