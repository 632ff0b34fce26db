//! What the envelope keeps of a PIN that is checked by OPAQUE: the client's record, the salt of its key, and what
//! the client spent on stretching.
//!
//! Made by `service/` when a registration is finished, read at each login. It must never be
//! written anywhere but into an envelope: with the token at hand, it can be guessed at.

use std::fmt;

use custodyd_hsm::{SecretBytes, mac};
use custodyd_policies::Ksf;
use opaque_ke::RegistrationUpload;
use serde::{Deserialize, Serialize};

use super::{OpaqueError, REGISTRATION_RECORD, Suite, sized};
use crate::bytes::SharedSecret;
use crate::factors::{RandomFailed, b64, random, sha256_fields};

/// Of one registration only. The key of its OPRF is the token's MAC over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpaqueSalt(#[serde(with = "super::super::text_bytes")] pub [u8; 32]);

impl OpaqueSalt {
    pub fn new() -> Result<Self, RandomFailed> {
        random().map(Self)
    }
}

/// A registered PIN. JSON: salt and record in base64url, the Argon2id parameters as numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpaqueRecord {
    pub salt: OpaqueSalt,
    /// The version of the MAC key that its OPRF key comes from.
    pub mac_key: u16,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    /// The RegistrationRecord (RFC 9807, section 5.2): public key, masking key, envelope.
    record: SharedSecret,
}

impl OpaqueRecord {
    /// From what the client has made with the answer to this salt. `ksf` was judged by the policy.
    pub fn new(salt: OpaqueSalt, record: &[u8], ksf: Ksf) -> Result<Self, OpaqueError> {
        let what = "the registration record";
        let bytes = REGISTRATION_RECORD;
        let record = sized(record, what, bytes)?;
        RegistrationUpload::<Suite>::deserialize(record)
            .map_err(|_| OpaqueError::Message { what, bytes })?;
        Ok(Self {
            salt,
            mac_key: mac::ROOT_MAC.version,
            memory_kib: ksf.memory_kib,
            passes: ksf.passes,
            lanes: ksf.lanes,
            record: SharedSecret::new(SecretBytes::from(record.to_vec())),
        })
    }

    /// What the client has to spend again at each login.
    #[must_use]
    pub fn ksf(&self) -> Ksf {
        Ksf {
            memory_kib: self.memory_kib,
            passes: self.passes,
            lanes: self.lanes,
        }
    }

    /// The same of a registration under this version of the MAC key.
    #[must_use]
    pub fn under(self, mac_key: u16) -> Self {
        Self { mac_key, ..self }
    }

    /// `base64url(SHA-256(domain, salt, parameters, record))`: what the binding of this PIN names.
    #[must_use]
    pub fn device_id(&self) -> String {
        b64(&sha256_fields(
            "custodyd/opaque-pin-device-id/v1",
            &[
                &self.salt.0,
                &self.memory_kib.to_be_bytes(),
                &self.passes.to_be_bytes(),
                &self.lanes.to_be_bytes(),
                self.record.expose(),
            ],
        ))
    }

    pub(super) fn expose(&self) -> &[u8] {
        self.record.expose()
    }
}

impl fmt::Debug for OpaqueRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaqueRecord")
            .field("ksf", &self.ksf())
            .finish_non_exhaustive()
    }
}
