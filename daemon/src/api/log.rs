//! Receipts and proofs of the log, as owners get them. How to check them is in docs/LOG.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custodyd_policies::{Factor, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bytes::Bytes;
use crate::ledger::{Event, EventEntry, EventKind, Receipt};

/// Where the log says that this happened: keep it, the log can never lose it unnoticed.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogReceipt {
    /// Index of the log entry.
    pub index: u64,
    /// The entry itself: a type byte and a commitment to the event.
    #[schema(value_type = String, format = "byte")]
    pub leaf: Bytes,
    /// C2SP tlog-proof of the entry, with a checkpoint that the realm signed. Absent where the
    /// entry is not covered by one yet; then `GET /v1/account/events` proves it later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

impl From<Receipt> for LogReceipt {
    fn from(receipt: Receipt) -> Self {
        Self {
            index: receipt.index,
            leaf: Bytes(receipt.leaf),
            proof: receipt.proof,
        }
    }
}

/// An event as its owner reads it, with its log entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProvenEvent {
    /// Counts the account's events from 1, without gaps.
    pub number: u64,
    /// Log entry of the event before this one.
    pub previous: Option<u64>,
    /// Seconds since the Unix epoch.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    pub kind: EventKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub factor: Option<Factor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub log: LogEntry,
}

/// An event's log entry. Its leaf is the byte 0x01 and SHA-256 over three fields, each behind its
/// length as four bytes, the highest first: `custodyd/event/v1`, `salt`, `body`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogEntry {
    pub index: u64,
    #[schema(value_type = String, format = "byte")]
    pub salt: Bytes,
    /// The event, sealed under a key of the account.
    #[schema(value_type = String, format = "byte")]
    pub body: Bytes,
    /// Audit path (RFC 6962, section 2.1.1) up to the root of the page's checkpoint, in base64 as
    /// there. Absent where the checkpoint does not cover the entry yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Vec<String>>,
}

impl ProvenEvent {
    #[must_use]
    pub fn new(event: Event, entry: EventEntry, proof: Option<Vec<[u8; 32]>>) -> Self {
        Self {
            number: event.number,
            previous: event.previous,
            at: event.at,
            kind: event.kind,
            factor: event.factor,
            device_id: event.device_id,
            detail: event.detail,
            log: LogEntry {
                index: entry.index,
                salt: Bytes(entry.salt),
                body: Bytes(entry.body),
                proof: proof.map(hashes),
            },
        }
    }
}

/// Hashes as C2SP writes them.
#[must_use]
pub fn hashes(proof: Vec<[u8; 32]>) -> Vec<String> {
    let texts = proof.iter().map(|hash| STANDARD.encode(hash));
    texts.collect()
}
