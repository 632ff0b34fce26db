//! What the server answers, within bounds: of time, of size, and of what the driver stumbles over.
//!
//! Every statement of the store passes through here, and every value of its rows. The adversary writes each
//! byte of an answer. sqlx reads what honest servers send, and panics at some of what others might: a
//! message that is shorter than its own length, a row with a value beyond its end. A panic that went on would end the
//! committer, and with it the daemon; it ends here, as a server that is away, and the connection goes with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::{FutureExt as _, TryStreamExt as _};
use sqlx::Row as _;
use sqlx::postgres::{PgArguments, PgPool, PgRow};

use super::super::StoreError;
use super::readers::Lent;

/// How long a statement has; who waits for it has as long again.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// The same for a statement that goes over many rows.
const SCAN: Duration = Duration::from_secs(120);
/// Bytes of one answer: a thousand times as many as the longest honest ones have.
const MAX_ANSWER: usize = 512 << 20;

/// What the server answered, told apart: damage, which trying again does not mend, and everything
/// else, which is an outage.
pub(super) fn unavailable(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| match source {
        sqlx::Error::Configuration(reason) => StoreError::Refused {
            operation,
            problem: reason.to_string(),
        },
        source => {
            let code = source.as_database_error().and_then(|error| error.code());
            // data_corrupted and index_corrupted.
            match code.as_deref() {
                Some("XX001" | "XX002") => StoreError::Malformed {
                    operation,
                    problem: format!("the database is damaged: {source}"),
                },
                // Integrity constraints, class 23: we hold them, so what breaks them was there before.
                Some(code) if code.starts_with("23") => StoreError::Altered {
                    operation,
                    problem: format!("a row that custodyd did not write is in the way: {source}"),
                },
                _ => StoreError::Unavailable { operation, source },
            }
        }
    }
}

/// Whether it is the server's own word about what it was asked, and not of a connection that is gone. Of one that it has
/// ended it says so itself (class 57P): the word lies there since then, and is read as if it were the answer.
pub(super) fn is_the_servers(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else {
        return false;
    };
    source.as_database_error().is_some_and(|said| {
        let code = said.code().unwrap_or_default();
        !code.starts_with("57P")
    })
}

/// A server that does not answer holds nobody for ever.
pub(super) async fn within<T>(
    operation: &'static str,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    bounded_by(ANSWER, operation, answer).await
}

pub(super) async fn scanning<T>(
    operation: &'static str,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    bounded_by(SCAN, operation, answer).await
}

async fn bounded_by<T>(
    time: Duration,
    operation: &'static str,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    // What was half read is not looked at again: after a failure its connection is closed.
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let answered = match tokio::time::timeout(time, answer).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(_)) => Err(unreadable()),
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "no answer in time",
        ))),
    };
    answered.map_err(unavailable(operation))
}

fn unreadable() -> sqlx::Error {
    sqlx::Error::Protocol("the server sent what no PostgreSQL server sends".into())
}

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

/// The one row of an answer.
pub(super) async fn row(readers: &PgPool, query: Query<'_>) -> Result<PgRow, sqlx::Error> {
    let row = maybe_row(readers, query).await?;
    row.ok_or(sqlx::Error::RowNotFound)
}

pub(super) async fn maybe_row(
    readers: &PgPool,
    query: Query<'_>,
) -> Result<Option<PgRow>, sqlx::Error> {
    let mut lent = Lent::of(readers).await?;
    let row = query.fetch_optional(lent.connection()?).await?;
    lent.give_back();
    Ok(row)
}

/// The rows of an answer: so many at the most, and no more bytes than anybody keeps. A server is asked for no more,
/// and need not keep to it.
pub(super) async fn rows(
    readers: &PgPool,
    query: Query<'_>,
    most: usize,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut lent = Lent::of(readers).await?;
    let (mut rows, mut bytes) = (Vec::new(), 0_usize);
    let mut answer = query.fetch(lent.connection()?);
    while let Some(row) = answer.try_next().await? {
        bytes = bytes.saturating_add(bytes_of(&row));
        if rows.len() >= most || bytes > MAX_ANSWER {
            let problem = "the server sends more than it was asked for";
            return Err(sqlx::Error::Protocol(problem.into()));
        }
        rows.push(row);
    }
    drop(answer);
    lent.give_back();
    Ok(rows)
}

fn bytes_of(row: &PgRow) -> usize {
    let values = (0..row.len()).filter_map(|at| row.try_get_raw(at).ok());
    let sizes = values.map(|value| value.as_bytes().map_or(0, <[u8]>::len));
    sizes.fold(0, usize::saturating_add)
}

/// A value, where the row has one of this kind.
fn value<'r, T>(row: &'r PgRow, column: &str) -> Option<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    catch_unwind(AssertUnwindSafe(|| row.try_get(column).ok())).unwrap_or_default()
}

/// A byte column selected as `CASE WHEN octet_length(c) <= max THEN c END`: null where the row is
/// there means that the bound does not hold.
pub(super) fn bounded(
    row: &PgRow,
    column: &str,
    limit: usize,
    operation: &'static str,
) -> Result<Vec<u8>, StoreError> {
    value::<Option<Vec<u8>>>(row, column)
        .flatten()
        // The server says how long it is, and need not keep to it.
        .filter(|bytes| bytes.len() <= limit)
        .ok_or(StoreError::Oversized { operation, limit })
}

pub(super) fn unsigned(
    row: &PgRow,
    column: &str,
    operation: &'static str,
) -> Result<u64, StoreError> {
    value::<i64>(row, column)
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| StoreError::Malformed {
            operation,
            problem: format!("{column} is not a non-negative number"),
        })
}

/// Whether a column says so that is true or false.
pub(super) fn says(row: &PgRow, column: &str) -> bool {
    value(row, column).unwrap_or(false)
}

/// Whether a column of numbers has none.
pub(super) fn is_null(row: &PgRow, column: &str) -> bool {
    matches!(value::<Option<i64>>(row, column), Some(None))
}
