//! Moving the anchor forward: list, create, list again, destroy.
//!
//! Called by the committer before anything of a batch is released, and by the
//! start. Two writers may be here at once with rival anchors. Both build on the
//! same one, so theirs have the same serial; each creates before it lists again,
//! so at least one of them sees the other. Whoever sees another takes its own
//! back and has lost: at most one wins, and nothing verified is lost.
//!
//! After a crash, or an error with an unknown outcome, the same call may be made
//! again: it goes on where it was.
//!
//! A list costs more than a look at one object. Who knows `from` as the newest need not list before it creates, as
//! long as `from` still stands: see [`go_on`].

use super::{Anchor, Found, Survey, fault, format};
use crate::{
    custody::{AnchorObject, Custody},
    encoding,
    error::{AnchorFault, Error, Result},
    id::{KeyPurpose, RealmName},
};

/// How an [`advance`] went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advanced {
    /// The anchor is in the token, and it is the newest one.
    Anchored,
    /// Somebody else anchored this, later than `from`; ours is not there. Its
    /// head may descend from ours or be a fork of it: the caller finds out.
    Raced(Anchor),
}

/// [`advance_by`] the MAC keys that the custody accepts: for whoever anchors no head.
///
/// # Errors
/// As for [`advance_by`].
pub fn advance(
    custody: &mut dyn Custody,
    realm: &RealmName,
    from: Option<&Anchor>,
    to: &Anchor,
) -> Result<Advanced> {
    let keys = custody.accepted(KeyPurpose::Mac)?;
    advance_by(custody, realm, from, (to, &keys))
}

/// Replaces the newest anchor of a realm, which must be `from`, by `to`. None as
/// `from` makes the first anchor, for a realm that has none: only `init` may.
/// It is tagged by the MAC keys that its head is tagged by, whatever is in use
/// at this moment: who starts on that head asks for the newest of them.
///
/// # Errors
/// [`Error::Invalid`] for a `to` that cannot follow `from`; [`Error::Anchors`]
/// when what is in the token contradicts `from`, itself, or the token's own word;
/// else the token's, and then the outcome is unknown.
pub fn advance_by(
    custody: &mut dyn Custody,
    realm: &RealmName,
    from: Option<&Anchor>,
    (to, keys): (&Anchor, &[u16]),
) -> Result<Advanced> {
    check_step(from, to)?;
    let content = sealed_by(custody, realm, keys, to)?;
    let before = Survey::of(custody, realm)?;
    let made = match step(before.newest()?, from, to)? {
        Step::Create => {
            custody.create_anchor(&content)?;
            true
        }
        Step::Present => false,
        Step::Raced(other) => return Ok(Advanced::Raced(other)),
    };
    conclude(custody, realm, (to, made), |after| after.rival(to))
}

/// As [`advance_by`], for whoever knows from the last call that `from` is the newest, and has made none since whose outcome
/// is unknown: so their own `to` can not be there yet.
///
/// Everybody destroys what they have replaced last of all. So while `from` stands nobody has gone on from it, or their
/// anchor stands beside it; and then the list that is made after ours shows theirs, and ours is taken back. Where it
/// does not stand, or other keys tag it, or the token has no quick way to say so, this is [`advance_by`].
///
/// # Errors
/// As for [`advance_by`]. After one, only [`advance_by`] goes on: ours may be there.
pub fn go_on(
    custody: &mut dyn Custody,
    realm: &RealmName,
    from: &Anchor,
    (to, keys): (&Anchor, &[u16]),
) -> Result<Advanced> {
    let before = sealed_by(custody, realm, keys, from)?;
    if !custody.anchor_stands(&before)? {
        return advance_by(custody, realm, Some(from), (to, keys));
    }
    check_step(Some(from), to)?;
    let content = sealed_by(custody, realm, keys, to)?;
    custody.create_anchor(&content)?;
    conclude(custody, realm, (to, true), |after| after.rival(to))
}

