//! Devices: binding the one that asks, removing another.
//!
//! A bound device may try the PIN and read without asking its owner; that is all a device key
//! alone is worth. Binding needs a fresh factor of the owner's.

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::{AccountId, Lane};
use custodyd_policies::{Factor, Recovery, Timestamp};

use super::{Caller, Device, Refused, Service, name, sessions};
use crate::account::{Account, BoundKey, Device as BoundDevice};
use crate::api::{BindDevice, Bound, SessionToken};
use crate::delivery::Notice;
use crate::ledger::{EventKind, Journal, NewEvent};

/// A device that asked to be bound, its name checked.
#[derive(Debug)]
pub(super) struct Wanted(Option<String>);

pub(super) fn wanted(request: BindDevice) -> Result<Wanted, Refused> {
    name(request.name).map(Wanted)
}

/// Binds the device in the account's state; a device that is bound already stays as it is.
pub(super) fn bind(
    account: &mut Account,
    device: &Device,
    wanted: Wanted,
    binding: String,
    now: Timestamp,
    journal: &mut Journal,
) -> Result<(), Refused> {
    let thumbprint = &device.key.thumbprint;
    if account.device(thumbprint).is_some() {
        return Ok(());
    }
    // As at the account's creation and for a further app key: a key has one role.
    if account
        .app_keys
        .iter()
        .any(|key| key.thumbprint == *thumbprint)
    {
        return Err(Refused::Malformed(
            "the device key is an app key of this account; make two keys".into(),
        ));
    }
    let limit = device.app.policy.devices.max_per_account;
    if account.devices.len() >= limit {
        return Err(Refused::TooMany {
            what: "devices",
            limit,
        });
    }
    let session_epoch = account.take_device_epoch();
    account.devices.push(BoundDevice {
        key: BoundKey {
            jwk: device.key.jwk.clone(),
            thumbprint: thumbprint.clone(),
            binding,
            added: now,
        },
        name: wanted.0,
        session_epoch,
    });
    journal.note(NewEvent::new(EventKind::DeviceBound).on(thumbprint));
    Ok(())
}

impl Service {
    pub(super) async fn sign_device(
        &self,
        device: &Device,
        account: AccountId,
        now: Timestamp,
    ) -> Result<String, Refused> {
        let credential = (BindingKind::DeviceKey, device.key.thumbprint.clone());
        let [binding] = self
            .bindings
            .sign(&device.app.id, account, [credential], now)
            .await?;
        Ok(binding)
    }

    /// As `sign_device`, between a charge and its outcome, which must not wait behind what was charged nothing.
    pub(super) async fn sign_charged(
        &self,
        device: &Device,
        account: AccountId,
    ) -> Result<String, Refused> {
        let signing = self.sign_device(device, account, self.now());
        Lane::First.during(signing).await
    }

    /// Binds the device that asks; its session goes on as one of a bound device.
    ///
    /// # Errors
    /// `StepUp`, `RecoveryWaits`, `TooMany`.
    pub async fn bind_device(
        &self,
        caller: Caller,
        request: BindDevice,
    ) -> Result<(Bound, SessionToken), Refused> {
        let now = self.now();
        let wanted = wanted(request)?;
        // Binding a device is worth what the PIN is: it may try the PIN from then on.
        self.ready_to_recover(&caller, Recovery::BindDevice).await?;
        let device = Device {
            app: caller.app.clone(),
            key: caller.key.clone(),
        };
        let binding = self.sign_device(&device, caller.account().id, now).await?;
        let app = caller.app.clone();
        let loaded = caller.loaded.clone();
        let ((bound, session, added, granted), loaded) = self
            .ledger
            .commit::<_, Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                let now = moment.now;
                let granted = caller.recovers(account, Recovery::BindDevice, now, journal)?;
                let mut session = caller.session.clone();
                let before = account.devices.len();
                bind(account, &device, wanted, binding, moment.now, journal)?;
                let added = account.devices.len() > before;
                let bound = account
                    .device(&device.key.thumbprint)
                    .ok_or(Refused::Internal("find the bound device"))?;
                let answer = Bound {
                    device_id: bound.key.thumbprint.clone(),
                    binding: bound.key.binding.clone(),
                };
                let epoch = bound.session_epoch;
                // The token that asked, and others of this key, ended by the binding.
                session.device_epoch = Some(epoch);
                Ok((answer, session, added, granted))
            })
            .await?;
        let usual = added.then_some(Notice::DeviceAdded);
        self.recovered(&loaded.account, granted, usual);
        let token = self.session_token(&app, &session, now).await?;
        Ok((bound, token))
    }

    /// Removes another device: its sessions end and it becomes a stranger.
    ///
    /// # Errors
    /// `StepUp`, `NotFound`, `OwnDevice`.
    pub async fn remove_device(&self, caller: Caller, device_id: String) -> Result<(), Refused> {
        if device_id == caller.key.thumbprint {
            return Err(Refused::OwnDevice);
        }
        let loaded = caller.loaded.clone();
        self.ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Pin, moment.now)?;
                let issued = account
                    .device(&device_id)
                    .ok_or(Refused::NotFound("device"))?
                    .key
                    .added;
                account
                    .devices
                    .retain(|device| device.key.thumbprint != device_id);
                account.recoveries.retain(|waits| waits.device != device_id);
                account.revoke(BindingKind::DeviceKey, &device_id, issued, moment.now);
                sessions::end_removed(&device_id, account, moment.now);
                account.contacts.forget_device(&device_id);
                journal.note(NewEvent::new(EventKind::DeviceRemoved).on(&device_id));
                Ok(())
            })
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
