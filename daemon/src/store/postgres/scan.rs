//! Going over whole tables, part by part, for whoever verifies all of them.
//!
//! Called by the ledger's verification and its scrub. The server ends a part where it holds enough
//! rows or bytes, by lengths that it knows without the values; a row beyond its own bound comes back
//! as nothing, because whoever asks wants to name it and go on. Nothing read here is believed.

use custodyd_hsm::RecordId;
use sqlx::postgres::{PgPool, PgRow};

use super::super::{
    BodyRow, HeadRow, MAX_BODY, MAX_HEAD, MAX_LEAF, MAX_MEMBERS, MAX_PART, MAX_SEALED, Newer,
    StoreError, StoredEntry, StoredRecord, strays_of,
};
use super::answers::{Query, bounded, is_null, row, rows, says, scanning, unsigned};
use super::{limit, signed};
use crate::ledger::Unverified;

/// No part has more rows: the statements below say how many they want.
const MOST: usize = 8192;

/// `read` gives a row with its place. A server that shows places that were not asked for, or not in their order, would
/// have whoever goes over them go round for ever.
async fn part<T, K: PartialOrd>(
    readers: &PgPool,
    (query, from, to): (Query<'_>, K, K),
    operation: &'static str,
    read: impl Fn(&PgRow) -> Result<(K, T), StoreError>,
) -> Result<Unverified<Vec<T>>, StoreError> {
    let rows = scanning(operation, rows(readers, query, MOST)).await?;
    let (mut found, mut last) = (Vec::with_capacity(rows.len()), None);
    for row in &rows {
        let (place, row) = read(row)?;
        let rises = last.as_ref().is_none_or(|last| *last < place);
        if !rises || place < from || place >= to {
            return Err(StoreError::Malformed {
                operation,
                problem: "the server shows rows that were not asked for, or not in their order"
                    .into(),
            });
        }
        last = Some(place);
        found.push(row);
    }
    Ok(Unverified::new(found))
}

pub(super) async fn entries(
    readers: &PgPool,
    from: u64,
    to: u64,
) -> Result<Unverified<Vec<StoredEntry>>, StoreError> {
    const OPERATION: &str = "read the log";
    let query = sqlx::query(
        "SELECT e.idx, b.idx IS NOT NULL AS bodied, \
         CASE WHEN octet_length(e.leaf) <= $3 THEN e.leaf END AS leaf, \
         CASE WHEN octet_length(b.salt) <= 64 THEN b.salt END AS salt, \
         CASE WHEN octet_length(b.body) <= $4 THEN b.body END AS body \
         FROM log_entries e LEFT JOIN log_bodies b ON b.idx = e.idx \
         WHERE e.idx >= $1 AND e.idx < $2 ORDER BY e.idx LIMIT 512",
    )
    .bind(signed(from))
    .bind(signed(to))
    .bind(limit(MAX_LEAF))
    .bind(limit(MAX_BODY));
    part(readers, (query, from, to), OPERATION, |row| {
        let index = unsigned(row, "idx", OPERATION)?;
        let salt = bounded(row, "salt", 64, OPERATION).ok();
        let body = bounded(row, "body", MAX_BODY, OPERATION).ok();
        let body = salt.zip(body).map(|(salt, body)| BodyRow { salt, body });
        let entry = StoredEntry {
            index,
            leaf: bounded(row, "leaf", MAX_LEAF, OPERATION).ok(),
            body: says(row, "bodied").then_some(body),
        };
        Ok((index, entry))
    })
    .await
}

pub(super) async fn lists(
    readers: &PgPool,
    from: u32,
    to: u32,
) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
    const OPERATION: &str = "read member lists";
    let query = sqlx::query(
        "SELECT bucket, members FROM (SELECT bucket, CASE WHEN size <= $3 THEN members END AS members, \
         sum(least(size, $3)) OVER (ORDER BY bucket ROWS UNBOUNDED PRECEDING) - least(size, $3) AS before \
         FROM (SELECT bucket, members, octet_length(members)::bigint AS size FROM bucket_members \
         WHERE bucket >= $1 AND bucket < $2 ORDER BY bucket LIMIT 8192) AS next) AS sized \
         WHERE before < $4 ORDER BY bucket",
    )
    .bind(i64::from(from))
    .bind(i64::from(to))
    .bind(limit(MAX_MEMBERS))
    .bind(limit(MAX_PART));
    part(readers, (query, from, to), OPERATION, |row| {
        let bucket = u32::try_from(unsigned(row, "bucket", OPERATION)?).unwrap_or(u32::MAX);
        let members = bounded(row, "members", MAX_MEMBERS, OPERATION).ok();
        Ok((bucket, (bucket, members)))
    })
    .await
}

