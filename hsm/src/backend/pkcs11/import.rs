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
    attributes::P256,
    keys::Scan,
    mechanism::Attempt,
    provision::{self, Form},
};
use crate::{
    backend::origin,
    report::ProvisionReport,
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

fn create(session: &Session, key: &RootKey) -> Attempt<()> {
    // The library's attribute owns its bytes; the copy that it makes of them for the call is its own.
    let value = Zeroizing::new(key.expose().to_vec());
    let Some(point) = key.public() else {
        let mut template = provision::secret(key.id, Form::FULLEST);
        template.extend([
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Value(value.to_vec()),
        ]);
        return add(session, template);
    };
    let (mut public, mut private) = provision::pair(key.id, Form::FULLEST);
    private.extend([
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Value(value.to_vec()),
    ]);
    add(session, private)?;
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
