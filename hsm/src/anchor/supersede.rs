//! A new log epoch in the place of everything that the token remembers of a realm: the token's side of a restore.
//!
//! Called by the restore ceremony, which has shown its approvers every anchor that is given up. They may exclude each
//! other: then nobody knows which of them counted, and this is the one way on. So what is replaced is exactly what
//! was named. An anchor that the caller has not seen may be what somebody was told meanwhile, and stops it.
//!
//! After a crash here: the new one is not there, and nothing was changed; or it stands beside what it replaces, and is
//! the newest by its log epoch. The same call goes on from either.

use super::{Advanced, Anchor, Survey, advance, fault};
use crate::{
    custody::Custody,
    error::{AnchorFault, Error, Result},
    id::RealmName,
};

/// Replaces `from`, which have to be all that the token holds for the realm, by `to`, which begins a log epoch above
/// them, and which these MAC keys tag: those of the head that is adopted. What is replaced may be under others. None as
/// `from` is a token that has lost them.
///
/// # Errors
/// [`Error::Invalid`] for a `to` that does not come after each of them; [`Error::Anchors`] where one of them is gone,
/// or the token does not list what it made; else the token's, and then the outcome is unknown.
pub fn supersede(
    custody: &mut dyn Custody,
    realm: &RealmName,
    from: &[Anchor],
    (to, keys): (&Anchor, &[u16]),
) -> Result<Advanced> {
    for from in from {
        if let Some(why) = to.conflict_with(from) {
            return Err(Error::invalid("anchor", why));
        }
        if to.log_epoch == from.log_epoch {
            return Err(Error::invalid("anchor", "it begins no log epoch"));
        }
    }
    let content = advance::sealed_by(custody, realm, keys, to)?;
    let before = Survey::of(custody, realm)?;
    let made = before.object_of(to).is_none();
    if made {
        if let Some(other) = before.other_than(from, to) {
            return Ok(Advanced::Raced(other.clone()));
        }
        if let Some(gone) = from.iter().find(|from| before.object_of(from).is_none()) {
            let detail = format!(
                "{gone} is to be replaced, and is not there: objects were deleted, or it is another token"
            );
            return Err(fault(AnchorFault::Missing, detail));
        }
        custody.create_anchor(&content)?;
    }
    advance::conclude(custody, realm, (to, made), |after| {
        after.other_than(from, to)
    })
}

impl Survey {
    /// One that nobody has named.
    fn other_than(&self, from: &[Anchor], to: &Anchor) -> Option<&Anchor> {
        let mut all = self.own.iter().map(|found| &found.anchor);
        all.find(|anchor| *anchor != to && !from.contains(anchor))
    }
}
