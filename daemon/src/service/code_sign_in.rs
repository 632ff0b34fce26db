//! Signing in with a delivered code, and the PIN after it.
//!
//! The adversary asks for codes and types what they like; who reads the mailbox too has the
//! code. A bound device's guesses cost a budget that only bound devices can touch. Of anybody
//! else, only a device that asked for a code of this account is evaluated at all, on a budget of
//! its own; the rest get the decoy and write nothing. What a right code gives a device that is
//! not bound is the policy's to say: by default a session that may try the PIN, and little else.

use std::sync::Arc;

use custodyd_hsm::SecretBytes;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{Factor, Timestamp, UnknownDevice, unknown_device};

use super::authenticate::{Opened, open_session};
use super::guess::{self, Guess};
use super::named::Named;
use super::sessions::Proven;
use super::{Caller, Device, Refused, Service, devices, secrets};
use crate::account::Account;
use crate::api::{CodeSession, PinAfterCode, SessionStarted};
use crate::delivery::Notice;
use crate::factors::delivered_code::{Code, OtpSecret, PendingCodes};
use crate::factors::session::Scope;
use crate::ledger::Loaded;

/// What a code is compared with: taken from the very state that was charged.
struct Awaited(Vec<(String, OtpSecret, PendingCodes)>);

/// A code that was right, still to be redeemed in the newest state.
struct Right {
    contact: String,
    counter: u64,
}

impl Awaited {
    fn of(account: &Account) -> Self {
        let contacts = account.contacts.reachable();
        Self(
            contacts
                .map(|contact| {
                    let (id, otp) = (contact.id.clone(), contact.otp.clone());
                    (id, otp, contact.codes.clone())
                })
                .collect(),
        )
    }

    /// All contacts are compared, whichever it is.
    fn find(&self, thumbprint: &str, code: &Code, now: Timestamp) -> Option<Right> {
        let each = self.0.iter().map(|(id, otp, codes)| {
            let counter = codes.find(otp, thumbprint, code, now)?;
            Some(Right {
                contact: id.clone(),
                counter,
            })
        });
        each.fold(None, |found, this| this.or(found))
    }
}

impl Right {
    /// Uses the code up: it must still be there, and the address still a contact.
    fn redeem(
        &self,
        account: &mut Account,
        thumbprint: &str,
        now: Timestamp,
    ) -> Result<Proven, Refused> {
        let contact = account
            .contacts
            .get_mut(&self.contact)
            .filter(|contact| contact.reachable())
            .ok_or(Refused::AuthenticationFailed)?;
        contact
            .codes
            .redeem(self.counter, thumbprint, now)
            .ok_or(Refused::AuthenticationFailed)?;
        Ok(Proven::with(
            Factor::DeliveredCode,
            contact.device_id.clone(),
        ))
    }
}

