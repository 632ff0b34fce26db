//! Going over whole tables, part by part, for whoever verifies all of them.
//!
//! Called by the ledger's verification and its scrub. A part ends when it holds enough rows or
//! bytes, so that no row's size fills our memory; a row beyond its own bound comes back as nothing,
//! because whoever asks wants to name it and go on. Nothing read here is believed.
//!
//! Rows come packed: many in one, their numbers and lengths in a line of text and their bytes one
//! after another. Each row by itself costs more on its way to us than its hash does.

use custodyd_hsm::RecordId;
use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::super::{
    BodyRow, MAX_BODY, MAX_LEAF, MAX_MEMBERS, MAX_PART, MAX_SEALED, StoreError, StoredEntry,
    StoredRecord, strays_of,
};
use super::{bounded, limit, signed, unavailable, unsigned};
use crate::ledger::Unverified;

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
    let unpacked = unpack(&row).ok_or_else(damaged(OPERATION))?;
    Ok(Unverified::new(unpacked))
}

/// Takes the entries apart.
fn unpack(row: &SqliteRow) -> Option<Vec<StoredEntry>> {
    let (mut leaves, mut salts, mut bodies) = (
        column(row, "leaves")?,
        column(row, "salts")?,
        column(row, "bodies")?,
    );
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
    let entries = each(row, entry)?;
    (leaves.is_empty() && salts.is_empty() && bodies.is_empty()).then_some(entries)
}

/// What each line of the heads stands for, in their order.
fn each<T>(row: &SqliteRow, of: impl FnMut(&str) -> Option<T>) -> Option<Vec<T>> {
    let heads = row.try_get::<Option<&str>, _>("heads").ok()?;
    let heads = heads.unwrap_or_default().split_terminator(';');
    heads.map(of).collect()
}

/// Packed bytes; all of them must be used up.
fn column<'a>(row: &'a SqliteRow, name: &str) -> Option<&'a [u8]> {
    let bytes = row.try_get::<Option<&[u8]>, _>(name).ok()?;
    Some(bytes.unwrap_or_default())
}

fn damaged(operation: &'static str) -> impl FnOnce() -> StoreError {
    move || StoreError::Malformed {
        operation,
        problem: "the rows do not come as they are: the database file is damaged".into(),
    }
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

/// Member lists as entries are packed; those that are larger than most are left for a statement of their own, so
/// that no part is larger than a part may be.
const LISTS: &str = "\
    SELECT group_concat(bucket || ' ' || iif(fits, ifnull(length(members), '+'), '-') || ';', '') AS heads, \
    CAST(group_concat(CAST(members AS TEXT), '') AS BLOB) AS lists \
    FROM (SELECT bucket, typeof(members) = 'blob' AND length(members) <= ?3 AS fits, \
        CASE WHEN typeof(members) = 'blob' AND length(members) <= 16384 THEN members END AS members \
        FROM bucket_members WHERE bucket >= ?1 AND bucket < ?2 ORDER BY bucket LIMIT 512)";

pub(super) async fn lists(
    readers: &SqlitePool,
    from: u32,
    to: u32,
) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
    part_of_lists(readers, from, to).await.map(Unverified::new)
}

async fn part_of_lists(
    readers: &SqlitePool,
    from: u32,
    to: u32,
) -> Result<Vec<(u32, Option<Vec<u8>>)>, StoreError> {
    const OPERATION: &str = "read member lists";
    let row = sqlx::query(LISTS)
        .bind(i64::from(from))
        .bind(i64::from(to))
        .bind(limit(MAX_MEMBERS))
        .fetch_one(readers)
        .await
        .map_err(unavailable(OPERATION))?;
    let unpacked = || {
        let mut packed = column(&row, "lists")?;
        let lists = each(&row, |head| {
            let (bucket, length) = head.split_once(' ')?;
            let list = match length {
                "+" => None,
                length => Some(take(&mut packed, length)?),
            };
            Some((bucket.parse().ok()?, list))
        })?;
        packed.is_empty().then_some(lists)
    };
    let unpacked: Vec<(u32, Option<Option<Vec<u8>>>)> =
        unpacked().ok_or_else(damaged(OPERATION))?;
    let (mut lists, mut large) = (Vec::with_capacity(unpacked.len()), 0);
    for (bucket, list) in unpacked {
        let list = match list {
            Some(list) => list,
            // What follows comes with the next part.
            None if large >= MAX_PART => break,
            None => {
                let list = large_list(readers, bucket).await?;
                large += list.as_ref().map_or(0, Vec::len);
                list
            }
        };
        lists.push((bucket, list));
    }
    Ok(lists)
}

/// One that did not fit; it may have gone since.
async fn large_list(readers: &SqlitePool, bucket: u32) -> Result<Option<Vec<u8>>, StoreError> {
    const OPERATION: &str = "read a member list";
    let row = sqlx::query(
        "SELECT CASE WHEN typeof(members) = 'blob' AND length(members) <= ?2 THEN members END AS members \
         FROM bucket_members WHERE bucket = ?1 LIMIT 1",
    )
    .bind(i64::from(bucket))
    .bind(limit(MAX_MEMBERS))
    .fetch_optional(readers)
    .await
    .map_err(unavailable(OPERATION))?;
    Ok(row.and_then(|row| bounded(&row, "members", MAX_MEMBERS, OPERATION).ok()))
}

