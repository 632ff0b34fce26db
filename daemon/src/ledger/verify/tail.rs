//! The newest entries of the log, in words, as the database shows them.
//!
//! Called by `custodyd ledger tail`. Works without a token and beside a daemon, so nothing here is
//! verified, and whoever shows it says so. No entry holds anything about a person.

use std::sync::Arc;

use custodyd_hsm::RealmName;
use serde::Serialize;

use crate::ledger::log::{
    BootLeaf, KeyChange, LEAF_BOOT, LEAF_ERASURE, LEAF_EVENT, LEAF_RESTORE, LEAF_RETENTION,
    LEAF_STATE, RestoreLeaf, StateLeaf, TokenChange,
};
use crate::ledger::{Head, LedgerError};
use crate::store::Store;

/// One entry of the log.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub index: u64,
    /// Its type; "unknown" where no custodyd of this version writes it, or it does not parse.
    pub kind: &'static str,
    /// Of a state: the batch, the time in seconds since the Unix epoch, and the two epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_epoch: Option<u64>,
    /// Of a start: the program's version, the configuration's digest, and what was repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<String>,
    /// Of a rotation: the key versions before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeyChange>,
    /// Of a set of tokens that became another one: their serial numbers before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenChange>,
    /// Of a restore: what was approved, and the approvals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<String>,
}

impl Entry {
    fn of(index: u64, leaf: &[u8]) -> Self {
        let mut entry = Self {
            index,
            kind: "unknown",
            seq: None,
            time: None,
            log_epoch: None,
            boot_epoch: None,
            version: None,
            configuration: None,
            repaired: Vec::new(),
            keys: None,
            tokens: None,
            statement: None,
            approvals: Vec::new(),
        };
        match leaf.first() {
            Some(&LEAF_EVENT) => entry.kind = "event",
            Some(&LEAF_ERASURE) => entry.kind = "erasure",
            Some(&LEAF_RETENTION) => entry.kind = "retention",
            Some(&LEAF_STATE) => {
                if let Some(leaf) = StateLeaf::parse(leaf) {
                    entry.kind = "state";
                    entry.seq = Some(leaf.state.seq);
                    entry.time = Some(leaf.state.time.0);
                    entry.log_epoch = Some(leaf.state.log_epoch);
                    entry.boot_epoch = Some(leaf.state.boot_epoch);
                }
            }
            Some(&LEAF_BOOT) => {
                if let Some(leaf) = BootLeaf::parse(leaf) {
                    entry.kind = "boot";
                    entry.version = Some(leaf.version);
                    entry.configuration = Some(hex::encode(leaf.configuration));
                    entry.repaired = leaf.repaired;
                    entry.keys = leaf.keys;
                    entry.tokens = leaf.tokens;
                }
            }
            Some(&LEAF_RESTORE) => {
                if let Some(leaf) = RestoreLeaf::parse(leaf) {
                    entry.kind = "restore";
                    entry.version = Some(leaf.version);
                    entry.statement = Some(leaf.statement);
                    entry.approvals = leaf.approvals;
                }
            }
            _ => {}
        }
        entry
    }
}

/// How many entries the database's log has, by its head or, where that does not parse, by its rows.
///
/// # Errors
/// `Store` where the database does not answer.
pub async fn size(store: &Arc<dyn Store>, realm: &RealmName) -> Result<u64, LedgerError> {
    let row = store
        .head()
        .await
        .ok()
        .and_then(super::super::unverified::Unverified::examine);
    if let Some(head) = row.and_then(|row| Head::parse(&row, realm).ok()) {
        return Ok(head.size);
    }
    let (mut there, mut gone) = (0, 1u64 << 62);
    while there < gone {
        let middle = there + (gone - there) / 2;
        let rows = store.leaves(middle, 1).await?.examine();
        if rows.is_empty() {
            gone = middle;
        } else {
            there = middle + 1;
        }
    }
    Ok(there)
}

/// The entries from one on, `count` at the most.
///
/// # Errors
/// `Store` where the database does not answer; `Tampered` where a row is larger than any.
pub async fn tail(
    store: &Arc<dyn Store>,
    from: u64,
    count: u64,
) -> Result<Vec<Entry>, LedgerError> {
    let rows = store.leaves(from, count).await?.examine();
    Ok(rows
        .iter()
        .map(|(index, leaf)| Entry::of(*index, leaf))
        .collect())
}
