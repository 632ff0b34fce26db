//! Going over whole tables, part by part, for whoever verifies all of them.
//!
//! Called by the ledger's verification and its scrub, and for what a start reads of every bucket. A part ends when it
//! holds enough rows or bytes, so that no row's size fills our memory; a row beyond its own bound
//! comes back as nothing, because whoever asks wants to name it and go on. Nothing read here is
//! believed.

use custodyd_hsm::{RecordId, seal};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use sqlx::sqlite::SqlitePool;

use super::super::{
    BodyRow, HashedRecord, MAX_BODY, MAX_LEAF, MAX_MEMBERS, MAX_PART, MAX_SEALED, StoreError,
    StoredEntry, StoredRecord, strays_of,
};
use super::scanner::Scanner;
use super::{bounds, limit, signed, unavailable, unsigned};
use crate::ledger::Unverified;

/// As many entries make a part; so many bytes of records; and so many rows of anything, for empty ones take room, too.
const ENTRIES: u32 = 1024;
const ENOUGH: usize = 1 << 20;
const ROWS: usize = 8192;
/// Cached digests that there can be.
const BUCKETS: usize = 1 << 16;

/// A column that comes as nothing where its value is too large: `octet_length` asks for the size
/// without reading the value, whatever type a damaged file gives it.
fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(lent(row, column)?.map(<[u8]>::to_vec))
}

/// The same where SQLite has it.
fn lent<'row>(row: &'row Row<'_>, column: usize) -> rusqlite::Result<Option<&'row [u8]>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Some(bytes),
        _ => None,
    })
}

/// A number that is never negative; what is negative stands before all that was asked for.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// A bucket, which the statement has bounded. From a damaged file nothing but the number zero stands for any other.
fn bucket(row: &Row<'_>) -> rusqlite::Result<u32> {
    Ok(u32::try_from(number(row, 0)?).unwrap_or(0))
}

pub(super) async fn entries(
    scanner: &Scanner,
    from: u64,
    to: u64,
) -> Result<Unverified<Vec<StoredEntry>>, StoreError> {
    let read = move |connection: &Connection| entries_of(connection, from, to);
    scanner.read("read the log", read).await
}

/// Entries and their bodies lie in two tables in the same order. Both are read as of one moment.
fn entries_of(connection: &Connection, from: u64, to: u64) -> rusqlite::Result<Vec<StoredEntry>> {
    let moment = connection.unchecked_transaction()?;
    let mut entries = Vec::with_capacity(ENTRIES as usize);
    let mut leaves = moment.prepare_cached(
        "SELECT idx, CASE WHEN octet_length(leaf) <= ?3 THEN leaf END FROM log_entries \
         WHERE idx >= ?1 AND idx < ?2 ORDER BY idx LIMIT ?4",
    )?;
    let mut rows = leaves.query(params![signed(from), signed(to), limit(MAX_LEAF), ENTRIES])?;
    while let Some(row) = rows.next()? {
        entries.push(StoredEntry {
            index: number(row, 0)?,
            leaf: bytes(row, 1)?,
            body: None,
        });
    }
    let Some(last) = entries.last().map(|entry| entry.index) else {
        return Ok(entries);
    };
    let mut bodies = moment.prepare_cached(
        "SELECT idx, CASE WHEN octet_length(salt) <= 64 THEN salt END, \
         CASE WHEN octet_length(body) <= ?3 THEN body END FROM log_bodies \
         WHERE idx >= ?1 AND idx <= ?2 ORDER BY idx",
    )?;
    let mut rows = bodies.query(params![signed(from), signed(last), limit(MAX_BODY)])?;
    let mut waiting = entries.iter_mut().peekable();
    while let Some(row) = rows.next()? {
        let index = number(row, 0)?;
        let (salt, body) = (bytes(row, 1)?, bytes(row, 2)?);
        while waiting.next_if(|entry| entry.index < index).is_some() {}
        // A body without its entry says nothing: that the entry is missing is what will be named.
        if let Some(entry) = waiting.next_if(|entry| entry.index == index) {
            entry.body = Some(salt.zip(body).map(|(salt, body)| BodyRow { salt, body }));
        }
    }
    Ok(entries)
}

pub(super) async fn lists(
    scanner: &Scanner,
    from: u32,
    to: u32,
) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
    let read = move |connection: &Connection| part_of_lists(connection, from, to);
    scanner.read("read member lists", read).await
}

fn part_of_lists(
    connection: &Connection,
    from: u32,
    to: u32,
) -> rusqlite::Result<Vec<(u32, Option<Vec<u8>>)>> {
    let mut statement = connection.prepare_cached(
        "SELECT bucket, CASE WHEN octet_length(members) <= ?3 THEN members END FROM bucket_members \
         WHERE bucket >= ?1 AND bucket < ?2 ORDER BY bucket",
    )?;
    let mut rows = statement.query(params![from, to, limit(MAX_MEMBERS)])?;
    let (mut lists, mut size) = (Vec::new(), 0);
    while size < MAX_PART
        && lists.len() < ROWS
        && let Some(row) = rows.next()?
    {
        let list = bytes(row, 1)?;
        size += list.as_ref().map_or(0, Vec::len);
        lists.push((bucket(row)?, list));
    }
    Ok(lists)
}

