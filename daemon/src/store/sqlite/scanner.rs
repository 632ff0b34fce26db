//! The connections for going over whole tables.
//!
//! Used by `scan` alone. sqlx hands each row from its thread to ours, which costs more than to hash it; here rows are looked at
//! where SQLite has them. It is the same SQLite, and what a connection refuses and sets is what every other
//! one of this store does. Each reads on a thread that may wait.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::RwLock;

use super::super::StoreError;
use super::{BUSY, bounds, schema};
use crate::ledger::Unverified;

#[derive(Debug)]
pub(super) struct Scanner {
    path: PathBuf,
    /// Those that nobody uses now; as many as ever read at once.
    idle: Arc<Mutex<Vec<Connection>>>,
    /// Held by everybody who reads, until their connection is put back: also where nobody waits for them any more.
    closed: Arc<RwLock<bool>>,
}

fn locked(idle: &Mutex<Vec<Connection>>) -> MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scanner {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            idle: Arc::default(),
            closed: Arc::default(),
        }
    }

    /// What `work` reads. After a failure its connection is closed.
    ///
    /// # Errors
    /// `work`'s; `Unavailable` once this is closed; as `bounds::rows` where it takes too long.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Unverified<T>, StoreError> {
        self.read_within(bounds::SCAN, operation, work).await
    }

    /// The same within a time.
    ///
    /// # Errors
    /// As `read`.
    pub(super) async fn read_within<T: Send + 'static>(
        &self,
        time: Duration,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<Unverified<T>, StoreError> {
        let closed = Arc::clone(&self.closed).read_owned().await;
        if *closed {
            return Err(StoreError::Unavailable {
                operation,
                source: sqlx::Error::PoolClosed,
            });
        }
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let reading = tokio::task::spawn_blocking(move || {
            let _until_the_end = closed;
            let known = locked(&idle).pop();
            let connection = known.map_or_else(|| open(&path), Ok)?;
            bounds::limit_here(&connection, time).map_err(unavailable(operation))?;
            let found = work(&connection).map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::OperationInterrupted) => told(&connection, (operation, time)),
                _ => unavailable(operation)(error),
            })?;
            locked(&idle).push(connection);
            Ok(Unverified::new(found))
        });
        reading.await.unwrap_or_else(|error| {
            Err(StoreError::Unavailable {
                operation,
                source: sqlx::Error::Io(std::io::Error::other(error)),
            })
        })
    }

    /// Once this returns no connection is left and none will be: it waits for the parts that are being read, and whoever
    /// comes later is refused. Else a scan would put its connection back afterwards, and the file would not be
    /// whole without its log.
    pub(super) async fn close(&self) {
        *self.closed.write().await = true;
        locked(&self.idle).clear();
    }
}

/// Why a part took too long: what the schema has in place of a table, or the host.
fn told(connection: &Connection, (operation, time): (&'static str, Duration)) -> StoreError {
    let looked = bounds::limit_here(connection, time).map_err(unavailable(operation));
    let checked = looked.and_then(|()| schema::check_here(connection));
    let altered = checked.err();
    altered.unwrap_or_else(|| bounds::too_long(operation, time))
}

pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let opened = || -> rusqlite::Result<Connection> {
        let connection = connect(path)?;
        connection.pragma_update(None, "query_only", "ON")?;
        Ok(connection)
    };
    let connection = opened().map_err(unavailable("open the database"))?;
    schema::check_here(&connection)?;
    Ok(connection)
}

/// A connection with what each of this store's refuses; its schema is not checked yet.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Not read only: a database in WAL mode may need its index made.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    // The answer to this one is a row.
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    Ok(connection)
}

/// As for the other connections: a file that is not a database is damage.
pub(super) fn unavailable(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Malformed {
            operation,
            problem: format!("the database file is damaged: {error}"),
        },
        // We hold every constraint, so what breaks one was there before.
        Some(ErrorCode::ConstraintViolation) => StoreError::Altered {
            operation,
            problem: format!("a row that custodyd did not write is in the way: {error}"),
        },
        _ => StoreError::Unavailable {
            operation,
            source: sqlx::Error::Io(std::io::Error::other(error)),
        },
    }
}
