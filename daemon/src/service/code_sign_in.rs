//! Signing in with a delivered code, and the PIN after it.
//!
//! The adversary asks for codes and types what they like; who reads the mailbox too has the
//! code. A bound device's guess is charged first, on a budget that only bound devices can touch.
//! Codes of strangers have 80 random bits, live for minutes, and open only to the devices that
//! asked, or to any once more asked than are remembered (`factors::delivered_code`): what keeps
//! them is their length. A count of tries would protect nothing and let anybody shut out the owner who
//! comes from a new phone. So theirs are not charged: a wrong one changes nothing, a right one is
//! used up by the commit that opens its session. What it opens for a device that is not bound is
//! the policy's to say: by default a session that may try the PIN, and little else.

use std::sync::Arc;

use custodyd_hsm::SecretBytes;
use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{Factor, Recovery, Timestamp, UnknownDevice, may_recover, unknown_device};

use super::authenticate::{Opened, open_session};
use super::guess::{self, Charged, Guess, Outcome};
use super::named::Named;
use super::pin::PinCheck;
use super::sessions::Proven;
use super::{Caller, Device, Refused, Service, counted, devices, held, secrets};
use crate::account::Account;
use crate::api::{BindDevice, CodeSession, PinAfterCode, SessionStarted};
use crate::delivery::Notice;
use crate::factors::delivered_code::{Code, OtpSecret, PendingCodes};
use crate::factors::session::Scope;
use crate::ledger::{EventKind, Journal, Loaded, Moment, NewEvent};

/// What a code is compared with: taken from the very state that was charged.
struct Awaited(Vec<(String, OtpSecret, PendingCodes)>);

const BY: Factor = Factor::DeliveredCode;

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
        Ok(Proven::with(BY, contact.device_id.clone()))
    }
}

/// All that a right code's commit needs.
struct Entry {
    device: Device,
    charged: Option<Charged>,
    right: Right,
    bind: Option<(devices::Wanted, String)>,
    releases: secrets::Releases,
}

impl Entry {
    fn open(
        self,
        account: &mut Account,
        moment: Moment,
        journal: &mut Journal,
    ) -> Result<(Opened, bool), Refused> {
        let (device, now) = (&self.device, moment.now);
        match &self.charged {
            Some(charged) => charged.succeed(account, now)?,
            None => Guess::Code.reset(account, now),
        }
        let proven = self.right.redeem(account, &device.key.thumbprint, now)?;
        guess::vouch(account, device, BY, now);
        if is_limited(account, device) {
            // Neither binds nor releases: the PIN comes next.
            let nothing = secrets::Releases::new(&device.app, BY, true, Vec::new())?;
            let opened = open_session(device, account, proven, &nothing, moment, journal)?;
            return Ok((opened, false));
        }
        let before = account.devices.len();
        if let Some((wanted, binding)) = self.bind
            && may_bind_at_once(account, device, moment, journal)
        {
            devices::bind(account, device, wanted, binding, now, journal)?;
        }
        let added = account.devices.len() > before;
        let opened = open_session(device, account, proven, &self.releases, moment, journal)?;
        Ok((opened, added))
    }
}

/// Whether a code binds this device here and now: where it is the account's strongest factor,
/// or by the policy's exception where that has no delay. A change that waits is asked for by
/// `POST /v1/account/devices`.
fn may_bind_at_once(
    account: &Account,
    device: &Device,
    moment: Moment,
    journal: &mut Journal,
) -> bool {
    let held = held(account, &device.app, moment.now);
    let change = Recovery::BindDevice;
    match may_recover(&device.app.policy, change, &held, BY, true) {
        Ok(grant) if grant.delay.is_zero() => {
            if grant.by_exception && account.device(&device.key.thumbprint).is_none() {
                let event = NewEvent::new(EventKind::RecoverUsed).by(BY);
                journal.note(event.on(&device.key.thumbprint).about("bind-device"));
            }
            true
        }
        _ => false,
    }
}