pub(super) async fn records(
    scanner: &Scanner,
    from: &[u8],
    to: &[u8],
) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
    let (from, to) = (from.to_vec(), to.to_vec());
    let read =
        move |connection: &Connection| part_of_records(connection, (&from, &to), ENOUGH, kept);
    scanner.read("read records", read).await
}

/// Hashed on the thread that reads: a content is still in its core's cache there, and no copy of it is made.
pub(super) async fn hashed_records(
    scanner: &Scanner,
    from: &[u8],
    to: &[u8],
) -> Result<Unverified<Vec<HashedRecord>>, StoreError> {
    let (from, to) = (from.to_vec(), to.to_vec());
    let read =
        move |connection: &Connection| part_of_records(connection, (&from, &to), MAX_PART, hashed);
    scanner.read("read records", read).await
}

fn kept(id: RecordId, generation: Option<u64>, sealed: Option<&[u8]>) -> StoredRecord {
    StoredRecord {
        id,
        generation,
        sealed: sealed.map(<[u8]>::to_vec),
    }
}

fn hashed(id: RecordId, generation: Option<u64>, sealed: Option<&[u8]>) -> HashedRecord {
    HashedRecord {
        id,
        generation,
        digest: sealed.map(seal::digest),
    }
}

/// What `take` makes of the rows between two places, until they are of `enough` bytes.
fn part_of_records<T>(
    connection: &Connection,
    (from, to): (&[u8], &[u8]),
    enough: usize,
    take: impl Fn(RecordId, Option<u64>, Option<&[u8]>) -> T,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, generation, CASE WHEN octet_length(sealed) <= ?3 THEN sealed END FROM records \
         WHERE id >= ?1 AND id < ?2 AND octet_length(id) = 32 ORDER BY id",
    )?;
    let mut rows = statement.query(params![from, to, limit(MAX_SEALED)])?;
    let (mut records, mut size) = (Vec::new(), 0);
    while size < enough
        && records.len() < ROWS
        && let Some(row) = rows.next()?
    {
        // Identifiers of another type are strays.
        let ValueRef::Blob(id) = row.get_ref(0)? else {
            continue;
        };
        let Ok(id) = id.try_into().map(RecordId) else {
            continue;
        };
        let generation = match row.get_ref(1)? {
            ValueRef::Integer(generation) => u64::try_from(generation).ok(),
            _ => None,
        };
        let sealed = lent(row, 2)?;
        size += sealed.map_or(0, <[u8]>::len);
        records.push(take(id, generation, sealed));
    }
    Ok(records)
}

/// The cached digest of every bucket that has one.
pub(super) async fn digests(
    scanner: &Scanner,
) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError> {
    let read = |connection: &Connection| {
        let mut statement = connection.prepare_cached(
            "SELECT bucket, CASE WHEN octet_length(digest) = 32 THEN digest END \
             FROM bucket_digests WHERE bucket BETWEEN 0 AND 65535 ORDER BY bucket",
        )?;
        let mut rows = statement.query([])?;
        let mut digests = Vec::new();
        // A damaged file may show a place many times.
        while digests.len() < BUCKETS
            && let Some(row) = rows.next()?
        {
            if let Some(digest) = bytes(row, 1)? {
                digests.push((bucket(row)?, digest));
            }
        }
        Ok(digests)
    };
    scanner.read("read digests", read).await
}

