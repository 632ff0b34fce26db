//! App keys: binding another one, removing one, and the look-up for the app's backend.
//!
//! An app key is what the app's own backend takes for the account, so it is worth the strongest
//! factor that the account has: one that may read a secret must not thereby be able to put
//! another key beside it. Rotation is adding the new key and then removing the old one. A removed
//! key leaves a mark, so that the backend hears "revoked", and is never bound again.

use std::sync::Arc;

use custodyd_hsm::AccountId;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{Factor, Timestamp};
use subtle::{Choice, ConstantTimeEq as _};

use super::{App, Caller, Refused, Service};
use crate::account::{Account, BoundKey, RevokedBinding};
use crate::api::Bound;
use crate::api::app_keys::{AddAppKey, BindingStatus, LookedUp};
use crate::factors::dpop::{AppKey, AppKeyExpected};
use crate::factors::sha256;
use crate::ledger::{EventKind, NewEvent};

/// Most app keys of one account.
const MAX_APP_KEYS: usize = 8;
/// Marks of revoked bindings that an account keeps. The oldest gives way: to the backend it then
/// is a key that was never bound, which is trusted no more than a revoked one.
const MAX_REVOKED: usize = 32;
/// What a change of app keys is worth.
const APP_KEY_WORTH: Factor = Factor::Passkey;

impl Account {
    /// Leaves the mark of a binding that does not hold any more.
    pub(super) fn revoke(
        &mut self,
        kind: BindingKind,
        device_id: &str,
        issued: Timestamp,
        now: Timestamp,
    ) {
        self.revoked.retain(|mark| mark.device_id != device_id);
        self.revoked.push(RevokedBinding {
            kind,
            device_id: device_id.to_owned(),
            issued,
            revoked: now,
        });
        let surplus = self.revoked.len().saturating_sub(MAX_REVOKED);
        self.revoked.drain(..surplus);
    }
}

/// Puts a proven key into the account's state; one that is bound already stays as it is.
fn add(
    account: &mut Account,
    key: AppKey,
    binding: String,
    now: Timestamp,
) -> Result<bool, Refused> {
    if find(account, &key.thumbprint).is_some() {
        return Ok(false);
    }
    let revoked = |mark: &RevokedBinding| mark.device_id == key.thumbprint;
    if account.revoked.iter().any(revoked) {
        return Err(Refused::AppKeyRevoked);
    }
    // In the role of a device key it could not be revoked in the other role.
    if account.device(&key.thumbprint).is_some() {
        return Err(Refused::Malformed(
            "the app key is the key of a bound device; make two keys".into(),
        ));
    }
    if account.app_keys.len() >= MAX_APP_KEYS {
        return Err(Refused::TooMany {
            what: "app keys",
            limit: MAX_APP_KEYS,
        });
    }
    account.app_keys.push(BoundKey {
        jwk: key.jwk,
        thumbprint: key.thumbprint,
        binding,
        added: now,
    });
    Ok(true)
}

/// Takes a key out of the account's state and leaves its mark.
fn remove(account: &mut Account, device_id: &str, now: Timestamp) -> Result<(), Refused> {
    let issued = find(account, device_id)
        .ok_or(Refused::NotFound("app key"))?
        .added;
    if account.app_keys.len() == 1 {
        return Err(Refused::LastAppKey);
    }
    account.app_keys.retain(|key| key.thumbprint != device_id);
    account.revoke(BindingKind::AppKey, device_id, issued, now);
    Ok(())
}

fn find<'a>(account: &'a Account, thumbprint: &str) -> Option<&'a BoundKey> {
    account
        .app_keys
        .iter()
        .find(|key| key.thumbprint == thumbprint)
}

