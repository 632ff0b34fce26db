//! Turns at writing: who has the head's row locked is the only one who can move it, until the transaction ends.
//!
//! Called by the store beside it, on the one connection that writes. By courtesy a turn lasts longer than its transaction, until the
//! batch is anchored: nobody writes upon one that is not, so whoever had the next turn would wait in it, or anchor the batch
//! beside its maker, and everybody would list the token's objects meanwhile. No safety depends on it. A node that is frozen
//! keeps it, and the others do without.
//!
//! After a crash here: both locks end with the connection.

use std::time::{Duration, Instant};

use super::super::{HeadRow, StoreError};
use super::answers::{bounded, says, unsigned, within};
use super::write::{Writer, begin};
use super::{MAX_HEAD, limit};

const LOCK: &str = "SELECT seq, CASE WHEN octet_length(body) <= $1 THEN body END AS body, \
    CASE WHEN octet_length(mac) <= $1 THEN mac END AS mac FROM head WHERE one = 1 FOR UPDATE";

/// Named as the right to write is (`connect`), by "cstd", and 2.
macro_rules! courtesy {
    () => {
        "7166199404922142722"
    };
}
const BEGIN_AND_TRY: &str = concat!(
    begin!(),
    "; SELECT pg_catalog.pg_try_advisory_lock(",
    courtesy!(),
    ") AS had"
);
/// In line with others: each of them may take a while at a token that is far away.
const WAIT: &str = concat!(
    "SET LOCAL lock_timeout = '500ms'; SELECT pg_catalog.pg_advisory_lock(",
    courtesy!(),
    "); SET LOCAL lock_timeout = '3s'"
);
const RELEASE: &str = concat!("SELECT pg_catalog.pg_advisory_unlock(", courtesy!(), ")");
/// Whether who has it has asked the server nothing for longer than a slow token takes, as far as that is shown to us. By the
/// server's word, as all of this.
const RESTS: &str = concat!(
    "SELECT coalesce(bool_or(a.state IS NULL \
       OR a.state = 'idle' AND pg_catalog.clock_timestamp() - a.state_change > '2s'), false) AS rests \
     FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
     AND (l.classid::bigint << 32 | l.objid::bigint) = ",
    courtesy!(),
    " AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
);
/// What PostgreSQL calls it when a lock was waited for in vain.
const NOT_AVAILABLE: &str = "55P03";
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
        let tried = sqlx::raw_sql(BEGIN_AND_TRY).fetch_optional(&mut self.connection);
        let tried = within(OPERATION, tried).await?;
        self.turn.by_courtesy = tried.is_some_and(|row| says(&row, "had"));
        if self.turn.by_courtesy || self.turn.does_without() {
            return Ok(());
        }
        match self.run(OPERATION, WAIT).await {
            Ok(()) => {
                self.turn.by_courtesy = true;
                Ok(())
            }
            Err(error) if was_in_vain(&error) => {
                self.run(OPERATION, "ROLLBACK").await?;
                let asked = sqlx::raw_sql(RESTS).fetch_optional(&mut self.connection);
                let asked = within(OPERATION, asked).await?;
                if asked.is_some_and(|row| says(&row, "rests")) {
                    tracing::warn!(
                        "another node keeps its turn at writing for seconds after its commit: for a while it is not waited for"
                    );
                    self.turn.kept = Some(Instant::now());
                }
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

fn was_in_vain(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else {
        return false;
    };
    let said = source.as_database_error().and_then(|said| said.code());
    said.is_some_and(|code| code == NOT_AVAILABLE)
}
