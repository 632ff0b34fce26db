//! Anchors of a realm that several nodes serve, in one object store that all of them see.
//!
//! Called by the ledger's committer of each node, before anything of a batch is released. Nodes build on one
//! another, so what stands beside one's own anchor need not be a rival's: the caller knows the heads of
//! its own line, and every object of a list is compared with them. What another node has created is a
//! claim: its maker may find a fork when it lists again, and take it back. So a head is covered by
//!
//! * an object of one's own, on a list that was made after it, on which nothing is of another line; or
//! * a list on which every object is this head, or descends from it. An anchor that was confirmed is
//!   destroyed only by the maker of a confirmed descendant, so one of these is confirmed.
//!
//! Anchors of equal content count each for itself: which of them was whose makes no difference. Objects of no
//! size are left alone: another node may be about to fill one.
//!
//! A head is made only upon one that is covered. So a token in which every node anchors lists the head before it, or a later
//! one. One that lists older ones alone is not that token: it has the same keys, as a clone has, or a copy of its files, and
//! whoever took its word would be told that nothing newer stands while other nodes go on; or somebody has put it back.
//!
//! After a crash here there is one object more, of this line: the next [`cover`] of any node destroys it
//! with the other ancestors.

use std::collections::BTreeMap;

use super::{Anchor, Survey, advance::sealed_by, fault};
use crate::{
    custody::Custody,
    error::{AnchorFault, Error, Result},
    id::{KeyId, KeyPurpose, RealmName},
};

/// Heads of a line that are remembered; of older ones the log tells.
const REMEMBERED: usize = 1024;
/// Older ones that stand in the token all the same, and were looked up in the log.
const LOOKED_UP: usize = 64;
/// How often a list is made anew that another node's steps have disturbed.
const TRIES: usize = 3;

/// The heads of one line, by their numbers: each descends from those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    log_epoch: u64,
    heads: BTreeMap<u64, [u8; 32]>,
    /// Of before all of these: a node that was frozen has anchored late.
    older: BTreeMap<u64, [u8; 32]>,
}

/// What an anchor is to a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kin {
    Same,
    Ancestor,
    Descendant,
    /// Of another line, or of a part of this one that is not remembered.
    Stranger,
}

impl Line {
    #[must_use]
    pub fn new(log_epoch: u64) -> Self {
        Self {
            log_epoch,
            heads: BTreeMap::new(),
            older: BTreeMap::new(),
        }
    }

    /// The caller has found this head to be of the line.
    pub fn knows(&mut self, seq: u64, head: [u8; 32]) {
        let first = self.heads.keys().next();
        if self.heads.len() >= REMEMBERED && first.is_some_and(|first| seq < *first) {
            // It would be the first to be forgotten, and asked for again at each list.
            self.older.insert(seq, head);
            while self.older.len() > LOOKED_UP {
                self.older.pop_last();
            }
            return;
        }
        self.heads.insert(seq, head);
        while self.heads.len() > REMEMBERED {
            self.heads.pop_first();
        }
    }

    /// The caller goes on with this head. What was remembered of later ones stays only where they were found to be upon this
    /// very one: the database shows whatever it likes to whoever asks, and a head of another line that came after it
    /// would count as a descendant.
    pub fn goes_on(&mut self, seq: u64, head: [u8; 32]) {
        if self.at(seq) != Some(head) {
            self.ends_before(seq);
        }
        self.knows(seq, head);
    }

    /// What is remembered from this number on may be of another line than what is found next.
    pub fn ends_before(&mut self, seq: u64) {
        self.keep(|known| known < seq);
    }

    #[must_use]
    pub fn at(&self, seq: u64) -> Option<[u8; 32]> {
        let known = self.heads.get(&seq).or_else(|| self.older.get(&seq));
        known.copied()
    }

    /// What comes after it turned out to be of another line.
    pub fn ends_at(&mut self, seq: u64) {
        self.keep(|known| known <= seq);
    }

    fn keep(&mut self, which: impl Fn(u64) -> bool) {
        self.heads.retain(|known, _| which(*known));
        self.older.retain(|known, _| which(*known));
    }

    /// Whether this anchor is of the line, as far as that is remembered.
    #[must_use]
    pub fn has(&self, anchor: &Anchor) -> bool {
        anchor.log_epoch == self.log_epoch && self.at(anchor.seq) == Some(anchor.head)
    }

    fn each(&self, survey: &Survey, to: &Anchor) -> Vec<Kin> {
        let found = survey.own.iter();
        found.map(|found| self.kin(&found.anchor, to)).collect()
    }

