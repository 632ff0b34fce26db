//! Going over whole tables, part by part, for whoever verifies all of them.
//!
//! Called by the ledger's verification and its scrub. A part ends when it holds enough rows or
//! bytes, so that no row's size fills our memory; a row beyond its own bound comes back as nothing,
//! because whoever asks wants to name it and go on. Nothing read here is believed.
//!
//! Log entries come packed: many rows in one, their lengths in a line of text and their bytes one
//! after another. Each row by itself costs more on its way to us than its hash does.

use custodyd_hsm::RecordId;
use futures_util::StreamExt as _;
use sqlx::Row as _;
use sqlx::Sqlite as Db;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};

use super::super::{
    BodyRow, MAX_BODY, MAX_LEAF, MAX_MEMBERS, MAX_PART, MAX_SEALED, StoreError, StoredEntry,
    StoredRecord,
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

/// Several entries of the log: the numbers and lengths of each, ended by a semicolon, and the bytes
/// of all. A text may hold any bytes in SQLite, and a cast changes none. The limit is written out:
/// a statement whose limit is bound is compiled anew each time.
const ENTRIES: &str = "\
    SELECT group_concat(idx || ' ' || bodied || ' ' || ifnull(length(leaf), '-') || ' ' || \
        ifnull(length(salt), '-') || ' ' || ifnull(length(body), '-') || ';', '') AS heads, \
    CAST(group_concat(CAST(leaf AS TEXT), '') AS BLOB) AS leaves, \
    CAST(group_concat(CAST(salt AS TEXT), '') AS BLOB) AS salts, \
    CAST(group_concat(CAST(body AS TEXT), '') AS BLOB) AS bodies \
    FROM (SELECT e.idx AS idx, b.idx IS NOT NULL AS bodied, \
        CASE WHEN typeof(leaf) = 'blob' AND length(leaf) <= ?3 THEN leaf END AS leaf, \
        CASE WHEN typeof(salt) = 'blob' AND length(salt) <= 64 THEN salt END AS salt, \
        CASE WHEN typeof(body) = 'blob' AND length(body) <= ?4 THEN body END AS body \
        FROM log_entries e LEFT JOIN log_bodies b ON b.idx = e.idx \
        WHERE e.idx >= ?1 AND e.idx < ?2 ORDER BY e.idx LIMIT 512)";

pub(super) async fn entries(
    readers: &SqlitePool,
    from: u64,
    to: u64,
) -> Result<Unverified<Vec<StoredEntry>>, StoreError> {
    const OPERATION: &str = "read the log";
    let row = sqlx::query(ENTRIES)
        .bind(signed(from))
        .bind(signed(to))
        .bind(limit(MAX_LEAF))
        .bind(limit(MAX_BODY))
        .fetch_one(readers)
        .await
        .map_err(unavailable(OPERATION))?;
    let damaged = || StoreError::Malformed {
        operation: OPERATION,
        problem: "the rows do not come as they are: the database file is damaged".into(),
    };
    let unpacked = unpack(&row).ok_or_else(damaged)?;
    Ok(Unverified::new(unpacked))
}

/// Takes the entries apart. All that was packed must be used up.
fn unpack(row: &SqliteRow) -> Option<Vec<StoredEntry>> {
    let heads = row.try_get::<Option<&str>, _>("heads").ok()?;
    let column = |name| {
        let bytes = row.try_get::<Option<&[u8]>, _>(name).ok()?;
        Some(bytes.unwrap_or_default())
    };
    let (mut leaves, mut salts, mut bodies) =
        (column("leaves")?, column("salts")?, column("bodies")?);
    let entry = |head: &str| {
        let mut words = head.split(' ');
        let index = words.next()?.parse().ok()?;
        let bodied = words.next()? == "1";
        let leaf = take(&mut leaves, words.next()?)?;
        let salt = take(&mut salts, words.next()?)?;
        let body = take(&mut bodies, words.next()?)?;
        let body = salt.zip(body).map(|(salt, body)| BodyRow { salt, body });
        Some(StoredEntry {
            index,
            leaf,
            body: bodied.then_some(body),
        })
    };
    let heads = heads.unwrap_or_default().split_terminator(';');
    let entries: Vec<StoredEntry> = heads.map(entry).collect::<Option<_>>()?;
    (leaves.is_empty() && salts.is_empty() && bodies.is_empty()).then_some(entries)
}

/// As many bytes as the word says, or none where they are not to be read.
fn take(packed: &mut &[u8], word: &str) -> Option<Option<Vec<u8>>> {
    if word == "-" {
        return Some(None);
    }
    let (bytes, rest) = packed.split_at_checked(word.parse().ok()?)?;
    *packed = rest;
    Some(Some(bytes.to_vec()))
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
