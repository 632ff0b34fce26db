//! Signing in: by PIN, by passkey, or with the device key alone (to read).
//!
//! What the adversary controls: every byte of the request, and every row of the database. A
//! guess is charged durably before it is evaluated, so cutting the power, the database or the
//! connection between the two can not give it back. Strangers (an unknown account, or a device
//! that is not bound to it, unless the policy has a budget for its PIN) all get `AuthenticationFailed` after the same token work, and
//! nothing is written for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::mac::{self, EpochUse};
use custodyd_hsm::{AccountId, AppId, KeyId, KeyPurpose, RecordId, Secret, SecretBytes};
use custodyd_policies::Factor;
use webauthn_rs::prelude::DiscoverableAuthentication;

use super::guess::{self, Charged, Guess, Outcome};
use super::named::Named;
use super::pin::PinCheck;
use super::sessions::{self, Proven};
use super::{Device, Refused, Service, devices, passkeys, quarantine, secrets, standing};
use crate::account::Account;
use crate::api::{
    self, CeremonyOptions, DeviceSession, PasskeyOptions, PasskeySession, PinSession,
    SessionStarted,
};
use crate::delivery::Notice;
use crate::factors::ceremony::{self, Ceremony, Purpose};
use crate::factors::passkey::identify;
use crate::factors::session::{Scope, Session};
use crate::ledger::{EventKind, Journal, Loaded, Moment, NewEvent};

/// The state of a passkey login, as it travels in the ceremony token.
pub type PasskeyLogin = Ceremony<DiscoverableAuthentication>;

/// What a login's commit hands back: the session and the secrets it releases.
pub(super) type Opened = (Session, BTreeMap<String, api::Secret>);

impl Service {
    /// # Errors
    /// `AuthenticationFailed` for strangers; a bound device learns `Wrong`, `Wait`,
    /// `Exhausted`, `NotSet`; `Busy` before anything is charged.
    pub async fn sign_in_with_pin(
        &self,
        device: Device,
        request: PinSession,
    ) -> Result<SessionStarted, Refused> {
        PinCheck::Argon2id.allowed(&device.app.policy.pin)?;
        let releases = secrets::Releases::new(&device.app, Factor::Pin, true, request.release)?;
        let (guess, found) = self
            .may_try_pin(&device, request.account, PinCheck::Argon2id)
            .await?;
        // Capacity before the charge: a charged guess must be evaluated, whatever else
        // arrives. After the check above, so that those who may not try can not take any.
        let capacity = self.place_for(guess)?;
        let pin = SecretBytes::from(request.pin.expose().as_bytes().to_vec());
        let Some(loaded) = found else {
            return Err(self.decoy_pin(&device, capacity, pin).await);
        };
        self.check_pin(&loaded.account, PinCheck::Argon2id)?;
        if guess == Guess::Pin {
            releases.exist_in(&loaded.account)?;
        }
        let (under, pepper) = self.pepper(&loaded).await?;

        let charged = self
            .charge(guess, &device, loaded, move |account| {
                let pin = account.pin.as_ref();
                let record = pin.and_then(|pin| pin.way.argon2id());
                let record = record
                    .map(Arc::clone)
                    .ok_or_else(|| guess.told(PinCheck::Argon2id.missing(account)))?;
                // The pepper that was made is that of the record which was read.
                match record.mac_key == under {
                    true => Ok(record),
                    false => Err(Refused::AuthenticationFailed),
                }
            })
            .await;
        let (charged, record, loaded) = match charged {
            Ok(charged) => charged,
            // Their last try was spent a moment ago: that is not told by the clock either.
            Err(Refused::AuthenticationFailed) if guess == Guess::StrangerPin => {
                return Err(self.decoy_pin(&device, capacity, pin).await);
            }
            Err(refused) => return Err(refused),
        };
        self.strangers_wait(guess).await;
        let right = self.hasher.evaluate(capacity, pin, pepper, &record).await?;
        self.strangers_wait(guess).await;
        if !right {
            return Err(self.record_wrong(&device, loaded, charged).await);
        }

        self.open_by_pin(device, loaded, (charged, Outcome::AtOnce), releases)
            .await
    }

