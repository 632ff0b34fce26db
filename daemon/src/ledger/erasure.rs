//! Erasing an account: what goes, what stays, and the proof that it had to go.
//!
//! In one commit the account's record becomes a tombstone under the same identifier, its aliases'
//! records go, and so do the bodies of all its events; leaves of their own type say which, so
//! that a missing body without one is noticed. The key of the bodies stood in the envelope that
//! the tombstone has replaced. Called by the committer and by `Ledger::erase`. Must never leave
//! the identifier free: an account that was erased can not be made again.

use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::journal::Entry;
use super::log::LEAF_ERASURE;

const FORMAT: u8 = 1;
const COMMITMENT: &[u8] = b"custodyd/erasure/v1";
const MAGIC: &[u8; 4] = b"CDE\x01";
/// Entries that one leaf names: its body stays well within what a store reads back.
const PER_LEAF: usize = 4096;

/// All entries of an account, as its trail was walked, newest first.
#[derive(Debug)]
pub(super) struct Listed {
    /// How many events the account had then. If it has more now, the list is stale.
    pub(super) count: u64,
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

/// The leaves that name the entries whose bodies are erased, in ascending order. Their bodies
/// are not sealed: they hold numbers of entries, which whoever sees the rows go knows anyway.
pub(super) fn leaves(entries: &[u64]) -> Result<Vec<Entry>, LedgerError> {
    let mut entries = entries.to_vec();
    entries.sort_unstable();
    entries
        .chunks(PER_LEAF)
        .map(|chunk| {
            let mut body = MAGIC.to_vec();
            for index in chunk {
                body.extend_from_slice(&index.to_be_bytes());
            }
            Entry::new(LEAF_ERASURE, COMMITMENT, body)
        })
        .collect()
}

/// The entries that an erasure leaf covers, once it is known to be one of the log.
#[cfg(test)]
pub(super) fn covered(row: &crate::store::EventRow) -> Option<Vec<u64>> {
    let body = row.body.as_ref()?;
    let leaf = super::journal::leaf(LEAF_ERASURE, COMMITMENT, &body.salt, &body.body);
    let (entries, rest) = body.body.strip_prefix(MAGIC)?.as_chunks::<8>();
    let ascending = entries.is_sorted_by(|a, b| a < b);
    (row.leaf == leaf && rest.is_empty() && ascending).then(|| {
        entries
            .iter()
            .map(|index| u64::from_be_bytes(*index))
            .collect()
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;
    use crate::store::EventRow;

    #[test]
    fn leaves_cover_what_they_were_made_for_and_tell_when_they_were_changed() {
        let entries: Vec<u64> = (0..10_000).rev().map(|n| n * 3).collect();
        let made = leaves(&entries).unwrap();
        assert_eq!(made.len(), 3);
        let mut found = Vec::new();
        for Entry { leaf, body } in made {
            assert!(
                body.body.len() <= crate::store::MAX_BODY && leaf.len() <= crate::store::MAX_LEAF
            );
            let mut row = EventRow {
                leaf,
                body: Some(body),
            };
            found.append(&mut covered(&row).unwrap());
            let body = row.body.as_mut().unwrap();
            let last = body.body.len() - 1;
            body.body[last] ^= 1;
            assert_eq!(covered(&row), None);
        }
        found.reverse();
        assert_eq!(found, entries);
    }

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
