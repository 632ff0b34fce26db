//! Signing in: by PIN, by passkey, or with the device key alone (to read).
//!
//! What the adversary controls: every byte of the request, and every row of the database. A
//! guess is charged durably before it is evaluated, so cutting the power, the database or the
//! connection between the two can not give it back. Strangers (an unknown account, or a device
//! that is not bound to it) all get `AuthenticationFailed` after the same token work, and
//! nothing is written for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::mac::{self, EpochUse};
use custodyd_hsm::{AccountId, SecretBytes};
use custodyd_policies::{ChargeId, Factor};
use webauthn_rs::prelude::DiscoverableAuthentication;

use super::sessions::{self, Proven};
use super::{Device, Refused, Service, counted, devices, passkeys, secrets, standing};
use crate::account::{Account, Pin};
use crate::api::{
    CeremonyOptions, DeviceSession, PasskeyOptions, PasskeySession, PinSession, Secret,
    SessionStarted,
};
use crate::factors::ceremony::{self, Ceremony, Purpose};
use crate::factors::passkey::identify;
use crate::factors::pin_argon2::PinRecord;
use crate::factors::session::Session;
use crate::ledger::{EventKind, Journal, Loaded, Moment, NewEvent};

/// A charge whose outcome was never recorded counts as failed from then on.
const EVALUATION: Duration = Duration::from_secs(60);

/// The state of a passkey login, as it travels in the ceremony token.
pub type PasskeyLogin = Ceremony<DiscoverableAuthentication>;

/// What a login's commit hands back: the session and the secrets it releases.
type Opened = (Session, BTreeMap<String, Secret>);

impl Service {
    /// # Errors
    /// `AuthenticationFailed` for strangers; a bound device learns `PinWrong`, `PinWait`,
    /// `PinExhausted`, `PinNotSet`; `Busy` before anything is charged.
    pub async fn sign_in_with_pin(
        &self,
        device: Device,
        request: PinSession,
    ) -> Result<SessionStarted, Refused> {
        if !device.app.policy.pin.allowed {
            return Err(Refused::NotAllowed("PIN"));
        }
        let loaded = self.bound(&device, request.account).await?;
        // Capacity before the charge: a charged guess must be evaluated, whatever else
        // arrives. After the check above, so that strangers can not take any.
        let capacity = self.hasher.reserve()?;
        let pin = loaded.account.pin.as_ref().ok_or(Refused::PinNotSet)?;
        self.bindings.check(
            &loaded.account,
            BindingKind::Pin,
            &pin.record.device_id(),
            &pin.binding,
        )?;
        let releases = secrets::Releases::new(&device.app, Factor::Pin, true, request.release)?;
        releases.exist_in(&loaded.account)?;
        let pepper = self.pepper(&loaded).await?;

        let (charged, loaded) = self.charge_pin(&device, loaded).await?;
        let guess = SecretBytes::from(request.pin.expose().as_bytes().to_vec());
        let right = self
            .hasher
            .evaluate(capacity, guess, pepper, &charged.record)
            .await?;
        if !right {
            return Err(self.record_wrong_pin(&device, loaded, charged).await);
        }
        counted::right(Factor::Pin);

        let (app, key) = (device.app.clone(), device.key.clone());
        let (opened, loaded) = self
            .ledger
            .commit::<Opened, Refused>(loaded, move |account, moment, journal| {
                let device = Device { app, key };
                // A charge that expired meanwhile has become a failure and opens nothing.
                charged
                    .pin_in(account)?
                    .budget
                    .succeed(charged.charge, moment.now)
                    .map_err(|_| Refused::AuthenticationFailed)?;
                let proven = Proven::with(Factor::Pin, charged.device_id);
                open_session(&device, account, proven, &releases, moment, journal)
            })
            .await?;
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    /// Durable before the guess is looked at.
    async fn charge_pin(
        &self,
        device: &Device,
        loaded: Loaded,
    ) -> Result<(Charged, Loaded), Refused> {
        let rounds = device.app.policy.pin.rounds.clone();
        let thumbprint = device.key.thumbprint.clone();
        self.ledger
            .commit::<Charged, Refused>(loaded, move |account, moment, journal| {
                if account.device(&thumbprint).is_none() {
                    return Err(Refused::AuthenticationFailed);
                }
                let pin = account.pin.as_mut().ok_or(Refused::PinNotSet)?;
                let charge = pin
                    .budget
                    .charge(&rounds, moment.now, moment.now.plus(EVALUATION))?;
                let charged = Charged {
                    charge,
                    record: Arc::clone(&pin.record),
                    device_id: pin.device_id.clone(),
                    thumbprint: thumbprint.clone(),
                };
                journal.note(
                    NewEvent::new(EventKind::PinCharged)
                        .by(Factor::Pin)
                        .on(&thumbprint),
                );
                Ok(charged)
            })
            .await
    }

    async fn record_wrong_pin(&self, device: &Device, loaded: Loaded, charged: Charged) -> Refused {
        let rounds = device.app.policy.pin.rounds.clone();
        let recorded = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                let pin = charged.pin_in(account)?;
                // A charge that expired meanwhile counts as this failure already.
                let _ = pin.budget.fail(charged.charge, moment.now);
                journal.note(
                    NewEvent::new(EventKind::PinRefused)
                        .by(Factor::Pin)
                        .on(&charged.thumbprint),
                );
                Ok(pin.budget.standing(&rounds, moment.now))
            })
            .await;
        match recorded {
            Ok((standing, _)) => {
                counted::wrong(Factor::Pin, &standing);
                Refused::PinWrong {
                    left: standing.left,
                    wait_until: standing.wait_until,
                    exhausted: standing.exhausted,
                }
            }
            // The charge stands in any case: an unrecorded outcome counts as a failure.
            Err(refused) => refused,
        }
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
        let (app, key) = (device.app.clone(), device.key.clone());
        let (opened, loaded) = self
            .ledger
            .commit::<Opened, Refused>(loaded, move |account, moment, journal| {
                let device = Device { app, key };
                consumed.once(account, moment.now)?;
                let proven = verified.record(account, &device.app, moment.now)?;
                if let (Some(wanted), Some(binding)) = (bind, binding) {
                    devices::bind(account, &device, wanted, binding, moment.now, journal)?;
                }
                // The stronger factor makes an exhausted PIN usable again.
                if let Some(pin) = account.pin.as_mut() {
                    pin.budget.reset(moment.now);
                }
                open_session(&device, account, proven, &releases, moment, journal)
            })
            .await?;
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
        let (app, key) = (device.app.clone(), device.key.clone());
        let (opened, loaded) = self
            .ledger
            .commit::<Opened, Refused>(loaded, move |account, moment, journal| {
                let device = Device { app, key };
                if account.device(&device.key.thumbprint).is_none() {
                    return Err(Refused::AuthenticationFailed);
                }
                let proven = Proven::by_device(Factor::Device);
                open_session(&device, account, proven, &releases, moment, journal)
            })
            .await?;
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    /// The account, for a device that is bound to it; everybody else is a stranger.
    async fn bound(&self, device: &Device, account: AccountId) -> Result<Loaded, Refused> {
        let loaded = self.known(device, account).await?;
        let bound = loaded
            .account
            .device(&device.key.thumbprint)
            .ok_or(Refused::AuthenticationFailed)?;
        self.bindings.check(
            &loaded.account,
            BindingKind::DeviceKey,
            &bound.key.thumbprint,
            &bound.key.binding,
        )?;
        Ok(loaded)
    }

