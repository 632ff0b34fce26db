//! Bringing root keys in that an escrow has made or opened.
//!
//! Called through [`crate::Backend::import`], by people, never by a daemon. The bytes go in by
//! C_CreateObject, as keys that are sensitive and not extractable from the first moment on. Modules that take no
//! plain key refuse that; then nothing is there. It deletes nothing: what a cut-off import has left is named.

use cryptoki::{
    object::{Attribute, KeyType, ObjectClass},
    session::Session,
};
use zeroize::Zeroizing;

use super::{
    attributes::{P256, Public},
    keys::Scan,
    mechanism::{self, Attempt},
    provision::{self, Form},
};
use crate::{
    backend::{known_answer::sha256, origin},
    encoding,
    id::KeyId,
    report::{KeyKind, ProvisionReport},
    root_keys::{KeyOrigin, RootKey, RootKeys},
};

pub(super) fn run(session: &Session, keys: &RootKeys, dry_run: bool) -> Attempt<ProvisionReport> {
    let before = Scan::of(session, KeyOrigin::Imported)?;
    let there: Vec<String> = before.reports().into_iter().map(|r| r.label).collect();
    if let Some(label) = there.first() {
        return Err(origin::refuse_occupied(label).into());
    }
    let created = keys.iter().map(|key| key.id.label()).collect();
    if !dry_run {
        for key in keys.iter() {
            create(session, key)?;
        }
        // What came in is judged like what was found.
        let after = Scan::of(session, KeyOrigin::Imported)?;
        provision::refuse(&after)?;
        after.table()?.answers(session)?;
    }
    Ok(ProvisionReport {
        created,
        existing: Vec::new(),
        dry_run,
    })
}

/// Beside keys that are there: each of these that is must be the very same, and the others come in.
pub(super) fn missing(
    session: &Session,
    keys: &RootKeys,
    dry_run: bool,
) -> Attempt<ProvisionReport> {
    let before = Scan::of(session, KeyOrigin::Imported)?;
    provision::refuse(&before)?;
    let gap = before.missing().into_iter();
    let gap = gap.filter(|purpose| keys.iter().all(|key| key.id.purpose != *purpose));
    let gap: Vec<String> = gap.map(|p| KeyId::new(p, 1).label()).collect();
    if !gap.is_empty() {
        return Err(origin::refuse_a_gap(&gap).into());
    }
    let mut report = ProvisionReport {
        dry_run,
        ..ProvisionReport::default()
    };
    let mut wanted = Vec::new();
    for key in keys.iter() {
        let label = key.id.label();
        match standing(session, &before, key)? {
            There::Whole => report.existing.push(label),
            There::Other => return Err(origin::refuse_another(&label).into()),
            there => {
                report.created.push(label);
                wanted.push((key, there));
            }
        }
    }
    if dry_run {
        return Ok(report);
    }
    for (key, there) in wanted {
        match (there, key.public()) {
            (There::Private, Some(_)) => create_public(session, key)?,
            _ => create(session, key)?,
        }
    }
    let after = Scan::of(session, KeyOrigin::Imported)?;
    provision::refuse(&after)?;
    after.table()?.answers(session)?;
    for key in keys.iter() {
        if standing(session, &after, key)? != There::Whole {
            return Err(origin::refuse_another(&key.id.label()).into());
        }
    }
    Ok(report)
}

/// What a token has of a key that is to be in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// The half that comes first, of an import that was cut off.
    Private,
    Whole,
    Other,
}

fn standing(session: &Session, scan: &Scan, key: &RootKey) -> Attempt<There> {
    let parts = scan.parts_of(key.id);
    let Some((kind, handle, _)) = parts.first() else {
        return Ok(There::Nothing);
    };
    let Some(point) = key.public() else {
        let tag = mechanism::hmac(session, *handle, &encoding::key_check(key.id))?;
        let same = *kind == KeyKind::Secret && tag.expose().as_slice() == key.check().check;
        return Ok(if same { There::Whole } else { There::Other });
    };
    if *kind != KeyKind::Private {
        return Ok(There::Other);
    }
    let message = encoding::known_answer();
    let signature = mechanism::ecdsa(session, *handle, &sha256(&[&message]))?;
    if !point.verifies(&message, &signature) {
        return Ok(There::Other);
    }
    let shown = parts.get(1).map(|(_, _, public)| *public);
    Ok(match shown {
        None => There::Private,
        Some(Some(Public::P256(shown))) if shown == *point => There::Whole,
        Some(_) => There::Other,
    })
}

fn create(session: &Session, key: &RootKey) -> Attempt<()> {
    // The library's attribute owns its bytes; the copy that it makes of them for the call is its own.
    let value = Zeroizing::new(key.expose().to_vec());
    if key.public().is_none() {
        let mut template = provision::secret(key.id, Form::FULLEST);
        template.extend([
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Value(value.to_vec()),
        ]);
        return add(session, template);
    }
    let (_, mut private) = provision::pair(key.id, Form::FULLEST);
    private.extend([
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Value(value.to_vec()),
    ]);
    add(session, private)?;
    create_public(session, key)
}

/// The half that everybody may know.
fn create_public(session: &Session, key: &RootKey) -> Attempt<()> {
    let Some(point) = key.public() else {
        return Ok(());
    };
    let (mut public, _) = provision::pair(key.id, Form::FULLEST);
    public.extend([
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::EC),
        // The DER of an octet string of 65 bytes.
        Attribute::EcPoint([&[0x04, 0x41], &point.as_point()[..]].concat()),
    ]);
    add(session, public)
}

/// Makes one object, and wipes the template's secret.
fn add(session: &Session, mut template: Vec<Attribute>) -> Attempt<()> {
    let done = session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(bytes) = attribute {
            zeroize::Zeroize::zeroize(bytes);
        }
    }
    done?;
    Ok(())
}
