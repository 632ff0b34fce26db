//! Cases about the keys in the token: which are accepted, which are made.

use custodyd_hsm::{
    Backend, Error, KeyId, KeyKind, KeyPurpose, Verdict,
    backend::pkcs11::{self, PinState},
    checkpoint,
};

use super::{BIND, MAC, WRAP, operations::sha256};
use crate::rig::{Labelled, Rig};

pub(crate) fn keys_are_found_with_sound_attributes(rig: &impl Rig) {
    let backend = rig.backend();
    assert_eq!(backend.epoch(), 0);
    let reports = backend.inspect().unwrap();
    assert_eq!(reports.len(), 2 + 3 * rig.objects_of_a_pair());
    for report in &reports {
        assert_eq!(report.first_bad(), None, "{report:?}");
        let value = |name| {
            let found = report.attributes.iter().find(|(n, ..)| *n == name);
            found.map(|(_, value, _)| value.as_str())
        };
        if report.kind != KeyKind::Public {
            for (name, wanted) in rig.kept() {
                assert_eq!(value(name), Some(wanted), "{report:?}");
            }
        }
        let warned = |(_, _, verdict): &_| matches!(verdict, Verdict::Warning(_));
        assert!(!report.attributes.iter().any(warned), "{report:?}");
    }
    let mut custody = backend.open().unwrap();
    assert_eq!(custody.inventory().unwrap(), reports);
    assert_eq!(backend.epoch(), 1);
    let description = backend.describe();
    assert_eq!(description.software_token, rig.is_software());
    assert!(!description.serial.is_empty() && !description.label.is_empty());
    for purpose in KeyPurpose::REQUIRED {
        assert_eq!(custody.current(purpose).unwrap(), KeyId::new(purpose, 1));
    }
    assert!(custody.holds(WRAP).unwrap());
    assert!(!custody.holds(KeyId::new(KeyPurpose::Wrap, 2)).unwrap());
}

pub(crate) fn provisioning_makes_what_is_missing_and_nothing_else(rig: &impl Rig) {
    let backend = rig.backend();
    let before = backend.provision(false).unwrap();
    assert!(before.created.is_empty(), "{before:?}");
    assert_eq!(before.existing.len(), 5);
    let kept = *backend.open().unwrap().hmac(MAC, b"x").unwrap().expose();
    drop(backend);
    rig.delete(WRAP);
    rig.delete(BIND);
    let backend = rig.backend();
    let missing = [WRAP.label(), BIND.label()];
    let dry = backend.provision(true).unwrap();
    assert!(dry.dry_run);
    assert_eq!(dry.created, missing);
    // The dry run made nothing, so there is still the same to make.
    assert_eq!(backend.provision(false).unwrap().created, missing);
    assert!(backend.provision(false).unwrap().created.is_empty());
    let mut custody = backend.open().unwrap();
    assert_eq!(custody.hmac(MAC, b"x").unwrap().expose(), &kept);
    custody.probe().unwrap();
}

/// Opening and provisioning both refuse, with this text in the sentence, and
/// the token is as it was.
fn refused(backend: &dyn Backend, texts: &[&str]) {
    // In any order: a token lists doubled objects as it likes.
    let listed = || {
        let reports = backend.inspect().unwrap();
        let mut lines: Vec<String> = reports.iter().map(|r| format!("{r:?}")).collect();
        lines.sort();
        lines
    };
    let before = listed();
    for outcome in [
        backend.open().map(|_| ()),
        backend.provision(false).map(|_| ()),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Misconfigured(_)), "{error}");
        let sentence = error.to_string();
        for text in texts {
            assert!(sentence.contains(text), "{sentence}");
        }
    }
    assert_eq!(listed(), before);
}

pub(crate) fn a_missing_key_is_named(rig: &impl Rig) {
    let webhook = KeyId::new(KeyPurpose::Webhook, 1);
    rig.delete(webhook);
    let backend = rig.backend();
    let error = backend.open().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains(&webhook.label()), "{error}");
    // The sentence says what to do, and doing it helps.
    assert!(error.to_string().contains("custodyd init"), "{error}");
    backend.provision(false).unwrap();
    backend.open().unwrap().probe().unwrap();
}

