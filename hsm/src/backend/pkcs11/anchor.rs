//! Anchors as data objects (CKO_DATA) of the token.
//!
//! Called by `session`. This file lists, adds and removes bytes under one
//! label; what they mean, which of them counts and which may go is decided
//! above. It never touches an object of another class or label.

use std::collections::BTreeSet;

use cryptoki::{
    error::{Error as Pkcs11Error, RvError},
    object::{Attribute, AttributeInfo, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};

use super::{
    mechanism::{Attempt, Trouble},
    provision::is_about_the_template,
};
use crate::{
    custody::{AnchorHandle, AnchorObject, MAX_ANCHOR},
    encoding::realm_of_anchor,
    id::SCRATCH_REALMS,
    report::TokenDescription,
};

const APPLICATION: &[u8] = b"custodyd";
/// One label for all realms of a token: the realm stands in the content.
const LABEL: &[u8] = b"custodyd-anchor-v1";
/// How often a list is made anew when an object vanished beneath it.
const TRIES: usize = 4;

/// A listed object, by the handle that this process knows it by.
pub(super) type Seen = (ObjectHandle, AnchorObject);

/// What tells our objects from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Private data objects: without a login nobody makes, sees or destroys one.
    Private,
    /// The opaque objects of a YubiHSM 2. It knows no private ones, and tells of none for what application
    /// it is; every session with it is authenticated, so that they are not open to others either.
    Opaque,
}

impl Place {
    pub(super) fn of(token: &TokenDescription) -> Self {
        match token.manufacturer.starts_with("Yubico") {
            true => Self::Opaque,
            false => Self::Private,
        }
    }

    /// The class comes first: modules compare in this order, and it is the cheapest to compare.
    fn template(self) -> Vec<Attribute> {
        let class = Attribute::Class(ObjectClass::DATA);
        let label = Attribute::Label(LABEL.to_vec());
        match self {
            Self::Private => vec![
                class,
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Application(APPLICATION.to_vec()),
                label,
            ],
            Self::Opaque => vec![class, label],
        }
    }
}

/// Lists the objects. Another process may remove one between the search and
/// the reading; the codes for that are not portable, so the list is made again.
pub(super) fn list(session: &Session, place: Place, epoch: u64) -> Attempt<Vec<Seen>> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let listed: Attempt<Vec<_>> = session
            .find_objects(&place.template())?
            .into_iter()
            .map(|handle| Ok((handle, read(session, handle, epoch)?)))
            .collect();
        if tries == 0 || listed.is_ok() {
            return listed;
        }
    }
}

fn read(session: &Session, object: ObjectHandle, epoch: u64) -> Attempt<AnchorObject> {
    let size = size(session, object)?;
    let content = match usize::try_from(size) {
        Ok(1..=MAX_ANCHOR) => content(session, object)?,
        _ => Vec::new(),
    };
    let handle = AnchorHandle {
        epoch,
        object: object.handle(),
    };
    Ok(AnchorObject {
        handle,
        size,
        content,
    })
}

/// The size before the content, so that no object makes us allocate at will.
fn size(session: &Session, object: ObjectHandle) -> Attempt<u64> {
    let told = session.get_attribute_info(object, &[AttributeType::Value])?;
    Ok(match told.first() {
        Some(AttributeInfo::Available(size)) => u64::try_from(*size).unwrap_or(u64::MAX),
        _ => u64::MAX,
    })
}

fn content(session: &Session, object: ObjectHandle) -> Attempt<Vec<u8>> {
    let found = session.get_attributes(object, &[AttributeType::Value])?;
    let value = found.into_iter().find_map(|attribute| match attribute {
        Attribute::Value(bytes) if bytes.len() <= MAX_ANCHOR => Some(bytes),
        _ => None,
    });
    value.ok_or_else(|| Trouble::Sick("a data object without its value".to_owned()))
}

/// Whether a list lacks what was seen before, and not because others went on: who makes an anchor destroys the older ones of
/// the same realm, and no realm gives its last one up. What a proof of the token leaves and removes is nobody's.
pub(super) fn some_are_missed(seen: &[Seen], listed: &[Seen]) -> bool {
    let contents = |of: &[Seen]| {
        of.iter()
            .map(|(_, object)| object.content.clone())
            .collect()
    };
    are_missed(contents(seen), contents(listed))
}

fn are_missed(seen: Vec<Vec<u8>>, listed: Vec<Vec<u8>>) -> bool {
    let all_are_gone = listed.is_empty() && !seen.is_empty();
    all_are_gone || !realms(&seen).is_subset(&realms(&listed))
}

fn realms(of: &[Vec<u8>]) -> BTreeSet<&str> {
    of.iter()
        .filter_map(|content| realm_of_anchor(content))
        .filter(|realm| !realm.starts_with(SCRATCH_REALMS))
        .collect()
}

