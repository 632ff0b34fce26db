//! Rotating the token's keys: a newer one, the move to it, the end of the older one.
//!
//! Called by the operator's socket, and by the command line where no daemon runs. The order of the
//! steps is the argument. A newer key is made in the token, judged and proven there, and only
//! then named by a head that is in the log and anchored; until then, and for ever where that
//! fails, it is used for nothing. A key that was found in the token, and not made by the step
//! before, is never taken: whoever can write into the token's object store would choose our key.
//! But for a realm with an escrow, where a ceremony brings it into every token and its custodians vouch for it
//! (`escrowed`). An older key leaves the accepted ones when the verified state holds nothing under it, and
//! the tokens, all of them (`everywhere`), only after that.

mod escrowed;
mod everywhere;
mod rewrapping;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use custodyd_hsm::{
    AppId, BindingKeys, Custody, Ed25519Key, KeyId, KeyPurpose, KeyVersions, PublicKey,
    SecretBytes, checkpoint, webhook,
};
use serde_json::{Value, json};

use self::rewrapping::Rewrap;
use super::Service;
use crate::ledger::LedgerError;
use crate::ledger::rewrap::{Census, MacCensus};

/// Making a key may take a token this long: some are remote and slow.
const MAKING: Duration = Duration::from_secs(60);
/// Versions that are tried where an earlier attempt has left something in the token.
const VERSIONS: u16 = 8;

/// Why a key was not rotated, moved or retired. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("token: {0}")]
    Token(#[from] custodyd_hsm::Error),
}

fn refused<T>(what: impl Into<String>) -> Result<T, KeyError> {
    Err(KeyError::Refused(what.into()))
}

/// What runs of a rotation, and that nothing else of one does.
#[derive(Debug, Default)]
pub struct Rotation {
    one_at_a_time: tokio::sync::Mutex<()>,
    rewrap: Mutex<Option<Rewrap>>,
    /// Where the manifests of the escrow are, in a realm that has one.
    escrow: Option<PathBuf>,
}

impl Rotation {
    /// Of a realm whose `token.escrow` is this.
    #[must_use]
    pub fn of(escrow: Option<PathBuf>) -> Self {
        Self {
            escrow,
            ..Self::default()
        }
    }

    /// Whoever compares the keys of tokens holds this meanwhile: none comes into use.
    pub(super) async fn paused(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.one_at_a_time.lock().await
    }

    fn rewrap(&self) -> std::sync::MutexGuard<'_, Option<Rewrap>> {
        self.rewrap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a pass: the next one finds what is left.
    pub(crate) async fn stop(&self) {
        let running = self.rewrap().take();
        if let Some(rewrap) = running {
            rewrap.stop().await;
        }
    }
}

/// The public halves of the keys in use.
pub(crate) struct PublicKeys {
    pub(crate) bindings: BindingKeys,
    pub(crate) webhook: Vec<PublicKey>,
    pub(crate) checkpoint: Vec<PublicKey>,
    pub(crate) checkpoint_ed25519: Vec<Ed25519Key>,
}

impl PublicKeys {
    /// As the token holds them, of the versions that are accepted.
    ///
    /// # Errors
    /// The token's.
    pub(crate) fn load(custody: &mut dyn Custody) -> custodyd_hsm::Result<Self> {
        Ok(Self {
            bindings: BindingKeys::load(custody)?,
            webhook: webhook::keys(custody)?,
            checkpoint: checkpoint::keys(custody)?,
            checkpoint_ed25519: checkpoint::ed25519_keys(custody)?,
        })
    }
}

