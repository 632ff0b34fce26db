//! Erasing an account: what goes, what stays, and the proof that it had to go.
//!
//! In one commit the account's record becomes a tombstone under the same identifier, its aliases'
//! records go, and so do the bodies of all its events; leaves of their own type (`deletions`) say
//! which. The key of the bodies stood in the envelope that
//! the tombstone has replaced. Called by the committer and by `Ledger::erase`. Must never leave
//! the identifier free: an account that was erased can not be made again.

use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::Mark;

const FORMAT: u8 = 1;

/// All entries of an account, as its trail was walked, newest first.
#[derive(Debug)]
pub(super) struct Listed {
    /// How many events the account had then. If it has more now, the list is stale.
    pub(super) count: u64,
    /// The oldest of them that had its body. Retention may have moved on since.
    pub(super) oldest: Option<Mark>,
    pub(super) entries: Vec<u64>,
}

/// What stays of an account, sealed in its place.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tombstone {
    format: u8,
    erased: Timestamp,
    /// The log entries that name what was erased.
    leaves: Vec<u64>,
}

/// The plaintext of a tombstone.
pub(super) fn tombstone(erased: Timestamp, leaves: &[u64]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Tombstone {
        format: FORMAT,
        erased,
        leaves: leaves.to_vec(),
    })
}

/// Whether an opened plaintext is a tombstone that this daemon understands.
pub(super) fn check(plaintext: &[u8]) -> Result<(), &'static str> {
    match serde_json::from_slice::<Tombstone>(plaintext) {
        Ok(tombstone) if tombstone.format == FORMAT => Ok(()),
        _ => Err("its tombstone does not parse"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_understood_and_nothing_else_is_taken_for_one() {
        let stone = tombstone(Timestamp(7), &[5, 6]).unwrap();
        check(&stone).unwrap();
        let text = String::from_utf8(stone).unwrap();
        for other in [
            text.replace("\"format\":1", "\"format\":2"),
            text.replace("{", "{\"x\":1,"),
            String::new(),
        ] {
            assert!(check(other.as_bytes()).is_err(), "{other}");
        }
    }
}