pub(super) async fn records(
    readers: &PgPool,
    from: &[u8],
    to: &[u8],
) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
    const OPERATION: &str = "read records";
    let query = sqlx::query(
        "SELECT id, generation, sealed FROM (SELECT id, generation, CASE WHEN size <= $3 THEN sealed END AS sealed, \
         sum(least(size, $3)) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) - least(size, $3) AS before \
         FROM (SELECT id, generation, sealed, octet_length(sealed)::bigint AS size FROM records \
         WHERE id >= $1 AND id < $2 AND octet_length(id) = 32 ORDER BY id LIMIT 8192) AS next) AS sized \
         WHERE before < $4 ORDER BY id",
    )
    .bind(from)
    .bind(to)
    .bind(limit(MAX_SEALED))
    .bind(limit(MAX_PART));
    let (from, to) = (from.to_vec(), to.to_vec());
    part(readers, (query, from, to), OPERATION, |row| {
        let id = bounded(row, "id", 32, OPERATION)?;
        let record = StoredRecord {
            // One that is shorter is at no place that was asked for, or at this one twice.
            id: RecordId(id.clone().try_into().unwrap_or_default()),
            generation: unsigned(row, "generation", OPERATION).ok(),
            sealed: bounded(row, "sealed", MAX_SEALED, OPERATION).ok(),
        };
        Ok((id, record))
    })
    .await
}

/// The head, and what has changed after a batch. One statement, and so one snapshot.
pub(super) async fn newer(
    readers: &PgPool,
    after: Option<u64>,
) -> Result<Unverified<Newer>, StoreError> {
    const OPERATION: &str = "catch up";
    let query = sqlx::query(
        "SELECT seq, CASE WHEN octet_length(body) <= $1 THEN body END AS body, \
         CASE WHEN octet_length(mac) <= $1 THEN mac END AS mac, \
         NULL::bigint AS bucket, NULL::bytea AS digest FROM head WHERE one = 1 \
         UNION ALL (SELECT NULL, NULL, NULL, bucket, CASE WHEN octet_length(digest) = 32 THEN digest END \
         FROM bucket_digests WHERE bucket BETWEEN 0 AND $2 AND seq > $3 LIMIT $2 + 1)",
    )
    .bind(limit(MAX_HEAD))
    .bind(i64::from(u32::from(u16::MAX)))
    .bind(after.map_or(-1, signed));
    let rows = scanning(OPERATION, rows(readers, query, (1 << 16) + 1)).await?;
    let mut newer = Newer::default();
    for row in &rows {
        if !is_null(row, "bucket") {
            let bucket = u32::try_from(unsigned(row, "bucket", OPERATION)?);
            let digest = bounded(row, "digest", 32, OPERATION);
            if let (Ok(bucket), Ok(digest)) = (bucket, digest) {
                newer.digests.push((bucket, digest));
            }
            continue;
        }
        newer.head = Some(HeadRow {
            seq: unsigned(row, "seq", OPERATION)?,
            body: bounded(row, "body", MAX_HEAD, OPERATION)?,
            mac: bounded(row, "mac", MAX_HEAD, OPERATION)?,
        });
    }
    Ok(Unverified::new(newer))
}

pub(super) async fn strays(
    readers: &PgPool,
    size: u64,
) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
    const OPERATION: &str = "look for rows out of place";
    // The places of tiles are compared where each is verified; these are beyond all of them. A shift
    // by 64 bits is no shift, so a level beyond the highest is compared first.
    let query = sqlx::query(
        "SELECT (SELECT count(*) FROM log_entries WHERE idx < 0 OR idx >= $1) AS log_entries, \
         (SELECT count(*) FROM log_bodies WHERE idx < 0 OR idx >= $1) AS log_bodies, \
         (SELECT count(*) FROM log_tiles WHERE CASE WHEN level < 0 OR level > 7 OR idx < 0 THEN true \
            WHEN level = 7 THEN idx > 0 ELSE idx > $1 >> (8 * level + 8)::int END) AS log_tiles, \
         (SELECT count(*) FROM bucket_members WHERE bucket < 0 OR bucket > 65535) AS bucket_members, \
         (SELECT count(*) FROM bucket_digests WHERE bucket < 0 OR bucket > 65535) AS bucket_digests, \
         (SELECT count(*) FROM records WHERE octet_length(id) <> 32) AS records",
    )
    .bind(signed(size));
    let row = scanning(OPERATION, row(readers, query)).await?;
    strays_of(|table| unsigned(&row, table, OPERATION))
}
