//! Turns at writing: who has the head's row locked is the only one who can move it, until the transaction ends.
//!
//! Called by the store beside it, on the one connection that writes. By courtesy a turn lasts longer than its transaction, until the
//! batch is anchored: nobody writes upon one that is not, so whoever had the next turn would wait in it, or anchor the batch
//! beside its maker, and everybody would list the token's objects meanwhile. Nothing is safe by it. A node that is frozen
//! keeps it, and the others do without.
//!
//! After a crash here: both locks end with the connection.

use std::time::{Duration, Instant};

use sqlx::Row as _;

use super::super::{HeadRow, StoreError};
use super::answers::{bounded, is_the_servers, unsigned, within};
use super::write::{Writer, begin};
use super::{MAX_HEAD, limit};

const LOCK: &str = "SELECT seq, CASE WHEN octet_length(body) <= $1 THEN body END AS body, \
    CASE WHEN octet_length(mac) <= $1 THEN mac END AS mac FROM head WHERE one = 1 FOR UPDATE";

/// Named as the right to write is, by "cstd" and a number.
const BEGIN_AND_TRY: &str = concat!(
    begin!(),
    "; SELECT pg_catalog.pg_try_advisory_lock(1668510820, 2)"
);
/// In line with others. A token that all nodes reach over a network anchors within this time.
const WAIT: &str = "SET LOCAL lock_timeout = '200ms'; SELECT pg_catalog.pg_advisory_lock(1668510820, 2); \
    SET LOCAL lock_timeout = '3s'";
const RELEASE: &str = "SELECT pg_catalog.pg_advisory_unlock(1668510820, 2)";
/// How long nobody is waited for, once somebody kept it.
const WITHOUT: Duration = Duration::from_secs(5);

/// What this connection has of a turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    had: Option<Had>,
    /// Its transaction is open, and has the head's row.
    in_transaction: bool,
    by_courtesy: bool,
    /// Somebody kept it until then.
    kept: Option<Instant>,
}

/// The time in which this node keeps the others from writing.
#[derive(Debug)]
struct Had(Instant);

impl Drop for Had {
    fn drop(&mut self) {
        metrics::histogram!("custodyd_turn_seconds").record(self.0.elapsed().as_secs_f64());
    }
}

impl Turn {
    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// With the next COMMIT or ROLLBACK.
    pub(super) fn transaction_ends(&mut self) {
        self.in_transaction = false;
    }

    fn does_without(&self) -> bool {
        self.kept.is_some_and(|kept| kept.elapsed() < WITHOUT)
    }
}

impl Writer {
    /// Waits for whoever writes. The connection is of no use after an error.
    pub(super) async fn take_turn(&mut self) -> Result<Option<HeadRow>, StoreError> {
        const OPERATION: &str = "take a turn at writing";
        match self.turn.by_courtesy {
            true => self.begin().await?,
            false => self.begin_in_line().await?,
        }
        let asked = sqlx::query(LOCK).bind(limit(MAX_HEAD));
        let row = within(OPERATION, asked.fetch_optional(&mut self.connection)).await?;
        self.turn.in_transaction = true;
        self.turn.had.get_or_insert_with(|| Had(Instant::now()));
        let Some(row) = row else { return Ok(None) };
        Ok(Some(HeadRow {
            seq: unsigned(&row, "seq", OPERATION)?,
            body: bounded(&row, "body", MAX_HEAD, OPERATION)?,
            mac: bounded(&row, "mac", MAX_HEAD, OPERATION)?,
        }))
    }

    async fn begin_in_line(&mut self) -> Result<(), StoreError> {
        const OPERATION: &str = "stand in line for a turn";
        if self.turn.is_in_transaction() {
            return Ok(());
        }
        let begun = sqlx::raw_sql(BEGIN_AND_TRY).fetch_all(&mut self.connection);
        let begun = within(OPERATION, begun).await?;
        let mut tried = begun.iter().map(|row| row.try_get(0).unwrap_or(false));
        self.turn.by_courtesy = tried.next().unwrap_or(false);
        if self.turn.by_courtesy || self.turn.does_without() {
            return Ok(());
        }
        match self.run(OPERATION, WAIT).await {
            Ok(()) => {
                self.turn.by_courtesy = true;
                Ok(())
            }
            Err(error) if is_the_servers(&error) => {
                tracing::warn!(
                    "another node keeps its turn at writing, though it writes nothing: going on without waiting for it"
                );
                self.turn.kept = Some(Instant::now());
                self.run(OPERATION, "ROLLBACK").await?;
                self.begin().await
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing was written in it, or what was is anchored, as far as it will be by now.
    pub(super) async fn end_turn(&mut self) -> Result<(), StoreError> {
        const OPERATION: &str = "end a turn";
        if self.turn.is_in_transaction() {
            self.run(OPERATION, "ROLLBACK").await?;
            self.turn.transaction_ends();
        }
        if std::mem::take(&mut self.turn.by_courtesy) {
            self.run(OPERATION, RELEASE).await?;
        }
        self.turn.had = None;
        Ok(())
    }
}
