//! Whether a head is tagged by the MAC key that tagged last.
//!
//! Called at the start, before anything else is asked of what the token remembers. After a rotation both keys tag, until
//! the older one is retired. Somebody may know that one: it is why a key is rotated. With the database they could write
//! any log behind the anchor, and a head over it that names the older key alone, and is tagged by it. So what goes on
//! from an anchor must be tagged by the newest key that the anchor is tagged by: a rotation adds one, the current one is
//! never retired, and each change is anchored before the next.
//!
//! Such a head names the tokens that it likes, too: one that was given up before the rotation has heard of no newer key.
//! So every token that is there is asked. One that an honest head does not name remembers something older, by older keys.

use std::sync::Arc;

use custodyd_hsm::{AnchorFault, Error, KeyId, KeyPurpose, Member, Pool, RealmName, anchor};

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
    for (name, pool) in several::named_pools(pool)? {
        match latest(&pool, realm).await {
            Ok(latest) => {
                asked = true;
                if let Some(latest) = latest.filter(|(_, key)| !head.tagged_by().contains(key)) {
                    let state = &head.state;
                    let restored = state.restored.is_some() && state.log_epoch > latest.0;
                    return Err(by_an_older_key(latest, name.as_deref(), restored));
                }
            }
            // One of several that does not answer is given up, or the start ends: not here.
            Err(error) => silent = Some(error),
        }
    }
    match silent {
        Some(error) if !asked => Err(error.into()),
        _ => ask_the_others(pool, realm, head).await,
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

/// By what a start went on: what a token outside of the set is held against, also later.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Believed {
    log_epoch: u64,
    mac_key: u16,
}

impl Believed {
    pub(in crate::ledger) fn of(head: &Head) -> Self {
        Self {
            log_epoch: head.state.log_epoch,
            mac_key: head.tagged_by().last().copied().unwrap_or(0),
        }
    }
}

/// Those that the head does not name. One that was given up is often sick, or gone for good: what it does not say stops nobody,
/// or the loss of a token would be the end of the realm. But where it is the one that knows better, this is what is served;
/// so it is said, and the token is asked again (`ledger::unheard`).
async fn ask_the_others(pool: &Pool, realm: &RealmName, head: &Head) -> Result<(), LedgerError> {
    let members = pool.set().into_iter().flat_map(|set| set.members());
    for member in members.filter(|member| member.is_unheard()) {
        match hear(member, realm, Believed::of(head)).await {
            Err(LedgerError::Token(error)) => tracing::warn!(
                token = member.name(),
                %error,
                "a token of the configuration that the newest head does not name says nothing: it was given up, or never taken \
                 in; or it knows a newer MAC key, and who knows an older one has made a head that leaves it out. The realm is \
                 served without its word, and stops if that is what it says once it is back; if it is lost for good, take it out \
                 of the configuration"
            ),
            heard => heard?,
        }
    }
    Ok(())
}

/// Asks a token outside of the set whether it has heard of a newer MAC key.
///
/// # Errors
/// `Tampered` where it has; `Token` where it says nothing.
pub(in crate::ledger) async fn hear(
    member: &Member,
    realm: &RealmName,
    believed: Believed,
) -> Result<(), LedgerError> {
    let latest = latest(&member.pool()?, realm).await?;
    // Of before a restore it says nothing: that has given up what stood then, and may have gone back to older keys.
    let newer =
        |(log_epoch, key): &(u64, u16)| *log_epoch >= believed.log_epoch && *key > believed.mac_key;
    if let Some(latest) = latest.filter(newer) {
        return Err(by_an_older_key(latest, Some(member.name()), false));
    }
    member.was_heard();
    Ok(())
}

/// The newest MAC key that the latest anchor in this token is tagged by, and its log epoch.
async fn latest(pool: &Pool, realm: &RealmName) -> Result<Option<(u64, u16)>, Error> {
    let of = realm.clone();
    let latest = pool.call("read-anchor", move |custody| {
        anchor::latest_key(custody, &of)
    });
    latest.await
}

/// The newest MAC key that any anchor in this token is tagged by. None where it has only one that could.
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

/// The newest MAC key that this token holds, whatever it has tagged.
///
/// # Errors
/// The token's.
pub(in crate::ledger) async fn newest_held(pool: &Pool) -> Result<Option<u16>, Error> {
    let held = pool.call("list-keys", |custody| custody.versions(KeyPurpose::Mac));
    Ok(held.await?.into_iter().max())
}

/// Of a restore that went back behind a rotation, and was cut off before the token knew, this is what is left as well. No tag
/// tells the two apart; the ceremony does, by the approvals.
fn by_an_older_key((_, key): (u64, u16), token: Option<&str>, restored: bool) -> LedgerError {
    let key = KeyId::new(KeyPurpose::Mac, key);
    let token = token.map_or_else(
        || "the token".to_owned(),
        |name| format!("the token {name}"),
    );
    let next = match restored {
        true => {
            "that begins another log epoch: where a restore from before the rotation was cut off, run `custodyd ledger \
             accept-restore` again, with the same statement and approvals, which finishes it; where nobody has run that, it was \
             made by who knows an older MAC key and not this one: put the newest database in place"
        }
        false => {
            "that was put back to before the rotation, or made by who knows an older MAC key and not this one; put the newest \
             database in place"
        }
    };
    LedgerError::Tampered(format!(
        "{key} has tagged the anchor in {token}, and not the head that the database shows: {next}"
    ))
}