impl Service {
    /// Every key of the token and of the head, what it is used for, and how many records are
    /// under it, as the verified state says.
    ///
    /// # Errors
    /// Token or store unavailable.
    pub async fn keys(&self) -> Result<Value, KeyError> {
        let census = self.ledger.census().await?;
        let versions = self.ledger.keys();
        // Each account is opened for it: there is something to count only after a rotation.
        let mac = match versions.of(KeyPurpose::Mac).accepted().len() {
            0 | 1 => None,
            _ => Some(self.ledger.mac_census(self.served()).await?),
        };
        let held = self
            .ledger
            .pool()
            .call("list-keys", |custody| {
                let mut held = Vec::new();
                for purpose in KeyPurpose::ALL {
                    let versions = custody.versions(purpose)?.into_iter();
                    held.extend(versions.map(|version| KeyId::new(purpose, version)));
                }
                Ok(held)
            })
            .await?;
        let mut all: Vec<KeyId> = held.iter().copied().chain(versions.accepted()).collect();
        all.sort_unstable();
        all.dedup();
        let keys: Vec<Value> = all
            .into_iter()
            .map(|key| listed(key, &versions, (&census, mac.as_ref()), held.contains(&key)))
            .collect();
        let unopened = mac.as_ref().map(|mac| mac.unopened);
        Ok(json!({ "keys": keys, "damaged": census.damaged, "unopened": unopened }))
    }

    /// Makes the next version of a key and uses it from now on; with `announce` a signing key is published
    /// and signs nothing before the next rotation, which takes it: so that whoever pins keys can add it. In a realm
    /// with an escrow the version is there already, and `manifest` is the fingerprint that vouches for it. `owner` is the
    /// password of a TPM's owner hierarchy, where it has one and the key is to be made.
    ///
    /// # Errors
    /// `Refused` where the token can not make one; then nothing has changed.
    pub async fn rotate_key(
        &self,
        purpose: KeyPurpose,
        announce: bool,
        manifest: Option<&str>,
        owner: Option<Arc<SecretBytes>>,
    ) -> Result<KeyId, KeyError> {
        if announce && purpose.is_symmetric() {
            return refused(
                "nobody outside knows a wrap or a MAC key: there is nothing to announce",
            );
        }
        let _one = self.rotation.one_at_a_time.lock().await;
        let before = self.ledger.keys();
        let change = |key| match announce {
            true => before.with_announced(key),
            false => before.with_newer(key),
        };
        // Before anything is made: whether the head can name one more.
        let key = match (before.announced(purpose).filter(|_| !announce), manifest) {
            (Some(announced), _) => announced,
            (None, _) if self.rotation.escrow.is_some() => {
                let check = self.escrowed_key(purpose, manifest).await?;
                change(check.key)?;
                self.take_up(&check).await?;
                check.key
            }
            (None, Some(_)) => {
                return refused(
                    "--manifest is for a realm with an escrow: here the token makes the key",
                );
            }
            (None, None) => {
                let next = before.current(purpose).version.saturating_add(1);
                change(KeyId::new(purpose, next))?;
                self.make_key(purpose, next, owner).await?
            }
        };
        let after = change(key)?;
        // What it signs must verify from the first moment on.
        if !purpose.is_symmetric() && !before.accepts(key) {
            let made = self.ledger.pool().call("public-key", move |custody| {
                let mut keys = PublicKeys::load(custody)?;
                match purpose {
                    KeyPurpose::CheckpointEd25519 => {
                        keys.checkpoint_ed25519.push(custody.ed25519_key(key)?);
                    }
                    KeyPurpose::Bind => {
                        keys.bindings = keys.bindings.with(custody.public_key(key)?)
                    }
                    KeyPurpose::Checkpoint => keys.checkpoint.push(custody.public_key(key)?),
                    _ => keys.webhook.push(custody.public_key(key)?),
                }
                Ok(keys)
            });
            self.know(made.await?);
        }
        // Where the outcome is not known, the key may come into use later: it stays known.
        self.ledger.change_keys(before, after).await?;
        // It has happened: who asks again because of this would make another key.
        if let Err(error) = self.know_those_in_use().await {
            tracing::warn!(%error, "older keys stay known until the next start");
        }
        metrics::counter!("custodyd_keys_rotated_total", "purpose" => purpose.name()).increment(1);
        match announce {
            true => tracing::warn!(%key, "a newer key was made and published"),
            false => tracing::warn!(%key, "a newer key is used from now on"),
        }
        Ok(key)
    }