    /// The account, if it exists. An unknown one costs the same visit to the token; what else
    /// differs is hidden by the deadline, to which all but bound devices are held.
    async fn known(&self, device: &Device, account: AccountId) -> Result<Loaded, Refused> {
        let loaded = self.ledger.load(&device.app.id, account).await?;
        if loaded.is_none() {
            self.ledger.decoy().await?;
        }
        let bound = |loaded: &Loaded| loaded.account.device(&device.key.thumbprint).is_some();
        if loaded.as_ref().is_some_and(bound) {
            standing::bound();
        } else {
            self.strangers.meet()?;
        }
        loaded.ok_or(Refused::AuthenticationFailed)
    }

    pub(super) async fn pepper(
        &self,
        loaded: &Loaded,
    ) -> Result<custodyd_hsm::Secret<32>, Refused> {
        let (realm, app) = (self.realm().clone(), loaded.account.app.clone());
        let record = *loaded.record();
        Ok(self
            .ledger
            .pool()
            .call("pin-pepper", move |custody| {
                mac::pin_pepper(custody, &realm, &app, &record)
            })
            .await?)
    }
}

/// A PIN attempt that has been paid for.
#[derive(Debug)]
struct Charged {
    charge: ChargeId,
    record: Arc<PinRecord>,
    device_id: String,
    thumbprint: String,
}

impl Charged {
    /// The PIN that was charged, if it is still the account's and the device still bound: a
    /// guess at a PIN that was replaced meanwhile opens nothing.
    fn pin_in<'a>(&self, account: &'a mut Account) -> Result<&'a mut Pin, Refused> {
        if account.device(&self.thumbprint).is_none() {
            return Err(Refused::AuthenticationFailed);
        }
        account
            .pin
            .as_mut()
            .filter(|pin| pin.device_id == self.device_id)
            .ok_or(Refused::AuthenticationFailed)
    }
}

/// The end of every successful sign-in: the session, the secrets asked for, and the events,
/// all in the commit that consumed what was proven.
fn open_session(
    device: &Device,
    account: &mut Account,
    proven: Proven,
    releases: &secrets::Releases,
    moment: Moment,
    journal: &mut Journal,
) -> Result<Opened, Refused> {
    let session = sessions::start(device, account, proven, moment.now)?;
    journal.note(
        NewEvent::new(EventKind::SessionStarted)
            .by(session.factor)
            .on(&session.device_thumbprint),
    );
    let secrets = releases.take_from(account, &session.device_thumbprint, journal)?;
    Ok((session, secrets))
}
