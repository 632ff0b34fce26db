//! Working copies: SoftHSM2's keys as session objects, which it finds in its memory.
//!
//! Called by `epoch` when the keys of a token were found sound. SoftHSM2 looks at a key's file each time that
//! the key is used: five files are opened and locked fifteen times for an HMAC that takes a microsecond. A copy
//! that is no token object (C_CopyObject, PKCS#11 3.0 section 5.7.2) stays as sensitive and as little extractable as
//! the key, never leaves the module, and ends with the login. What a copy can not tell is whether the token is
//! still there: a probe asks the keys themselves, and once a second so does whoever comes first with a key.
//!
//! Other modules keep their keys at hand; there a copy would only take up room, and may be refused.

use cryptoki::{
    object::{Attribute, ObjectHandle},
    session::Session,
};

use super::{
    attributes::{TOKEN, examine},
    keys::KeyTable,
};
use crate::{
    backend::known_answer::KnownAnswers,
    id::KeyId,
    report::{KeyKind, KeyReport, TokenDescription},
    root_keys::KeyOrigin,
};

/// Not one of ours: what is looked for by label must never be found twice.
const LABEL: &[u8] = b"custodyd working copy";

/// Whether this token's keys are slow to reach and quick to copy.
pub(super) fn worth_while(token: &TokenDescription) -> bool {
    token.manufacturer.starts_with("SoftHSM project")
}

/// The same keys by their copies, where the token makes any that are as safe. They live as long as this session.
/// Those of `earlier` are used again where their key is the same object, and destroyed where it is gone.
pub(super) fn of(
    session: &Session,
    keys: &KeyTable,
    earlier: Option<(&KeyTable, &KeyTable)>,
    origin: KeyOrigin,
) -> KeyTable {
    let kept = |id: KeyId, handle: ObjectHandle| {
        let (own, copies) = earlier?;
        let same = own.handle(id)? == handle;
        same.then(|| copies.handle(id)).flatten()
    };
    let copy = |id, kind, handle| match kept(id, handle) {
        Some(copy) => copy,
        None => make(session, id, (kind, origin), handle).unwrap_or(handle),
    };
    let mut copies = KeyTable::default();
    for (id, handle) in &keys.secrets {
        let copy = copy(*id, KeyKind::Secret, *handle);
        copies.secrets.insert(*id, copy);
    }
    for (id, (handle, public)) in &keys.pairs {
        let copy = copy(*id, KeyKind::Private, *handle);
        copies.pairs.insert(*id, (copy, *public));
    }
    for (id, (handle, public)) in &keys.edwards {
        let copy = copy(*id, KeyKind::Private, *handle);
        copies.edwards.insert(*id, (copy, *public));
    }
    if let Some((own, old)) = earlier {
        for (id, copy) in old.handles() {
            let stays = copies.handle(id) == Some(copy) || own.handle(id) == Some(copy);
            if !stays {
                let _ = session.destroy_object(copy);
            }
        }
    }
    copies
}

/// The same without those that fail, or answer otherwise than their keys: there the key itself is worked with.
pub(super) fn sound(
    (session, login): (&Session, &Session),
    mut copies: KeyTable,
    (keys, answers): (&KeyTable, &KnownAnswers),
) -> KeyTable {
    let all: Vec<(KeyId, ObjectHandle)> = copies.handles().collect();
    for (id, copy) in all {
        if keys.handle(id) == Some(copy) {
            continue;
        }
        let asked = copies.only(id).answers(session);
        if !asked.is_ok_and(|said| said.refuse_another_token(answers).is_ok()) {
            tracing::warn!(key = %id, "a copy does not answer as its key does; the key itself is used");
            copies.put(id, keys);
            let _ = login.destroy_object(copy);
        }
    }
    copies
}

/// One copy. None where the token refuses it, or makes one that is less safe than the key.
fn make(
    session: &Session,
    id: KeyId,
    (kind, origin): (KeyKind, KeyOrigin),
    key: ObjectHandle,
) -> Option<ObjectHandle> {
    let template = [
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Label(LABEL.to_vec()),
    ];
    let copy = session.copy_object(key, &template).ok()?;
    let judged = |object| examine(session, object, id, (kind, origin));
    if let (Ok((of_key, _)), Ok((of_copy, _))) = (judged(key), judged(copy))
        && is_as_safe(&of_key, &of_copy)
    {
        return Some(copy);
    }
    tracing::warn!(key = %id, "the token made a copy that is not as safe as the key; the key itself is used");
    let _ = session.destroy_object(copy);
    None
}

/// Whether every attribute that is judged is what the key has, but for one: the copy ends with its session.
fn is_as_safe(key: &KeyReport, copy: &KeyReport) -> bool {
    key.attributes.len() == copy.attributes.len()
        && key
            .attributes
            .iter()
            .zip(&copy.attributes)
            .all(|((name, wanted, _), (other, is, _))| {
                let wanted = if *name == TOKEN { "false" } else { wanted };
                name == other && is == wanted
            })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::KeyPurpose, report::Verdict};

    fn report(attributes: &[(&'static str, &str)]) -> KeyReport {
        let id = KeyId::new(KeyPurpose::Wrap, 1);
        KeyReport {
            id,
            label: id.label(),
            kind: KeyKind::Secret,
            attributes: attributes
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned(), Verdict::Good))
                .collect(),
        }
    }

    #[test]
    fn a_copy_is_what_its_key_is_but_that_it_ends_with_the_session() {
        let key = report(&[(TOKEN, "true"), ("CKA_EXTRACTABLE", "false")]);
        let judged = |of_copy: &[(&'static str, &str)]| is_as_safe(&key, &report(of_copy));
        assert!(judged(&[(TOKEN, "false"), ("CKA_EXTRACTABLE", "false")]));
        assert!(!judged(&[(TOKEN, "false"), ("CKA_EXTRACTABLE", "true")]));
        assert!(!judged(&[(TOKEN, "true"), ("CKA_EXTRACTABLE", "false")]));
        assert!(!judged(&[(TOKEN, "false"), ("CKA_SENSITIVE", "false")]));
        assert!(!judged(&[(TOKEN, "false")]));
    }

    #[test]
    fn only_softhsm_gets_copies() {
        let made_by = |manufacturer: &str| {
            worth_while(&TokenDescription {
                manufacturer: manufacturer.to_owned(),
                ..TokenDescription::default()
            })
        };
        assert!(made_by("SoftHSM project"));
        for other in [
            "Kryoptic Project",
            "Yubico (www.yubico.com)",
            "SafeNet",
            "",
            "not SoftHSM project",
        ] {
            assert!(!made_by(other), "{other}");
        }
    }
}
