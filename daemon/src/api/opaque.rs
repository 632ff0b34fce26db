//! Messages about PINs by OPAQUE (RFC 9807). Those of the protocol itself are the bytes of its section 6, as
//! libraries give them (ristretto255 with SHA-512, 3DH, no context, no identifiers).

use std::collections::BTreeMap;

use custodyd_hsm::AccountId;
use custodyd_policies::{Ksf, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BindDevice, Rewrapped};
use crate::bytes::Bytes;

/// By what a PIN is checked: whichever way it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PinCheckedBy {
    /// The server hashes what it is sent: `POST /v1/apps/{app}/sessions/pin`.
    Argon2id,
    /// The PIN stays with the client: `POST /v1/apps/{app}/sessions/opaque/start`.
    Opaque,
}

/// The key stretching function of the client: Argon2id version 1.3 (RFC 9106) with a salt of sixteen zero bytes, as
/// RFC 9807, section 7, recommends. Parameter t is `passes`, m is `memory_kib`, p is `lanes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyStretching {
    /// Memory in KiB.
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl From<Ksf> for KeyStretching {
    fn from(ksf: Ksf) -> Self {
        Self {
            memory_kib: ksf.memory_kib,
            passes: ksf.passes,
            lanes: ksf.lanes,
        }
    }
}

impl From<KeyStretching> for Ksf {
    fn from(spent: KeyStretching) -> Self {
        Self {
            memory_kib: spent.memory_kib,
            passes: spent.passes,
            lanes: spent.lanes,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartOpaqueRegistration {
    /// RegistrationRequest (RFC 9807, section 5.1): 32 bytes.
    #[schema(value_type = String, format = "byte")]
    pub request: Bytes,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OpaqueRegistrationStarted {
    /// Opaque; send it back with the record. It can be used once.
    pub registration: String,
    /// RegistrationResponse: 64 bytes.
    #[schema(value_type = String, format = "byte")]
    pub response: Bytes,
    /// The least that this app's policy asks for. A client may spend more, and says so with the record.
    pub key_stretching: KeyStretching,
    /// The fewest characters that this app's policy asks for. The server can not count them.
    pub min_length: usize,
    /// 32 bytes, for a client that seals secrets under the export key: the device identifier of the PIN will be the
    /// SHA-256 over `custodyd/opaque-pin-device-id/v1`, this salt, memory_kib, passes, lanes (4 bytes each, big endian)
    /// and the record, each of the six with its length before it (4 bytes, big endian); in base64url.
    #[schema(value_type = String, format = "byte")]
    pub salt: Bytes,
    /// The registration may be finished until then.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishOpaqueRegistration {
    pub registration: String,
    /// RegistrationRecord: 192 bytes.
    #[schema(value_type = String, format = "byte")]
    pub record: Bytes,
    /// What the client has spent on the PIN, and has to spend again at each login.
    pub key_stretching: KeyStretching,
    /// Secrets rewrapped for the new factor, stored in the same commit.
    #[serde(default)]
    pub secrets: BTreeMap<String, Rewrapped>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartOpaqueSession {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    /// KE1 (RFC 9807, section 6.1): 96 bytes.
    #[schema(value_type = String, format = "byte")]
    pub ke1: Bytes,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartOpaqueAfterCode {
    /// KE1 (RFC 9807, section 6.1): 96 bytes.
    #[schema(value_type = String, format = "byte")]
    pub ke1: Bytes,
}

/// An attempt was charged for this, whatever comes of it; a right end gives it back. Whether the PIN was right shows the
/// client's library. The last three are told to a bound device only.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpaqueLoginStarted {
    /// Opaque; send it back with the end of the login. It can be used once.
    pub login: String,
    /// KE2: 320 bytes.
    #[schema(value_type = String, format = "byte")]
    pub ke2: Bytes,
    /// What was spent on the PIN when it was registered.
    pub key_stretching: KeyStretching,
    /// The login may be finished until then.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
    /// Attempts that may be made now, if this one was wrong.
    pub attempts_left: Option<u32>,
    /// The next attempt may be made then, if this one was wrong.
    #[schema(value_type = Option<u64>)]
    pub wait_until: Option<Timestamp>,
    /// No attempt is left, if this one was wrong.
    pub exhausted: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishOpaqueSession {
    pub login: String,
    /// KE3: 64 bytes.
    #[schema(value_type = String, format = "byte")]
    pub ke3: Bytes,
    /// Names of the secrets to return with the session, in the same commit.
    #[serde(default)]
    pub release: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishOpaqueAfterCode {
    pub login: String,
    /// KE3: 64 bytes.
    #[schema(value_type = String, format = "byte")]
    pub ke3: Bytes,
    #[serde(default)]
    pub release: Vec<String>,
    /// Binds this device's key to the account in the same commit.
    #[serde(default)]
    pub bind_device: Option<BindDevice>,
}
