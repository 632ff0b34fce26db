//! What nodes tell each other of their configuration, so that a difference is noticed.
//!
//! Called by the store. Each setting is a shared advisory lock of the connection that writes, under the setting's number and
//! a hash of its value: it is gone with the node, and needs no table. That a node lets others differ from a value of its own
//! is a second one, of the same hash. Whoever may connect to the server can make up a difference, and a node is refused at its
//! start: they could have taken the lock of those who write as well. Or they hide one, and nodes serve that differ, which is
//! noticed by their clients and in the log; nothing that nodes must never differ in is decided here.

use sqlx::postgres::{PgConnection, PgPool};

use super::super::{Declared, StoreError};
use super::answers::{rows, unsigned, within};

const OPERATION: &str = "compare with other nodes";
/// "cst", and the setting's number.
pub(super) const SETTINGS: i32 = 0x6373_7400;
/// Beside the setting's number.
const MAY_DIFFER: u8 = 0x80;
/// Values that are looked at, of all settings and nodes.
const MOST: usize = 256;

const SHOWN: &str = "SELECT DISTINCT classid::bigint - $1 AS setting, objid::bigint AS hash \
    FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted \
    AND classid::bigint >= $1 AND classid::bigint < $1 + 256 \
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) LIMIT $2";

type Lock = (u8, [u8; 4]);

/// Permissions first: no value is ever shown without its own.
fn locks(declared: &[Declared]) -> Vec<Lock> {
    let permitted = declared.iter().filter(|one| one.may_differ);
    let permitted = permitted.map(|one| (one.setting.number() | MAY_DIFFER, one.value));
    let values = declared.iter().map(|one| (one.setting.number(), one.value));
    permitted.chain(values).collect()
}

/// On the connection that writes, until that ends. Whoever would keep us from it can, and hides a difference. What is declared
/// no more goes last: for a moment both are shown, and never neither.
pub(super) async fn declare(
    connection: &mut PgConnection,
    before: &[Declared],
    now: &[Declared],
) -> Result<(), StoreError> {
    let (before, now) = (locks(before), locks(now));
    let take = now.iter().filter(|one| !before.contains(one));
    let take = take.map(|one| ("SELECT pg_catalog.pg_try_advisory_lock_shared($1, $2)", one));
    let leave = before.iter().rev().filter(|one| !now.contains(one));
    let leave = leave.map(|one| ("SELECT pg_catalog.pg_advisory_unlock_shared($1, $2)", one));
    for (sql, &(number, value)) in take.chain(leave) {
        let asked = sqlx::query(sql)
            .bind(SETTINGS + i32::from(number))
            .bind(i32::from_be_bytes(value));
        within(OPERATION, asked.execute(&mut *connection)).await?;
    }
    Ok(())
}

/// The values that the server shows beside ours, and whether a node permits that of two which differ one is among its own.
pub(super) async fn differing(
    readers: &PgPool,
    ours: &[Declared],
) -> Result<Vec<Declared>, StoreError> {
    let query = sqlx::query(SHOWN)
        .bind(i64::from(SETTINGS))
        .bind(i64::try_from(MOST).unwrap_or_default());
    let mut shown: Vec<Lock> = Vec::new();
    for row in within(OPERATION, rows(readers, query, MOST)).await? {
        let number = u8::try_from(unsigned(&row, "setting", OPERATION)?);
        let hash = u32::try_from(unsigned(&row, "hash", OPERATION)?);
        if let (Ok(number), Ok(hash)) = (number, hash) {
            shown.push((number, hash.to_be_bytes()));
        }
    }
    let others = |ours: &Declared| {
        let (setting, own) = (ours.setting, ours.value);
        let number = setting.number();
        let permitted = |value| shown.contains(&(number | MAY_DIFFER, value));
        let others: Vec<_> = shown
            .iter()
            .filter(|(shown, value)| *shown == number && *value != own)
            .map(|&(_, value)| Declared {
                setting,
                value,
                may_differ: permitted(value) || permitted(own),
            })
            .collect();
        others
    };
    Ok(ours.iter().flat_map(others).collect())
}
