//! Anchors: what the token itself remembers of the newest head, so that a
//! database put back to an older state no longer matches.
//!
//! Called by the ledger inside a token job. The backends only keep the bytes;
//! here it is decided which object counts and which may go. Nothing here ever
//! destroys an object that it did not verify, and a missing anchor is never
//! taken for an empty realm. The argument stands in the ledger's rules: create
//! the new one, list again, and only then destroy the older ones.

mod advance;
mod format;
pub mod nodes;
mod scratch;
mod supersede;
#[cfg(test)]
mod tests;
mod warm;

pub(crate) use self::scratch::{Scratch, first_refusal};
pub use self::{
    advance::{Advanced, advance, advance_by, go_on},
    supersede::supersede,
    warm::{open_warm, seal_warm},
};

use std::collections::BTreeSet;

use self::format::Parsed;
use crate::{
    custody::{AnchorObject, Custody},
    encoding,
    error::{AnchorFault, Error, Result},
    id::RealmName,
    mac, seal,
};

/// One anchor of a realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Counts the anchors of the realm, from 1. One writer leaves no gaps, so
    /// that two that build on the same anchor always collide in it. Several
    /// nodes let it rise as their heads' numbers do: equal heads are equal
    /// anchors then, and two of one number collide.
    pub serial: u64,
    pub log_epoch: u64,
    pub seq: u64,
    /// The hash of the head.
    pub head: [u8; 32],
    pub boot_epoch: u64,
    /// Nothing was released after this anchor: the realm was shut down.
    pub clean: bool,
    /// Charges may have been released after this anchor without another.
    pub dirty: bool,
}

impl Anchor {
    /// The serial of the anchor after `from`. At the end of all numbers it
    /// repeats itself, and [`advance`] refuses it.
    #[must_use]
    pub fn serial_after(from: Option<&Self>) -> u64 {
        from.map_or(1, |from| from.serial.saturating_add(1))
    }

    /// Says why this anchor cannot come later than `earlier`, if it cannot.
    fn conflict_with(&self, earlier: &Self) -> Option<&'static str> {
        let (now, before) = ((self.log_epoch, self.seq), (earlier.log_epoch, earlier.seq));
        if self.serial <= earlier.serial {
            Some("the serial does not rise")
        } else if now < before {
            Some("log epoch and sequence fall")
        } else if now == before && self.head != earlier.head {
            Some("log epoch and sequence stay, and the head is another")
        } else if self.boot_epoch < earlier.boot_epoch {
            Some("the boot epoch falls")
        } else {
            None
        }
    }
}

/// What the bytes of an anchor say, with nobody's word for it but whoever gave the bytes.
///
/// # Errors
/// [`Error::Tampered`] for bytes that are no anchor, [`Error::UnsupportedVersion`].
pub fn unverified(bytes: &[u8]) -> Result<(RealmName, Anchor)> {
    let parsed = format::Parsed::anchor(bytes)?;
    Ok((parsed.realm, parsed.anchor))
}

/// A verified anchor and the object that it is in.
struct Found {
    object: AnchorObject,
    anchor: Anchor,
}

impl Found {
    fn newest_key(&self) -> Option<u16> {
        let parsed = Parsed::anchor(&self.object.content).ok()?;
        parsed.keys.last().copied()
    }

    /// Whether a newer MAC key has tagged it than the newest of these.
    fn is_by_newer(&self, keys: &[u16]) -> bool {
        self.newest_key() > keys.iter().max().copied()
    }
}

/// What the token holds for a realm.
struct Survey {
    /// Verified, by rising serial.
    own: Vec<Found>,
    /// Of size zero, of whatever realm: what a crash leaves behind.
    empty: Vec<AnchorObject>,
}

