//! Wycheproof vectors inside the token: HMAC with keys that are put into it, and verification of ECDSA.
//!
//! Not through custodyd, which never imports a key and verifies on the host: this asks whether the
//! mechanisms that it builds on compute what they should. AES-GCM is not asked of a token; the host's is
//! tested beside `hsm/src/seal/aead.rs`. Through a TPM the same files go in `tpm::wycheproof`.

use std::{fs, path::Path};

use aws_lc_rs::digest;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::{Session, UserType},
    types::RawAuthPin,
};
use custodyd_tests::token::{LABEL, repository};
use serde_json::Value;

use crate::rig::Labelled;

/// DER of the object identifier of P-256 (RFC 5480, section 2.1.1.1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

pub(crate) fn vectors(name: &str, least: usize) -> Vec<Value> {
    let folder = repository().join("tests/vectors");
    let text = fs::read_to_string(folder.join(Path::new(name))).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let vectors = file["vectors"].as_array().unwrap().clone();
    assert!(vectors.len() >= least, "{name}: {}", vectors.len());
    vectors
}

pub(crate) fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    hex::decode(vector[field].as_str().unwrap()).unwrap()
}

/// Runs something on a session that is logged in.
fn logged_in(rig: &impl Labelled, work: impl FnOnce(&Session)) {
    let (module, pin) = rig.module();
    let library = Pkcs11::new(module).unwrap();
    library
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let slot = library
        .get_slots_with_token()
        .unwrap()
        .into_iter()
        .find(|slot| library.get_token_info(*slot).unwrap().label() == LABEL)
        .unwrap();
    let session = library.open_rw_session(slot).unwrap();
    let pin = RawAuthPin::new(Box::new(pin.expose().to_vec()));
    session.login_with_raw(UserType::User, &pin).unwrap();
    work(&session);
    drop(session);
    library.finalize().unwrap();
}

pub(crate) fn hmac_sha256_in_the_token(rig: &impl Labelled) {
    logged_in(rig, |session| {
        let mut seen = [0, 0];
        for vector in vectors("wycheproof_hmac_sha256.json", 80) {
            let value = bytes(&vector, "key");
            let length = value.len();
            let key = session
                .create_object(&[
                    Attribute::Class(ObjectClass::SECRET_KEY),
                    Attribute::KeyType(KeyType::GENERIC_SECRET),
                    Attribute::Token(false),
                    Attribute::Sign(true),
                    Attribute::Value(value),
                ])
                .unwrap();
            let tag = session.sign(&Mechanism::Sha256Hmac, key, &bytes(&vector, "msg"));
            session.destroy_object(key).unwrap();
            // SoftHSM2 takes no key that is shorter than the tag; custodyd makes none.
            if matches!(tag, Err(Error::Pkcs11(RvError::KeySizeRange, _))) && length < 32 {
                continue;
            }
            let valid = vector["valid"].as_bool().unwrap();
            let same = tag.unwrap() == bytes(&vector, "tag");
            assert_eq!(same, valid, "{}", vector["id"]);
            seen[usize::from(valid)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    });
}

pub(crate) fn ecdsa_p256_in_the_token(rig: &impl Labelled) {
    logged_in(rig, |session| {
        let mut seen = [0, 0];
        for vector in vectors("wycheproof_ecdsa_secp256r1_sha256_p1363.json", 250) {
            let point = bytes(&vector, "key");
            let key = session
                .create_object(&[
                    Attribute::Class(ObjectClass::PUBLIC_KEY),
                    Attribute::KeyType(KeyType::EC),
                    Attribute::Token(false),
                    Attribute::Verify(true),
                    Attribute::EcParams(P256.to_vec()),
                    Attribute::EcPoint([&[0x04, 0x41], &point[..]].concat()),
                ])
                .unwrap();
            let hash = digest::digest(&digest::SHA256, &bytes(&vector, "msg"));
            let signature = bytes(&vector, "sig");
            let verified = session.verify(&Mechanism::Ecdsa, key, hash.as_ref(), &signature);
            let valid = vector["valid"].as_bool().unwrap();
            assert_eq!(verified.is_ok(), valid, "{}: {verified:?}", vector["id"]);
            seen[usize::from(valid)] += 1;
            session.destroy_object(key).unwrap();
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    });
}
