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
const DIFFERS: &str = "its body does not match its commitment";

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

/// What a body is beside its leaf. Nothing but these two decides that, so entries can be judged in any order, on all
/// cores; what they are to one another is for `Bodies`.
#[derive(Debug)]
pub(super) enum Body {
    /// Larger than any, or no byte string.
    Unreadable,
    /// An event's, which its leaf commits to or does not.
    OfEvent { fits: bool },
    /// An event has none.
    Missing,
    /// Of an erasure or of retention: the entries that it names, if its leaf commits to it.
    List(Option<Vec<u64>>),
    /// One of these has none.
    NoList,
    /// None, and entries of the kind have none.
    Rightly,
    /// One, and they have none.
    Odd,
    /// The entry is of no known kind; whether there is a body.
    OfUnknown { there: bool },
}

impl Body {
    /// An entry, and the row of its body: absent, not readable, or there.
    pub(super) fn judge(leaf: Vec<u8>, body: Option<Option<BodyRow>>) -> Self {
        let body = match body {
            Some(None) => return Self::Unreadable,
            Some(Some(body)) => Some(body),
            None => None,
        };
        match (leaf.first(), body) {
            (Some(&LEAF_EVENT), None) => Self::Missing,
            (Some(&LEAF_EVENT), Some(body)) => Self::OfEvent {
                fits: journal::commits(&leaf, &body),
            },
            (Some(&(LEAF_ERASURE | LEAF_RETENTION)), None) => Self::NoList,
            (Some(&(LEAF_ERASURE | LEAF_RETENTION)), body) => {
                Self::List(covered(&EventRow { leaf, body }))
            }
            (Some(&(LEAF_STATE | LEAF_BOOT | LEAF_RESTORE)), None) => Self::Rightly,
            (Some(&(LEAF_STATE | LEAF_BOOT | LEAF_RESTORE)), Some(_)) => Self::Odd,
            (_, body) => Self::OfUnknown {
                there: body.is_some(),
            },
        }
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

    /// The next entry's.
    pub(super) fn take(&mut self, index: u64, body: Body, findings: &mut Findings) {
        match body {
            Body::Unreadable => {
                self.present.set(index);
                findings.body(index, "its body is larger than any, or no byte string");
            }
            Body::Missing => self.missing.set(index),
            Body::OfEvent { fits } => {
                self.checked += 1;
                self.present.set(index);
                if !fits {
                    findings.body(index, DIFFERS);
                }
            }
            Body::NoList => findings.body(
                index,
                "it names entries whose bodies had to go, and its own body is missing",
            ),
            Body::List(entries) => {
                self.checked += 1;
                if entries.is_none() {
                    findings.body(index, DIFFERS);
                }
                for entry in entries.into_iter().flatten() {
                    self.cover(index, entry, findings);
                }
            }
            Body::Rightly => {}
            Body::Odd => {
                self.checked += 1;
                findings.body(index, "it has a body, and entries of its kind have none");
            }
            Body::OfUnknown { there } => {
                self.checked += u64::from(there);
                findings.entry(index, "it is of a kind that this custodyd does not write");
            }
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