impl Service {
    /// # Errors
    /// `AuthenticationFailed` for strangers; a bound device learns `Wrong`, `Wait` and
    /// `Exhausted`. `StepUp` where the policy does not let a code bind a device.
    pub async fn sign_in_with_code(
        &self,
        device: Device,
        request: CodeSession,
    ) -> Result<SessionStarted, Refused> {
        if !device.app.policy.delivered_codes.allowed {
            return Err(Refused::NotAllowed("delivered code"));
        }
        let named = Named::new(request.account, request.alias.as_deref())?;
        let code = Code::parse(request.code.expose())
            .map_err(|error| Refused::Malformed(error.to_string()))?;
        let wanted = request.bind_device.map(devices::wanted).transpose()?;
        let by = Factor::DeliveredCode;
        let releases = secrets::Releases::new(&device.app, by, true, request.release)?;
        let loaded = self.named(&device, &named).await?;
        let guess = self.may_try_code(&device, &loaded)?;
        let thumbprint = device.key.thumbprint.clone();
        let (charged, awaited, loaded) = self
            .charge(guess, &device, loaded, |account| Some(Awaited::of(account)))
            .await?;
        let Some(right) = awaited.find(&thumbprint, &code, self.now()) else {
            return Err(self.record_wrong(&device, loaded, charged).await);
        };
        let binding = match &wanted {
            Some(_) => Some(
                self.sign_device(&device, loaded.account.id, self.now())
                    .await?,
            ),
            None => None,
        };
        let asks = device.clone();
        let ((opened, added), loaded) = self
            .ledger
            .commit::<(Opened, bool), Refused>(loaded, move |account, moment, journal| {
                let now = moment.now;
                charged.succeed(account, now)?;
                let proven = right.redeem(account, &asks.key.thumbprint, now)?;
                guess::vouch(account, by, now);
                if is_limited(account, &asks) {
                    // Neither binds nor releases: the PIN comes next.
                    let nothing = secrets::Releases::new(&asks.app, by, true, Vec::new())?;
                    let opened = open_session(&asks, account, proven, &nothing, moment, journal)?;
                    return Ok((opened, false));
                }
                let before = account.devices.len();
                if let (Some(wanted), Some(binding)) = (wanted, binding) {
                    devices::bind(account, &asks, wanted, binding, now, journal)?;
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

    /// Whether this device's code is looked at, and what it costs.
    fn may_try_code(&self, device: &Device, loaded: &Loaded) -> Result<Guess, Refused> {
        let account = &loaded.account;
        for contact in account.contacts.reachable() {
            self.bindings.check(
                account,
                BindingKind::DeliveredCode,
                &contact.otp.device_id(),
                &contact.binding,
            )?;
        }
        if let Some(bound) = account.device(&device.key.thumbprint) {
            let key = &bound.key;
            self.bindings.check(
                account,
                BindingKind::DeviceKey,
                &key.thumbprint,
                &key.binding,
            )?;
            return Ok(Guess::Code);
        }
        let admitted =
            unknown_device(&device.app.policy, Factor::DeliveredCode) != UnknownDevice::Refused;
        let asked = account
            .contacts
            .awaits(&device.key.thumbprint, self.now());
        if admitted && asked {
            Ok(Guess::StrangersCode)
        } else {
            Err(Refused::AuthenticationFailed)
        }
    }

    /// # Errors
    /// `AuthenticationFailed` for a wrong PIN, for none, and where no attempt is left now.
    pub async fn go_on_with_pin(
        &self,
        caller: Caller,
        request: PinAfterCode,
    ) -> Result<SessionStarted, Refused> {
        if caller.session.scope != Scope::PinOnly {
            return Err(Refused::SessionComplete);
        }
        if !caller.app.policy.pin.allowed {
            return Err(Refused::NotAllowed("PIN"));
        }
        let wanted = request.bind_device.map(devices::wanted).transpose()?;
        let releases = secrets::Releases::new(&caller.app, Factor::Pin, true, request.release)?;
        let capacity = self.hasher.reserve()?;
        let account = caller.account();
        let pin = account.pin.as_ref().ok_or(Refused::AuthenticationFailed)?;
        self.bindings.check(
            account,
            BindingKind::Pin,
            &pin.record.device_id(),
            &pin.binding,
        )?;
        let pepper = self.pepper(&caller.loaded).await?;
        let device = caller.device();
        let (charged, record, loaded) = self
            .charge(
                Guess::PinAfterCode,
                &device,
                caller.loaded.clone(),
                |account| account.pin.as_ref().map(|pin| Arc::clone(&pin.record)),
            )
            .await?;
        let typed = SecretBytes::from(request.pin.expose().as_bytes().to_vec());
        let right = self
            .hasher
            .evaluate(capacity, typed, pepper, &record)
            .await?;
        if !right {
            return Err(self.record_wrong(&device, loaded, charged).await);
        }
        let binding = match &wanted {
            Some(_) => Some(
                self.sign_device(&device, loaded.account.id, self.now())
                    .await?,
            ),
            None => None,
        };
        let asks = device.clone();
        let ((opened, added), loaded) = self
            .ledger
            .commit::<(Opened, bool), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                charged.succeed(account, moment.now)?;
                guess::vouch(account, Factor::Pin, moment.now);
                // The limited session has done its work.
                super::sessions::end_one(&caller.session, account);
                let before = account.devices.len();
                if let (Some(wanted), Some(binding)) = (wanted, binding) {
                    devices::bind(account, &asks, wanted, binding, moment.now, journal)?;
                }
                let added = account.devices.len() > before;
                let proven = charged.proven();
                let opened = open_session(&asks, account, proven, &releases, moment, journal)?;
                Ok((opened, added))
            })
            .await?;
        if added {
            self.tell(&loaded.account, Notice::DeviceAdded);
        }
        self.started(&device, &opened.0, &loaded, opened.1).await
    }
}

/// Whether a code opens no more than the way to the PIN for this device.
pub(super) fn is_limited(account: &Account, device: &Device) -> bool {
    let stranger = account.device(&device.key.thumbprint).is_none();
    let gets = unknown_device(&device.app.policy, Factor::DeliveredCode);
    stranger && gets != UnknownDevice::Full
}
