//! Going over whole tables, part by part, for whoever verifies all of them.
//!
//! Called by the ledger's verification and its scrub. A part ends when it holds enough bytes, so
//! that no row's size fills our memory; a row beyond its own bound comes back as nothing, because
//! whoever asks wants to name it and go on. Nothing read here is believed.

use custodyd_hsm::RecordId;
use futures_util::StreamExt as _;
use sqlx::Sqlite as Db;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};

use super::super::{
    BodyRow, MAX_BODY, MAX_MEMBERS, MAX_PART, MAX_SEALED, StoreError, StoredRecord,
};
use super::{bounded, limit, signed, unavailable, unsigned};
use crate::ledger::Unverified;

/// What a row costs besides its bytes.
const ROW: usize = 128;

/// Rows until they are enough. `read` says how large each is.
async fn part<T>(
    readers: &SqlitePool,
    query: Query<'_, Db, SqliteArguments>,
    operation: &'static str,
    read: impl Fn(&SqliteRow) -> Result<(T, usize), StoreError>,
) -> Result<Unverified<Vec<T>>, StoreError> {
    let mut rows = query.fetch(readers);
    let (mut found, mut size) = (Vec::new(), 0);
    while size < MAX_PART
        && let Some(row) = rows.next().await
    {
        let (row, bytes) = read(&row.map_err(unavailable(operation))?)?;
        size += bytes + ROW;
        found.push(row);
    }
    Ok(Unverified::new(found))
}

pub(super) async fn bodies(
    readers: &SqlitePool,
    from: u64,
    to: u64,
) -> Result<Unverified<Vec<(u64, Option<BodyRow>)>>, StoreError> {
    const OPERATION: &str = "read event bodies";
    let query = sqlx::query(
        "SELECT idx, CASE WHEN typeof(salt) = 'blob' AND length(salt) <= 64 THEN salt END AS salt, \
         CASE WHEN typeof(body) = 'blob' AND length(body) <= ?3 THEN body END AS body \
         FROM log_bodies WHERE idx >= ?1 AND idx < ?2 ORDER BY idx",
    )
    .bind(signed(from))
    .bind(signed(to))
    .bind(limit(MAX_BODY));
    part(readers, query, OPERATION, |row| {
        let body = bounded(row, "salt", 64, OPERATION)
            .and_then(|salt| Ok((salt, bounded(row, "body", MAX_BODY, OPERATION)?)))
            .map(|(salt, body)| BodyRow { salt, body })
            .ok();
        let size = body.as_ref().map_or(0, |body| body.body.len());
        Ok(((unsigned(row, "idx", OPERATION)?, body), size))
    })
    .await
}

pub(super) async fn lists(
    readers: &SqlitePool,
    from: u32,
    to: u32,
) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
    const OPERATION: &str = "read member lists";
    let query = sqlx::query(
        "SELECT bucket, CASE WHEN typeof(members) = 'blob' AND length(members) <= ?3 THEN members END AS members \
         FROM bucket_members WHERE bucket >= ?1 AND bucket < ?2 ORDER BY bucket",
    )
    .bind(i64::from(from))
    .bind(i64::from(to))
    .bind(limit(MAX_MEMBERS));
    part(readers, query, OPERATION, |row| {
        let bucket = u32::try_from(unsigned(row, "bucket", OPERATION)?).unwrap_or(u32::MAX);
        let members = bounded(row, "members", MAX_MEMBERS, OPERATION).ok();
        let size = members.as_ref().map_or(0, Vec::len);
        Ok(((bucket, members), size))
    })
    .await
}

pub(super) async fn records(
    readers: &SqlitePool,
    from: &[u8],
    to: &[u8],
) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
    const OPERATION: &str = "read records";
    let query = sqlx::query(
        "SELECT id, generation, CASE WHEN typeof(sealed) = 'blob' AND length(sealed) <= ?3 THEN sealed END AS sealed \
         FROM records WHERE id >= ?1 AND id < ?2 AND typeof(id) = 'blob' AND length(id) = 32 ORDER BY id",
    )
    .bind(from)
    .bind(to)
    .bind(limit(MAX_SEALED));
    part(readers, query, OPERATION, |row| {
        let id = bounded(row, "id", 32, OPERATION)?;
        let sealed = bounded(row, "sealed", MAX_SEALED, OPERATION).ok();
        let size = sealed.as_ref().map_or(0, Vec::len);
        let record = StoredRecord {
            id: RecordId(id.try_into().unwrap_or_default()),
            generation: unsigned(row, "generation", OPERATION).ok(),
            sealed,
        };
        Ok((record, size))
    })
    .await
}

pub(super) async fn strays(
    readers: &SqlitePool,
    size: u64,
) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
    const OPERATION: &str = "look for rows out of place";
    // The places of tiles are compared where each is verified; these are beyond all of them.
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM log_entries WHERE idx < 0 OR idx >= ?1) AS log_entries, \
         (SELECT count(*) FROM log_bodies WHERE idx < 0 OR idx >= ?1) AS log_bodies, \
         (SELECT count(*) FROM log_tiles WHERE level < 0 OR level > 7 OR idx < 0 OR idx > ?1 >> (8 * level + 8)) AS log_tiles, \
         (SELECT count(*) FROM bucket_members WHERE bucket < 0 OR bucket > 65535) AS bucket_members, \
         (SELECT count(*) FROM bucket_digests WHERE bucket < 0 OR bucket > 65535) AS bucket_digests, \
         (SELECT count(*) FROM records WHERE typeof(id) <> 'blob' OR length(id) <> 32) AS records",
    )
    .bind(signed(size))
    .fetch_one(readers)
    .await
    .map_err(unavailable(OPERATION))?;
    let mut found = Vec::new();
    for table in [
        "log_entries",
        "log_bodies",
        "log_tiles",
        "bucket_members",
        "bucket_digests",
        "records",
    ] {
        let count = unsigned(&row, table, OPERATION)?;
        if count > 0 {
            found.push((table, count));
        }
    }
    Ok(Unverified::new(found))
}
