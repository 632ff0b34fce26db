//! Bodies of entries: each that is there must match its leaf, each that is not must have been
//! taken by an erasure or by retention, and none of those may be there again.
//!
//! Keeps three bits for each entry. Fed in order of the log; what is missing can only be judged at
//! the end, for the leaf that covers an entry stands after it. Pure: no I/O.

use super::findings::Findings;
use crate::ledger::deletions::Why;
use crate::ledger::journal;
use crate::ledger::log::{
    LEAF_BOOT, LEAF_ERASURE, LEAF_EVENT, LEAF_RESTORE, LEAF_RETENTION, LEAF_STATE,
};
use crate::store::{BodyRow, EventRow};

/// Entries with neither body nor leaf that are kept for a second look.
const MOST: usize = 10_000;

/// One bit for each entry of a log.
#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(size: u64) -> Self {
        Self(vec![0; usize::try_from(size.div_ceil(64)).unwrap_or(0)])
    }

    fn set(&mut self, index: u64) {
        let at = usize::try_from(index / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.0.get_mut(at) {
            *word |= 1 << (index % 64);
        }
    }

    fn get(&self, index: u64) -> bool {
        let at = usize::try_from(index / 64).unwrap_or(usize::MAX);
        let word = self.0.get(at).copied().unwrap_or(0);
        word >> (index % 64) & 1 == 1
    }

    /// The entries for which words of some bits come to something else than nothing.
    fn entries<'a>(words: impl Iterator<Item = u64> + 'a) -> impl Iterator<Item = u64> + 'a {
        (0u64..).zip(words).flat_map(|(at, word)| {
            let bits = if word == 0 { 0..0 } else { 0..64u64 };
            bits.filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| at * 64 + bit)
        })
    }
}

#[derive(Debug)]
pub(super) struct Bodies {
    present: Bits,
    missing: Bits,
    covered: Bits,
    pub(super) checked: u64,
}

impl Bodies {
    /// For a log of so many entries.
    pub(super) fn new(size: u64) -> Self {
        Self {
            present: Bits::new(size),
            missing: Bits::new(size),
            covered: Bits::new(size),
            checked: 0,
        }
    }

    /// An entry, and the row of its body: absent, not readable, or there.
    pub(super) fn take(
        &mut self,
        index: u64,
        leaf: Vec<u8>,
        body: Option<Option<BodyRow>>,
        findings: &mut Findings,
    ) {
        let kind = leaf.first().copied();
        let body = match body {
            Some(None) => {
                self.present.set(index);
                return findings.body(index, "its body is larger than any, or no byte string");
            }
            Some(Some(body)) => Some(body),
            None => None,
        };
        self.checked += u64::from(body.is_some());
        match (kind, body) {
            (Some(LEAF_EVENT), None) => self.missing.set(index),
            (Some(LEAF_EVENT), Some(body)) => {
                self.present.set(index);
                if !journal::commits(&leaf, &body) {
                    findings.body(index, "its body does not match its commitment");
                }
            }
            (Some(LEAF_ERASURE | LEAF_RETENTION), None) => findings.body(
                index,
                "it names entries whose bodies had to go, and its own body is missing",
            ),
            (Some(LEAF_ERASURE | LEAF_RETENTION), body) => {
                match covered(&EventRow { leaf, body }) {
                    None => findings.body(index, "its body does not match its commitment"),
                    Some(entries) => {
                        for entry in entries {
                            self.cover(index, entry, findings);
                        }
                    }
                }
            }
            (Some(LEAF_STATE | LEAF_BOOT | LEAF_RESTORE), None) => {}
            (Some(LEAF_STATE | LEAF_BOOT | LEAF_RESTORE), Some(_)) => {
                findings.body(index, "it has a body, and entries of its kind have none");
            }
            (_, _) => findings.entry(index, "it is of a kind that this custodyd does not write"),
        }
    }

    fn cover(&mut self, leaf: u64, entry: u64, findings: &mut Findings) {
        if entry >= leaf || !(self.present.get(entry) || self.missing.get(entry)) {
            findings.entry(leaf, &format!("it names entry {entry}, which is no event"));
        } else if self.covered.get(entry) {
            findings.entry(leaf, &format!("it names entry {entry} once more"));
        } else {
            self.covered.set(entry);
        }
    }

    /// How many bodies were taken rightly.
    pub(super) fn deleted(&self) -> u64 {
        let words = self.missing.0.iter().zip(&self.covered.0);
        words
            .map(|(missing, covered)| u64::from((missing & covered).count_ones()))
            .sum()
    }

    /// Bodies that were taken, and are back.
    pub(super) fn returned(&self, findings: &mut Findings) {
        let words = self.present.0.iter().zip(&self.covered.0);
        for index in Bits::entries(words.map(|(present, covered)| present & covered)) {
            findings.body(index, "its body was deleted, and is there again");
        }
    }

    /// Entries whose bodies are missing, and no leaf says that they had to go.
    pub(super) fn uncovered(&self) -> Uncovered {
        let words = || self.missing.0.iter().zip(&self.covered.0);
        Uncovered {
            entries: Bits::entries(words().map(|(missing, covered)| missing & !covered))
                .take(MOST)
                .collect(),
            count: words()
                .map(|(missing, covered)| u64::from((missing & !covered).count_ones()))
                .sum(),
        }
    }
}

/// Entries without a body for which no leaf was found, the first of them by name.
#[derive(Debug)]
pub(super) struct Uncovered {
    entries: Vec<u64>,
    count: u64,
}

impl Uncovered {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A leaf that came later covers some of them after all.
    pub(super) fn cover(&mut self, entries: &[u64]) {
        let before = self.entries.len();
        self.entries
            .retain(|entry| entries.binary_search(entry).is_err());
        self.count -= (before - self.entries.len()) as u64;
    }

    pub(super) fn tell(self, findings: &mut Findings) {
        let named = self.entries.len() as u64;
        for index in self.entries {
            let what = "has no body, and no leaf of an erasure or of retention names it";
            findings.body(index, what);
        }
        if self.count > named {
            let rest = self.count - named;
            findings.note(
                "log_bodies",
                format!("and {rest} entries more have no body"),
            );
        }
    }
}

/// The entries that a leaf of either kind names, in ascending order.
pub(super) fn covered(row: &EventRow) -> Option<Vec<u64>> {
    Why::Erasure
        .covered(row)
        .or_else(|| Why::Retention.covered(row))
}
