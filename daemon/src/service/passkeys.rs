//! Passkeys: registration, confirmation, removal, and what every assertion goes through.
//!
//! The ceremony is a sealed token in the client's hands; what makes it single-use is its mark
//! in the envelope, set by the same commit that acts on it. The assertion is verified against
//! the credential as the envelope holds it now, never against a copy in the ceremony.

use custodyd_hsm::binding::BindingKind;
use custodyd_hsm::mac::EpochUse;
use custodyd_policies::{Factor, PasskeyState, Timestamp, expiry};
use serde_json::Value;
use webauthn_rs::prelude::{
    CredentialID, DiscoverableAuthentication, Passkey, PasskeyRegistration,
};

use super::rates::limited;
use super::sessions::Proven;
use super::{App, Caller, Device, Refused, Service, name, secrets};
use crate::account::{Account, BoundPasskey, Spent};
use crate::api::{
    AddPasskey, Bound, CeremonyOptions, ConfirmPasskey, ManagePasskeyOptions, RemoveFactor,
};
use crate::bytes::Bytes;
use crate::delivery::Notice;
use crate::factors::ceremony::{self, Ceremony, CeremonyError, Purpose};
use crate::factors::dpop::DeviceKey;
use crate::factors::passkey::{
    Asserted, PasskeyError, counter, counter_grows, device_id, identify,
};
use crate::ledger::{EventKind, NewEvent};

#[cfg(test)]
mod tests;

/// Ceremonies of one account that may be used up within one ceremony lifetime.
const MAX_CONSUMED: usize = 64;

/// A ceremony that is being used up.
#[derive(Debug)]
pub(super) struct Consumed {
    pub(super) id: [u8; 16],
    pub(super) expires: Timestamp,
}

impl Consumed {
    /// Marks the ceremony used; a second use finds the mark.
    ///
    /// Expiry is asked once more here: a request that waited for its commit until after it
    /// would find the mark of an earlier one forgotten.
    pub(super) fn once(&self, account: &mut Account, now: Timestamp) -> Result<(), Refused> {
        if now >= self.expires {
            return Err(CeremonyError::Expired.into());
        }
        account.forget_expired(now);
        if account.consumed.iter().any(|spent| spent.id.0 == self.id) {
            return Err(Refused::CeremonyConsumed);
        }
        if account.consumed.len() >= MAX_CONSUMED {
            let first = account.consumed.iter().map(|spent| spent.expires).min();
            let wait = first.unwrap_or(self.expires).since(now);
            return Err(limited("ceremonies", wait));
        }
        account.consumed.push(Spent {
            id: Bytes(self.id.to_vec()),
            expires: self.expires,
        });
        Ok(())
    }
}

/// An assertion that verified, still to be recorded in the newest state.
#[derive(Debug)]
pub(super) struct VerifiedAssertion {
    device_id: String,
    /// The authenticator's, as it signed it.
    counter: u32,
    after: Passkey,
}

impl VerifiedAssertion {
    /// Takes the assertion into the account: the passkey must still be there, and what another
    /// assertion has moved its counter to meanwhile must be less than this one's.
    pub(super) fn record(
        self,
        account: &mut Account,
        Device { app, key }: &Device,
        now: Timestamp,
    ) -> Result<Proven, Refused> {
        let bound = self.bound_in(account, key)?;
        if matches!(
            expiry::passkey(now, &app.policy.passkeys, bound.confirmed, bound.last_used),
            PasskeyState::Expired { .. }
        ) {
            return Err(Refused::PasskeyExpired);
        }
        bound.last_used = now;
        bound.passkey = self.after;
        Ok(Proven::with(Factor::Passkey, self.device_id))
    }

    /// The signature was verified under the key that the device id names, so that all that can have changed since is the
    /// counter (WebAuthn Level 3, section 7.2, step 22): the rule is asked once more, of the newest.
    fn bound_in<'a>(
        &self,
        account: &'a mut Account,
        key: &DeviceKey,
    ) -> Result<&'a mut BoundPasskey, Refused> {
        let knows = account.device(&key.thumbprint).is_some();
        let bound = account
            .passkeys
            .iter_mut()
            .find(|bound| bound.device_id == self.device_id)
            .ok_or(Refused::AuthenticationFailed)?;
        match counter_grows(counter(&bound.passkey), self.counter) {
            true => Ok(bound),
            false => Err(told(PasskeyError::Counter, knows)),
        }
    }
}

/// What is wrong with an assertion, to who asks. A device that is not bound learns nothing: it may have invented the
/// account.
fn told(error: PasskeyError, bound: bool) -> Refused {
    match bound {
        true => error.into(),
        false => Refused::AuthenticationFailed,
    }
}

/// The passkey that an assertion names.
fn named<'a>(account: &'a Account, asserted: &Asserted) -> Option<&'a BoundPasskey> {
    account
        .passkeys
        .iter()
        .find(|bound| bound.passkey.cred_id()[..] == asserted.credential_id[..])
}