impl Service {
    /// The device is bound in the same commit where the policy lets a code do so at once; the
    /// answer says whether it is.
    ///
    /// # Errors
    /// `AuthenticationFailed` for strangers; a bound device learns `Wrong`, `Wait`, `Exhausted`.
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
        let releases = secrets::Releases::new(&device.app, BY, true, request.release)?;
        let loaded = self.named(&device, &named).await?;
        self.check_contacts(&loaded.account)?;
        let (charged, right, loaded) = if self.is_bound(&device, &loaded)? {
            releases.exist_in(&loaded.account)?;
            let (charged, right, loaded) = self.tried_code(&device, loaded, &code).await?;
            (Some(charged), right, loaded)
        } else {
            let right = self.strangers_code(&device, &loaded.account, &code)?;
            (None, right, loaded)
        };
        let account = loaded.account.id;
        let binding = match &wanted {
            Some(_) => Some(self.sign_charged(&device, account).await?),
            None => None,
        };
        let entry = Entry {
            device: device.clone(),
            charged,
            right,
            bind: wanted.zip(binding),
            releases,
        };
        let ((opened, added), loaded) = self
            .ledger
            .record_outcome::<(Opened, bool), Refused>(loaded, move |account, moment, journal| {
                entry.open(account, moment, journal)
            })
            .await?;
        if added {
            self.tell(&loaded.account, Notice::DeviceAdded);
        }
        self.started(&device, &opened.0, &loaded, opened.1).await
    }

    fn check_contacts(&self, account: &Account) -> Result<(), Refused> {
        for contact in account.contacts.reachable() {
            let device_id = contact.otp.device_id();
            let kind = BindingKind::DeliveredCode;
            self.bindings
                .check(account, kind, &device_id, &contact.binding)?;
        }
        Ok(())
    }

    /// A bound device's code: charged, then looked at; a wrong one ends here.
    async fn tried_code(
        &self,
        device: &Device,
        loaded: Loaded,
        code: &Code,
    ) -> Result<(Charged, Right, Loaded), Refused> {
        let (charged, awaited, loaded) = self
            .charge(Guess::Code, device, loaded, |account| {
                Ok(Awaited::of(account))
            })
            .await?;
        match awaited.find(&device.key.thumbprint, code, self.now()) {
            Some(right) => Ok((charged, right, loaded)),
            None => Err(self.record_wrong(device, loaded, charged).await),
        }
    }

    fn strangers_code(
        &self,
        device: &Device,
        account: &Account,
        code: &Code,
    ) -> Result<Right, Refused> {
        let gets = unknown_device(&device.app.policy, BY);
        // Compared in any case: a policy is public, how long we think should not depend on it.
        let found = Awaited::of(account).find(&device.key.thumbprint, code, self.now());
        found
            .filter(|_| gets != UnknownDevice::Refused)
            .ok_or_else(|| {
                counted::wrong(Factor::DeliveredCode);
                Refused::AuthenticationFailed
            })
    }

    /// # Errors
    /// `AuthenticationFailed` for a wrong PIN, for none, and where no attempt is left now.
    pub async fn go_on_with_pin(
        &self,
        caller: Caller,
        request: PinAfterCode,
    ) -> Result<SessionStarted, Refused> {
        let next = Next::of(
            &caller,
            PinCheck::Argon2id,
            request.bind_device,
            request.release,
        )?;
        let capacity = self.hasher.reserve()?;
        let guess = Guess::PinAfterCode;
        self.check_pin(caller.account(), PinCheck::Argon2id)
            .map_err(|refused| guess.told(refused))?;
        let (under, pepper) = self.pepper(&caller.loaded).await?;
        let device = caller.device();
        let (charged, record, loaded) = self
            .charge(guess, &device, caller.loaded.clone(), move |account| {
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
            .await?;
        let typed = SecretBytes::from(request.pin.expose().as_bytes().to_vec());
        let right = self
            .hasher
            .evaluate(capacity, typed, pepper, &record)
            .await?;
        if !right {
            return Err(self.record_wrong(&device, loaded, charged).await);
        }
        self.complete(caller, loaded, (charged, Outcome::AtOnce), next)
            .await
    }

    /// The PIN was right: what it completes, whichever way it was checked.
    pub(super) async fn complete(
        &self,
        caller: Caller,
        loaded: Loaded,
        (charged, comes): (Charged, Outcome),
        next: Next,
    ) -> Result<SessionStarted, Refused> {
        let Next { wanted, releases } = next;
        let device = caller.device();
        let binding = match &wanted {
            Some(_) => Some(self.sign_charged(&device, loaded.account.id).await?),
            None => None,
        };
        let (asks, right) = (device.clone(), charged.clone());
        let ((opened, added), loaded) = self
            .ledger
            .record_outcome::<(Opened, bool), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                comes.succeed(&right, account, moment.now)?;
                guess::vouch(account, &asks, Factor::Pin, moment.now);
                // The limited session has done its work.
                super::sessions::end_one(&caller.session, account);
                let before = account.devices.len();
                if let (Some(wanted), Some(binding)) = (wanted, binding) {
                    devices::bind(account, &asks, wanted, binding, moment.now, journal)?;
                }
                let added = account.devices.len() > before;
                let proven = right.proven();
                let opened = open_session(&asks, account, proven, &releases, moment, journal)?;
                Ok((opened, added))
            })
            .await?;
        self.is_recorded(&charged, comes);
        if added {
            self.tell(&loaded.account, Notice::DeviceAdded);
        }
        self.started(&device, &opened.0, &loaded, opened.1).await
    }
}

/// What half a sign-in is to become with the PIN.
pub(super) struct Next {
    wanted: Option<devices::Wanted>,
    releases: secrets::Releases,
}

impl Next {
    /// # Errors
    /// `SessionComplete`, `NotAllowed`, those of releases.
    pub(super) fn of(
        caller: &Caller,
        check: PinCheck,
        bind_device: Option<BindDevice>,
        release: Vec<String>,
    ) -> Result<Self, Refused> {
        half_signed_in(caller, check)?;
        Ok(Self {
            wanted: bind_device.map(devices::wanted).transpose()?,
            releases: secrets::Releases::new(&caller.app, Factor::Pin, true, release)?,
        })
    }
}

/// # Errors
/// `SessionComplete`, `NotAllowed`.
pub(super) fn half_signed_in(caller: &Caller, check: PinCheck) -> Result<(), Refused> {
    if caller.session.scope != Scope::PinOnly {
        return Err(Refused::SessionComplete);
    }
    check.allowed(&caller.app.policy.pin)
}

/// Whether a code opens no more than the way to the PIN for this device.
pub(super) fn is_limited(account: &Account, device: &Device) -> bool {
    let stranger = account.device(&device.key.thumbprint).is_none();
    let gets = unknown_device(&device.app.policy, BY);
    stranger && gets != UnknownDevice::Full
}
