//! Leaves that name the log entries whose bodies are gone, and why they had to go.
//!
//! Made by the committer in the batch that deletes the bodies, for an erasure and for retention
//! alike. A body that is missing without such a leaf was taken by somebody else. Must never name
//! an entry that has lost its body before: each entry is covered once at the most.

use super::LedgerError;
use super::journal::Entry;
use super::log::{LEAF_ERASURE, LEAF_RETENTION};
use crate::store::EventRow;

/// Entries that one leaf names: its body stays well within what a store reads back.
pub(super) const PER_LEAF: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The account is gone.
    Erasure,
    /// They were kept for as long as the policy says.
    Retention,
}

impl Why {
    /// The leaf's type, the domain of its commitment, and how its body begins.
    fn format(self) -> (u8, &'static [u8], &'static [u8; 4]) {
        match self {
            Self::Erasure => (LEAF_ERASURE, b"custodyd/erasure/v1", b"CDE\x01"),
            Self::Retention => (LEAF_RETENTION, b"custodyd/retention/v1", b"CDR\x01"),
        }
    }

    /// The leaves that name these entries, in ascending order. Their bodies are not sealed: they
    /// hold numbers of entries, which whoever sees the rows go knows anyway.
    pub(super) fn leaves(self, entries: &[u64]) -> Result<Vec<Entry>, LedgerError> {
        let (leaf, commitment, magic) = self.format();
        let mut entries = entries.to_vec();
        entries.sort_unstable();
        entries
            .chunks(PER_LEAF)
            .map(|chunk| {
                let mut body = magic.to_vec();
                for index in chunk {
                    body.extend_from_slice(&index.to_be_bytes());
                }
                Entry::new(leaf, commitment, body)
            })
            .collect()
    }

    /// The entries that a leaf of this kind covers, once it is known to be one of the log.
    pub(super) fn covered(self, row: &EventRow) -> Option<Vec<u64>> {
        let (leaf, commitment, magic) = self.format();
        let body = row.body.as_ref()?;
        let leaf = super::journal::leaf(leaf, commitment, &body.salt, &body.body);
        let (entries, rest) = body.body.strip_prefix(magic)?.as_chunks::<8>();
        let ascending = entries.is_sorted_by(|a, b| a < b);
        (row.leaf == leaf && rest.is_empty() && ascending).then(|| {
            entries
                .iter()
                .map(|index| u64::from_be_bytes(*index))
                .collect()
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;

    #[test]
    fn leaves_cover_what_they_were_made_for_and_tell_when_they_were_changed() {
        let entries: Vec<u64> = (0..10_000).rev().map(|n| n * 3).collect();
        for (why, other) in [
            (Why::Erasure, Why::Retention),
            (Why::Retention, Why::Erasure),
        ] {
            let made = why.leaves(&entries).unwrap();
            assert_eq!(made.len(), 3);
            let mut found = Vec::new();
            for Entry { leaf, body } in made {
                assert!(body.body.len() <= crate::store::MAX_BODY);
                assert!(leaf.len() <= crate::store::MAX_LEAF);
                let mut row = EventRow {
                    leaf,
                    body: Some(body),
                };
                found.append(&mut why.covered(&row).unwrap());
                assert_eq!(other.covered(&row), None);
                let body = row.body.as_mut().unwrap();
                let last = body.body.len() - 1;
                body.body[last] ^= 1;
                assert_eq!(why.covered(&row), None);
            }
            found.reverse();
            assert_eq!(found, entries);
        }
    }
}