/// The newest anchor of a realm, or none. Older ones beside it are what a crash
/// between creating and destroying leaves; the next [`advance`] removes them.
///
/// # Errors
/// [`Error::Anchors`] for an object that is no anchor of ours
/// ([`AnchorFault::Forged`]) and for anchors that exclude each other
/// ([`AnchorFault::Ambiguous`]); else the token's.
pub fn newest(custody: &mut dyn Custody, realm: &RealmName) -> Result<Option<Anchor>> {
    let survey = Survey::of(custody, realm)?;
    let newest = survey.newest()?.cloned();
    let older = survey.own.len().saturating_sub(1);
    if older > 0 || !survey.empty.is_empty() {
        let empty = survey.empty.len();
        tracing::warn!(%realm, older, empty, "anchors were left behind; the next one removes them");
    }
    Ok(newest)
}

/// Every anchor of a realm by rising serial, equal ones once, whether or not they can be of one history: for whoever
/// has to decide between them. One order for one set: two lists can be compared.
///
/// # Errors
/// [`Error::Anchors`] for an object that is no anchor of ours ([`AnchorFault::Forged`]); else the token's.
pub fn all(custody: &mut dyn Custody, realm: &RealmName) -> Result<Vec<Anchor>> {
    let survey = Survey::of(custody, realm)?;
    let mut all: Vec<Anchor> = survey.own.into_iter().map(|found| found.anchor).collect();
    let order = |anchor: &Anchor| {
        let place = (anchor.serial, anchor.log_epoch, anchor.seq);
        (
            place,
            anchor.head,
            anchor.boot_epoch,
            anchor.clean,
            anchor.dirty,
        )
    };
    all.sort_by_key(order);
    all.dedup();
    Ok(all)
}

/// The newest of these, which rise by their serials; an error where they exclude each other.
///
/// A log epoch begins by [`supersede`] alone, over everything that stood then. So what the older ones have against one
/// another decides nothing once an anchor of a newer epoch stands that follows each of them.
///
/// # Errors
/// [`Error::Anchors`] with [`AnchorFault::Ambiguous`].
pub fn newest_of<'a>(rising: impl IntoIterator<Item = &'a Anchor>) -> Result<Option<&'a Anchor>> {
    let (mut before, mut excluded): (Vec<&Anchor>, _) = (Vec::new(), None);
    for next in rising {
        let last = before.last().copied().filter(|last| *last != next);
        let conflict = last.and_then(|last| Some((last, next, next.conflict_with(last)?)));
        let given_up = |earlier: &&Anchor| {
            earlier.log_epoch < next.log_epoch && next.conflict_with(earlier).is_none()
        };
        if conflict.is_some() {
            excluded = excluded.or(conflict);
        } else if before.iter().all(given_up) {
            excluded = None;
        }
        before.push(next);
    }
    match excluded {
        None => Ok(before.pop()),
        Some((earlier, next, why)) => {
            let detail = format!("{earlier} and {next} exclude each other: {why}");
            Err(fault(AnchorFault::Ambiguous, detail))
        }
    }
}

impl Survey {
    fn of(custody: &mut dyn Custody, realm: &RealmName) -> Result<Self> {
        let mut survey = Self {
            own: Vec::new(),
            empty: Vec::new(),
        };
        for object in custody.anchors()? {
            if object.size == 0 {
                survey.empty.push(object);
            } else if let Some(anchor) = verify(custody, realm, &object)? {
                survey.own.push(Found { object, anchor });
            }
        }
        survey.own.sort_by_key(|found| found.anchor.serial);
        Ok(survey)
    }

    /// The newest, if they can be one history. Equal ones count as one.
    fn newest(&self) -> Result<Option<&Anchor>> {
        newest_of(self.own.iter().map(|found| &found.anchor))
    }
}

/// The other realms that have anchors in the token, as far as their objects say so: each is under
/// the same keys, so none of these keys may go while there is one.
///
/// # Errors
/// The token's; [`Error::Misconfigured`] where an object does not say whose it is.
pub fn other_realms(custody: &mut dyn Custody, realm: &RealmName) -> Result<BTreeSet<RealmName>> {
    let objects = custody.anchors()?;
    let mut others = BTreeSet::new();
    for object in &objects {
        // It may be of a realm that a newer custodyd serves.
        let parsed = Parsed::anchor(&object.content).map_err(|_| {
            Error::Misconfigured("the token holds an anchor that cannot be read, so nobody can say whose keys these are".to_owned())
        })?;
        if parsed.realm != *realm {
            others.insert(parsed.realm);
        }
    }
    Ok(others)
}

