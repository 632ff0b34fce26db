//! Writing: one batch, one transaction, on the one connection that writes.
//!
//! Called by `Postgres::commit`. Its first statement that changes anything moves the head from the
//! batch's parent and from nothing else, so that whoever else may write, or whatever an earlier
//! connection of ours left under way, both never stand. Must never call a batch unwritten once
//! COMMIT was sent, nor a head unseen once a statement with it was.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::{PgConnection, PgQueryResult};

use super::super::{Batch, CommitError, Declared, HeadRow, StoreError, TILES_AT_ONCE};
use super::answers::within;
use super::beside;
use super::connect::{self, Held, Server};
use super::extending;
use super::notices::Notices;
use super::schema::{self, Checked};
use super::signed;
use super::turn::Turn;

/// The locks are those that the statements take anyway. Taken before the schema is looked at, they
/// keep everybody from changing it until the end.
/// The setting is gone with the transaction: where none was begun, whatever stands between us and the server, no
/// statement finds it, and no head moves without its rows.
macro_rules! begin {
    () => {
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         LOCK TABLE head, records, bucket_members, bucket_digests, log_entries, log_bodies, log_tiles \
         IN ROW EXCLUSIVE MODE; SET LOCAL custodyd.transaction = 'begun'"
    };
}
pub(super) use begin;

/// That a transaction is open, that our names still mean our tables, as a statement of this connection looks for them, and
/// that nobody's code hangs on them.
macro_rules! unaltered {
    () => {
        "pg_catalog.current_setting('custodyd.transaction', true) = 'begun' \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = ANY($4)) \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = ANY($4)) \
         AND (SELECT count(*) FROM unnest($4::oid[], $5::text[]) AS ours(id, name) JOIN pg_catalog.pg_class c \
            ON c.oid = ours.id AND c.relname = ours.name AND c.relkind = 'r' AND NOT c.relrowsecurity \
            AND NOT c.relispartition AND pg_catalog.to_regclass(ours.name) = c.oid) = 7"
    };
}

const MOVE: &str = concat!(
    "UPDATE head SET seq = $1, body = $2, mac = $3 WHERE one = 1 AND seq = $6 AND ",
    unaltered!()
);
const FIRST: &str = concat!(
    "INSERT INTO head (one, seq, body, mac) SELECT 1, $1, $2, $3 WHERE $6 = 0::bigint AND ",
    unaltered!(),
    " ON CONFLICT DO NOTHING"
);

/// Changes nothing, and is a commit: once it is acknowledged, so is all that came before it.
const TOUCH: &str = concat!(
    "UPDATE head SET seq = $1 WHERE one = 1 AND seq = $1 AND body = $2 AND mac = $3 AND ",
    unaltered!()
);

/// Every row of a batch in one statement, because each costs a way to the server and back. Its parts
/// touch different tables, or different rows.
const ROWS: &str = "\
WITH removed AS (DELETE FROM records WHERE id = ANY($1)), \
erased AS (DELETE FROM log_bodies WHERE idx = ANY($2)), \
record AS (INSERT INTO records (id, generation, sealed) \
  SELECT * FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) \
  ON CONFLICT (id) DO UPDATE SET generation = excluded.generation, sealed = excluded.sealed), \
list AS (INSERT INTO bucket_members (bucket, members) SELECT * FROM unnest($6::bigint[], $7::bytea[]) \
  ON CONFLICT (bucket) DO UPDATE SET members = excluded.members), \
digest AS (INSERT INTO bucket_digests (bucket, digest, seq) \
  SELECT bucket, digest, $10 FROM unnest($8::bigint[], $9::bytea[]) AS digests(bucket, digest) \
  ON CONFLICT (bucket) DO UPDATE SET digest = excluded.digest, seq = excluded.seq), \
entry AS (INSERT INTO log_entries (idx, leaf) SELECT * FROM unnest($11::bigint[], $12::bytea[])), \
body AS (INSERT INTO log_bodies (idx, salt, body) \
  SELECT * FROM unnest($13::bigint[], $14::bytea[], $15::bytea[])), \
oldest AS (DELETE FROM log_tiles WHERE level = 0 AND idx IN \
  (SELECT idx FROM log_tiles WHERE level = 0 AND idx >= 0 AND idx < $19 ORDER BY idx LIMIT $20)) \
INSERT INTO log_tiles (level, idx, data) SELECT * FROM unnest($16::bigint[], $17::bigint[], $18::bytea[]) \
  ON CONFLICT (level, idx) DO UPDATE SET data = excluded.data";

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: PgConnection,
    server: Server,
    schema: Checked,
    notices: Notices,
    pub(super) turn: Turn,
    /// What other nodes are told by this connection.
    declared: Vec<Declared>,
}