/// What a rotation asks of a token while others use it.
pub(crate) fn a_newer_key_is_made_and_an_older_one_destroyed(rig: &impl Rig) {
    let (wrap, bind) = (
        KeyId::new(KeyPurpose::Wrap, 2),
        KeyId::new(KeyPurpose::Bind, 2),
    );
    let backend = rig.backend();
    let (mut one, mut other) = (backend.open().unwrap(), backend.open().unwrap());
    let old = *other.hmac(WRAP, b"x").unwrap().expose();
    for key in [wrap, bind] {
        one.make_key(key).unwrap();
        assert_eq!(other.current(key.purpose).unwrap(), key);
        assert_eq!(other.versions(key.purpose).unwrap(), [1, 2]);
        let again = one.make_key(key).unwrap_err();
        assert!(matches!(again, Error::Invalid { .. }), "{again}");
    }
    assert_eq!(other.hmac(WRAP, b"x").unwrap().expose(), &old);
    let new = *other.hmac(wrap, b"x").unwrap().expose();
    assert_ne!(new, old);
    let signed = other.sign(bind, &sha256(b"x")).unwrap();
    assert!(other.public_key(bind).unwrap().verifies(b"x", &signed));
    assert!(!other.public_key(BIND).unwrap().verifies(b"x", &signed));
    for report in other.inventory().unwrap() {
        assert_eq!(report.first_bad(), None, "{report:?}");
    }
    one.probe().unwrap();
    other.probe().unwrap();
    one.destroy_key(WRAP).unwrap();
    one.destroy_key(WRAP).unwrap();
    assert!(!other.holds(WRAP).unwrap() && other.holds(wrap).unwrap());
    assert!(other.hmac(WRAP, b"x").is_err());
    let only = one.destroy_key(wrap).unwrap_err();
    assert!(matches!(only, Error::Invalid { .. }), "{only}");
    // A key that is gone on purpose is no reason to doubt the token.
    other.probe().unwrap();
    assert_eq!(backend.epoch(), 1);
    drop((one, other));
    drop(backend);
    let mut custody = rig.backend().open().unwrap();
    assert_eq!(custody.versions(KeyPurpose::Wrap).unwrap(), [2]);
    assert_eq!(custody.hmac(wrap, b"x").unwrap().expose(), &new);
}

pub(crate) fn a_doubled_secret_key_is_refused(rig: &impl Labelled) {
    rig.duplicate(WRAP);
    refused(&*rig.backend(), &[&WRAP.label(), "2 objects"]);
}

pub(crate) fn a_doubled_signing_key_is_refused(rig: &impl Labelled) {
    rig.duplicate(BIND);
    refused(
        &*rig.backend(),
        &[&BIND.label(), "2 objects", "private key"],
    );
}

pub(crate) fn an_extractable_key_is_refused(rig: &impl Rig) {
    rig.make_extractable(MAC);
    let backend = rig.backend();
    let [(spoilt, _), _] = rig.kept();
    refused(&*backend, &[&MAC.label(), spoilt]);
    let reports = backend.inspect().unwrap();
    let report = reports.iter().find(|report| report.id == MAC).unwrap();
    let bad = report.first_bad().map(|(name, _)| name);
    assert_eq!(bad, Some(spoilt), "{report:?}");
}

pub(crate) fn half_a_key_pair_is_refused(rig: &impl Labelled) {
    rig.delete_public_half(BIND);
    refused(&*rig.backend(), &[&BIND.label(), "public key"]);
}

/// A token that has served a realm and lost the key to it is not made to look whole.
pub(crate) fn a_root_that_is_gone_beside_anchors_is_not_made_anew(rig: &impl Labelled) {
    rig.delete(WRAP);
    rig.plant(b"an anchor of some realm");
    refused(&*rig.backend(), &[&WRAP.label()]);
    let error = rig.backend().provision(true).unwrap_err().to_string();
    assert!(error.contains("1 anchors"), "{error}");
    // The control: without anchors it is a token that nobody has used yet.
    rig.clear();
    assert_eq!(
        rig.backend().provision(false).unwrap().created,
        [WRAP.label()]
    );
}

pub(crate) fn a_survey_shows_the_token_and_presents_no_pin(rig: &impl Labelled) {
    let (module, _) = rig.module();
    let survey = pkcs11::survey(&module).unwrap();
    let tokens = survey
        .slots
        .iter()
        .filter_map(|slot| slot.token.clone().unwrap());
    let token = tokens
        .clone()
        .find(|token| token.label == "custodyd-test")
        .unwrap();
    assert!(token.initialized && token.software && token.login_required);
    assert_eq!(token.pin, PinState::Set);
    assert!(token.missing.is_empty(), "{token:?}");
    let labels = [
        KeyPurpose::Bind,
        KeyPurpose::Checkpoint,
        KeyPurpose::Webhook,
    ]
    .map(|purpose| KeyId::new(purpose, 1).label());
    assert_eq!(token.public_keys, labels);
    // The module is free again.
    rig.backend().open().unwrap().probe().unwrap();
    let error = pkcs11::survey(std::path::Path::new("/etc/hostname")).unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
}

