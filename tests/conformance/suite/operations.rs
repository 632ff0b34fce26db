//! Cases about what the token computes.

use std::{sync::Arc, thread};

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use custodyd_hsm::{
    AccountId, AppId, Backend, Binding, BindingKeys, BindingKind, Custody, Error, KeyId,
    KeyPurpose, RealmName, RecordId, RecordKind, WebhookCall, encoding, mac,
    seal::{self, Context},
};

use super::{BIND, MAC, WRAP};
use crate::rig::Rig;

pub(super) fn sha256(message: &[u8]) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, message);
    hash.as_ref().try_into().unwrap()
}

fn custody(rig: &impl Rig) -> Box<dyn Custody> {
    rig.backend().open().unwrap()
}

pub(crate) fn hmac_is_repeatable_and_keyed(rig: &impl Rig) {
    let mut custody = custody(rig);
    let mut answer = |key, message: &[u8]| *custody.hmac(key, message).unwrap().expose();
    let first = answer(MAC, b"message");
    assert_eq!(first, answer(MAC, b"message"));
    assert_ne!(first, answer(MAC, b"messagf"));
    assert_ne!(first, answer(WRAP, b"message"));
    assert_ne!(answer(MAC, b""), [0; 32]);
    assert_ne!(answer(MAC, &[0; 4096]), answer(MAC, &[0; 4095]));
    let long = custody.mac(MAC, &[0; 4097]);
    assert!(matches!(long, Err(Error::Invalid { .. })));
}

pub(crate) fn derivation_is_the_kdf_of_the_standard(rig: &impl Rig) {
    let mut custody = custody(rig);
    let context = sha256(b"context");
    // SP 800-108r1, section 4.1: [i]32 || Label || 0x00 || Context || [L]32.
    let block = [&[0, 0, 0, 1], &b"label"[..], &[0], &context, &[0, 0, 1, 0]].concat();
    let by_hand = *custody.hmac(WRAP, &block).unwrap().expose();
    assert_eq!(
        custody.derive(WRAP, b"label", &context).unwrap().expose(),
        &by_hand
    );
    assert_ne!(
        custody.derive(WRAP, b"labem", &context).unwrap().expose(),
        &by_hand
    );
    let other = sha256(b"other");
    assert_ne!(
        custody.derive(WRAP, b"label", &other).unwrap().expose(),
        &by_hand
    );
}

pub(crate) fn signatures_verify_on_the_host(rig: &impl Rig) {
    let mut custody = custody(rig);
    for purpose in [
        KeyPurpose::Bind,
        KeyPurpose::Checkpoint,
        KeyPurpose::Webhook,
    ] {
        let key = KeyId::new(purpose, 1);
        let public = custody.public_key(key).unwrap();
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public.as_point());
        // Often enough that an r or s with a leading zero byte is among them.
        for number in 0..300_u32 {
            let message = number.to_be_bytes();
            let signature = custody.sign(key, &sha256(&message)).unwrap();
            verifier.verify(&message, &signature).unwrap();
            assert!(verifier.verify(b"another", &signature).is_err());
        }
    }
    let one = custody.public_key(BIND).unwrap();
    let two = custody
        .public_key(KeyId::new(KeyPurpose::Webhook, 1))
        .unwrap();
    assert_ne!(one, two);
}

pub(crate) fn keys_do_only_what_they_are_for(rig: &impl Rig) {
    let mut custody = custody(rig);
    let invalid = |error: &Error| matches!(error, Error::Invalid { .. });
    assert!(invalid(&custody.derive(MAC, b"l", &[0; 32]).unwrap_err()));
    assert!(invalid(&custody.mac(WRAP, b"m").unwrap_err()));
    let absent = KeyId::new(KeyPurpose::Wrap, 7);
    for error in [
        custody.hmac(absent, b"m").unwrap_err(),
        custody.hmac(BIND, b"m").unwrap_err(),
        custody.sign(MAC, &[0; 32]).unwrap_err(),
        custody.public_key(WRAP).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    }
    // None of that harmed the session.
    custody.probe().unwrap();
}

pub(crate) fn random_bytes_differ(rig: &impl Rig) {
    let mut custody = custody(rig);
    let (mut one, mut two) = ([0; 3000], [0; 3000]);
    custody.random(&mut one).unwrap();
    custody.random(&mut two).unwrap();
    assert_ne!(one, two);
    assert!(one.chunks(100).all(|chunk| chunk != [0; 100]));
    custody.random(&mut []).unwrap();
}