/// Lists once `to` is there; made by this call, or found. Whether it counts beside what is a rival to the caller is
/// decided here alone.
pub(super) fn conclude(
    custody: &mut dyn Custody,
    realm: &RealmName,
    (to, made): (&Anchor, bool),
    rival: impl Fn(&Survey) -> Option<&Anchor>,
) -> Result<Advanced> {
    let after = Survey::of(custody, realm)?;
    if let Some(rival) = rival(&after) {
        let rival = rival.clone();
        // At most one object, and only if this call made one: an equal one may
        // be another node's, and released.
        if made && let Some(ours) = after.object_of(to) {
            custody.destroy_anchor(ours)?;
        }
        return Ok(Advanced::Raced(rival));
    }
    if after.newest()? != Some(to) {
        let detail = format!("the token made {to}, and does not list it");
        return Err(fault(AnchorFault::NotKept, detail));
    }
    tidy_up(custody, after, to);
    Ok(Advanced::Anchored)
}

/// Only the next serial, so that rivals always collide; and nothing that falls.
fn check_step(from: Option<&Anchor>, to: &Anchor) -> Result<()> {
    if to.serial != Anchor::serial_after(from) {
        return Err(Error::invalid("anchor", "its serial must be the next one"));
    }
    match from.and_then(|from| to.conflict_with(from)) {
        Some(why) => Err(Error::invalid("anchor", why)),
        None => Ok(()),
    }
}

pub(super) fn sealed(
    custody: &mut dyn Custody,
    realm: &RealmName,
    anchor: &Anchor,
) -> Result<Vec<u8>> {
    let keys = custody.accepted(KeyPurpose::Mac)?;
    sealed_by(custody, realm, &keys, anchor)
}

/// By these MAC keys together.
pub(super) fn sealed_by(
    custody: &mut dyn Custody,
    realm: &RealmName,
    keys: &[u16],
    anchor: &Anchor,
) -> Result<Vec<u8>> {
    let mut bytes = format::anchor(realm, anchor, keys)?;
    let tag = custody.tag(keys, &encoding::anchor(&bytes))?;
    bytes.extend_from_slice(tag.expose());
    Ok(bytes)
}

enum Step {
    Create,
    /// It is there already: an earlier call made it.
    Present,
    Raced(Anchor),
}

/// What the newest anchor in the token means for this step.
fn step(newest: Option<&Anchor>, from: Option<&Anchor>, to: &Anchor) -> Result<Step> {
    match (newest, from) {
        (Some(newest), _) if newest == to => Ok(Step::Present),
        (None, None) => Ok(Step::Create),
        (Some(newest), Some(from)) if newest == from => Ok(Step::Create),
        (Some(newest), Some(from)) if newest.conflict_with(from).is_none() => {
            Ok(Step::Raced(newest.clone()))
        }
        (Some(newest), Some(from)) => Err(fault(
            AnchorFault::Behind,
            format!("the newest is {newest}, but {from} was anchored"),
        )),
        (None, Some(from)) => Err(fault(
            AnchorFault::Missing,
            format!(
                "{from} was anchored, and there is none: objects were deleted, or it is another token"
            ),
        )),
        (Some(newest), None) => Err(fault(
            AnchorFault::Exists,
            format!("the realm should be new, but {newest} is there"),
        )),
    }
}

impl Survey {
    /// The newest anchor that is not `to` and does not come before it.
    fn rival(&self, to: &Anchor) -> Option<&Anchor> {
        let mut latest_first = self.own.iter().rev().map(|found| &found.anchor);
        latest_first.find(|anchor| anchor.serial >= to.serial && *anchor != to)
    }

    pub(super) fn object_of(&self, anchor: &Anchor) -> Option<&AnchorObject> {
        let same = |found: &&Found| found.anchor == *anchor;
        self.own.iter().find(same).map(|found| &found.object)
    }
}

/// Removes what `to` has replaced and what crashes left. `to` counts already, so
/// a failure here only leaves work for the next time.
fn tidy_up(custody: &mut dyn Custody, survey: Survey, to: &Anchor) {
    let older = survey.own.into_iter().filter(|found| found.anchor != *to);
    for object in older.map(|found| found.object).chain(survey.empty) {
        if let Err(error) = custody.destroy_anchor(&object) {
            tracing::warn!(%error, "an old anchor stays until the next one");
        }
    }
}