    /// In the token, by the token, and proven there. What an earlier attempt has left is passed over.
    async fn make_key(
        &self,
        purpose: KeyPurpose,
        first: u16,
        owner: Option<Arc<SecretBytes>>,
    ) -> Result<KeyId, KeyError> {
        let made = self
            .ledger
            .pool()
            .call_within(MAKING, "make-key", move |custody| {
                let held = custody.versions(purpose)?.last().copied().unwrap_or(0);
                let first = first.max(held.saturating_add(1));
                let last = first.saturating_add(VERSIONS);
                for version in first..=last {
                    let key = KeyId::new(purpose, version);
                    let made = match owner.as_deref() {
                        Some(password) => custody.make_key_for_owner(key, password),
                        None => custody.make_key(key),
                    };
                    match made {
                        Ok(()) => {
                            prove(custody, key)?;
                            return Ok(key);
                        }
                        Err(custodyd_hsm::Error::Invalid { .. }) if version < last => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(custodyd_hsm::Error::Misconfigured(
                    "no version is left for another key".to_owned(),
                ))
            });
        Ok(made.await?)
    }

    async fn know_those_in_use(&self) -> Result<(), KeyError> {
        let keys = self
            .ledger
            .pool()
            .call("load-public-keys", PublicKeys::load);
        self.know(keys.await?);
        Ok(())
    }

    fn know(&self, keys: PublicKeys) {
        self.bindings.know(keys.bindings, keys.webhook);
        self.auditors
            .know((keys.checkpoint, keys.checkpoint_ed25519));
    }

    /// Takes an older key out of those that are accepted, once nothing is under it; with `destroy`
    /// out of the token, too, for which a TPM may want the password of its `owner`. Says what it did.
    ///
    /// # Errors
    /// `Refused` says why the key is still needed; then nothing has changed.
    pub async fn retire_key(
        &self,
        key: KeyId,
        destroy: bool,
        owner: Option<Arc<SecretBytes>>,
    ) -> Result<Value, KeyError> {
        let _one = self.rotation.one_at_a_time.lock().await;
        let before = self.ledger.keys();
        if key == before.current(key.purpose) {
            return refused(format!(
                "{key} is the key that is used for what is new; rotate it first"
            ));
        }
        if !before.accepts(key) && key.version > before.current(key.purpose).version {
            self.is_somewhere(key, before.current(key.purpose)).await?;
        }
        if destroy {
            self.may_be_destroyed(key).await?;
        }
        let accepted = before.accepts(key);
        if !accepted {
            self.has_not_come_into_use(key).await?;
        }
        if accepted {
            self.nothing_is_under(key).await?;
            let after = before.without(key)?;
            self.ledger.change_keys(before, after).await?;
            self.know_those_in_use().await?;
            tracing::warn!(%key, "a key was retired: what is under it is not believed any more");
        }
        if destroy {
            self.no_anchor_needs(key).await?;
            self.destroy_everywhere(key, owner).await?;
        }
        let mut answer =
            json!({ "key": key.to_string(), "retired": accepted, "destroyed": destroy });
        if let (true, Some(members)) = (destroy, answer.as_object_mut()) {
            members.extend(self.kept_in_escrow(key).await);
        }
        Ok(answer)
    }

    /// The apps whose accounts may be there.
    fn served(&self) -> Vec<AppId> {
        self.apps
            .retention()
            .into_iter()
            .map(|(app, _)| app)
            .collect()
    }

    /// A rotation whose outcome nobody knew may come true later: what it has made is then no stray key.
    async fn has_not_come_into_use(&self, key: KeyId) -> Result<(), KeyError> {
        self.ledger.settle().await?;
        match self.ledger.keys().accepts(key) {
            false => Ok(()),
            true => refused(format!(
                "{key} has just come into use, by a rotation that was cut off: nothing was changed; see `custodyd key list`"
            )),
        }
    }

    async fn no_account_is_under(&self, key: KeyId) -> Result<(), KeyError> {
        let census = self.ledger.mac_census(self.served()).await?;
        if let Some(apps) = census.under.get(&key.version) {
            let each = apps.iter().map(|(app, count)| format!("{count} of {app}"));
            let each: Vec<String> = each.collect();
            return refused(format!(
                "{} accounts are found by {key}, or have a PIN or an alias that is checked by it: {}. They move by \
                 nobody's hand: each stays until its owner has enrolled again and erased it. Tell those apps",
                census.of(key.version),
                each.join(", ")
            ));
        }
        if census.unopened > 0 {
            return refused(format!(
                "{} accounts are opened by no served app, and may be under {key}: serve their app again, or see \
                 `custodyd ledger verify`, then retire it",
                census.unopened
            ));
        }
        undamaged(census.damaged, key)
    }

    async fn nothing_is_under(&self, key: KeyId) -> Result<(), KeyError> {
        // It has signed nothing.
        if self.ledger.keys().announced(key.purpose) == Some(key) {
            return Ok(());
        }
        match key.purpose {
            KeyPurpose::Wrap => {}
            KeyPurpose::Webhook => return Ok(()),
            KeyPurpose::Mac => return self.no_account_is_under(key).await,
            KeyPurpose::Bind => {
                return refused(format!(
                    "{key} signs nothing any more, and the bindings that it has signed are checked \
                     on every use and kept by their owners as receipts: it stays accepted"
                ));
            }
            KeyPurpose::Checkpoint | KeyPurpose::CheckpointEd25519 => {
                return refused(format!(
                    "{key} signs nothing any more, and the checkpoints that it has signed are the \
                     evidence of auditors, witnesses and receipts: it stays accepted"
                ));
            }
        }
        let census = self.ledger.census().await?;
        let under = census.under.get(&key.version).copied().unwrap_or(0);
        if under > 0 {
            return refused(format!(
                "{under} records are sealed under {key}: `custodyd key rewrap` moves them first"
            ));
        }
        undamaged(census.damaged, key)
    }
}

fn undamaged(damaged: u64, key: KeyId) -> Result<(), KeyError> {
    match damaged {
        0 => Ok(()),
        damaged => refused(format!(
            "{damaged} rows of the database do not verify, and what belongs in their place may be \
             under {key}: see `custodyd ledger verify`, mend them, then retire it"
        )),
    }
}

fn listed(
    key: KeyId,
    versions: &KeyVersions,
    (census, mac): (&Census, Option<&MacCensus>),
    held: bool,
) -> Value {
    let state = match (versions.accepts(key), key == versions.current(key.purpose)) {
        (_, true) => "current",
        (true, false) if versions.announced(key.purpose) == Some(key) => "announced",
        (true, false) => "accepted",
        (false, false) => "unused",
    };
    let mut listed = json!({
        "key": key.to_string(),
        "purpose": key.purpose.name(),
        "version": key.version,
        "state": state,
        "in_token": held,
    });
    if let (KeyPurpose::Mac, Some(mac), Some(members)) = (key.purpose, mac, listed.as_object_mut())
    {
        members.insert("accounts".into(), mac.of(key.version).into());
        // Whom to ask: an account that is under an older one stays so until its owner enrols again, which their app can tell them.
        members.insert("apps".into(), json!(mac.under.get(&key.version)));
    }
    if key.purpose == KeyPurpose::Wrap {
        let records = census.under.get(&key.version).copied().unwrap_or(0);
        if let Some(members) = listed.as_object_mut() {
            members.insert("records".into(), records.into());
        }
    }
    listed
}

/// Before a head names it: the key gives one answer twice, and none that version 1 gives.
fn prove(custody: &mut dyn Custody, key: KeyId) -> custodyd_hsm::Result<()> {
    let wrong = || custodyd_hsm::Error::Misconfigured(format!("{key} was made and does not work"));
    let message = [0x5a; 32];
    if key.purpose.is_ed25519() {
        let signature = custody.sign_ed25519(key, &message)?;
        let sound = custody.ed25519_key(key)?.verifies(&message, &signature);
        return sound.then_some(()).ok_or_else(wrong);
    }
    if !key.purpose.is_symmetric() {
        let public = custody.public_key(key)?;
        let digest = crate::factors::sha256(&[&message]);
        let signature = custody.sign(key, &digest)?;
        let sound = public.verifies(&message, &signature);
        return sound.then_some(()).ok_or_else(wrong);
    }
    let (one, two) = (custody.hmac(key, &message)?, custody.hmac(key, &message)?);
    let mut sound = one.ct_eq(&two);
    for version in custody.versions(key.purpose)? {
        let other = KeyId::new(key.purpose, version);
        // One that does not work is no key that this one could be.
        let same = other != key
            && custody
                .hmac(other, &message)
                .is_ok_and(|tag| tag.ct_eq(&one));
        sound &= !same;
    }
    sound.then_some(()).ok_or_else(wrong)
}