    fn kin(&self, anchor: &Anchor, to: &Anchor) -> Kin {
        if anchor.log_epoch == to.log_epoch && anchor.seq == to.seq && anchor.head == to.head {
            return Kin::Same;
        }
        match self.has(anchor) {
            true if anchor.seq < to.seq => Kin::Ancestor,
            true if anchor.seq > to.seq => Kin::Descendant,
            _ => Kin::Stranger,
        }
    }
}

/// How a [`cover`] went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Covered {
    /// The head is covered. `newest`: and no listed anchor is of a later one. `rotated`: one of a later one is by a newer MAC
    /// key than tags this head.
    Covered { newest: bool, rotated: bool },
    /// Nothing is known of these: the caller finds out, and calls again, or withdraws what was `made`.
    Unknown { strangers: Vec<Anchor>, made: bool },
    /// Everything that is listed is older than the caller asked for, and nothing was made: its newest is of this number.
    Behind { newest: u64 },
}

/// Every anchor of the realm, by rising serial.
///
/// # Errors
/// [`Error::Anchors`] for an object that is no anchor of ours; else the token's.
pub fn list(custody: &mut dyn Custody, realm: &RealmName) -> Result<Vec<Anchor>> {
    let survey = survey(custody, realm)?;
    Ok(survey.own.into_iter().map(|found| found.anchor).collect())
}

/// Whether the head of `to` is covered already, by one list; nothing is made. None where its ancestors stand still: whoever has
/// written it is about to anchor it, or has died.
///
/// # Errors
/// As for [`list`].
pub fn is_covered(
    custody: &mut dyn Custody,
    realm: &RealmName,
    (to, keys): (&Anchor, &[u16]),
    line: &Line,
) -> Result<Option<Covered>> {
    let survey = survey(custody, realm)?;
    let kin = line.each(&survey, to);
    if let Some(unknown) = unknown(&survey, &kin, false) {
        return Ok(Some(unknown));
    }
    if kin.is_empty() || kin.contains(&Kin::Ancestor) {
        return Ok(None);
    }
    Ok(Some(covered(&survey, &kin, keys)))
}

/// Makes the head of `to`, which these MAC keys tag, one that no fork can take back. `line` has what is known around it; `made` says that an
/// earlier call for this head has made its object; `since` is the number that the newest of the list has at least. May be
/// called again after any outcome.
///
/// # Errors
/// [`Error::Anchors`] where there is no anchor at all, or the token does not list what it made; else the token's,
/// and then the outcome is unknown.
pub fn cover(
    custody: &mut dyn Custody,
    realm: &RealmName,
    (to, keys): (&Anchor, &[u16]),
    (line, mut made): (&Line, bool),
    since: u64,
) -> Result<Covered> {
    let mut behind = None;
    for _ in 0..TRIES {
        let survey = survey(custody, realm)?;
        if survey.own.is_empty() {
            let detail = format!(
                "{to} is to be anchored, and there is none: objects were deleted, or it is another token"
            );
            return Err(fault(AnchorFault::Missing, detail));
        }
        let kin = line.each(&survey, to);
        if let Some(unknown) = unknown(&survey, &kin, made) {
            return Ok(unknown);
        }
        // All are of the line by now. A list from the middle of another node's steps may lack what has just come.
        let newest = survey.own.iter().map(|found| found.anchor.seq).max();
        behind = newest.filter(|newest| *newest < since);
        if behind.is_some() {
            continue;
        }
        // A rotation adds a MAC key, and the current one is never retired: whoever goes on from an anchor by older ones alone
        // knows one that was rotated away from. A node that has not heard of the newer one would do it their way.
        let ancestors = survey.own.iter().zip(&kin);
        let mut ancestors = ancestors.filter(|(_, kin)| **kin == Kin::Ancestor);
        if let Some((found, _)) = ancestors.find(|(found, _)| found.is_by_newer(keys)) {
            let detail = format!(
                "{to} is by older MAC keys than {}, which it goes on from: the database shows a head of who knows an older key, \
                 or another node has rotated it and this one is to be started again",
                found.anchor
            );
            return Err(fault(AnchorFault::Behind, detail));
        }
        let covered = covered(&survey, &kin, keys);
        if !kin.contains(&Kin::Ancestor) {
            return Ok(covered);
        }
        if made && kin.contains(&Kin::Same) {
            for (found, kin) in survey.own.iter().zip(&kin) {
                // `to` counts already: what stays is the next one's to destroy.
                if *kin == Kin::Ancestor
                    && let Err(error) = custody.destroy_anchor(&found.object)
                {
                    tracing::warn!(%error, "an old anchor stays until the next one");
                }
            }
            return Ok(covered);
        }
        let content = sealed_by(custody, realm, keys, to)?;
        custody.create_anchor(&content)?;
        made = true;
    }
    if let Some(newest) = behind {
        return Ok(Covered::Behind { newest });
    }
    let detail = format!("the token made {to}, and does not list it");
    Err(fault(AnchorFault::NotKept, detail))
}

