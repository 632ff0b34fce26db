//! A key leaves the tokens, every one of them.
//!
//! Called by the parent once no head accepts the key any more. A token that is not there would keep it, and
//! whoever finds that token could open what everybody believes to be closed: so each token of the configuration must answer
//! before anything is changed. Where one goes away in between, the same command finishes the work: what is gone already is gone.

use std::sync::Arc;

use custodyd_hsm::{KeyId, KeyPurpose, Pool, SecretBytes, Standing, anchor};

use super::{KeyError, MAKING, refused};
use crate::config::PRIMARY;
use crate::ledger::LedgerError;
use crate::service::Service;

impl Service {
    /// A version after the newest is what a rotation that was cut off has left, or a slip: and whoever has mistaken one key for
    /// another must not be told that it is gone.
    ///
    /// # Errors
    /// `Refused` where no token holds it, or one is not there.
    pub(super) async fn is_somewhere(&self, key: KeyId, newest: KeyId) -> Result<(), KeyError> {
        for (_, pool) in self.configured_tokens(key).await? {
            let held = pool.call("list-keys", move |custody| custody.versions(key.purpose));
            if held.await?.contains(&key.version) {
                return Ok(());
            }
        }
        refused(format!(
            "no token holds {key}, and this realm has never used it: its newest is {newest}, and `custodyd key list` shows them \
             all. Nothing was changed"
        ))
    }

    /// # Errors
    /// `Refused` where a token is not there, or another realm may be under the key.
    pub(super) async fn may_be_destroyed(&self, key: KeyId) -> Result<(), KeyError> {
        let realm = self.ledger.realm();
        for (name, pool) in self.configured_tokens(key).await? {
            let realm = realm.clone();
            let others = pool.call("list-anchors", move |custody| {
                anchor::other_realms(custody, &realm)
            });
            let others = others.await.map_err(|error| match error.is_retryable() {
                true => away(&name, key, &error.to_string()),
                false => error.into(),
            })?;
            // Keys belong to the token, and another realm on it may be under this one.
            if let Some(other) = others.first() {
                return refused(format!(
                    "the token {name} holds an anchor of the realm {other} as well, which may be under {key}: \
                     it is not destroyed; retire it without --destroy"
                ));
            }
        }
        Ok(())
    }

    /// After a retirement whose own anchor did not come to be, the one of before stands: without its keys it could not be
    /// believed, and no start would be.
    ///
    /// # Errors
    /// `Refused` where an anchor is still tagged by the key.
    pub(super) async fn no_anchor_needs(&self, key: KeyId) -> Result<(), KeyError> {
        if key.purpose != KeyPurpose::Mac {
            return Ok(());
        }
        for (name, pool) in self.configured_tokens(key).await? {
            let realm = self.ledger.realm().clone();
            let needs = pool.call("list-anchors", move |custody| {
                anchor::needs_key(custody, &realm, key.version)
            });
            if needs.await? {
                let what_next = match self.is_outside(&name) {
                    true => format!(
                        "It is none of the realm's, so nothing anchors there: take it in (custodyd token readmit {name}), or \
                         out of the configuration and restart, and destroy the key in it yourself;"
                    ),
                    false => "The next change anchors anew;".to_owned(),
                };
                return refused(format!(
                    "{key} is retired, and it is not destroyed yet: the anchor in the token {name} is still tagged by it. \
                     {what_next} run the same command again then"
                ));
            }
        }
        Ok(())
    }

    /// Whether it is a token of the configuration that the realm has given up, or never taken in.
    fn is_outside(&self, name: &str) -> bool {
        let member = self.ledger.pool().set().and_then(|set| set.called(name));
        member.is_some_and(|member| member.standing() == Standing::Outside)
    }

    /// In one after the other; all of them are tried. Of several TPMs with passwords of their own each loses the key
    /// when the command names its password.
    ///
    /// # Errors
    /// `Refused` names those that may hold it still.
    pub(super) async fn destroy_everywhere(
        &self,
        key: KeyId,
        owner: Option<Arc<SecretBytes>>,
    ) -> Result<(), KeyError> {
        let mut left = Vec::new();
        for (name, pool) in self.configured_tokens(key).await? {
            let owner = owner.clone();
            let gone = pool.call_within(MAKING, "destroy-key", move |custody| {
                match owner.as_deref() {
                    Some(password) => custody.destroy_key_for_owner(key, password),
                    None => custody.destroy_key(key),
                }
            });
            match gone.await {
                Ok(()) => tracing::warn!(%key, token = name, "a key was destroyed in the token"),
                Err(error) => left.push(format!("{name} ({error})")),
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => refused(format!(
                "{key} is not in use any more, and it may still be in {}: run the same command again once that is mended",
                left.join(" and ")
            )),
        }
    }

    /// Every token of the configuration, whether the head names it or not, each asked alone.
    async fn configured_tokens(&self, key: KeyId) -> Result<Vec<(String, Pool)>, KeyError> {
        let pool = self.ledger.pool();
        let Some(set) = pool.set().cloned() else {
            return Ok(vec![(PRIMARY.to_owned(), pool.clone())]);
        };
        let mut tokens = Vec::new();
        for member in set.members() {
            if !member.is_open() {
                let (of, one) = (Arc::clone(&set), Arc::clone(member));
                let reached = tokio::task::spawn_blocking(move || of.reach(&one)).await;
                let reached = reached.map_err(|_| LedgerError::internal("open a token"))?;
                reached.map_err(|error| away(member.name(), key, &error.to_string()))?;
            }
            tokens.push((member.name().to_owned(), member.pool()?));
        }
        Ok(tokens)
    }
}

fn away(name: &str, key: KeyId, why: &str) -> KeyError {
    KeyError::Refused(format!(
        "the token {name} does not answer ({why}), and would keep {key}; nothing was changed. Bring it back; where it is lost, \
         take it out of the configuration, restart, and destroy it if it turns up. Without --destroy the key is retired at once"
    ))
}
