//! What an owner sees of the account: its factors, devices and secrets, and its trail.

use custodyd_hsm::binding::BindingKind;
use custodyd_policies::{PasskeyState, Timestamp, expiry, recovery_incomplete};

use super::{App, Caller, Refused, Service, auditors, contacts, held, recover, secrets};
use crate::account::{Account, BoundKey, BoundPasskey, Pin, PinWay, Usage};
use crate::api::{
    self, AccountView, DeviceView, EventPage, KeyView, PasskeyView, PinView, ProvenEvent,
    RecoveryCodesView, TotpView,
};
use crate::factors::session::Scope;
use crate::ledger::Place;

const PAGE: usize = 50;

/// An account as somebody is shown it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) account: &'a Account,
    pub(super) app: &'a App,
    /// The thumbprint of the device that looks; attempts left are told to a bound one only.
    pub(super) device: Option<&'a str>,
    /// Whether addresses are shown.
    pub(super) addresses: bool,
}

impl Caller {
    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            account: self.account(),
            app: &self.app,
            device: Some(&self.key.thumbprint),
            addresses: self.session.scope == Scope::Full,
        }
    }
}

impl Seen<'_> {
    fn is_bound(&self) -> bool {
        let device = self.device.and_then(|key| self.account.device(key));
        device.is_some()
    }
}

impl Service {
    /// # Errors
    /// `Tampered` where a binding does not verify: the receipts shown here are checked ones.
    pub fn account_view(&self, caller: &Caller) -> Result<AccountView, Refused> {
        self.view_of(&caller.seen())
    }

    pub(super) fn view_of(&self, seen: &Seen<'_>) -> Result<AccountView, Refused> {
        let now = self.now();
        let account = seen.account;
        let mut app_keys = Vec::with_capacity(account.app_keys.len());
        for key in &account.app_keys {
            self.bindings
                .check(account, BindingKind::AppKey, &key.thumbprint, &key.binding)?;
            app_keys.push(key_view(key));
        }
        let mut devices = Vec::with_capacity(account.devices.len());
        for device in &account.devices {
            let key = &device.key;
            self.bindings.check(
                account,
                BindingKind::DeviceKey,
                &key.thumbprint,
                &key.binding,
            )?;
            devices.push(DeviceView {
                device_id: key.thumbprint.clone(),
                name: device.name.clone(),
                binding: key.binding.clone(),
                added: key.added,
                current: seen.device == Some(key.thumbprint.as_str()),
            });
        }
        Ok(AccountView {
            account: account.id,
            app: account.app.to_string(),
            created: account.created,
            app_keys,
            devices,
            pin: account.pin.as_ref().map(|pin| pin_view(seen, pin, now)),
            passkeys: account
                .passkeys
                .iter()
                .map(|bound| passkey_view(seen, bound, now))
                .collect(),
            secrets: secrets::entries(account),
            server_slot: seen.app.policy.secrets.server_slot.is_taken(),
            contacts: contacts::views(seen, Usage::Contact),
            aliases: contacts::views(seen, Usage::Alias),
            recovery_incomplete: recovery_incomplete(
                &seen.app.policy,
                &held(account, seen.app, now),
                account.contacts.reachable().next().is_some(),
            ),
            totp: self.totp_view(seen, now)?,
            totp_pending: account.pending_totp.is_some(),
            recovery_codes: self.recovery_codes_view(account)?,
            waiting: recover::views(account, now),
        })
    }

    /// The account's events, newest first, each with its proof; and that the log continues the
    /// one that had `since` entries.
    ///
    /// # Errors
    /// `Malformed` for a cursor that was not given out, `Tampered` where the trail is broken,
    /// `LogTampered` where the log is.
    pub async fn events(
        &self,
        caller: &Caller,
        from: Option<&str>,
        since: Option<u64>,
    ) -> Result<EventPage, Refused> {
        let from = from.map(parse_place).transpose()?;
        let page = match self
            .ledger
            .events_with_bodies(&caller.loaded, from, PAGE)
            .await
        {
            // With a cursor of the caller's own making, a mismatch is the caller's.
            Err(crate::ledger::LedgerError::Tampered(_)) if from.is_some() => {
                self.ledger.events(&caller.loaded, None, PAGE).await?;
                return Err(bad_cursor());
            }
            page => page?,
        };
        let proven = self.ledger.prove(&page.bodies, since).await;
        let proven = proven.map_err(auditors::of_the_log)?;
        let entries = page.bodies.into_iter().zip(proven.proofs);
        let events = page.events.into_iter().zip(entries);
        Ok(EventPage {
            events: events
                .map(|(event, (entry, proof))| ProvenEvent::new(event, entry, proof))
                .collect(),
            next: page.next.map(cursor),
            complete_from: page.complete_from,
            checkpoint: proven.checkpoint.cosigned_note(),
            consistency: proven.consistency.map(api::log::hashes),
        })
    }
}