/// One object more. `in_files` is a token that writes an object's file anew for each attribute that C_CreateObject
/// gives it: SoftHSM2, twelve times. There it is made in the module's memory, which writes nothing, and copied into the token,
/// which writes three times; no search finds it before the last. A crash leaves a file that none ever finds, as
/// one within C_CreateObject does. Where the copy is refused, the object is made in the token.
pub(super) fn create(
    session: &Session,
    place: Place,
    in_files: bool,
    content: &[u8],
) -> Attempt<()> {
    let mut object = place.template();
    object.push(Attribute::Value(content.to_vec()));
    if in_files {
        match copied(session, &object) {
            // Anything else may have made it: a second one would be there for good.
            Err(Pkcs11Error::Pkcs11(code, _)) if is_refusal(code) => {}
            copied => return Ok(copied?),
        }
    }
    session.create_object(&object)?;
    Ok(())
}

/// The module does not copy such an object, and has made none.
fn is_refusal(code: RvError) -> bool {
    is_about_the_template(code)
        || matches!(
            code,
            RvError::FunctionNotSupported | RvError::ActionProhibited
        )
}

/// The object, by way of one of this session.
fn copied(session: &Session, object: &[Attribute]) -> Result<(), Pkcs11Error> {
    let in_memory: Vec<Attribute> = object
        .iter()
        .map(|attribute| match attribute {
            Attribute::Token(_) => Attribute::Token(false),
            other => other.clone(),
        })
        .collect();
    let draft = session.create_object(&in_memory)?;
    let copied = session.copy_object(draft, &[Attribute::Token(true)]);
    let _ = session.destroy_object(draft);
    copied.map(drop)
}

/// Removes the object if its handle still leads to what was listed: a handle
/// may have been given to another object meanwhile, and that could be a key.
/// What was `seen` in the newest list needs no search.
pub(super) fn destroy(
    session: &Session,
    place: Place,
    (object, seen): (&AnchorObject, &[Seen]),
) -> Attempt<()> {
    let wanted = |handle: &ObjectHandle| handle.handle() == object.handle.object;
    if let Some(handle) = seen.iter().map(|(handle, _)| *handle).find(wanted)
        && is_still(session, place, handle, object)
    {
        session.destroy_object(handle)?;
        return Ok(());
    }
    let found = session.find_objects(&place.template())?;
    let Some(handle) = found.into_iter().find(wanted) else {
        return Ok(());
    };
    if read(session, handle, object.handle.epoch)? == *object {
        session.destroy_object(handle)?;
    }
    Ok(())
}

/// Whether everything that tells our objects from others is there, and the content. Where the token does not say,
/// it is not: a search finds out.
pub(super) fn is_still(
    session: &Session,
    place: Place,
    handle: ObjectHandle,
    object: &AnchorObject,
) -> bool {
    let mut expected = place.template();
    expected.push(Attribute::Value(object.content.clone()));
    let kinds: Vec<AttributeType> = expected.iter().map(Attribute::attribute_type).collect();
    session
        .get_attributes(handle, &kinds)
        .is_ok_and(|found| expected.iter().all(|one| found.contains(one)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yubihsm_keeps_anchors_that_are_not_private() {
        let made_by = |manufacturer: &str| {
            let manufacturer = manufacturer.to_owned();
            Place::of(&TokenDescription {
                manufacturer,
                ..TokenDescription::default()
            })
        };
        assert_eq!(made_by("Yubico (www.yubico.com)"), Place::Opaque);
        for other in [
            "SoftHSM project",
            "Kryoptic Project",
            "SafeNet",
            "",
            "not Yubico",
        ] {
            let place = made_by(other);
            assert_eq!(place, Place::Private, "{other}");
            assert!(place.template().contains(&Attribute::Private(true)));
        }
    }

    fn anchor((realm, serial): &(&str, u8)) -> Vec<u8> {
        let length = u32::try_from(realm.len()).unwrap().to_be_bytes();
        [b"CDA\x01", &length[..], realm.as_bytes(), &[*serial]].concat()
    }

    #[test]
    fn a_realm_whose_anchors_are_gone_is_missed_beside_any_other() {
        let missed = |before: &[(&str, u8)], now: &[(&str, u8)]| {
            let made = |of: &[(&str, u8)]| of.iter().map(anchor).collect();
            are_missed(made(before), made(now))
        };
        let (a, b) = (("a.example", 1), ("b.example", 2));
        assert!(missed(&[a, b], &[b]));
        assert!(missed(&[a, b], &[]));
        // Also while the other goes on.
        assert!(missed(&[a, b], &[("b.example", 3)]));
        // The control: all have gone on, or one is new.
        assert!(!missed(&[a, b], &[("a.example", 4), ("b.example", 3)]));
        assert!(!missed(&[a], &[a, b]));
        assert!(!missed(&[], &[]));
        // A proof of the token, beside which a daemon has listed, removes what was its own.
        let proof = ("custodyd-scratch-0123456789abcdef", 5);
        assert!(!missed(&[a, proof], &[a]));
        // What is no anchor is missed only where nothing is shown at all.
        let rubbish = || b"CDX".to_vec();
        assert!(!are_missed(vec![rubbish(), anchor(&a)], vec![anchor(&a)]));
        assert!(are_missed(vec![rubbish()], vec![]));
    }
}