/// Records in the same way; as many of the largest size make a part.
const RECORDS: &str = "\
    SELECT group_concat(generation || ' ' || ifnull(length(sealed), '-') || ';', '') AS heads, \
    CAST(group_concat(CAST(id AS TEXT), '') AS BLOB) AS ids, \
    CAST(group_concat(CAST(sealed AS TEXT), '') AS BLOB) AS sealed \
    FROM (SELECT id, CASE WHEN typeof(generation) = 'integer' THEN generation ELSE -1 END AS generation, \
        CASE WHEN typeof(sealed) = 'blob' AND length(sealed) <= ?3 THEN sealed END AS sealed \
        FROM records WHERE id >= ?1 AND id < ?2 AND typeof(id) = 'blob' AND length(id) = 32 \
        ORDER BY id LIMIT 32)";

pub(super) async fn records(
    readers: &SqlitePool,
    from: &[u8],
    to: &[u8],
) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
    part_of_records(readers, from, to)
        .await
        .map(Unverified::new)
}

async fn part_of_records(
    readers: &SqlitePool,
    from: &[u8],
    to: &[u8],
) -> Result<Vec<StoredRecord>, StoreError> {
    const OPERATION: &str = "read records";
    let row = sqlx::query(RECORDS)
        .bind(from)
        .bind(to)
        .bind(limit(MAX_SEALED))
        .fetch_one(readers)
        .await
        .map_err(unavailable(OPERATION))?;
    let unpacked = || {
        let (mut ids, mut sealed) = (column(&row, "ids")?, column(&row, "sealed")?);
        let rows = each(&row, |head| {
            let (generation, length) = head.split_once(' ')?;
            let (id, rest) = ids.split_first_chunk::<32>()?;
            ids = rest;
            Some(StoredRecord {
                id: RecordId(*id),
                generation: generation.parse().ok(),
                sealed: take(&mut sealed, length)?,
            })
        })?;
        (ids.is_empty() && sealed.is_empty()).then_some(rows)
    };
    unpacked().ok_or_else(damaged(OPERATION))
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
    strays_of(|table| unsigned(&row, table, OPERATION))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::{Exclusive, Sqlite};
    use super::*;
    use crate::store::{Batch, HeadRow, Store as _};

    async fn store(batch: impl FnOnce(&mut Batch)) -> (tempfile::TempDir, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let lock = Exclusive::take(&dir.path().join("a.sqlite")).unwrap();
        let store = Sqlite::create(lock).await.unwrap();
        let mut first = Batch {
            head: HeadRow {
                seq: 1,
                body: vec![1],
                mac: Vec::new(),
            },
            ..Batch::after(0)
        };
        batch(&mut first);
        store.commit(&first).await.unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn lists_of_every_size_come_as_they_are_in_parts_that_are_bounded() {
        let lists: Vec<(u32, Vec<u8>)> = [0, 73, 16_384, 16_385, MAX_MEMBERS, MAX_MEMBERS, 5, 6]
            .into_iter()
            .enumerate()
            .map(|(at, size)| (10 * at as u32, vec![at as u8; size]))
            .collect();
        let mut expected: Vec<_> = lists
            .iter()
            .cloned()
            .map(|(at, list)| (at, Some(list)))
            .collect();
        expected.push((99, None));
        let mut rows = lists;
        rows.push((99, vec![9; MAX_MEMBERS + 1]));
        let (_dir, store) = store(|batch| batch.members = rows).await;
        let (mut found, mut from, mut parts) = (Vec::new(), 0, 0);
        loop {
            let part = part_of_lists(&store.readers, from, 1 << 16).await.unwrap();
            let Some((last, _)) = part.last() else { break };
            from = last + 1;
            let size: usize = part
                .iter()
                .map(|(_, list)| list.as_ref().map_or(0, Vec::len))
                .sum();
            assert!(size <= MAX_PART + MAX_MEMBERS);
            found.extend(part);
            parts += 1;
        }
        assert_eq!(found, expected);
        assert!(parts > 0);
    }

    #[tokio::test]
    async fn records_come_in_order_with_what_is_too_large_left_out() {
        let id = |at: u8| RecordId([at; 32]);
        // Any bytes, those included that a text would not hold.
        let sealed = |at: u8| vec![at, 0, 0xff, b';', b' ', at];
        let (_dir, store) = store(|batch| {
            batch.records = (0..100)
                .map(|at| (id(at), u64::from(at), sealed(at)))
                .collect();
            batch.records.push((id(200), 7, vec![1; MAX_SEALED + 1]));
        })
        .await;
        let (mut found, mut from) = (Vec::new(), Vec::new());
        loop {
            let part = part_of_records(&store.readers, &from, &[0xff; 33])
                .await
                .unwrap();
            let Some(last) = part.last() else { break };
            from = [last.id.as_bytes().as_slice(), &[0]].concat();
            found.extend(part);
        }
        assert_eq!(found.len(), 101);
        for (at, row) in (0..100).zip(&found) {
            assert_eq!((row.id, row.generation), (id(at), Some(u64::from(at))));
            assert_eq!(row.sealed.as_deref(), Some(&*sealed(at)));
        }
        let last = found.last().unwrap();
        assert_eq!(
            (last.id, last.generation, &last.sealed),
            (id(200), Some(7), &None)
        );
    }
}
