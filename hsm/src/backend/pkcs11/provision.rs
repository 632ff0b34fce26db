//! Making the keys that are missing.
//!
//! Called by `init` through [`crate::Backend::provision`], and `make` for a newer version as well. It never deletes,
//! overwrites or mends: a key that is double or wrong stops it before it
//! begins, because the right answer depends on what is sealed under which key.

use cryptoki::{mechanism::Mechanism, object::Attribute, session::Session};

use super::{attributes::P256, keys::Scan, mechanism::Attempt};
use crate::{error::Error, id::KeyId, report::ProvisionReport};

pub(super) fn run(session: &Session, dry_run: bool) -> Attempt<ProvisionReport> {
    let before = Scan::of(session)?;
    refuse(&before)?;
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
        let after = Scan::of(session)?;
        refuse(&after)?;
        after.table()?;
    }
    Ok(ProvisionReport {
        created,
        existing,
        dry_run,
    })
}

fn refuse(scan: &Scan) -> Result<(), Error> {
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
    let label = Attribute::Label(key.label().into_bytes());
    if key.purpose.is_symmetric() {
        let mut template = kept(&label);
        template.extend([
            Attribute::ValueLen(32.into()),
            Attribute::Sign(true),
            Attribute::Verify(true),
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ]);
        session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        return Ok(());
    }
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Id(key.label().into_bytes()),
        label.clone(),
    ];
    let mut private = kept(&label);
    private.extend([
        Attribute::Id(key.label().into_bytes()),
        Attribute::Sign(true),
        // Some tokens would set this one by themselves.
        Attribute::SignRecover(false),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ]);
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
    Ok(())
}

fn kept(label: &Attribute) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        label.clone(),
    ]
}
