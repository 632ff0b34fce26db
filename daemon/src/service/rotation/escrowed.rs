//! The next version of a key in a realm with an escrow: found in the tokens, and vouched for by its custodians.
//!
//! Called by the parent. A token may not make it: what a token makes is in no escrow, and in no other token. So it
//! comes from outside, as an attacker's would who has the PIN. What tells the two apart is the manifest that names
//! it, by its fingerprint: the operator has heard it from custodians, each of whom has opened their own share of exactly
//! that key before. An attacker can append a manifest of their own, and can not have its shares be those
//! that the custodians hold. It also means that nothing is under a key that nobody could bring back.

use custodyd_hsm::escrow::{EscrowError, Manifest, Manifests};
use custodyd_hsm::{KeyCheck, KeyId, KeyPurpose, Pool, root_keys};
use serde_json::{Map, Value};

use super::{KeyError, MAKING, prove, refused};
use crate::config::PRIMARY;
use crate::escrow::{self, ManifestError};
use crate::ledger::LedgerError;
use crate::service::Service;

impl Service {
    /// The newest version that the escrow has, if it is newer than what is in use and the manifest is the one that
    /// was read out.
    ///
    /// # Errors
    /// `Refused` says what to do.
    pub(super) async fn escrowed_key(
        &self,
        purpose: KeyPurpose,
        fingerprint: Option<&str>,
    ) -> Result<KeyCheck, KeyError> {
        if purpose.is_ed25519() {
            return refused(
                "an escrow has no Ed25519 keys, and one that a token makes would be in none: it would be lost with the \
                 token",
            );
        }
        let manifests = self.manifests().await?;
        let current = self.ledger.keys().current(purpose);
        let check = manifests
            .newest_of(purpose)
            .filter(|check| check.key.version > current.version);
        let Some(check) = check else {
            return refused(format!(
                "the manifest of token.escrow has no newer key than {current}, which is in use: `custodyd escrow \
                 add-version {}` makes one, and the manifest that names it",
                purpose.name()
            ));
        };
        let Some(given) = fingerprint else {
            return refused(format!(
                "{} was brought in from outside, and what vouches for it is the manifest: have the custodians of its \
                 ceremony run `custodyd escrow verify` and read the fingerprint out, then give it as --manifest",
                check.key
            ));
        };
        // Of its own ceremony, whose custodians have shares of it. Not told here: who copied it would have asked nobody.
        let own = manifests.ceremony_of(check.key).map(Manifest::fingerprint);
        if own.transpose()?.as_deref() != Some(given) {
            return refused(
                "the manifest of the key's ceremony is another one than its custodians have read out: put the one in place that \
                 they have. If it is in place, you were told wrong; if it was exchanged here, the key that it names may be \
                 somebody else's",
            );
        }
        Ok(check.clone())
    }

    /// Has every token of the realm find the key, and proves that it is this one in each.
    ///
    /// # Errors
    /// `Refused` names the token and what to do; then nothing has changed.
    pub(super) async fn take_up(&self, check: &KeyCheck) -> Result<(), KeyError> {
        let key = check.key;
        for (name, pool) in self.named_tokens()? {
            let found = pool.call_within(MAKING, "take-up-key", move |custody| {
                custody.take_up_key(key)?;
                let found = root_keys::check_of(custody, key)?;
                prove(custody, key)?;
                Ok(found)
            });
            match found.await {
                Ok(found) if found == *check => {}
                Ok(_) => {
                    return refused(format!(
                        "the token {name} holds another {key} than the escrow: nothing uses it. Find out whose it is, then \
                         `custodyd key retire {key} --destroy --yes`, and `custodyd escrow restore --token {name}`"
                    ));
                }
                Err(custodyd_hsm::Error::Invalid { reason, .. }) => {
                    return refused(format!(
                        "the token {name}: {reason}. Where the ceremony was stopped, run its `custodyd escrow add-version` \
                         again; else `custodyd escrow restore --token {name}` brings it in, from the shares of its ceremony"
                    ));
                }
                Err(error) if error.is_retryable() => {
                    return refused(format!(
                        "the token {name} does not answer ({error}), and every token of the realm must have {key} before it \
                         is used: bring it back, or take it out of the realm: custodyd token expel {name} --yes"
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The manifests as they lie there now; of the escrow that the realm was made with.
    async fn manifests(&self) -> Result<Manifests, KeyError> {
        let Some(path) = self.rotation.escrow.clone() else {
            return refused("the realm has no escrow");
        };
        let realm = self.ledger.realm().clone();
        let read = tokio::task::spawn_blocking(move || escrow::read(&path, &realm)).await;
        let manifests = read.map_err(|_| LedgerError::internal("read the manifests"))??;
        let made = self.ledger.escrowed().await?;
        let first = manifests.first().ceremony_name();
        if made.is_some_and(|made| made.ceremony == first) {
            return Ok(manifests);
        }
        refused(format!(
            "the manifest of token.escrow begins with the ceremony {first}, and the realm was made with another: put \
             the realm's own in place, which every custodian has"
        ))
    }

    /// What has to be said of a key that was destroyed in the tokens and that custodians can still bring back.
    pub(super) async fn kept_in_escrow(&self, key: KeyId) -> Map<String, Value> {
        let mut said = Map::new();
        if self.rotation.escrow.is_none() {
            return said;
        }
        let told = match self.manifests().await {
            Ok(manifests) => manifests.ceremony_of(key).map(|of| still(key, of)),
            Err(error) => Some(format!(
                "whether custodians can still bring {key} back is not known: {error}"
            )),
        };
        if let Some(told) = told {
            said.insert("escrow".to_owned(), told.into());
        }
        said
    }

    /// The tokens that the head names, and each is asked alone; the one where there is one.
    pub(super) fn named_tokens(&self) -> Result<Vec<(String, Pool)>, KeyError> {
        let pool = self.ledger.pool();
        let Some(set) = pool.set() else {
            return Ok(vec![(PRIMARY.to_owned(), pool.clone())]);
        };
        let named = set.serving().map(|member| -> Result<_, KeyError> {
            Ok((member.name().to_owned(), member.pool()?))
        });
        named.collect()
    }
}

fn still(key: KeyId, of: &Manifest) -> String {
    let others: Vec<KeyId> = of.keys.iter().map(|check| check.key).collect();
    let others: Vec<KeyId> = others.into_iter().filter(|other| *other != key).collect();
    let end = match others.is_empty() {
        true => "it is gone for good once they have destroyed these".to_owned(),
        false => format!(
            "these are also of {}, so that they stay",
            escrow::names(&others)
        ),
    };
    format!(
        "{} of {} can still bring {key} back with their shares of the ceremony {}: {end}",
        of.needed,
        of.custodian_names(),
        of.ceremony_name()
    )
}

impl From<ManifestError> for KeyError {
    fn from(error: ManifestError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<EscrowError> for KeyError {
    fn from(error: EscrowError) -> Self {
        Self::Refused(error.to_string())
    }
}