/// A place as its owner carries it to the next page.
pub(super) fn cursor(place: Place) -> String {
    format!("{}.{}", place.number, place.index)
}

pub(super) fn parse_place(text: &str) -> Result<Place, Refused> {
    let (number, index) = text.split_once('.').ok_or_else(bad_cursor)?;
    Ok(Place {
        number: number.parse().map_err(|_| bad_cursor())?,
        index: index.parse().map_err(|_| bad_cursor())?,
    })
}

pub(super) fn bad_cursor() -> Refused {
    Refused::Malformed(
        "`from` is not a cursor of this account; use `next` of the page before".into(),
    )
}

fn key_view(key: &BoundKey) -> KeyView {
    KeyView {
        device_id: key.thumbprint.clone(),
        jwk: key.jwk.clone(),
        binding: key.binding.clone(),
        added: key.added,
    }
}

fn pin_view(seen: &Seen<'_>, pin: &Pin, now: Timestamp) -> PinView {
    let rounds = &seen.app.policy.pin.rounds;
    let standing = seen.is_bound().then(|| pin.budget.standing(rounds, now));
    PinView {
        device_id: pin.device_id.clone(),
        binding: pin.binding.clone(),
        checked_by: match pin.way {
            PinWay::Argon2id(_) => api::PinCheckedBy::Argon2id,
            PinWay::Opaque(_) => api::PinCheckedBy::Opaque,
        },
        set: pin.set,
        attempts_left: standing.as_ref().map(|standing| standing.left),
        wait_until: standing.as_ref().and_then(|standing| standing.wait_until),
        exhausted: standing.as_ref().map(|standing| standing.exhausted),
    }
}

fn passkey_view(seen: &Seen<'_>, bound: &BoundPasskey, now: Timestamp) -> PasskeyView {
    let state = expiry::passkey(
        now,
        &seen.app.policy.passkeys,
        bound.confirmed,
        bound.last_used,
    );
    let (expires, expired) = match state {
        PasskeyState::Live { until } => (until, false),
        PasskeyState::Expired { since, .. } => (since, true),
    };
    PasskeyView {
        device_id: bound.device_id.clone(),
        name: bound.name.clone(),
        binding: bound.binding.clone(),
        added: bound.added,
        confirmed: bound.confirmed,
        last_used: bound.last_used,
        expires,
        expired,
    }
}

impl Service {
    fn totp_view(&self, seen: &Seen<'_>, now: Timestamp) -> Result<Option<TotpView>, Refused> {
        let account = seen.account;
        let Some(totp) = &account.totp else {
            return Ok(None);
        };
        let (id, jws) = (&totp.device_id, &totp.binding);
        self.bindings.check(account, BindingKind::Totp, id, jws)?;
        let rounds = &seen.app.policy.totp.rounds;
        let standing = seen.is_bound().then(|| totp.budget.standing(rounds, now));
        Ok(Some(TotpView {
            device_id: totp.device_id.clone(),
            binding: totp.binding.clone(),
            added: totp.added,
            attempts_left: standing.as_ref().map(|standing| standing.left),
            wait_until: standing.as_ref().and_then(|standing| standing.wait_until),
            exhausted: standing.as_ref().map(|standing| standing.exhausted),
        }))
    }

    fn recovery_codes_view(&self, account: &Account) -> Result<Option<RecoveryCodesView>, Refused> {
        let Some(set) = &account.recovery_codes else {
            return Ok(None);
        };
        let (id, jws) = (&set.device_id, &set.binding);
        self.bindings
            .check(account, BindingKind::RecoveryCodes, id, jws)?;
        Ok(Some(RecoveryCodesView {
            device_id: set.device_id.clone(),
            binding: set.binding.clone(),
            added: set.added,
            left: set.codes.left(),
        }))
    }
}
