//! What stands in an entry of the log: a type byte, then a commitment or a statement.
//!
//! Entries are seen by every auditor and stay for ever, so none holds anything about a person:
//! an event is a salted commitment to a body that can be erased (`journal`). The last entry of
//! each batch is its *state* leaf, by which the log itself says what the state was.

use custodyd_hsm::KeyVersions;
use serde::{Deserialize, Serialize};

use crate::ledger::head::State;
use crate::ledger::tree::Digest;

/// A commitment to something that happened to an account.
pub(crate) const LEAF_EVENT: u8 = 0x01;
/// The state after a batch; the last entry of each.
pub(crate) const LEAF_STATE: u8 = 0x02;
/// Its body names entries whose bodies are gone for good.
pub(crate) const LEAF_ERASURE: u8 = 0x03;
/// The same, where they were kept for as long as the policy says.
pub(crate) const LEAF_RETENTION: u8 = 0x04;
/// A daemon began to write.
pub(crate) const LEAF_BOOT: u8 = 0x05;

/// The realm goes on from an older state; the first entry of a log epoch but the first.
pub(crate) const LEAF_RESTORE: u8 = 0x06;

/// The head's own statement, and the log as it was before this entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateLeaf {
    pub(crate) state: State,
    /// Entries before this one.
    pub(crate) size: u64,
    /// The log's root before this entry.
    #[serde(with = "hex::serde")]
    pub(crate) log_root: Digest,
}

/// A daemon took over the realm from this head, or goes on from it under other policies or keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootLeaf {
    /// The version of custodyd.
    pub(crate) version: String,
    /// The head that was found and believed.
    #[serde(with = "hex::serde")]
    pub(crate) adopted: Digest,
    /// Digest of the configuration that the head before was written under.
    #[serde(with = "hex::serde")]
    pub(crate) configuration_before: Digest,
    /// Digest of the one that it is written under from here on.
    #[serde(with = "hex::serde")]
    pub(crate) configuration: Digest,
    /// Caches of the database that did not agree with it and were written anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) repaired: Vec<String>,
    /// The versions of the token's keys, where the head that follows names others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<KeyChange>,
    /// The tokens that hold them, where the head that follows names others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<TokenChange>,
}

/// A token was taken into the set, or given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenChange {
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// A key was rotated or retired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    pub before: KeyVersions,
    pub after: KeyVersions,
}

/// What was approved, byte for byte, and the signatures over it (OpenSSH, PROTOCOL.sshsig).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreLeaf {
    /// The version of custodyd.
    pub(crate) version: String,
    pub(crate) statement: String,
    pub(crate) approvals: Vec<String>,
}

impl RestoreLeaf {
    /// `None` where the entry is not a restore leaf, or not one that this daemon wrote.
    pub(crate) fn parse(leaf: &[u8]) -> Option<Self> {
        let body = leaf.strip_prefix(&[LEAF_RESTORE])?;
        serde_json::from_slice(body).ok()
    }

    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        statement(LEAF_RESTORE, self)
    }
}

impl StateLeaf {
    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        statement(LEAF_STATE, self)
    }

    /// `None` where the entry is not a state leaf, or not one that this daemon wrote.
    pub(crate) fn parse(leaf: &[u8]) -> Option<Self> {
        let body = leaf.strip_prefix(&[LEAF_STATE])?;
        serde_json::from_slice(body).ok()
    }
}

impl BootLeaf {
    /// `None` where the entry is not a boot leaf, or not one that this daemon wrote.
    pub(crate) fn parse(leaf: &[u8]) -> Option<Self> {
        let body = leaf.strip_prefix(&[LEAF_BOOT])?;
        serde_json::from_slice(body).ok()
    }

    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        statement(LEAF_BOOT, self)
    }
}

fn statement(kind: u8, of: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut leaf = vec![kind];
    serde_json::to_writer(&mut leaf, of)?;
    Ok(leaf)
}