pub(super) fn credential_ids(account: &Account) -> Vec<CredentialID> {
    account
        .passkeys
        .iter()
        .map(|bound| bound.passkey.cred_id().clone())
        .collect()
}

impl Service {
    /// Verifies an assertion against the account's own credential.
    ///
    /// The reason is in the trace, also where it is not told.
    pub(super) async fn verify_assertion(
        &self,
        device: &Device,
        account: &Account,
        credential: &Value,
        state: &DiscoverableAuthentication,
        asserted: &Asserted,
    ) -> Result<VerifiedAssertion, Refused> {
        let bound = named(account, asserted).ok_or(Refused::AuthenticationFailed)?;
        self.bindings.check(
            account,
            BindingKind::Passkey,
            &device_id(bound.passkey.get_public_key()),
            &bound.binding,
        )?;
        let mut after = bound.passkey.clone();
        match device
            .app
            .relying_party
            .finish_authentication(credential, state, account.id, &mut after)
        {
            Ok(()) => Ok(VerifiedAssertion {
                device_id: bound.device_id.clone(),
                counter: counter(&after),
                after,
            }),
            Err(error) => {
                metrics::counter!("custodyd_passkey_refused_total", "app" => device.app.id.to_string())
                    .increment(1);
                tracing::info!(%error, "a passkey assertion was refused");
                Err(told(
                    error,
                    account.device(&device.key.thumbprint).is_some(),
                ))
            }
        }
    }

    /// Options to register a passkey, or to confirm one that the account has.
    ///
    /// # Errors
    /// `StepUp`, `NotAllowed`, `TooMany`.
    pub async fn passkey_options(
        &self,
        caller: &Caller,
        request: ManagePasskeyOptions,
    ) -> Result<CeremonyOptions, Refused> {
        let now = self.now();
        caller.writes()?;
        let policy = &caller.app.policy.passkeys;
        if !policy.allowed {
            return Err(Refused::NotAllowed("passkey"));
        }
        match request.confirm {
            Some(device_id) => {
                let bound = caller
                    .account()
                    .passkey(&device_id)
                    .ok_or(Refused::NotFound("passkey"))?;
                let allow = [bound.passkey.cred_id().clone()];
                let (public_key, state) = caller.app.relying_party.start_authentication(&allow)?;
                self.ceremony(caller, Purpose::ConfirmPasskey, state, public_key, now)
                    .await
            }
            None => {
                caller.step_up(caller.account(), Factor::Passkey, now)?;
                self.registration_options(caller, request.user_name, now)
                    .await
            }
        }
    }

    async fn registration_options(
        &self,
        caller: &Caller,
        user_name: Option<String>,
        now: Timestamp,
    ) -> Result<CeremonyOptions, Refused> {
        let account = caller.account();
        let user_name = name(user_name)?.unwrap_or_else(|| caller.app.policy.display_name.clone());
        room_for_another(account, &caller.app)?;
        let (public_key, state) = caller.app.relying_party.start_registration(
            account.id,
            &user_name,
            &user_name,
            &credential_ids(account),
        )?;
        self.ceremony(caller, Purpose::RegisterPasskey, state, public_key, now)
            .await
    }

    async fn ceremony<S: serde::Serialize>(
        &self,
        caller: &Caller,
        purpose: Purpose,
        state: S,
        public_key: Value,
        now: Timestamp,
    ) -> Result<CeremonyOptions, Refused> {
        let ceremony = Ceremony {
            id: ceremony::new_id()?,
            app: caller.app.id.clone(),
            device_thumbprint: caller.key.thumbprint.clone(),
            account: Some(caller.account().id),
            purpose,
            expires: now.plus(caller.app.policy.passkeys.ceremony),
            state,
        };
        Ok(CeremonyOptions {
            ceremony: self
                .keys
                .seal(EpochUse::Ceremony, now, &ceremony)
                .await
                .map_err(Refused::ceremony)?,
            public_key: unwrapped(public_key),
        })
    }

    async fn finish_ceremony<S: serde::de::DeserializeOwned>(
        &self,
        caller: &Caller,
        purpose: Purpose,
        token: &str,
        now: Timestamp,
    ) -> Result<(S, Consumed), Refused> {
        let ceremony: Ceremony<S> = self
            .keys
            .open(EpochUse::Ceremony, now, token)
            .await
            .map_err(Refused::ceremony)?;
        ceremony.check(
            &caller.app.id,
            &caller.key.thumbprint,
            Some(caller.account().id),
            purpose,
            now,
        )?;
        let consumed = Consumed {
            id: ceremony.id,
            expires: ceremony.expires,
        };
        Ok((ceremony.state, consumed))
    }