impl Service {
    /// Binds a further app key, proven for this device and now.
    ///
    /// # Errors
    /// `Proof`, `StepUp`, `AppKeyRevoked`, `TooMany`.
    pub async fn add_app_key(&self, caller: Caller, request: AddAppKey) -> Result<Bound, Refused> {
        let now = self.now();
        caller.step_up(caller.account(), APP_KEY_WORTH, now)?;
        let key = self.proofs.verify_app_key_proof(
            self.ledger.clock().read(),
            &request.app_key_proof,
            &AppKeyExpected {
                realm: self.realm().as_str(),
                app: caller.app.id.as_str(),
                device_thumbprint: &caller.key.thumbprint,
            },
        )?;
        let credential = (BindingKind::AppKey, key.thumbprint.clone());
        let [binding] = self
            .bindings
            .sign(&caller.app.id, caller.account().id, [credential], now)
            .await?;
        let loaded = caller.loaded.clone();
        let (bound, _) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, APP_KEY_WORTH, moment.now)?;
                let device_id = key.thumbprint.clone();
                if add(account, key, binding, now)? {
                    journal.note(NewEvent::new(EventKind::AppKeyAdded).on(&device_id));
                }
                let bound =
                    find(account, &device_id).ok_or(Refused::Internal("find the app key"))?;
                Ok(Bound {
                    device_id,
                    binding: bound.binding.clone(),
                })
            })
            .await?;
        Ok(bound)
    }

    /// Removes an app key: its binding is revoked from the commit on.
    ///
    /// # Errors
    /// `StepUp`, `NotFound`, `LastAppKey`.
    pub async fn remove_app_key(&self, caller: Caller, device_id: String) -> Result<(), Refused> {
        let loaded = caller.loaded.clone();
        self.ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, APP_KEY_WORTH, moment.now)?;
                remove(account, &device_id, moment.now)?;
                journal.note(NewEvent::new(EventKind::AppKeyRemoved).on(&device_id));
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// The app whose backend holds this credential.
    ///
    /// # Errors
    /// `UnknownApp`, `CredentialInvalid`.
    pub fn backend(&self, app: &str, credential: Option<&str>) -> Result<Arc<App>, Refused> {
        let app = self.apps.get(app)?;
        let credential = credential.ok_or(Refused::CredentialInvalid)?;
        let hash = sha256(&[credential.as_bytes()]);
        // Every hash is compared, so time does not tell which one was nearly right.
        let listed = app.policy.backend.credentials.iter();
        let known = listed.fold(Choice::from(0), |known, one| known | one.ct_eq(&hash));
        if bool::from(known) {
            Ok(app)
        } else {
            Err(Refused::CredentialInvalid)
        }
    }

    /// What the realm says about one credential of one account of this app. An account that does
    /// not exist costs the same visit to the token as one that does, and is `unknown` as well.
    ///
    /// # Errors
    /// `Tampered` where the binding does not verify: the backend relies on this answer.
    pub async fn look_up(
        &self,
        app: &App,
        account: AccountId,
        device_id: &str,
    ) -> Result<LookedUp, Refused> {
        let Some(loaded) = self.ledger.look_up(&app.id, account).await? else {
            return Ok(LookedUp::unknown());
        };
        let account = &loaded.account;
        if let Some((kind, binding)) = bound(account, device_id) {
            let statement = self.bindings.read(account, kind, device_id, binding)?;
            return Ok(LookedUp {
                // It may have been revoked in the time that a restore has taken back.
                status: match account.quarantined {
                    true => BindingStatus::Unconfirmed,
                    false => BindingStatus::Bound,
                },
                kind: Some(kind),
                issued: Some(Timestamp(statement.issued)),
                revoked: None,
                binding: Some(binding.to_owned()),
            });
        }
        let mark = account
            .revoked
            .iter()
            .find(|one| one.device_id == device_id);
        Ok(mark.map_or_else(LookedUp::unknown, |mark| LookedUp {
            status: BindingStatus::Revoked,
            kind: Some(mark.kind),
            issued: Some(mark.issued),
            revoked: Some(mark.revoked),
            binding: None,
        }))
    }
}

/// The credential that a backend may ask about. Whether an account has a PIN is not its business.
fn bound<'a>(account: &'a Account, device_id: &str) -> Option<(BindingKind, &'a str)> {
    if let Some(key) = find(account, device_id) {
        return Some((BindingKind::AppKey, &key.binding));
    }
    if let Some(device) = account.device(device_id) {
        return Some((BindingKind::DeviceKey, &device.key.binding));
    }
    account
        .passkey(device_id)
        .map(|bound| (BindingKind::Passkey, bound.binding.as_str()))
}

#[cfg(test)]
mod tests;