pub(crate) fn records_open_for_their_own_context_only(rig: &impl Rig) {
    let mut custody = custody(rig);
    let (realm, other_realm) = (name("realm"), name("realm2"));
    let (app, other_app) = (AppId::parse("app").unwrap(), AppId::parse("app2").unwrap());
    let record = mac::record_id(&mut *custody, &realm, &app, RecordKind::Account, b"a").unwrap();
    let other = mac::record_id(&mut *custody, &realm, &app, RecordKind::Account, b"b").unwrap();
    assert_ne!(record, other);
    let own = Context {
        realm: &realm,
        app: &app,
        kind: RecordKind::Account,
        record: &record,
        generation: 3,
    };
    let sealed = seal::seal(&mut *custody, &own, b"data").unwrap();
    let opened = seal::open(&mut *custody, &own, &sealed).unwrap();
    assert_eq!(opened.expose(), b"data");
    for wrong in [
        Context {
            realm: &other_realm,
            ..own
        },
        Context {
            app: &other_app,
            ..own
        },
        Context {
            kind: RecordKind::Tombstone,
            ..own
        },
        Context {
            record: &other,
            ..own
        },
        Context {
            generation: 2,
            ..own
        },
        Context {
            generation: 4,
            ..own
        },
    ] {
        let error = seal::open(&mut *custody, &wrong, &sealed).unwrap_err();
        assert!(
            matches!(error, Error::Tampered { .. }),
            "{wrong:?}: {error}"
        );
    }
    for at in [0, 3, 5, 6, 21, 22, 600, sealed.len() - 1] {
        let mut bytes = sealed.clone();
        bytes[at] ^= 0x10;
        assert!(seal::open(&mut *custody, &own, &bytes).is_err(), "{at}");
    }
}

fn name(text: &str) -> RealmName {
    RealmName::parse(text).unwrap()
}

pub(crate) fn bindings_verify_under_the_published_keys(rig: &impl Rig) {
    let mut custody = custody(rig);
    let binding = Binding {
        realm: name("realm"),
        app: AppId::parse("app").unwrap(),
        account: AccountId([1; 16]),
        device_id: "device".to_owned(),
        kind: BindingKind::AppKey,
        issued: 1_800_000_000,
    };
    let jws = custodyd_hsm::binding::sign(&mut *custody, &binding).unwrap();
    let keys = BindingKeys::load(&mut *custody).unwrap();
    assert_eq!(keys.verify(&jws).unwrap(), binding);
    let kid = custody.public_key(BIND).unwrap().thumbprint();
    assert_eq!(keys.keys().last().unwrap().thumbprint(), kid);
    // Another key of the same token signs no bindings.
    let webhook = custody
        .public_key(KeyId::new(KeyPurpose::Webhook, 1))
        .unwrap();
    assert!(BindingKeys::from_keys(vec![webhook]).verify(&jws).is_err());
}

pub(crate) fn webhook_calls_verify_under_the_published_keys(rig: &impl Rig) {
    let mut custody = custody(rig);
    let call = WebhookCall::new(name("realm"), "https://a.example", 1, [3; 16], b"body").unwrap();
    let jws = custodyd_hsm::webhook::sign(&mut *custody, &call).unwrap();
    let (input, signature) = jws.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let signature: [u8; 64] = signature.try_into().unwrap();
    let keys = custodyd_hsm::webhook::keys(&mut *custody).unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].verifies(input.as_bytes(), &signature));
    // Another key of the same token signs no calls.
    let bind = custody.public_key(BIND).unwrap();
    assert!(!bind.verifies(input.as_bytes(), &signature));
}

pub(crate) fn what_was_sealed_opens_after_a_restart(rig: &impl Rig) {
    let realm = name("realm");
    let record = RecordId([4; 32]);
    let app = AppId::parse("app").unwrap();
    let context = Context {
        realm: &realm,
        app: &app,
        kind: RecordKind::Alias,
        record: &record,
        generation: 1,
    };
    let sealed = seal::seal(&mut *custody(rig), &context, b"kept").unwrap();
    // The first backend is gone: module finalized, sessions closed.
    let opened = seal::open(&mut *custody(rig), &context, &sealed).unwrap();
    assert_eq!(opened.expose(), b"kept");
}

pub(crate) fn many_threads_get_their_own_answers(rig: &impl Rig) {
    let backend = rig.backend();
    let single = Arc::new(answers(&*backend));
    let threads: Vec<_> = (0..6)
        .map(|_| {
            let (backend, single) = (Arc::clone(&backend), Arc::clone(&single));
            thread::spawn(move || assert_eq!(answers(&*backend), *single))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(backend.epoch(), 1);
}

fn answers(backend: &dyn Backend) -> Vec<[u8; 32]> {
    let mut custody = backend.open().unwrap();
    let statement = |n: u64| encoding::session_epoch_key(&name("realm"), n);
    (0..200)
        .map(|n| *custody.mac(MAC, &statement(n)).unwrap().expose())
        .collect()
}