pub(super) async fn strays(
    readers: &SqlitePool,
    size: u64,
) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
    const OPERATION: &str = "look for rows out of place";
    // The places of tiles are compared where each is verified; these are beyond all of them.
    let query = sqlx::query(
        "SELECT (SELECT count(*) FROM log_entries WHERE idx < 0 OR idx >= ?1) AS log_entries, \
         (SELECT count(*) FROM log_bodies WHERE idx < 0 OR idx >= ?1) AS log_bodies, \
         (SELECT count(*) FROM log_tiles WHERE level < 0 OR level > 7 OR idx < 0 OR idx > ?1 >> (8 * level + 8)) AS log_tiles, \
         (SELECT count(*) FROM bucket_members WHERE bucket < 0 OR bucket > 65535) AS bucket_members, \
         (SELECT count(*) FROM bucket_digests WHERE bucket < 0 OR bucket > 65535) AS bucket_digests, \
         (SELECT count(*) FROM records WHERE typeof(id) <> 'blob' OR length(id) <> 32) AS records",
    )
    .bind(signed(size));
    let rows = bounds::rows((readers, bounds::SCAN), OPERATION, query, 1).await?;
    let row = rows.first();
    let row = row.ok_or_else(|| unavailable(OPERATION)(sqlx::Error::RowNotFound))?;
    strays_of(|table| unsigned(row, table, OPERATION))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use super::super::{Exclusive, Sqlite, scanner};
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
        let (dir, _store) = store(|batch| batch.members = rows).await;
        let connection = scanner::open(&dir.path().join("a.sqlite")).unwrap();
        let (mut found, mut from, mut parts) = (Vec::new(), 0, 0);
        loop {
            let part = part_of_lists(&connection, from, 1 << 16).unwrap();
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
        let (dir, _store) = store(|batch| {
            batch.records = (0..100)
                .map(|at| (id(at), u64::from(at), sealed(at)))
                .collect();
            batch.records.push((id(200), 7, vec![1; MAX_SEALED + 1]));
        })
        .await;
        let connection = scanner::open(&dir.path().join("a.sqlite")).unwrap();
        let (mut found, mut digests, mut from) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let between = (from.as_slice(), [0xff; 33].as_slice());
            // Ten rows have so many bytes.
            let part = part_of_records(&connection, between, 55, kept).unwrap();
            let same = part_of_records(&connection, between, 55, hashed).unwrap();
            let Some(last) = part.last() else { break };
            assert!(part.len() <= 11, "{}", part.len());
            from = [last.id.as_bytes().as_slice(), &[0]].concat();
            found.extend(part);
            digests.extend(same);
        }
        assert_eq!((found.len(), digests.len()), (101, 101));
        for (row, by_digest) in found.iter().zip(digests) {
            assert_eq!(
                (row.id, row.generation),
                (by_digest.id, by_digest.generation)
            );
            assert_eq!(row.sealed.as_deref().map(seal::digest), by_digest.digest);
        }
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

    #[tokio::test]
    async fn each_entry_has_its_own_body_and_no_other() {
        let bodied = |at: u64| at % 3 != 1;
        let row = |at: u64| BodyRow {
            salt: at.to_be_bytes().to_vec(),
            body: vec![0; 10],
        };
        let all = 2 * u64::from(ENTRIES) + 7;
        let (dir, _store) = store(|batch| {
            batch.entries = (0..all).map(|at| (at, at.to_be_bytes().to_vec())).collect();
            let bodies = (0..all).filter(|at| bodied(*at));
            batch.bodies = bodies.map(|at| (at, row(at))).collect();
            batch.bodies.push((
                1,
                BodyRow {
                    salt: vec![0; 65],
                    body: Vec::new(),
                },
            ));
        })
        .await;
        let connection = scanner::open(&dir.path().join("a.sqlite")).unwrap();
        // Entry 5 is gone and its body is not; the body of entry 6 is another's business.
        connection.pragma_update(None, "query_only", "OFF").unwrap();
        let gone = connection.execute("DELETE FROM log_entries WHERE idx = 5", []);
        assert_eq!(gone, Ok(1));
        let (mut found, mut from) = (Vec::new(), 0);
        loop {
            let part = entries_of(&connection, from, all).unwrap();
            assert!(part.len() <= ENTRIES as usize);
            let Some(last) = part.last() else { break };
            from = last.index + 1;
            found.extend(part);
        }
        assert_eq!(found.len() as u64, all - 1);
        for entry in found {
            let at = entry.index;
            assert_ne!(at, 5);
            assert_eq!(entry.leaf.as_deref(), Some(&at.to_be_bytes()[..]));
            let expected = match at {
                1 => Some(None),
                at => bodied(at).then(|| Some((at.to_be_bytes().to_vec(), vec![0; 10]))),
            };
            let shown = entry
                .body
                .map(|body| body.map(|body| (body.salt, body.body)));
            assert_eq!(shown, expected, "{at}");
        }
    }

    #[tokio::test]
    async fn closing_waits_for_a_scan_and_leaves_no_connection_behind() {
        let (dir, store) = store(|_| {}).await;
        let scanner = Arc::new(Scanner::new(&dir.path().join("a.sqlite")));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let scan = tokio::spawn({
            let scanner = Arc::clone(&scanner);
            async move {
                let reading = scanner.read("test", move |connection| {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                    connection
                        .query_row("SELECT count(*) FROM head", [], |row| row.get::<_, i64>(0))
                });
                reading.await.map(|read| read.of_a_test())
            }
        });
        tokio::task::spawn_blocking(move || has_begun.recv().unwrap())
            .await
            .unwrap();
        let closing = tokio::spawn({
            let scanner = Arc::clone(&scanner);
            async move { scanner.close().await }
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!closing.is_finished(), "it overtook the scan");
        // Also where whoever scans is gone meanwhile.
        scan.abort();
        assert!(!closing.is_finished());
        go.send(()).unwrap();
        closing.await.unwrap();
        let late = scanner.read("test", |_| Ok(())).await;
        assert!(
            matches!(late, Err(StoreError::Unavailable { .. })),
            "{late:?}"
        );
        // Nobody has the file open: the last of the store's own connections takes the write-ahead log with it.
        store.close().await;
        assert!(!dir.path().join("a.sqlite-wal").exists());
    }
}