impl Writer {
    /// Refuses any schema that is not ours, but for what `schema` lets be.
    pub(super) async fn of(held: Held) -> Result<Self, StoreError> {
        let Held {
            mut connection,
            server,
            ..
        } = held;
        let schema = match schema::check(&mut connection).await {
            Ok(schema) => schema,
            Err(refused) => {
                // Else whoever tries again meets a lock that the server has not let go of yet.
                connect::close(connection).await;
                return Err(refused);
            }
        };
        Ok(Self {
            connection,
            server,
            schema,
            notices: Notices::listen(),
            turn: Turn::default(),
            declared: Vec::new(),
        })
    }

    /// The connection is of no use after an error.
    pub(super) async fn extend(&mut self) -> Result<(), StoreError> {
        extending::extend(&mut self.connection).await?;
        self.schema = schema::check(&mut self.connection).await?;
        Ok(())
    }

    /// The connection is of no use after an error.
    pub(super) async fn declare(&mut self, declared: Vec<Declared>) -> Result<(), StoreError> {
        beside::declare(&mut self.connection, &self.declared, &declared).await?;
        self.declared = declared;
        Ok(())
    }

    /// A transaction, where none is open.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        if self.turn.is_in_transaction() {
            return Ok(());
        }
        self.run("begin", begin!()).await
    }

    pub(super) async fn run(
        &mut self,
        operation: &'static str,
        sql: &'static str,
    ) -> Result<(), StoreError> {
        let run = sqlx::raw_sql(sql).execute(&mut self.connection);
        within(operation, run).await.map(drop)
    }

    async fn commit(&mut self) -> Result<(), CommitError> {
        let commit = sqlx::raw_sql("COMMIT").execute(&mut self.connection);
        let committed = self.notices.unwarned(async { commit.await.map(drop) });
        let committed = within("commit", committed).await;
        committed.map_err(CommitError::Unknown)
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// After a crash here: before COMMIT is answered, either nothing or everything of the batch is
    /// in the database; after it, everything is, as far as the server keeps its word.
    pub(super) async fn write(&mut self, batch: &Batch) -> Result<(), CommitError> {
        self.begin().await.map_err(CommitError::NotWritten)?;
        self.turn.transaction_ends();
        let moved = move_head(&mut self.connection, batch, &self.schema).await;
        if moved.map_err(CommitError::Declined)?.rows_affected() != 1 {
            // The names are looked up anew: it is said what was altered, and by which name.
            return Err(match schema::check(&mut self.connection).await {
                Err(altered) => CommitError::Declined(altered),
                Ok(found) if !found.is_of_the_tables_of(&self.schema) => {
                    CommitError::Declined(StoreError::Refused {
                        operation: "check the schema",
                        problem:
                            "the tables were made anew while custodyd runs; they are checked again"
                                .into(),
                    })
                }
                Ok(_) => {
                    let ended = self.run("end a turn", "ROLLBACK").await;
                    ended.map_err(CommitError::Declined)?;
                    CommitError::LostRace
                }
            });
        }
        let written = rows(&mut self.connection, batch).await;
        written.map_err(CommitError::Declined)?;
        self.commit().await
    }

    /// A commit upon a head that is there. A commit of ours that the server ended while it waited for its standby is
    /// there, and the standby may lack it; it has this one only with everything before.
    pub(super) async fn touch(&mut self, head: &HeadRow) -> Result<(), CommitError> {
        self.begin().await.map_err(CommitError::NotWritten)?;
        self.turn.transaction_ends();
        let touched = sqlx::query(TOUCH)
            .bind(signed(head.seq))
            .bind(&head.body)
            .bind(&head.mac)
            .bind(&self.schema.tables)
            .bind(&self.schema.names)
            .execute(&mut self.connection);
        let touched = within("touch the head", touched).await;
        if touched.map_err(CommitError::Declined)?.rows_affected() != 1 {
            let ended = self.run("end a turn", "ROLLBACK").await;
            ended.map_err(CommitError::Declined)?;
            return Err(CommitError::LostRace);
        }
        self.commit().await
    }

    pub(super) async fn close(self) {
        connect::close(self.connection).await;
    }
}

