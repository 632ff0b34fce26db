//! Making the keys that are missing.
//!
//! Called by `init` and `token provision` through [`crate::Backend::provision`], and [`make`] for a newer version as
//! well. It never overwrites or mends, and deletes nothing but a key that it has made a moment before and found unfit:
//! a key that is double or wrong stops it before it begins, because the right answer depends on what is sealed under
//! which key.

use cryptoki::{
    error::{Error as Pkcs11Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectHandle},
    session::Session,
};

use super::{
    anchor::{self, Place},
    attributes::{ED25519, EDWARDS25519, P256, examine},
    keys::Scan,
    mechanism::{Attempt, Trouble},
};
use crate::{
    backend::origin as origins,
    error::Error,
    id::{KeyId, KeyPurpose},
    report::{KeyKind, ProvisionReport},
    root_keys::KeyOrigin,
};

pub(super) fn run(
    session: &Session,
    place: Place,
    origin: KeyOrigin,
    dry_run: bool,
) -> Attempt<ProvisionReport> {
    let before = Scan::of(session, origin)?;
    refuse(&before)?;
    refuse_a_loss(&before, session, place)?;
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

/// The Ed25519 key of checkpoints, where there is none. A realm that is served has its keys named by
/// its head, so that one is added to it by a rotation.
pub(super) fn public_log(
    session: &Session,
    place: Place,
    origin: KeyOrigin,
    dry_run: bool,
) -> Attempt<ProvisionReport> {
    let key = KeyId::new(KeyPurpose::CheckpointEd25519, 1);
    let before = Scan::of(session, origin)?;
    refuse(&before)?;
    if !before.knows(key.purpose) {
        origins::refuse_unescrowed(origin, key)?;
    }
    let mut report = ProvisionReport {
        dry_run,
        ..ProvisionReport::default()
    };
    if before.knows(key.purpose) {
        return Ok(report);
    }
    if anchor::list(session, place, 0).is_ok_and(|anchors| !anchors.is_empty()) {
        return Err(Trouble::Final(Error::Misconfigured(format!(
            "{key} was not made: the token serves a realm already, and its log must name the key before it is used; \
             `custodyd key rotate {}` makes it",
            key.purpose.name()
        ))));
    }
    if !dry_run {
        make(session, key)?;
        let after = Scan::of(session, origin)?;
        refuse(&after)?;
        after.table()?;
    }
    report.created.push(key.label());
    Ok(report)
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

/// Anchors and no root: the token has served a realm and lost the key to it. Another root of the
/// same name would hide that.
fn refuse_a_loss(scan: &Scan, session: &Session, place: Place) -> Result<(), Error> {
    let roots = scan.missing().into_iter().filter(|p| p.is_symmetric());
    let lost: Vec<String> = roots.map(|p| KeyId::new(p, 1).label()).collect();
    // A token that keeps no data objects has no anchors either.
    let anchors = anchor::list(session, place, 0).map_or(0, |anchors| anchors.len());
    if lost.is_empty() || anchors == 0 {
        return Ok(());
    }
    Err(Error::Misconfigured(format!(
        "nothing was changed: the token holds {anchors} anchors of a realm, so it has served one, and its key {} \
         is gone. Bring the token back from its own backup; for a new realm take a token without anchors",
        lost.join(" and ")
    )))
}

/// By the fullest template that the module takes. Modules refuse attributes that they do not know,
/// or that follow from the kind of key; each attempt is judged by what came of it.
pub(super) fn make(session: &Session, key: KeyId) -> Attempt<()> {
    let mut refused = Vec::new();
    for form in Form::ALL {
        if form.hmac && !key.purpose.is_symmetric() || form.oid && !key.purpose.is_ed25519() {
            continue;
        }
        match generate(session, key, form) {
            Ok(objects) => match judged(session, key, &objects)? {
                None => return Ok(()),
                Some(why) => {
                    // Made in this call, unused, and its handle is at hand.
                    for (object, _) in objects {
                        session.destroy_object(object)?;
                    }
                    refused.push(why);
                }
            },
            Err(Pkcs11Error::Pkcs11(code, _))
                if is_about_the_template(code) || key.purpose.is_ed25519() && is_unknown(code) =>
            {
                refused.push(format!("{code:?}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Trouble::Final(Error::Misconfigured(format!(
        "the token does not make a key {key} as custodyd needs it ({}); docs/TOKENS.md has what is known of \
         each maker's tokens",
        refused.join("; ")
    ))))
}

pub(super) fn is_about_the_template(code: RvError) -> bool {
    matches!(
        code,
        RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::AttributeReadOnly
            | RvError::TemplateInconsistent
            | RvError::TemplateIncomplete
            | RvError::KeyTypeInconsistent
            | RvError::ArgumentsBad
    )
}

/// A token need not have the mechanism or the curve of an Ed25519 key.
fn is_unknown(code: RvError) -> bool {
    matches!(
        code,
        RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::FunctionNotSupported
    )
}

/// What to say in a template.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Name the key type CKK_SHA256_HMAC, and do not leave it to the mechanism.
    hmac: bool,
    /// Leave out what the key must not do: the module's defaults are then judged.
    short: bool,
    /// Name the curve of an Ed25519 key by its object identifier, and not by its name.
    oid: bool,
}

impl Form {
    pub(super) const FULLEST: Self = Self::new(false, false, false);
    const ALL: [Self; 6] = [
        Self::FULLEST,
        Self::new(true, false, false),
        Self::new(false, false, true),
        Self::new(false, true, false),
        Self::new(true, true, false),
        Self::new(false, true, true),
    ];

    const fn new(hmac: bool, short: bool, oid: bool) -> Self {
        Self { hmac, short, oid }
    }
}

type Made = Vec<(ObjectHandle, KeyKind)>;

fn generate(session: &Session, key: KeyId, form: Form) -> Result<Made, Pkcs11Error> {
    if key.purpose.is_symmetric() {
        let mut template = secret(key, form);
        template.push(Attribute::ValueLen(32.into()));
        if form.hmac {
            template.push(Attribute::KeyType(KeyType::SHA256_HMAC));
        }
        let made = session.generate_key(&Mechanism::GenericSecretKeyGen, &template)?;
        return Ok(vec![(made, KeyKind::Secret)]);
    }
    let (public, private) = pair(key, form);
    let mechanism = match key.purpose.is_ed25519() {
        false => Mechanism::EccKeyPairGen,
        true => Mechanism::EccEdwardsKeyPairGen,
    };
    let made = session.generate_key_pair(&mechanism, &public, &private)?;
    Ok(vec![(made.0, KeyKind::Public), (made.1, KeyKind::Private)])
}

/// The first attribute that spoils what was made.
fn judged(session: &Session, key: KeyId, objects: &Made) -> Attempt<Option<String>> {
    for (object, kind) in objects {
        let (report, _) = examine(session, *object, key, (*kind, KeyOrigin::Token))?;
        if let Some((name, why)) = report.first_bad() {
            return Ok(Some(format!("{name}: {why}")));
        }
    }
    Ok(None)
}

/// What a secret key of ours is, apart from its bytes.
pub(super) fn secret(key: KeyId, form: Form) -> Vec<Attribute> {
    let mut template = kept(key);
    template.extend([Attribute::Sign(true), Attribute::Verify(true)]);
    if !form.short {
        template.extend([
            Attribute::Encrypt(false),
            Attribute::Decrypt(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ]);
    }
    template
}

/// What a pair of ours is, public and private half, apart from its point and its number.
pub(super) fn pair(key: KeyId, form: Form) -> (Vec<Attribute>, Vec<Attribute>) {
    let name = key.label().into_bytes();
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Verify(true),
        Attribute::EcParams(curve(key, form)),
        Attribute::Label(name.clone()),
    ];
    let mut private = kept(key);
    private.push(Attribute::Sign(true));
    if !form.short {
        public.extend([Attribute::Private(false), Attribute::Id(name.clone())]);
        private.extend([
            Attribute::Id(name),
            // Some tokens would set this one by themselves.
            Attribute::SignRecover(false),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ]);
    }
    (public, private)
}

fn curve(key: KeyId, form: Form) -> Vec<u8> {
    match (key.purpose.is_ed25519(), form.oid) {
        (false, _) => P256.to_vec(),
        (true, false) => EDWARDS25519.to_vec(),
        (true, true) => ED25519.to_vec(),
    }
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