/// What is listed and of no line that is known.
fn unknown(survey: &Survey, kin: &[Kin], made: bool) -> Option<Covered> {
    let strangers = survey.own.iter().zip(kin);
    let strangers = strangers.filter(|(_, kin)| **kin == Kin::Stranger);
    let strangers: Vec<Anchor> = strangers.map(|(found, _)| found.anchor.clone()).collect();
    (!strangers.is_empty()).then_some(Covered::Unknown { strangers, made })
}

fn covered(survey: &Survey, kin: &[Kin], keys: &[u16]) -> Covered {
    let mut later = survey.own.iter().zip(kin);
    Covered::Covered {
        newest: !kin.contains(&Kin::Descendant),
        rotated: later.any(|(found, kin)| *kin == Kin::Descendant && found.is_by_newer(keys)),
    }
}

/// Takes back one anchor of this content, where there is one: nothing of it was released, and the caller has
/// made it. `begins` is asked right before: from then on it may be gone, whatever is answered, and a second try could take
/// another node's; where it says no, nothing is done.
///
/// # Errors
/// The token's.
pub fn withdraw(
    custody: &mut dyn Custody,
    realm: &RealmName,
    anchor: &Anchor,
    begins: impl FnOnce() -> bool,
) -> Result<()> {
    let survey = survey(custody, realm)?;
    match survey.own.iter().find(|found| found.anchor == *anchor) {
        Some(found) if begins() => custody.destroy_anchor(&found.object),
        _ => Ok(()),
    }
}

/// Destroys the anchors of a head that never counted, by the caller's proof, whose own head these MAC keys tag. Says whether
/// they are gone: they stay where nothing of the line stands beside them, because one object of what counts always does, and a
/// token without one has lost it; and where a newer key has tagged them, which the maker of that proof may not know.
///
/// # Errors
/// The token's.
pub fn clear(
    custody: &mut dyn Custody,
    realm: &RealmName,
    orphan: &Anchor,
    (line, keys): (&Line, &[u16]),
) -> Result<bool> {
    let survey = survey(custody, realm)?;
    if !survey.own.iter().any(|found| line.has(&found.anchor)) {
        return Ok(false);
    }
    let orphans = survey.own.iter().filter(|found| found.anchor == *orphan);
    let orphans: Vec<_> = orphans.filter(|found| !line.has(&found.anchor)).collect();
    if orphans.iter().any(|found| found.is_by_newer(keys)) {
        return Ok(false);
    }
    for found in orphans {
        custody.destroy_anchor(&found.object)?;
    }
    Ok(true)
}

/// An object may be read while another node is still making it, and a list may be read in the middle of another
/// node's steps, its older object gone and the newer one not there yet: then it is made again. What is gone stays gone
/// however often it is asked for. One may be tagged by a key as well that another node has made since this one looked
/// for keys: it is looked for, and believed for the sake of the others that tag it.
pub(super) fn survey(custody: &mut dyn Custody, realm: &RealmName) -> Result<Survey> {
    let (mut tries, mut looked) = (TRIES, false);
    loop {
        tries -= 1;
        match Survey::of(custody, realm) {
            Ok(survey) if survey.own.is_empty() && tries > 0 => {}
            Err(Error::Anchors {
                fault: AnchorFault::Forged,
                ..
            }) if tries > 0 => {
                // Once: it may be a search of the whole token.
                if !std::mem::replace(&mut looked, true) {
                    take_up_newer(custody)?;
                }
            }
            surveyed => return surveyed,
        }
    }
}

/// Where the token holds a newer MAC key than this process knows of, from now on it knows it.
fn take_up_newer(custody: &mut dyn Custody) -> Result<()> {
    let newest = custody.newest(KeyPurpose::Mac)?;
    let Some(next) = newest.and_then(|key| key.version.checked_add(1)) else {
        return Ok(());
    };
    // Mostly there is none. Whatever is wrong with one: what it has tagged is forged then.
    if let Err(error) = custody.take_up_key(KeyId::new(KeyPurpose::Mac, next)) {
        tracing::debug!(%error, "no newer MAC key was taken up");
    }
    Ok(())
}