/// Whether an anchor of a realm is still tagged by this version of the MAC key, so that it could not be verified without.
///
/// # Errors
/// As for [`newest`].
pub fn needs_key(custody: &mut dyn Custody, realm: &RealmName, version: u16) -> Result<bool> {
    let survey = Survey::of(custody, realm)?;
    let objects = survey.own.iter().map(|found| &found.object.content);
    let mut parsed = objects.filter_map(|content| Parsed::anchor(content).ok());
    Ok(parsed.any(|anchor| anchor.keys.contains(&version)))
}

/// The newest MAC key that tags any anchor of a realm; none where there is no anchor.
///
/// # Errors
/// As for [`newest`].
pub fn newest_key(custody: &mut dyn Custody, realm: &RealmName) -> Result<Option<u16>> {
    let tagged = tagged(&Survey::of(custody, realm)?);
    Ok(tagged.into_iter().map(|(_, key)| key).max())
}

/// The newest MAC key that tags the latest anchor of a realm, and the log epoch of that; none where there is no anchor. What
/// goes on from it is tagged by that key, too: a rotation adds a key, and the current one is never retired. Older anchors
/// say nothing here. They may be of a batch that went nowhere, or of before a restore.
///
/// # Errors
/// As for [`newest`].
pub fn latest_key(custody: &mut dyn Custody, realm: &RealmName) -> Result<Option<(u64, u16)>> {
    let latest = tagged(&nodes::survey(custody, realm)?).into_iter().max();
    Ok(latest.map(|((log_epoch, _), key)| (log_epoch, key)))
}

/// Log epoch and number of each anchor, with the newest key that tags it.
fn tagged(survey: &Survey) -> Vec<((u64, u64), u16)> {
    let newest = |found: &Found| {
        let place = (found.anchor.log_epoch, found.anchor.seq);
        Some((place, found.newest_key()?))
    };
    survey.own.iter().filter_map(newest).collect()
}

/// The anchor in an object; none where it is another realm's.
fn verify(
    custody: &mut dyn Custody,
    realm: &RealmName,
    object: &AnchorObject,
) -> Result<Option<Anchor>> {
    let parsed = Parsed::anchor(&object.content).map_err(|error| forged(object, &error))?;
    if parsed.realm != *realm {
        return Ok(None);
    }
    let statement = encoding::anchor(parsed.body);
    if mac::tag_fits(custody, &parsed.keys, &statement, parsed.tag)? {
        return Ok(Some(parsed.anchor));
    }
    let what = match parsed.keys.as_slice() {
        [1] => "its tag",
        _ => "its tag, by the MAC keys that it names",
    };
    Err(forged(object, &Error::Tampered { what }))
}

fn fault(fault: AnchorFault, detail: String) -> Error {
    Error::Anchors { fault, detail }
}

/// Names an object by what an operator's tool shows of it.
fn forged(object: &AnchorObject, error: &Error) -> Error {
    let hash = seal::sha256(&[&object.content]);
    let name: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let detail = format!(
        "the data object of {} bytes with SHA-256 {name}... is no anchor: {error}",
        object.size
    );
    fault(AnchorFault::Forged, detail)
}

impl std::fmt::Display for Anchor {
    /// Short, for sentences in errors and logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            serial,
            log_epoch,
            seq,
            ..
        } = self;
        write!(
            f,
            "anchor {serial} (log epoch {log_epoch}, seq {seq}, head "
        )?;
        self.head
            .iter()
            .take(4)
            .try_for_each(|b| write!(f, "{b:02x}"))?;
        write!(f, "...)")
    }
}
