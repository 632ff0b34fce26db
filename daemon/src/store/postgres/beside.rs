//! What nodes tell each other of their configuration, so that a difference is noticed.
//!
//! Called by the store. Each setting that clients see is a shared advisory lock of the connection that writes, under
//! the setting's number and a hash of its value: it is gone with the node, and needs no table. Nothing is decided by it.
//! Whoever administers the server can make up a difference or hide one, and a warning is all that comes of that.

use sqlx::postgres::{PgConnection, PgPool};

use super::super::{Declared, StoreError};
use super::answers::{rows, unsigned, within};

const OPERATION: &str = "compare with other nodes";
/// "cst", and the setting's number.
const SETTINGS: i32 = 0x6373_7400;
/// Values that are looked at, of all settings and nodes.
const MOST: usize = 256;

const SHOWN: &str = "SELECT DISTINCT classid::bigint - $1 AS setting, objid::bigint AS hash \
    FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted \
    AND classid::bigint >= $1 AND classid::bigint < $1 + $2 \
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) LIMIT $3";

/// On the connection that writes, until that ends. Whoever would keep us from it can, and hides a difference.
pub(super) async fn declare(
    connection: &mut PgConnection,
    declared: &Declared,
) -> Result<(), StoreError> {
    for (number, (_, hash)) in (SETTINGS..).zip(declared) {
        let asked = sqlx::query("SELECT pg_catalog.pg_try_advisory_lock_shared($1, $2)")
            .bind(number)
            .bind(i32::from_be_bytes(*hash));
        within(OPERATION, asked.execute(&mut *connection)).await?;
    }
    Ok(())
}

/// The settings of which the server shows other values than ours.
pub(super) async fn differing(
    readers: &PgPool,
    declared: &Declared,
) -> Result<Vec<&'static str>, StoreError> {
    let query = sqlx::query(SHOWN)
        .bind(i64::from(SETTINGS))
        .bind(i64::try_from(declared.len()).unwrap_or_default())
        .bind(i64::try_from(MOST).unwrap_or_default());
    let shown = within(OPERATION, rows(readers, query, MOST)).await?;
    let mut differing = Vec::new();
    for row in &shown {
        let setting = unsigned(row, "setting", OPERATION)?;
        let hash = unsigned(row, "hash", OPERATION)?;
        let ours = usize::try_from(setting)
            .ok()
            .and_then(|at| declared.get(at));
        if let Some((name, ours)) = ours
            && hash != u64::from(u32::from_be_bytes(*ours))
            && !differing.contains(name)
        {
            differing.push(*name);
        }
    }
    Ok(differing)
}
