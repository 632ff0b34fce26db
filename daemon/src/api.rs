//! The shapes of the REST messages: what goes in and what comes out, and nothing else.
//!
//! Requests refuse unknown fields, so a misspelt one is told instead of ignored. Times are
//! seconds since the Unix epoch, byte strings unpadded base64url, durations seconds.

pub mod app_keys;
mod codes;
mod contacts;
pub mod log;
mod offline;
mod opaque;
mod privacy;

use std::collections::BTreeMap;

use custodyd_hsm::AccountId;
use custodyd_policies::{Factor, ServerSlot, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use self::codes::{
    ConfirmTotp, EnrolTotp, RecoveryCodeSession, RecoveryCodesView, SecretText, SetRecoveryCodes,
    TotpEnrolment, TotpSession, TotpView, WaitingChange,
};
pub use self::contacts::{
    AddressClaimed, AddressView, CodeRequested, CodeSession, CodeText, ConfirmAddress,
    PinAfterCode, RemoveAddress, RequestCode, SetAddress,
};
pub use self::log::{LogEntry, LogReceipt, ProvenEvent};
pub use self::offline::OfflineReport;
pub use self::opaque::{
    FinishOpaqueAfterCode, FinishOpaqueRegistration, FinishOpaqueSession, KeyStretching,
    OpaqueLoginStarted, OpaqueRegistrationStarted, PinCheckedBy, StartOpaqueAfterCode,
    StartOpaqueRegistration, StartOpaqueSession,
};
pub use self::privacy::{
    AliasView, EraseAccount, Export, HeldSecret, HeldSlot, OperatorExport, RemovedDeviceView,
};
use crate::account::SlotType;
use crate::bytes::{Bytes, SharedSecret};
use crate::factors::jwk::PublicJwk;
use crate::factors::session::Scope;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Compact JWS made with the app's private key: header `typ` `custodyd-app-key+jwt`, `alg`
    /// `ES256`, `jwk` (the app's public key); claims `aud` (`<realm>/<app>`), `jkt` (RFC 7638
    /// thumbprint of the device key of this request's DPoP proof), `nonce` (the newest
    /// `DPoP-Nonce`), `iat`. It proves that the client holds the app's private key and wants
    /// it bound together with this device.
    pub app_key_proof: String,
    /// What the owner calls this device; at most 64 characters.
    #[serde(default)]
    pub device_name: Option<String>,
    /// Permission of the app's backend, where the app's policy asks for one or limits enrolment
    /// without: a JWT, header `typ` `custodyd-ticket+jwt`, `alg` `ES256`, `kid` (a key that the
    /// policy lists); claims `iss` (the app), `aud` (`<realm>/<app>`), `exp` (at most 24 hours
    /// ahead), `jti` (1 to 128 bytes, never used before), and, if it is for one device only,
    /// `jkt` (RFC 7638 thumbprint of its device key). It makes one account.
    #[serde(default)]
    pub ticket: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AccountCreated {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    /// JWS that the realm signed in its token: keep them as receipts.
    pub bindings: CreatedBindings,
    pub session: SessionToken,
    /// Whether this app's policy lets a secret have a server slot.
    pub server_slot: bool,
    /// Log entry of the creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReceipt>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedBindings {
    pub app_key: String,
    pub device_key: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SessionToken {
    /// Send it as `Authorization: DPoP <token>`, each time with a fresh DPoP proof.
    pub token: String,
    pub scope: Scope,
    #[schema(value_type = String)]
    pub factor: Factor,
    /// The session ends here unless it is refreshed.
    #[schema(value_type = u64)]
    pub idle_until: Timestamp,
    /// The session ends here in any case.
    #[schema(value_type = u64)]
    pub absolute_until: Timestamp,
    /// Until then the session may add, change and remove factors.
    #[schema(value_type = u64)]
    pub fresh_until: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinSession {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    #[schema(value_type = String, format = "password")]
    pub pin: PinText,
    /// Names of the secrets to return with the session, in the same commit.
    #[serde(default)]
    pub release: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceSession {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    #[serde(default)]
    pub release: Vec<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasskeyOptions {
    /// With it, and from a bound device, the options list this account's passkeys.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub account: Option<AccountId>,
}

/// Options for `navigator.credentials`, and the ceremony token to send back with the answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct CeremonyOptions {
    /// Opaque; expires as the policy says and can be used once.
    pub ceremony: String,
    /// `PublicKeyCredentialCreationOptionsJSON` or `PublicKeyCredentialRequestOptionsJSON`
    /// (WebAuthn Level 3).
    #[serde(rename = "publicKey")]
    #[schema(value_type = Object)]
    pub public_key: Value,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasskeySession {
    pub ceremony: String,
    /// `AuthenticationResponseJSON` (WebAuthn Level 3), without `prf.results`.
    #[schema(value_type = Object)]
    pub credential: Value,
    #[serde(default)]
    pub release: Vec<String>,
    /// Binds this device's key to the account in the same commit.
    #[serde(default)]
    pub bind_device: Option<BindDevice>,
}

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindDevice {
    /// What the owner calls this device; at most 64 characters.
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SessionStarted {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    /// RFC 7638 thumbprint of the device key.
    pub device_id: String,
    /// Whether this device is bound to the account.
    pub device_bound: bool,
    /// Device identifier of the passkey, PIN, contact, authenticator app or set of codes that opened the session; absent where
    /// the device key did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    pub session: SessionToken,
    pub secrets: BTreeMap<String, Secret>,
    /// What this app's policy says of server slots.
    pub server_slots: ServerSlots,
    /// Log entry of this sign-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReceipt>,
}

/// What an app's policy says of server slots.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerSlots {
    /// A secret may have one.
    Allowed,
    /// No new one is taken; those that are there are released, for the client to move what they open.
    Ending,
    /// None is taken or released.
    Forbidden,
}

impl From<ServerSlot> for ServerSlots {
    fn from(policy: ServerSlot) -> Self {
        match policy {
            ServerSlot::Allowed => Self::Allowed,
            ServerSlot::Ending => Self::Ending,
            ServerSlot::Forbidden => Self::Forbidden,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPin {
    #[schema(value_type = String, format = "password")]
    pub pin: PinText,
    /// Secrets rewrapped for the new factor, stored in the same commit.
    #[serde(default)]
    pub secrets: BTreeMap<String, Rewrapped>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddPasskey {
    pub ceremony: String,
    /// `RegistrationResponseJSON` (WebAuthn Level 3), without `prf.results`.
    #[schema(value_type = Object)]
    pub credential: Value,
    /// What the owner calls this passkey; at most 64 characters.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub secrets: BTreeMap<String, Rewrapped>,
}

/// Asks for registration options, or with `confirm` for an assertion of that passkey.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagePasskeyOptions {
    /// Name that the authenticator shows beside the passkey; at most 64 characters.
    #[serde(default)]
    pub user_name: Option<String>,
    /// Device identifier of a passkey to confirm.
    #[serde(default)]
    pub confirm: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmPasskey {
    pub ceremony: String,
    #[schema(value_type = Object)]
    pub credential: Value,
}

/// A factor or device that the realm has bound.
#[derive(Debug, Serialize, ToSchema)]
pub struct Bound {
    pub device_id: String,
    /// JWS that the realm signed in its token: keep it as a receipt.
    pub binding: String,
}

/// A secret's slots, or all of it, given together with a change of factors. One of `slots` and `content`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrapped {
    /// The version that it replaces, as `If-Match` would say it; absent to create.
    #[serde(default)]
    pub if_version: Option<u64>,
    /// All slots of the secret as they shall be; its sealed content and its server slot stay as they are.
    #[serde(default)]
    pub slots: Option<Vec<SecretSlot>>,
    #[serde(default)]
    pub content: Option<SecretContent>,
}

/// What comes with the removal of a factor.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveFactor {
    /// Secrets rewrapped for the factors that stay, stored in the same commit. Slots of the factor that goes are
    /// dropped from all others.
    #[serde(default)]
    pub secrets: BTreeMap<String, Rewrapped>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretContent {
    /// The content, sealed by the client under a key that the slots hold. Without it they hold the content itself.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "byte")]
    pub sealed: Option<Bytes>,
    /// What opens the secret end to end, one for each factor that can.
    #[serde(default)]
    pub slots: Vec<SecretSlot>,
    /// What opens the secret (the key of `sealed`, or the content where there is none), for the daemon to seal in
    /// the token. Policy may forbid it.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "byte")]
    pub server_slot: Option<SharedSecret>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSlot {
    pub r#type: SlotType,
    /// The factor whose key opens the slot. `prf`, `opaque`: device identifier of the passkey, of the PIN.
    /// `recovery-code`: SHA-256 over `custodyd/recovery-code-slot-id/v1` and the code's auth part, each with its
    /// length before it (4 bytes, big endian), in base64url. `secret`: the name of another secret of the account.
    pub credential: String,
    #[schema(value_type = String, format = "byte")]
    pub ciphertext: Bytes,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Secret {
    /// Grows with every change and is never used twice; the ETag is this number in quotes.
    pub version: u64,
    #[schema(value_type = u64)]
    pub updated: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "byte")]
    pub sealed: Option<Bytes>,
    pub slots: Vec<SecretSlot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "byte")]
    pub server_slot: Option<SharedSecret>,
    /// It has a server slot, which the policy does not let out.
    pub server_slot_withheld: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SecretList {
    pub secrets: Vec<SecretEntry>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SecretEntry {
    pub name: String,
    pub version: u64,
    #[schema(value_type = u64)]
    pub updated: Timestamp,
    /// Whether the daemon can open it.
    pub server_slot: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SecretWritten {
    pub version: u64,
}

/// The owner's view of the account.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountView {
    #[schema(value_type = String, format = "uuid")]
    pub account: AccountId,
    pub app: String,
    #[schema(value_type = u64)]
    pub created: Timestamp,
    pub app_keys: Vec<KeyView>,
    pub devices: Vec<DeviceView>,
    pub pin: Option<PinView>,
    pub passkeys: Vec<PasskeyView>,
    pub secrets: Vec<SecretEntry>,
    /// Whether this app's policy lets a secret have a server slot.
    pub server_slot: bool,
    /// Where codes and notices go.
    pub contacts: Vec<AddressView>,
    /// Addresses by which the account is found, beside the contacts.
    pub aliases: Vec<AddressView>,
    /// No factor can be used from an unknown device: losing this one loses the account.
    pub recovery_incomplete: bool,
    /// The authenticator app in use.
    pub totp: Option<TotpView>,
    /// An authenticator app waits to be confirmed.
    pub totp_pending: bool,
    pub recovery_codes: Option<RecoveryCodesView>,
    /// Changes that wait because a weaker factor asked for them.
    pub waiting: Vec<WaitingChange>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    pub device_id: String,
    #[schema(value_type = Object)]
    pub jwk: PublicJwk,
    pub binding: String,
    #[schema(value_type = u64)]
    pub added: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceView {
    pub device_id: String,
    pub name: Option<String>,
    pub binding: String,
    #[schema(value_type = u64)]
    pub added: Timestamp,
    /// The device that asks.
    pub current: bool,
}

/// Attempts are told to a bound device only; to others these three are null.
#[derive(Debug, Serialize, ToSchema)]
pub struct PinView {
    pub device_id: String,
    pub binding: String,
    pub checked_by: PinCheckedBy,
    #[schema(value_type = u64)]
    pub set: Timestamp,
    /// Attempts that may be made now.
    pub attempts_left: Option<u32>,
    /// The next attempt may be made then.
    #[schema(value_type = Option<u64>)]
    pub wait_until: Option<Timestamp>,
    /// No attempt is left until another factor resets the PIN's budget.
    pub exhausted: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PasskeyView {
    pub device_id: String,
    pub name: Option<String>,
    pub binding: String,
    #[schema(value_type = u64)]
    pub added: Timestamp,
    #[schema(value_type = u64)]
    pub confirmed: Timestamp,
    #[schema(value_type = u64)]
    pub last_used: Timestamp,
    /// It works until then unless it is used or confirmed; in the past if it has expired.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
    pub expired: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<ProvenEvent>,
    /// Give it as `?from=` for the page after this one; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// From this number on the trail is complete: what earlier events said was kept for as long as
    /// the app's policy says, and is deleted. 1 where nothing is; one more than the number of the
    /// newest event where everything is.
    pub complete_from: u64,
    /// C2SP signed note that the proofs of this page lead to.
    pub checkpoint: String,
    /// That its log continues the one that had `since` entries (RFC 6962, section 2.1.2), hashes
    /// in base64. Absent where it has fewer: then keep both checkpoints, and ask who runs this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Vec<String>>,
}

/// A PIN on its way to the hasher: wiped when dropped, never printed.
pub struct PinText(zeroize::Zeroizing<String>);

impl PinText {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for PinText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinText(redacted)")
    }
}

impl<'de> Deserialize<'de> for PinText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(zeroize::Zeroizing::new(text)))
    }
}
