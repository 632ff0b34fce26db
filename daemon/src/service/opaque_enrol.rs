//! Registering a PIN by OPAQUE: the PIN stays with the client, which makes the record.
//!
//! The adversary may have a session that is good enough to replace the PIN and not to learn the old one,
//! such as a thief of the device who reads the owner's mail too. Whoever evaluates under the key of the old
//! record could try PINs against an answer of before, without paying for any. So each registration
//! has a salt and thereby a key of its own, which is of no record yet; both calls ask whether the caller
//! may. The salt travels in a sealed token, and the first call writes nothing.

use std::sync::Arc;

use custodyd_hsm::mac::{self, EpochUse};
use custodyd_hsm::{AppId, KeyId, KeyPurpose, RecordId, Secret};
use custodyd_policies::Recovery;
use serde::{Deserialize, Serialize};

use super::passkeys::Consumed;
use super::pin::PinCheck;
use super::{Caller, Refused, Service, secrets};
use crate::account::PinWay;
use crate::api::{
    Bound, FinishOpaqueRegistration, OpaqueRegistrationStarted, SessionToken,
    StartOpaqueRegistration,
};
use crate::bytes::Bytes;
use crate::factors::ceremony::{self, Ceremony, Purpose};
use crate::factors::pin_opaque::{OpaqueRecord, OpaqueSalt, RegistrationStart};

/// What the record will be of: the MAC key may be rotated before it comes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    salt: OpaqueSalt,
    mac_key: u16,
}

/// A registration that waits for the client's record.
type Registration = Ceremony<Begun>;

impl Service {
    /// # Errors
    /// `StepUp`, `RecoveryWaits`, `NotAllowed`, `Malformed`.
    pub async fn start_opaque_registration(
        &self,
        caller: Caller,
        request: StartOpaqueRegistration,
    ) -> Result<OpaqueRegistrationStarted, Refused> {
        let policy = &caller.app.policy.pin;
        PinCheck::Opaque.allowed(policy)?;
        let request = RegistrationStart::parse(&request.request.0)?;
        self.ready_to_recover(&caller, Recovery::ReplacePin).await?;
        let salt = OpaqueSalt::new()?;
        let current = self.ledger.keys().current(KeyPurpose::Mac);
        let key = self
            .opaque_key(&caller.app.id, *caller.loaded.record(), salt, current)
            .await?;
        let response = self.opaque.register(&key, &request)?;
        let now = self.now();
        let registration = Registration {
            id: ceremony::new_id()?,
            app: caller.app.id.clone(),
            device_thumbprint: caller.key.thumbprint.clone(),
            account: Some(caller.account().id),
            purpose: Purpose::RegisterOpaque,
            expires: now.plus(policy.ceremony),
            state: Begun {
                salt,
                mac_key: current.version,
            },
        };
        Ok(OpaqueRegistrationStarted {
            registration: self
                .keys
                .seal(EpochUse::Ceremony, now, &registration)
                .await
                .map_err(Refused::ceremony)?,
            response: Bytes(response),
            key_stretching: policy.ksf.into(),
            min_length: policy.min_length,
            salt: Bytes(salt.0.to_vec()),
            expires: registration.expires,
        })
    }

    /// Sessions that the old PIN opened end with it, as when it is set the other way.
    ///
    /// # Errors
    /// `StepUp`, `RecoveryWaits`, `Ksf`, `NotAllowed`, `Malformed`, `Ceremony*`, those of rewrapped secrets.
    pub async fn finish_opaque_registration(
        &self,
        caller: Caller,
        request: FinishOpaqueRegistration,
    ) -> Result<(Bound, SessionToken), Refused> {
        let now = self.now();
        let policy = &caller.app.policy.pin;
        PinCheck::Opaque.allowed(policy)?;
        let spent = request.key_stretching.into();
        policy.ksf.accepts(&spent)?;
        let registration: Registration = self
            .keys
            .open(EpochUse::Ceremony, now, &request.registration)
            .await
            .map_err(Refused::ceremony)?;
        registration.check(
            &caller.app.id,
            &caller.key.thumbprint,
            caller.account().id,
            Purpose::RegisterOpaque,
            now,
        )?;
        let Begun { salt, mac_key } = registration.state;
        let record = OpaqueRecord::new(salt, &request.record.0, spent)?.under(mac_key);
        let writes = secrets::Writes::new(&caller.app, request.secrets)?;
        self.ready_to_recover(&caller, Recovery::ReplacePin).await?;
        let used = Consumed {
            id: registration.id,
            expires: registration.expires,
        };
        let way = PinWay::Opaque(Arc::new(record));
        self.replace_pin(caller, way, writes, Some(used)).await
    }

    /// The key material of the OPRF of one record: a visit to the token.
    pub(super) async fn opaque_key(
        &self,
        app: &AppId,
        account: RecordId,
        salt: OpaqueSalt,
        under: KeyId,
    ) -> Result<Secret<32>, Refused> {
        let (realm, app) = (self.realm().clone(), app.clone());
        Ok(self
            .ledger
            .pool()
            .call("opaque-key", move |custody| {
                mac::opaque_key_material(custody, under, &realm, &app, &account, &salt.0)
            })
            .await?)
    }
}
