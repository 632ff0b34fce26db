//! Whether a head is tagged by the MAC key that tagged last.
//!
//! Called at the start, beside `descent`. After a rotation both keys tag, until the older one is retired. Somebody may know
//! that one: it is why a key is rotated. With the database they could write any log behind the anchor, and a head over
//! it that names the older key alone, and is tagged by it. So what goes on from an anchor must be tagged by the newest
//! key that the anchor is tagged by: a rotation adds one, the current one is never retired, and each change is
//! anchored before the next.

use std::sync::Arc;

use custodyd_hsm::{AnchorFault, Error, KeyId, KeyPurpose, Pool, RealmName, anchor};

use super::several;
use crate::ledger::LedgerError;
use crate::ledger::head::Head;
use crate::store::Store;

/// Refuses a head that older MAC keys alone have tagged.
///
/// # Errors
/// `Tampered` names the key; `Token` where none of the tokens answers.
#[cfg_attr(
    not(test),
    allow(unused_variables, reason = "only a test's store says that it is weak")
)]
pub(super) async fn check(
    pool: &Pool,
    realm: &RealmName,
    store: &Arc<dyn Store>,
    head: &Head,
) -> Result<(), LedgerError> {
    #[cfg(test)]
    if store.weakness().older_mac_keys {
        return Ok(());
    }
    let (mut silent, mut asked) = (None, false);
    for (_, pool) in several::named_pools(pool)? {
        match newest(&pool, realm).await {
            Ok(newest) => {
                asked = true;
                is_by(head, newest)?;
            }
            // One of several that does not answer is given up, or the start ends: not here.
            Err(error) => silent = Some(error),
        }
    }
    match silent {
        Some(error) if !asked => Err(error.into()),
        _ => Ok(()),
    }
}

/// An anchor that no key of this head has tagged may be one of another key's time: what an operator does then, beside what it is.
pub(super) fn told(error: LedgerError, head: &Head) -> LedgerError {
    let LedgerError::Token(Error::Anchors {
        fault: fault @ AnchorFault::Forged,
        detail,
    }) = error
    else {
        return error;
    };
    let next = match head.state.restored {
        // Between the new anchor and the end of those that it replaces.
        Some(_) => {
            "a restore that was cut off leaves this, where it went back behind a rotation of the MAC key: run `custodyd ledger \
             accept-restore` again, with the same statement and approvals"
        }
        None => {
            "this database may be of before the MAC key was rotated and retired: put the newest one in place, or see \
             docs/handbook/disagree.md"
        }
    };
    let detail = format!("{detail}; {next}");
    LedgerError::Token(Error::Anchors { fault, detail })
}

/// The newest MAC key that an anchor in this token is tagged by. None where it has only one that could.
///
/// # Errors
/// The token's.
pub(in crate::ledger) async fn newest(
    pool: &Pool,
    realm: &RealmName,
) -> Result<Option<u16>, Error> {
    let of = realm.clone();
    let newest = pool.call("read-anchor", move |custody| {
        match custody.versions(KeyPurpose::Mac)?.len() {
            0 | 1 => Ok(None),
            _ => anchor::newest_key(custody, &of),
        }
    });
    newest.await
}

fn is_by(head: &Head, newest: Option<u16>) -> Result<(), LedgerError> {
    match newest {
        Some(newest) if !head.tagged_by().contains(&newest) => {
            let key = KeyId::new(KeyPurpose::Mac, newest);
            Err(LedgerError::Tampered(format!(
                "{key} has tagged the token's anchor, and not the head that the database shows: it was made by who knows an \
                 older MAC key and not this one"
            )))
        }
        _ => Ok(()),
    }
}