/// The key of a public log: made when it is asked for and only then, and good for its own notes.
pub(crate) fn an_ed25519_key_is_made_where_it_is_asked_for(rig: &impl Labelled) {
    const ED25519: KeyPurpose = KeyPurpose::CheckpointEd25519;
    let backend = rig.backend();
    {
        let mut custody = backend.open().unwrap();
        assert_eq!(custody.newest(ED25519).unwrap(), None);
        assert!(custody.versions(ED25519).unwrap().is_empty());
        assert!(checkpoint::ed25519_keys(&mut *custody).unwrap().is_empty());
        assert!(checkpoint::sign_ed25519(&mut *custody, b"text\n").is_err());
    }
    let label = KeyId::new(ED25519, 1).label();
    let dry = backend.provision_public_log(true).unwrap();
    assert_eq!(dry.created, [label.as_str()]);
    let made = backend.provision_public_log(false).unwrap();
    assert_eq!(made.created, [label.as_str()]);
    assert!(
        backend
            .provision_public_log(false)
            .unwrap()
            .created
            .is_empty()
    );
    assert!(backend.provision(false).unwrap().created.is_empty());
    let mut custody = backend.open().unwrap();
    for report in custody.inventory().unwrap() {
        assert_eq!(report.first_bad(), None, "{report:?}");
    }
    let (signature, key) = checkpoint::sign_ed25519(&mut *custody, b"text\n").unwrap();
    assert!(key.verifies(b"text\n", &signature) && !key.verifies(b"texT\n", &signature));
    // A rotation, and the end of the older one.
    let newer = KeyId::new(ED25519, 2);
    custody.make_key(newer).unwrap();
    let keys = checkpoint::ed25519_keys(&mut *custody).unwrap();
    assert!(keys.len() == 2 && keys.first() == Some(&key) && keys.last() != Some(&key));
    let (signature, signer) = checkpoint::sign_ed25519(&mut *custody, b"text\n").unwrap();
    assert_eq!(keys.last(), Some(&signer));
    assert!(!key.verifies(b"text\n", &signature));
    custody.destroy_key(KeyId::new(ED25519, 1)).unwrap();
    assert_eq!(custody.versions(ED25519).unwrap(), [2]);
    // It signs nothing of the other kind, and the others nothing of its.
    assert!(custody.sign(newer, &sha256(b"text\n")).is_err());
    assert!(custody.sign_ed25519(BIND, b"text\n").is_err());
    custody.probe().unwrap();
    drop((custody, backend));
    let mut custody = rig.backend().open().unwrap();
    assert_eq!(custody.ed25519_key(newer).unwrap(), signer);
    custody.probe().unwrap();
}

/// A realm's head names its keys, so a token that serves one gets no key behind its back.
pub(crate) fn a_token_that_serves_a_realm_gets_its_ed25519_key_by_a_rotation(rig: &impl Labelled) {
    rig.plant(b"an anchor of some realm");
    let error = rig.backend().provision_public_log(false).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("custodyd key rotate checkpoint-ed25519"),
        "{said}"
    );
    rig.clear();
    let made = rig.backend().provision_public_log(false).unwrap();
    assert_eq!(made.created.len(), 1);
}

/// A token without the mechanism says so, and works as before.
pub(crate) fn an_ed25519_key_that_the_token_can_not_make_is_refused(rig: &impl Labelled) {
    let key = KeyId::new(KeyPurpose::CheckpointEd25519, 1);
    let backend = rig.backend();
    let mut custody = backend.open().unwrap();
    let before = custody.inventory().unwrap();
    for refused in [
        custody.make_key(key).unwrap_err(),
        backend.provision_public_log(false).unwrap_err(),
    ] {
        assert!(matches!(refused, Error::Misconfigured(_)), "{refused}");
        let said = refused.to_string();
        assert!(
            said.contains(&key.label()) && said.contains("MechanismInvalid"),
            "{said}"
        );
    }
    drop(custody);
    let mut custody = backend.open().unwrap();
    assert_eq!(custody.inventory().unwrap(), before);
    assert_eq!(custody.newest(key.purpose).unwrap(), None);
    custody.probe().unwrap();
}
