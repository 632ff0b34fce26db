//! An anchor to try a token with: of a realm that nobody has, and removed again.
//!
//! Called by `crate::proof`. It does with its own object what `advance` does with a realm's, so that what
//! it costs is what a batch will cost, and it touches no object that is not its own or an older scratch
//! anchor's, verified: beside a running daemon it must be as if it were not there. So, unlike `advance`,
//! it leaves alone what crashes left behind, which may be what a daemon is making right now.

use super::{Anchor, Found, Survey, advance::sealed, fault, format::Parsed};
use crate::{
    custody::Custody,
    encoding,
    error::{AnchorFault, Error, Result},
    id::{RealmName, SCRATCH_REALMS},
    mac,
};

/// A scratch anchor older than this, in seconds, was left by a process that was killed.
const ABANDONED: u64 = 600;

/// A realm of its own for one proof, and its newest anchor.
pub(crate) struct Scratch {
    realm: RealmName,
    now: u64,
    newest: Option<Found>,
    serial: u64,
}

impl Scratch {
    /// Takes a name that no other proof has, and removes what earlier ones left. `now` in seconds.
    pub(crate) fn begin(custody: &mut dyn Custody, now: u64) -> Result<Self> {
        let mut number = [0; 8];
        custody.random(&mut number)?;
        let name = format!("{SCRATCH_REALMS}{:016x}", u64::from_be_bytes(number));
        let realm = RealmName::parse(&name)?;
        sweep(custody, now)?;
        Ok(Self {
            realm,
            now,
            newest: None,
            serial: 0,
        })
    }

    /// One more anchor in the place of the last: create, list, destroy, as a batch does it.
    pub(crate) fn step(&mut self, custody: &mut dyn Custody) -> Result<()> {
        let before = Survey::of(custody, &self.realm)?;
        if before.own.len() != usize::from(self.newest.is_some()) {
            let detail = "the scratch anchor is not there alone".to_owned();
            return Err(fault(AnchorFault::NotKept, detail));
        }
        let anchor = self.next();
        let content = sealed(custody, &self.realm, &anchor)?;
        custody.create_anchor(&content)?;
        self.serial = anchor.serial;
        let mut after = Survey::of(custody, &self.realm)?;
        let made = after.own.pop().filter(|found| found.anchor == anchor);
        let Some(made) = made else {
            let detail = format!("the token made {anchor}, and does not list it");
            return Err(fault(AnchorFault::NotKept, detail));
        };
        if let Some(last) = self.newest.replace(made) {
            custody.destroy_anchor(&last.object)?;
        }
        Ok(())
    }

    /// Removes every anchor of this proof, those of steps that failed half-way as well.
    pub(crate) fn end(self, custody: &mut dyn Custody) -> Result<()> {
        for found in Survey::of(custody, &self.realm)?.own {
            custody.destroy_anchor(&found.object)?;
        }
        match Survey::of(custody, &self.realm)?.own.len() {
            0 => Ok(()),
            left => {
                let detail = format!("{left} scratch anchors were destroyed and are still listed");
                Err(fault(AnchorFault::NotKept, detail))
            }
        }
    }

    fn next(&self) -> Anchor {
        Anchor {
            serial: self.serial.saturating_add(1),
            log_epoch: 1,
            // When it was made: a later proof knows by this what was abandoned.
            seq: self.now.saturating_add(self.serial),
            head: [0x5c; 32],
            boot_epoch: 1,
            clean: false,
            dirty: false,
        }
    }
}

/// Removes scratch anchors that a killed process left. Whatever does not verify is not ours to remove.
fn sweep(custody: &mut dyn Custody, now: u64) -> Result<()> {
    for object in custody.anchors()? {
        let Ok(parsed) = Parsed::anchor(&object.content) else {
            continue;
        };
        let abandoned = parsed.anchor.seq.saturating_add(ABANDONED) < now;
        if abandoned
            && parsed.realm.as_str().starts_with(SCRATCH_REALMS)
            && mac::tag_fits(
                custody,
                &parsed.keys,
                &encoding::anchor(parsed.body),
                parsed.tag,
            )?
        {
            custody.destroy_anchor(&object)?;
        }
    }
    Ok(())
}

/// Whether the token takes an anchor at all: what its first refusal means.
pub(crate) fn first_refusal(custody: &mut dyn Custody, error: Error) -> Error {
    match error {
        Error::Unavailable { reason, .. } if custody.probe().is_ok() => {
            Error::Misconfigured(format!(
                "the token answers and keeps no anchor ({reason}): custodyd needs a place in it that cannot be put \
                 back, a private data object (CKO_DATA). On a token without, a database that was put back would \
                 not be noticed, so custodyd does not run on it alone; docs/TOKENS.md has what each maker's \
                 tokens offer"
            ))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        anchor::{advance, newest},
        software::{SoftAnchors, SoftCustody},
    };

    fn realm() -> RealmName {
        RealmName::parse("prod.example").unwrap()
    }

    fn first() -> Anchor {
        Anchor {
            serial: 1,
            log_epoch: 1,
            seq: 1,
            head: [1; 32],
            boot_epoch: 1,
            clean: false,
            dirty: false,
        }
    }

    #[test]
    fn the_realms_anchor_and_leftovers_stay_as_they_are() {
        let anchors = SoftAnchors::default();
        let mut custody = SoftCustody::with_anchors(anchors.clone());
        advance(&mut custody, &realm(), None, &first()).unwrap();
        // What a daemon makes at this moment looks so.
        anchors.add(&[]);
        let before = custody.anchors().unwrap();
        let mut scratch = Scratch::begin(&mut custody, 1_800_000_000).unwrap();
        for _ in 0..3 {
            scratch.step(&mut custody).unwrap();
        }
        assert_eq!(custody.anchors().unwrap().len(), before.len() + 1);
        scratch.end(&mut custody).unwrap();
        assert_eq!(custody.anchors().unwrap(), before);
        assert_eq!(newest(&mut custody, &realm()).unwrap(), Some(first()));
    }

    #[test]
    fn what_a_killed_proof_left_goes_and_what_another_is_at_stays() {
        let mut custody = SoftCustody::with_anchors(SoftAnchors::default());
        let then = 1_800_000_000;
        Scratch::begin(&mut custody, then)
            .unwrap()
            .step(&mut custody)
            .unwrap();
        Scratch::begin(&mut custody, then + ABANDONED).unwrap();
        assert_eq!(custody.anchors().unwrap().len(), 1);
        Scratch::begin(&mut custody, then + ABANDONED + 1).unwrap();
        assert!(custody.anchors().unwrap().is_empty());
    }

    #[test]
    fn a_forged_scratch_anchor_is_not_removed() {
        let anchors = SoftAnchors::default();
        let mut custody = SoftCustody::with_anchors(anchors.clone());
        Scratch::begin(&mut custody, 1)
            .unwrap()
            .step(&mut custody)
            .unwrap();
        let mut forged = custody.anchors().unwrap().remove(0).content;
        *forged.last_mut().unwrap() ^= 1;
        anchors.put_back(&[]);
        anchors.add(&forged);
        Scratch::begin(&mut custody, 1_800_000_000).unwrap();
        assert_eq!(custody.anchors().unwrap().len(), 1);
    }
}
