//! Carrying out the steps of a newer version, beside nodes that read and write.
//!
//! Called once by a start, before its turn at writing, on the connection that writes. A table that is altered is taken
//! for that alone, so whoever reads or writes it waits; and who waits for such a lock holds up all that come after it.
//! So it is asked for briefly, first of all and all at once, and given up where somebody has the table: then the
//! others go on, and it is tried again. The wait is shorter than the time after which a server looks for a deadlock,
//! so none of theirs is ever ended for ours.
//!
//! After a crash here: a step is done or not. One that is done and that no head speaks of yet ends no node that serves,
//! is refused by an older one that starts, and is found by the next start of this version.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::super::StoreError;
use super::super::steps::{self, Step};
use super::answers::within;
use super::schema;

const OPERATION: &str = "extend the tables";
/// A server looks for a deadlock after a second.
const BRIEFLY: &str = "200ms";
/// The others go on meanwhile.
const PAUSE: Duration = Duration::from_millis(300);
const TRIES: u32 = 120;

/// Adds what this version knows and the tables have not.
pub(super) async fn extend(connection: &mut PgConnection) -> Result<(), StoreError> {
    for step in steps::all() {
        let mut tries = TRIES;
        while !is_done(connection, step).await? {
            tries -= 1;
            match add(connection, step).await {
                Ok(()) => {
                    tracing::warn!(
                        schema = step.schema,
                        least = step.least,
                        "the tables have what this version adds"
                    );
                }
                Err(error) if !is_in_use(&error) => return Err(error),
                Err(error) => {
                    run(connection, "ROLLBACK").await?;
                    if tries == 0 {
                        return Err(StoreError::Refused {
                            operation: OPERATION,
                            problem: format!(
                                "schema {} could not be made in {TRIES} tries, the last one ended with: {error}. Nothing \
                                 was changed. Look for who keeps a table for long (pg_locks), and start again",
                                step.schema
                            ),
                        });
                    }
                    tracing::info!(%error, schema = step.schema, "a table is in use; it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    Ok(())
}

/// Somebody has a table (`lock_not_available`), or waits for what we have (`deadlock_detected`).
fn is_in_use(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else {
        return false;
    };
    let code = source.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

async fn is_done(connection: &mut PgConnection, step: &Step) -> Result<bool, StoreError> {
    step.is_done(&schema::check(connection).await?.described)
}

async fn add(connection: &mut PgConnection, step: &Step) -> Result<(), StoreError> {
    let taken = match step.alters.is_empty() {
        true => String::new(),
        false => format!(
            "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; ",
            step.alters.join(", ")
        ),
    };
    run(
        connection,
        &format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '{BRIEFLY}'; {taken}{}; COMMIT",
            step.sql
        ),
    )
    .await
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), StoreError> {
    let run = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection);
    within(OPERATION, run).await.map(drop)
}
