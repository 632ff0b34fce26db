//! The messages by which an owner takes everything out, or has it erased.

use std::collections::BTreeMap;

use custodyd_hsm::AccountId;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AccountView, Secret};
use crate::account::SlotType;
use crate::ledger::Event;

/// Everything that is held about the owner, in one document.
#[derive(Debug, Serialize, ToSchema)]
pub struct Export {
    /// The version of this document's shape.
    pub format: u8,
    #[schema(value_type = u64)]
    pub exported: Timestamp,
    pub account: AccountView,
    pub aliases: Vec<AliasView>,
    /// Devices that were removed: their mark stays until no session of theirs can last any more.
    pub removed_devices: Vec<RemovedDeviceView>,
    /// The secrets that the policy releases to this session's factor, with their contents.
    pub secrets: BTreeMap<String, Secret>,
    /// Those that it does not: sign in with another factor to export them.
    pub secrets_withheld: Vec<String>,
    /// Newest first.
    pub events: Vec<Event>,
    /// Where the account has more events: `GET /v1/account/events?from=` continues with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_next: Option<String>,
    /// From this number on the trail is complete; what earlier events said is deleted.
    pub events_complete_from: u64,
}

/// The same for an operator: with no secret's content, but with what is held of each.
#[derive(Debug, Serialize)]
pub struct OperatorExport {
    #[serde(flatten)]
    pub document: Export,
    pub secrets_held: Vec<HeldSecret>,
}

/// That a secret is there, and how large it is.
#[derive(Debug, Serialize)]
pub struct HeldSecret {
    pub name: String,
    pub version: u64,
    pub updated: Timestamp,
    /// The length of the content, where it is sealed under a key that the slots hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_bytes: Option<usize>,
    pub slots: Vec<HeldSlot>,
    /// The length of the slot that the server can open, where there is one. It has no digest:
    /// that would let whoever holds the document try guesses at a short secret.
    pub server_slot_bytes: Option<usize>,
}

#[derive(Debug, Serialize)]
pub struct HeldSlot {
    pub r#type: SlotType,
    pub credential: String,
    pub bytes: usize,
    /// SHA-256 of the ciphertext, in hexadecimal digits.
    pub sha256: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AliasView {
    /// Its kind, a colon, and the name in its normal form.
    pub name: String,
    #[schema(value_type = u64)]
    pub since: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RemovedDeviceView {
    pub device_id: String,
    /// When the mark goes.
    #[schema(value_type = u64)]
    pub expires: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseAccount {
    /// The account's identifier once more: nobody erases by a slip.
    #[schema(value_type = String, format = "uuid")]
    pub confirm: AccountId,
}