    /// The PIN was right: the end of both ways to check one.
    pub(super) async fn open_by_pin(
        &self,
        device: Device,
        loaded: Loaded,
        (charged, comes): (Charged, Outcome),
        releases: secrets::Releases,
    ) -> Result<SessionStarted, Refused> {
        let (asks, right) = (device.clone(), charged.clone());
        let (opened, loaded) = self
            .ledger
            .record_outcome::<Opened, Refused>(loaded, move |account, moment, journal| {
                comes.succeed(&right, account, moment.now)?;
                guess::vouch(account, &asks, Factor::Pin, moment.now);
                open_session(&asks, account, right.proven(), &releases, moment, journal)
            })
            .await?;
        self.is_recorded(&charged, comes);
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    /// Options for signing in with a passkey. Writes nothing; the ceremony travels in a token.
    ///
    /// # Errors
    /// `NotAllowed`, or when the token can not be sealed.
    pub async fn passkey_login_options(
        &self,
        device: &Device,
        request: PasskeyOptions,
    ) -> Result<CeremonyOptions, Refused> {
        let policy = &device.app.policy.passkeys;
        if !policy.allowed {
            return Err(Refused::NotAllowed("passkey"));
        }
        let now = self.now();
        // Only a bound device is told which passkeys an account has; everybody else gets the
        // discoverable flow, whether the account exists or not.
        let bound = match request.account {
            Some(account) => match self.bound(device, account).await {
                Ok(loaded) => Some(loaded),
                Err(Refused::AuthenticationFailed) => None,
                Err(refused) => return Err(refused),
            },
            None => {
                standing::names_nobody();
                None
            }
        };
        let allow = bound
            .as_ref()
            .map(|loaded| passkeys::credential_ids(&loaded.account))
            .unwrap_or_default();
        let (public_key, state) = device.app.relying_party.start_authentication(&allow)?;
        let ceremony = Ceremony {
            id: ceremony::new_id()?,
            app: device.app.id.clone(),
            device_thumbprint: device.key.thumbprint.clone(),
            account: bound.map(|loaded| loaded.account.id),
            purpose: Purpose::Authenticate,
            expires: now.plus(policy.ceremony),
            state,
        };
        Ok(CeremonyOptions {
            ceremony: self
                .keys
                .seal(EpochUse::Ceremony, now, &ceremony)
                .await
                .map_err(Refused::ceremony)?,
            public_key: passkeys::unwrapped(public_key),
        })
    }

    /// # Errors
    /// `AuthenticationFailed` for strangers and wrong assertions alike, `Ceremony*` for a
    /// ceremony token that is not for this request, `PasskeyExpired` to its holder.
    pub async fn sign_in_with_passkey(
        &self,
        device: Device,
        request: PasskeySession,
    ) -> Result<SessionStarted, Refused> {
        let now = self.now();
        if !device.app.policy.passkeys.allowed {
            return Err(Refused::NotAllowed("passkey"));
        }
        let bind = request.bind_device.map(devices::wanted).transpose()?;
        let releases = secrets::Releases::new(&device.app, Factor::Passkey, true, request.release)?;
        let ceremony: PasskeyLogin = self
            .keys
            .open(EpochUse::Ceremony, now, &request.ceremony)
            .await
            .map_err(Refused::ceremony)?;
        let asserted = identify(&request.credential)?;
        ceremony.check(
            &device.app.id,
            &device.key.thumbprint,
            ceremony.account,
            Purpose::Authenticate,
            now,
        )?;
        let account = match (ceremony.account, asserted.account) {
            (Some(wanted), Some(named)) if wanted != named => {
                return Err(Refused::AuthenticationFailed);
            }
            (Some(account), _) | (None, Some(account)) => account,
            (None, None) => return Err(Refused::AuthenticationFailed),
        };
        let loaded = self.known(&device, account).await?;
        let verified = self
            .verify_assertion(
                &device,
                &loaded.account,
                &request.credential,
                &ceremony.state,
                &asserted,
            )
            .await?;

        let binding = match &bind {
            Some(_) => Some(self.sign_device(&device, account, now).await?),
            None => None,
        };
        let consumed = passkeys::Consumed {
            id: ceremony.id,
            expires: ceremony.expires,
        };
        let asks = device.clone();
        let ((opened, added), loaded) = self
            .ledger
            .commit::<(Opened, bool), Refused>(loaded, move |account, moment, journal| {
                consumed.once(account, moment.now)?;
                let proven = verified.record(account, &asks, moment.now)?;
                guess::vouch(account, &asks, Factor::Passkey, moment.now);
                let before = account.devices.len();
                if let (Some(wanted), Some(binding)) = (bind, binding) {
                    devices::bind(account, &asks, wanted, binding, moment.now, journal)?;
                }
                let added = account.devices.len() > before;
                let opened = open_session(&asks, account, proven, &releases, moment, journal)?;
                Ok((opened, added))
            })
            .await?;
        if added {
            self.tell(&loaded.account, Notice::DeviceAdded);
        }
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    /// A read-only session for a bound device: asks its owner for nothing.
    ///
    /// # Errors
    /// `AuthenticationFailed` for strangers.
    pub async fn sign_in_with_device(
        &self,
        device: Device,
        request: DeviceSession,
    ) -> Result<SessionStarted, Refused> {
        let loaded = self.bound(&device, request.account).await?;
        let releases = secrets::Releases::new(&device.app, Factor::Device, true, request.release)?;
        releases.exist_in(&loaded.account)?;
        let asks = device.clone();
        let (opened, loaded) = self
            .ledger
            .commit::<Opened, Refused>(loaded, move |account, moment, journal| {
                if account.device(&asks.key.thumbprint).is_none() {
                    return Err(Refused::AuthenticationFailed);
                }
                let proven = Proven::by_device(Factor::Device);
                open_session(&asks, account, proven, &releases, moment, journal)
            })
            .await?;
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    /// The account, for a device that is bound to it; everybody else is a stranger.
    pub(super) async fn bound(
        &self,
        device: &Device,
        account: AccountId,
    ) -> Result<Loaded, Refused> {
        let loaded = self.known(device, account).await?;
        if self.is_bound(device, &loaded)? {
            Ok(loaded)
        } else {
            Err(Refused::AuthenticationFailed)
        }
    }

    /// Whether the device is bound to the account, by a binding that is whole. One that is counts for its own rate, and
    /// then for the account's: whoever has stolen one does not keep the others from removing it.
    pub(super) fn is_bound(&self, device: &Device, loaded: &Loaded) -> Result<bool, Refused> {
        let Some(bound) = loaded.account.device(&device.key.thumbprint) else {
            return Ok(false);
        };
        self.bindings.check(
            &loaded.account,
            BindingKind::DeviceKey,
            &bound.key.thumbprint,
            &bound.key.binding,
        )?;
        self.callers.admit(&device.key.thumbprint)?;
        self.callers.admit_to(loaded.account.id)?;
        Ok(true)
    }

    /// The account by its identifier, for a caller who may be anybody.
    pub(super) async fn known(
        &self,
        device: &Device,
        account: AccountId,
    ) -> Result<Loaded, Refused> {
        self.named(device, &Named::Account(account)).await
    }

    /// The pepper that the account's PIN was set with, and the version of the MAC key that it comes from: one that is
    /// set meanwhile may have another. Where none is set to be evaluated here, of a new one.
    pub(super) async fn pepper(&self, loaded: &Loaded) -> Result<(u16, Secret<32>), Refused> {
        let account = &loaded.account;
        let record = account.pin.as_ref().and_then(|pin| pin.way.argon2id());
        let under = record.map(|record| record.mac_key);
        self.pepper_of(&account.app, *loaded.record(), under).await
    }

    /// The pepper that a new PIN takes.
    pub(super) async fn newest_pepper(
        &self,
        loaded: &Loaded,
    ) -> Result<(u16, Secret<32>), Refused> {
        self.pepper_of(&loaded.account.app, *loaded.record(), None)
            .await
    }

    pub(super) async fn pepper_of(
        &self,
        app: &AppId,
        record: RecordId,
        under: Option<u16>,
    ) -> Result<(u16, Secret<32>), Refused> {
        let (realm, app) = (self.realm().clone(), app.clone());
        Ok(self
            .ledger
            .pool()
            .call("pin-pepper", move |custody| {
                let key = match under {
                    Some(version) => KeyId::new(KeyPurpose::Mac, version),
                    None => custody.current(KeyPurpose::Mac)?,
                };
                let pepper = mac::pin_pepper(custody, key, &realm, &app, &record)?;
                Ok((key.version, pepper))
            })
            .await?)
    }
}

/// The end of every successful sign-in: the session, the secrets asked for, and the events,
/// all in the commit that consumed what was proven.
pub(super) fn open_session(
    device: &Device,
    account: &mut Account,
    proven: Proven,
    releases: &secrets::Releases,
    moment: Moment,
    journal: &mut Journal,
) -> Result<Opened, Refused> {
    // Half a sign-in shows nothing yet; the PIN that completes it does.
    if proven.scope(device, account) != Scope::PinOnly {
        quarantine::lift(account, device, proven.factor(), moment.now, journal)?;
    }
    let session = sessions::start(device, account, proven, moment.now)?;
    journal.note(
        NewEvent::new(EventKind::SessionStarted)
            .by(session.factor)
            .on(&session.device_thumbprint),
    );
    let secrets = releases.take_from(account, &session.device_thumbprint, journal)?;
    Ok((session, secrets))
}
