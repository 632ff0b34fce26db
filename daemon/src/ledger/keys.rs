//! The key versions in use: what the head says of them, against what the token holds.
//!
//! Called by `start` for the head that it has found, by the committer for each that it has made, and
//! by `service` for a rotation. The head decides, because the token has authenticated it and the
//! anchor says that it is the newest: a key that somebody has put into the token besides is used
//! for nothing, and a key that is gone is a reason not to start. Must never let a rotation become
//! true before it is durable, anchored and in the log.

use custodyd_hsm::{KeyId, KeyPurpose, KeyVersions, Pool};

use super::log::KeyChange;
use super::{Head, Ledger, LedgerError, Order, realm};
use crate::escrow::Escrowed;

/// Refuses a token without the keys that the head names, and has the pool use these and no others
/// from now on.
///
/// # Errors
/// `Refused` names the missing keys; `Token` where it does not answer.
pub(super) async fn hold(pool: &Pool, head: &Head) -> Result<(), LedgerError> {
    let versions = head.state.keys.clone();
    pool.use_versions(versions.clone());
    let (missing, strays) = pool
        .call("check-keys", move |custody| {
            let mut missing = Vec::new();
            for key in versions.accepted() {
                if !custody.holds(key)? {
                    missing.push(key);
                }
            }
            let mut strays = Vec::new();
            for purpose in KeyPurpose::ALL {
                let held = custody.versions(purpose)?.into_iter();
                let held = held.map(|version| KeyId::new(purpose, version));
                strays.extend(held.filter(|key| !versions.accepts(*key)));
            }
            Ok((missing, strays))
        })
        .await?;
    if !missing.is_empty() {
        return Err(LedgerError::Refused(format!(
            "the realm's head names {}, and the token does not hold {}: it is another token, or \
             somebody has deleted keys; put the right token back, or restore its keys",
            names(&missing),
            if missing.len() == 1 { "it" } else { "them" }
        )));
    }
    metrics::gauge!("custodyd_unused_keys").set(strays.len() as f64);
    for key in strays {
        tracing::warn!(
            %key,
            "the token holds a key that the log does not name as in use; it is used for nothing \
             (retired, another realm's, of a rotation that was stopped, or somebody has put it there)"
        );
    }
    Ok(())
}

/// Has the pool believe every MAC key that the token holds, where a head was found to have been believed before them: until
/// `hold` says otherwise. For the restore ceremony, whose approvers are shown what is read by them. Somebody who has
/// put a key into the token can have its anchors say what they like; they could as well have destroyed them.
///
/// # Errors
/// `Token` where it does not answer.
pub(super) async fn believe_held(pool: &Pool) -> Result<(), LedgerError> {
    if let Some(versions) = pool.versions() {
        let held = pool.call("check-keys", |custody| custody.versions(KeyPurpose::Mac));
        pool.use_versions(versions.with_held(held.await?));
    }
    Ok(())
}

/// Has the pool use what a head says that was just anchored.
pub(super) fn follow(pool: &Pool, head: &Head) {
    let known = pool.versions();
    if known.is_none_or(|known| *known != head.state.keys) {
        pool.use_versions(head.state.keys.clone());
    }
}

pub(crate) fn names(keys: &[KeyId]) -> String {
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Ledger {
    /// The key versions in use.
    #[must_use]
    pub fn keys(&self) -> KeyVersions {
        self.reader.memory().read().head.state.keys.clone()
    }

    /// The escrow that the realm was made with, if it has one.
    ///
    /// # Errors
    /// Token or store unavailable, or a realm record that is not ours.
    pub(crate) async fn escrowed(&self) -> Result<Option<Escrowed>, LedgerError> {
        realm::escrow(&self.reader).await
    }

    /// Goes over from key versions to others, by an entry of the log that names both. When this
    /// returns `Ok`, the token knows, and everything from now on is held to the new ones.
    ///
    /// # Errors
    /// `Stale` where `before` is not what is in use; else why nothing could be committed.
    pub(crate) async fn change_keys(
        &self,
        before: KeyVersions,
        after: KeyVersions,
    ) -> Result<(), LedgerError> {
        let change = Box::new(KeyChange { before, after });
        self.order(|reply| Order::Keys { change, reply }).await
    }

    /// When this returns `Ok`, everything that was begun before is true and anchored, or is not and never will be.
    ///
    /// # Errors
    /// Why nothing could be committed.
    pub(crate) async fn settle(&self) -> Result<(), LedgerError> {
        self.order(|reply| Order::Settle { reply }).await
    }
}
