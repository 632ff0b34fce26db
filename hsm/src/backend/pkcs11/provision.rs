//! Making the keys that are missing.
//!
//! Called by `init` through [`crate::Backend::provision`], and `make` for a newer version as well. It never deletes,
//! overwrites or mends: a key that is double or wrong stops it before it
//! begins, because the right answer depends on what is sealed under which key.

use cryptoki::{mechanism::Mechanism, object::Attribute, session::Session};

use super::{attributes::P256, keys::Scan, mechanism::Attempt};
use crate::{
    backend::origin as origins, error::Error, id::KeyId, report::ProvisionReport,
    root_keys::KeyOrigin,
};

pub(super) fn run(session: &Session, origin: KeyOrigin, dry_run: bool) -> Attempt<ProvisionReport> {
    let before = Scan::of(session, origin)?;
    refuse(&before)?;
    if !before.missing().is_empty() {
        origins::refuse_imported(origin)?;
    }
    let mut existing: Vec<String> = before.reports().into_iter().map(|r| r.label).collect();
    existing.dedup();
    let mut created = Vec::new();
    for purpose in before.missing() {
        let key = KeyId::new(purpose, 1);
        if !dry_run {
            make(session, key)?;
        }
        created.push(key.label());
    }
    if !dry_run {
        // What was made is judged like what was found.
        let after = Scan::of(session, origin)?;
        refuse(&after)?;
        after.table()?;
    }
    Ok(ProvisionReport {
        created,
        existing,
        dry_run,
    })
}

pub(super) fn refuse(scan: &Scan) -> Result<(), Error> {
    let problems = scan.problems();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Misconfigured(format!(
        "nothing was changed, because keys in the token are not sound: {}",
        problems.join("; ")
    )))
}

pub(super) fn make(session: &Session, key: KeyId) -> Attempt<()> {
    if key.purpose.is_symmetric() {
        let mut template = secret(key);
        template.push(Attribute::ValueLen(32.into()));
        session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        return Ok(());
    }
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public(key), &private(key))?;
    Ok(())
}

/// What a secret key of ours is, apart from its bytes.
pub(super) fn secret(key: KeyId) -> Vec<Attribute> {
    let mut template = kept(key);
    template.extend([
        Attribute::Sign(true),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]);
    template
}

/// What the public half of a pair is, apart from its point.
pub(super) fn public(key: KeyId) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Id(key.label().into_bytes()),
        Attribute::Label(key.label().into_bytes()),
    ]
}

/// What the private half is, apart from its number.
pub(super) fn private(key: KeyId) -> Vec<Attribute> {
    let mut template = kept(key);
    template.extend([
        Attribute::Id(key.label().into_bytes()),
        Attribute::Sign(true),
        // Some tokens would set this one by themselves.
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]);
    template
}

fn kept(key: KeyId) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(key.label().into_bytes()),
    ]
}