    /// # Errors
    /// `StepUp`, `Passkey`, `Ceremony*`, those of rewrapped secrets.
    pub async fn add_passkey(&self, caller: Caller, request: AddPasskey) -> Result<Bound, Refused> {
        let now = self.now();
        caller.step_up(caller.account(), Factor::Passkey, now)?;
        let name = name(request.name)?;
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        let (state, consumed) = self
            .finish_ceremony::<PasskeyRegistration>(
                &caller,
                Purpose::RegisterPasskey,
                &request.ceremony,
                now,
            )
            .await?;
        let new = caller
            .app
            .relying_party
            .finish_registration(&request.credential, &state)?;
        let [binding] = self
            .bindings
            .sign(
                &caller.app.id,
                caller.account().id,
                [(BindingKind::Passkey, new.device_id.clone())],
                now,
            )
            .await?;
        let answer = Bound {
            device_id: new.device_id.clone(),
            binding: binding.clone(),
        };
        let loaded = caller.loaded.clone();
        let ((), loaded) = self
            .ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Passkey, moment.now)?;
                writes.admitted(&caller, account, Some(Factor::Passkey), moment.now)?;
                consumed.once(account, moment.now)?;
                room_for_another(account, &caller.app)?;
                let known = account.passkeys.iter().any(|bound| {
                    bound.device_id == new.device_id
                        || bound.passkey.cred_id() == new.passkey.cred_id()
                });
                if known {
                    return Err(Refused::PasskeyKnown);
                }
                journal.note(NewEvent::new(EventKind::PasskeyAdded).on(&new.device_id));
                account.passkeys.push(BoundPasskey {
                    passkey: new.passkey,
                    device_id: new.device_id,
                    binding,
                    name,
                    added: moment.now,
                    confirmed: moment.now,
                    last_used: moment.now,
                });
                writes.apply(account, moment.now, journal)
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorAdded);
        Ok(answer)
    }

    /// Renews a passkey that expires, or has expired: its own assertion is the proof.
    ///
    /// # Errors
    /// `Passkey`, `Ceremony*`, `NotFound`.
    pub async fn confirm_passkey(
        &self,
        caller: Caller,
        device_id: String,
        request: ConfirmPasskey,
    ) -> Result<(), Refused> {
        let now = self.now();
        caller.writes()?;
        let (state, consumed) = self
            .finish_ceremony::<DiscoverableAuthentication>(
                &caller,
                Purpose::ConfirmPasskey,
                &request.ceremony,
                now,
            )
            .await?;
        let asserted = identify(&request.credential)?;
        let device = Device {
            app: caller.app.clone(),
            key: caller.key.clone(),
        };
        let verified = self
            .verify_assertion(
                &device,
                caller.account(),
                &request.credential,
                &state,
                &asserted,
            )
            .await?;
        if verified.device_id != device_id {
            return Err(Refused::AuthenticationFailed);
        }
        let loaded = caller.loaded.clone();
        self.ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                consumed.once(account, moment.now)?;
                let bound = verified.bound_in(account, &caller.key)?;
                bound.confirmed = moment.now;
                bound.last_used = moment.now;
                bound.passkey = verified.after;
                journal.note(NewEvent::new(EventKind::PasskeyConfirmed).on(&verified.device_id));
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// # Errors
    /// `StepUp`, `NotFound`, those of rewrapped secrets, `LastSlot`.
    pub async fn remove_passkey(
        &self,
        caller: Caller,
        device_id: String,
        request: RemoveFactor,
    ) -> Result<(), Refused> {
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        let loaded = caller.loaded.clone();
        let ((), loaded) = self
            .ledger
            .commit::<(), Refused>(loaded, move |account, moment, journal| {
                caller.still_stands(account)?;
                caller.step_up(account, Factor::Passkey, moment.now)?;
                writes.admitted(&caller, account, Some(Factor::Passkey), moment.now)?;
                let issued = account
                    .passkey(&device_id)
                    .ok_or(Refused::NotFound("passkey"))?
                    .added;
                account
                    .passkeys
                    .retain(|bound| bound.device_id != device_id);
                account.revoke(BindingKind::Passkey, &device_id, issued, moment.now);
                journal.note(NewEvent::new(EventKind::PasskeyRemoved).on(&device_id));
                writes.apply(account, moment.now, journal)
            })
            .await?;
        self.tell(&loaded.account, Notice::FactorRemoved);
        Ok(())
    }
}

/// The options as a browser's `parseCreationOptionsFromJSON` and its sibling take them:
/// without the `publicKey` that the library puts around them.
pub(super) fn unwrapped(mut options: Value) -> Value {
    options
        .get_mut("publicKey")
        .map(Value::take)
        .unwrap_or(options)
}

fn room_for_another(account: &Account, app: &App) -> Result<(), Refused> {
    let limit = app.policy.passkeys.max_per_account;
    if account.passkeys.len() < limit {
        Ok(())
    } else {
        Err(Refused::TooMany {
            what: "passkeys",
            limit,
        })
    }
}
