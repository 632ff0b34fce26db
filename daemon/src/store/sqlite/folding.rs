//! Folding the log beside the file into it, while the writer goes on.
//!
//! Called by `Sqlite` after its commits. By itself SQLite does this within the commit that made the log long, and whoever is
//! in that commit and in the next ones waits for a thousand pages to be written and synced. Here another
//! connection does it, on a thread that may wait: it waits for nobody (PASSIVE), and nobody waits for it. Where writing never
//! rests it does not reach the log's end, from where alone the log begins anew; that the writer sees to, by then for few pages.
//!
//! After a crash: a page that came into the file is in the log as well until all are and are synced, so every start finds
//! what was committed. Two connections that write and fold at once need SQLite 3.51.3 (sqlite.org/wal.html#walresetbug).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::Mutex;

use super::super::StoreError;
use super::{scanner, schema, write};

/// Pages of the log that are not in the file, from where on folding is worth its syncs.
const MANY: i64 = 1000;
const OPERATION: &str = "fold the log into the database";

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held while it folds. Nothing is there before the first time, and after a failure.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            connection: Arc::default(),
        }
    }

    /// Begins to fold where `unfolded` pages are many, unless it is under way.
    pub(super) fn look(&self, unfolded: i64) {
        if unfolded < MANY {
            return;
        }
        let Ok(mut slot) = Arc::clone(&self.connection).try_lock_owned() else {
            return;
        };
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || {
            let known = slot.take().map_or_else(|| open(&path), Ok);
            match known.and_then(fold) {
                Ok(connection) => *slot = Some(connection),
                // Nothing is lost by it: the writer folds once the log is long.
                Err(error) => tracing::warn!(%error, "the log beside the database stays for now"),
            }
        });
    }

    /// Waits until it does not fold, and closes its connection.
    pub(super) async fn close(&self) {
        drop(self.connection.lock().await.take());
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let opened = || -> rusqlite::Result<Connection> {
        let connection = scanner::connect(path)?;
        // The file is whole before the log begins anew.
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    let connection = opened().map_err(scanner::unavailable(OPERATION))?;
    schema::check_here(&connection)?;
    Ok(connection)
}

fn fold(connection: Connection) -> Result<Connection, StoreError> {
    write::to_the_end(&connection, "PRAGMA wal_checkpoint(PASSIVE)")
        .map_err(scanner::unavailable(OPERATION))?;
    Ok(connection)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use super::super::{Exclusive, Sqlite, signed};
    use super::*;
    use crate::store::batches::batch;
    use crate::store::{Batch, Store as _};

    const RECORDS: u64 = 400;

    /// A version before it could take pages for folded that are not.
    #[test]
    fn this_sqlite_may_write_and_fold_at_once() {
        assert!(rusqlite::version_number() >= 3_051_003);
    }

    async fn unfolded(store: &Sqlite) -> i64 {
        let looks = store.with_writer("look", |slot, _| slot.as_ref().unwrap().unfolded().unwrap());
        looks.await.unwrap()
    }

    /// Each record fills a page.
    fn large(parent: u64) -> Batch {
        let mut large = batch(parent, RECORDS);
        for (_, _, sealed) in &mut large.records {
            *sealed = vec![2; 4000];
        }
        large
    }

    async fn made() -> (tempfile::TempDir, PathBuf, Sqlite) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.sqlite");
        let store = Sqlite::create(Exclusive::take(&file).unwrap()).await;
        let log = file.with_extension("sqlite-wal");
        (dir, log, store.unwrap())
    }

    #[tokio::test]
    async fn a_log_that_became_long_is_folded_in_beside_the_commits() {
        let (_dir, log, store) = made().await;
        store.commit(&large(0)).await.unwrap();
        assert!(unfolded(&store).await > 0, "few pages wait");
        let last = 3;
        for parent in 1..=last {
            store.commit(&large(parent)).await.unwrap();
        }
        for _ in 0..500 {
            if unfolded(&store).await < MANY {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(unfolded(&store).await < MANY);
        store.close().await;
        assert!(!log.exists(), "whoever closes last leaves one file");
        let file = Connection::open(log.with_extension("sqlite")).unwrap();
        let newest =
            "SELECT count(*) FROM records, head WHERE records.generation = head.seq AND seq = ?1";
        let found: i64 = file
            .query_row(newest, [signed(last + 1)], |row| row.get(0))
            .unwrap();
        assert_eq!(found, signed(RECORDS));
    }

    #[tokio::test]
    async fn a_log_does_not_grow_for_ever_where_nobody_folds_it_to_its_end() {
        const BATCHES: u64 = 50;
        let most = u64::try_from(write::AT_THE_LATEST).unwrap() * 5 / 4;
        let (_dir, log, store) = made().await;
        // As if it was under way all the time.
        let _folds = store.folder.connection.lock().await;
        for parent in 0..BATCHES {
            store.commit(&large(parent)).await.unwrap();
        }
        let pages = std::fs::metadata(log).unwrap().len() / 4096;
        assert!(BATCHES * RECORDS > most, "else nothing is shown");
        assert!(pages < most, "{pages}");
    }
}