async fn move_head(
    connection: &mut PgConnection,
    batch: &Batch,
    schema: &Checked,
) -> Result<PgQueryResult, StoreError> {
    let sql = if batch.parent == 0 { FIRST } else { MOVE };
    let moved = sqlx::query(sql)
        .bind(signed(batch.head.seq))
        .bind(&batch.head.body)
        .bind(&batch.head.mac)
        .bind(&schema.tables)
        .bind(&schema.names)
        .bind(signed(batch.parent));
    within("move the head", moved.execute(connection)).await
}

async fn rows(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    // The last of a key counts, as it would if each were a statement; and of a row that goes and
    // comes the coming one, because the parts of one statement do not see each other.
    let records: BTreeMap<&[u8], (i64, &[u8])> = batch
        .records
        .iter()
        .map(|(id, generation, sealed)| {
            (id.as_bytes().as_slice(), (signed(*generation), &**sealed))
        })
        .collect();
    let removed = batch.removed.iter().map(|id| id.as_bytes().as_slice());
    let removed: Vec<&[u8]> = removed.filter(|id| !records.contains_key(id)).collect();
    let bodies: BTreeSet<u64> = batch.bodies.iter().map(|(index, _)| *index).collect();
    let erased = batch.erased.iter().filter(|index| !bodies.contains(index));
    let erased: Vec<i64> = erased.copied().map(signed).collect();
    let lists: BTreeMap<i64, &[u8]> = batch
        .members
        .iter()
        .map(|(bucket, list)| (i64::from(*bucket), &**list))
        .collect();
    let tiles: BTreeMap<(i64, i64), &[u8]> = batch
        .tiles
        .iter()
        .map(|tile| ((i64::from(tile.level), signed(tile.index)), &*tile.data))
        .collect();
    let query = sqlx::query(ROWS)
        .bind(removed)
        .bind(erased)
        .bind(records.keys().copied().collect::<Vec<_>>())
        .bind(
            records
                .values()
                .map(|(generation, _)| *generation)
                .collect::<Vec<_>>(),
        )
        .bind(
            records
                .values()
                .map(|(_, sealed)| *sealed)
                .collect::<Vec<_>>(),
        )
        .bind(lists.keys().copied().collect::<Vec<_>>())
        .bind(lists.values().copied().collect::<Vec<_>>())
        .bind(
            batch
                .digests
                .keys()
                .map(|bucket| i64::from(*bucket))
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .digests
                .values()
                .map(<[u8; 32]>::as_slice)
                .collect::<Vec<_>>(),
        )
        .bind(signed(batch.head.seq))
        .bind(
            batch
                .entries
                .iter()
                .map(|(index, _)| signed(*index))
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .entries
                .iter()
                .map(|(_, leaf)| &**leaf)
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .bodies
                .iter()
                .map(|(index, _)| signed(*index))
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .bodies
                .iter()
                .map(|(_, row)| &*row.salt)
                .collect::<Vec<_>>(),
        )
        .bind(
            batch
                .bodies
                .iter()
                .map(|(_, row)| &*row.body)
                .collect::<Vec<_>>(),
        )
        .bind(tiles.keys().map(|(level, _)| *level).collect::<Vec<_>>())
        .bind(tiles.keys().map(|(_, index)| *index).collect::<Vec<_>>())
        .bind(tiles.values().copied().collect::<Vec<_>>())
        .bind(signed(batch.tiles_before.unwrap_or(0)))
        .bind(TILES_AT_ONCE);
    within("write the rows", query.execute(connection))
        .await
        .map(drop)
}
