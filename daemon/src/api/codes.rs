//! Messages about authenticator apps, recovery codes and changes that wait.

use std::collections::BTreeMap;

use custodyd_hsm::AccountId;
use custodyd_policies::{Factor, Recovery, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{BindDevice, Bound, PinText, Rewrapped};
use crate::bytes::SharedSecret;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolTotp {
    /// What the authenticator app shows beside the app's name: 1 to 128 bytes, no colon.
    #[serde(default)]
    pub label: Option<String>,
}

/// Shown once and never again: it contains the secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct TotpEnrolment {
    /// Not in use until a code confirms it.
    pub totp: Bound,
    /// For a link, or to be typed: `otpauth://totp/...`.
    #[schema(value_type = String)]
    pub otpauth: SecretText,
    /// The same as a QR code, to be placed in a page.
    #[schema(value_type = String)]
    pub svg: SecretText,
    /// The same as a PNG file.
    #[schema(value_type = String, format = "byte")]
    pub png: SharedSecret,
    /// Confirm it before this.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTotp {
    #[schema(value_type = String, format = "password")]
    pub code: PinText,
    /// Secrets rewrapped for the new factor, stored in the same commit.
    #[serde(default)]
    pub secrets: BTreeMap<String, Rewrapped>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TotpSession {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    #[schema(value_type = String, format = "password")]
    pub code: PinText,
    /// Names of the secrets to return with the session, in the same commit.
    #[serde(default)]
    pub release: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRecoveryCodes {
    /// The auth parts of ten codes, 32 bytes each, in the order of the owner's list. A code has
    /// 128 random bits; its auth part is HKDF-SHA-256 of it. The code itself is never sent.
    #[schema(value_type = Vec<String>)]
    pub codes: Vec<SharedSecret>,
    /// Secrets rewrapped for the new set, stored in the same commit.
    #[serde(default)]
    pub secrets: BTreeMap<String, Rewrapped>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCodeSession {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    /// The auth part of one code.
    #[schema(value_type = String, format = "byte")]
    pub code: SharedSecret,
    #[serde(default)]
    pub release: Vec<String>,
    /// Binds this device's key to the account in the same commit.
    #[serde(default)]
    pub bind_device: Option<BindDevice>,
}

/// Attempts are told to a bound device only; to others these three are null.
#[derive(Debug, Serialize, ToSchema)]
pub struct TotpView {
    pub device_id: String,
    pub binding: String,
    #[schema(value_type = u64)]
    pub added: Timestamp,
    pub attempts_left: Option<u32>,
    #[schema(value_type = Option<u64>)]
    pub wait_until: Option<Timestamp>,
    pub exhausted: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryCodesView {
    pub device_id: String,
    pub binding: String,
    #[schema(value_type = u64)]
    pub added: Timestamp,
    /// Codes that were not used.
    pub left: usize,
}

/// A change that a weaker factor asked for and that waits: any session may cancel it.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingChange {
    #[schema(value_type = String)]
    pub change: Recovery,
    /// Device identifier of the device that asked.
    pub device_id: String,
    #[schema(value_type = String)]
    pub factor: Factor,
    #[schema(value_type = u64)]
    pub requested: Timestamp,
    /// From then on the device may have it by asking again.
    #[schema(value_type = u64)]
    pub due: Timestamp,
    /// Forgotten then.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
}

/// Text that contains a secret: wiped when dropped, never printed.
pub struct SecretText(pub Zeroizing<String>);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}
