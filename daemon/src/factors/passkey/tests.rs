//! A small authenticator written for these tests, so that every flag, counter,
//! origin and byte can be wrong by itself. The end to end tests use another
//! implementation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::super::sha256;
use super::*;

mod mutation;
mod published;
mod registration;
mod related;

const ORIGIN: &str = "https://app.example";
const OTHER_ORIGIN: &str = "https://login.app.example:8443";
const OWNER: AccountId = AccountId([1; 16]);

const UP: u8 = 0x01;
const UV: u8 = 0x04;
const BE: u8 = 0x08;
const BS: u8 = 0x10;
const AT: u8 = 0x40;

fn policy() -> AppPolicy {
    let text = r#"
        app = "demo"
        origins = ["https://app.example", "https://login.app.example:8443"]
        [relying_party]
        id = "app.example"
    "#;
    custodyd_policies::parse("demo.toml", text).unwrap()
}

fn relying_party() -> RelyingParty {
    let realm = RealmName::parse("realm.example").unwrap();
    let app = AppId::parse("demo").unwrap();
    RelyingParty::new(&policy(), prf_salt(&realm, &app)).unwrap()
}

/// One credential in an authenticator and the browser in front of it.
struct Authenticator {
    key: EcdsaKeyPair,
    id: Vec<u8>,
    handle: Option<AccountId>,
    rp_id: &'static str,
    origin: &'static str,
    flags: u8,
    counter: u32,
    client_data: Value,
    extensions: Value,
}

impl Authenticator {
    fn new() -> Self {
        Authenticator {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            id: vec![0xc1; 32],
            handle: Some(OWNER),
            rp_id: "app.example",
            origin: ORIGIN,
            flags: UP | UV,
            counter: 0,
            client_data: json!({}),
            extensions: json!({"credProps": {"rk": true}, "prf": {"enabled": true}}),
        }
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let challenge = &options["publicKey"]["challenge"];
        let mut data = json!({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false});
        for (name, value) in self.client_data.as_object().unwrap() {
            data[name] = value.clone();
        }
        data.to_string().into_bytes()
    }

    fn cose(&self) -> Vec<u8> {
        let point = self.key.public_key().as_ref();
        let mut cose = vec![0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
        cose.extend(&point[1..33]);
        cose.extend([0x22, 0x58, 0x20]);
        cose.extend(&point[33..65]);
        cose
    }

    fn auth_data(&self, flags: u8) -> Vec<u8> {
        let mut data = sha256(&[self.rp_id.as_bytes()]).to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }

    fn create(&self, options: &Value) -> Value {
        let mut auth_data = self.auth_data(self.flags | AT);
        auth_data.extend([0; 16]);
        auth_data.extend((self.id.len() as u16).to_be_bytes());
        auth_data.extend(&self.id);
        auth_data.extend(self.cose());
        let mut object = vec![0xa3, 0x63];
        object.extend(b"fmt\x64none\x67attStmt\xa0\x68authData\x59");
        object.extend((auth_data.len() as u16).to_be_bytes());
        object.extend(auth_data);
        json!({
            "id": b64(&self.id), "rawId": b64(&self.id), "type": "public-key",
            "response": {
                "clientDataJSON": b64(&self.client_data("webauthn.create", options)),
                "attestationObject": b64(&object),
                "transports": ["internal", "internal", "hybrid", "smart-card"],
            },
            "clientExtensionResults": self.extensions,
        })
    }

    fn get(&self, options: &Value) -> Value {
        let auth_data = self.auth_data(self.flags);
        let client_data = self.client_data("webauthn.get", options);
        let mut signed = auth_data.clone();
        signed.extend(sha256(&[&client_data]));
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({
            "id": b64(&self.id), "rawId": b64(&self.id), "type": "public-key",
            "response": {
                "clientDataJSON": b64(&client_data),
                "authenticatorData": b64(&auth_data),
                "signature": b64(signature.as_ref()),
                "userHandle": self.handle.map(|handle| b64(handle.as_bytes())),
            },
            "clientExtensionResults": {"prf": {"enabled": true}},
        })
    }
}

fn register(rp: &RelyingParty, authenticator: &Authenticator) -> Result<NewPasskey, PasskeyError> {
    let (options, state) = rp.start_registration(OWNER, "ada", "Ada", &[]).unwrap();
    rp.finish_registration(&authenticator.create(&options), &state)
}

/// A login; `change` is done to the authenticator after the registration.
fn login(change: impl FnOnce(&mut Authenticator)) -> Result<Passkey, PasskeyError> {
    let rp = relying_party();
    let mut authenticator = Authenticator {
        counter: 5,
        ..Authenticator::new()
    };
    let mut passkey = register(&rp, &authenticator).unwrap().passkey;
    authenticator.counter = 6;
    change(&mut authenticator);
    let (options, state) = rp.start_authentication(&[]).unwrap();
    rp.finish_authentication(&authenticator.get(&options), &state, OWNER, &mut passkey)?;
    Ok(passkey)
}

fn code(result: Result<impl Sized, PasskeyError>) -> &'static str {
    result.err().unwrap().code()
}

#[test]
fn request_options_with_and_without_a_list() {
    let rp = relying_party();
    let (options, _) = rp.start_authentication(&[]).unwrap();
    assert!(options.get("mediation").is_none());
    assert_eq!(options["publicKey"]["allowCredentials"], json!([]));
    assert_eq!(options["publicKey"]["userVerification"], "required");
    assert_eq!(options["publicKey"]["rpId"], "app.example");
    let salt = options["publicKey"]["extensions"]["prf"]["eval"]["first"].clone();
    let (options, _) = rp.start_authentication(&[vec![1], vec![2]]).unwrap();
    assert_eq!(
        options["publicKey"]["allowCredentials"][1],
        json!({"type": "public-key", "id": "Ag"})
    );
    assert_eq!(
        options["publicKey"]["extensions"]["prf"]["eval"]["first"],
        salt
    );
}

#[test]
fn login_updates_the_counter_and_the_backup_state() {
    let passkey = login(|_| {}).unwrap();
    assert_eq!(Credential::from(passkey).counter, 6);
    let rp = relying_party();
    let mut authenticator = Authenticator {
        flags: UP | UV | BE,
        ..Authenticator::new()
    };
    let mut passkey = register(&rp, &authenticator).unwrap().passkey;
    authenticator.flags |= BS;
    let (options, state) = rp.start_authentication(&[]).unwrap();
    rp.finish_authentication(&authenticator.get(&options), &state, OWNER, &mut passkey)
        .unwrap();
    assert!(Credential::from(passkey).backup_state);
}

#[test]
fn each_defect_of_a_login_has_its_code() {
    assert_eq!(code(login(|a| a.counter = 5)), "passkey-counter");
    assert_eq!(code(login(|a| a.counter = 0)), "passkey-counter");
    assert_eq!(code(login(|a| a.flags = UP)), "passkey-user-not-verified");
    assert_eq!(code(login(|a| a.flags = UV)), "passkey-user-not-verified");
    assert_eq!(
        code(login(|a| a.flags = UP | UV | BE)),
        "passkey-backup-flags"
    );
    assert_eq!(
        code(login(|a| a.flags = UP | UV | BS)),
        "passkey-backup-flags"
    );
    assert_eq!(code(login(|a| a.rp_id = "evil.example")), "passkey-invalid");
    assert_eq!(
        code(login(|a| a.handle = Some(AccountId([2; 16])))),
        "passkey-other-account"
    );
    assert_eq!(code(login(|a| a.id = vec![2; 32])), "passkey-other-account");
    assert_eq!(
        code(login(|a| a.key = Authenticator::new().key)),
        "passkey-invalid"
    );
    assert_eq!(
        code(login(|a| a.client_data = json!({"challenge": "AAAA"}))),
        "passkey-challenge"
    );
    assert_eq!(
        code(login(|a| a.client_data = json!({"type": "webauthn.create"}))),
        "passkey-invalid"
    );
    assert_eq!(
        code(login(|a| a.client_data = json!({"crossOrigin": true}))),
        "passkey-cross-origin"
    );
    assert_eq!(
        code(login(
            |a| a.client_data = json!({"topOrigin": "https://evil.example"})
        )),
        "passkey-cross-origin"
    );
    assert!(
        login(|a| a.handle = None).is_ok(),
        "a handle is optional where a list was given"
    );
}

#[test]
fn a_failed_login_changes_nothing() {
    let rp = relying_party();
    let mut authenticator = Authenticator {
        counter: 5,
        ..Authenticator::new()
    };
    let mut passkey = register(&rp, &authenticator).unwrap().passkey;
    authenticator.counter = 9;
    authenticator.flags = UP;
    let (options, state) = rp.start_authentication(&[]).unwrap();
    assert!(
        rp.finish_authentication(&authenticator.get(&options), &state, OWNER, &mut passkey)
            .is_err()
    );
    assert_eq!(Credential::from(passkey).counter, 5);
}

#[test]
fn origins_are_exact() {
    for good in [ORIGIN, OTHER_ORIGIN] {
        assert!(login(|a| a.origin = good).is_ok(), "{good}");
    }
    for bad in [
        "https://evil.example",
        "https://sub.app.example",
        "https://login.app.example",
        "https://app.example:8443",
        "https://app.example:443",
        "https://app.example/",
        "https://app.example/path",
        "https://user@app.example",
        "https://APP.example",
        "https://app.example.",
        "http://app.example",
        "null",
        "",
    ] {
        assert_eq!(
            code(login(|a| a.origin = bad)),
            "origin-not-allowed",
            "{bad}"
        );
    }
}

#[test]
fn the_states_survive_their_sealed_form() {
    let (rp, authenticator) = (relying_party(), Authenticator::new());
    let (options, state) = rp.start_registration(OWNER, "ada", "Ada", &[]).unwrap();
    let state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
    let new = rp
        .finish_registration(&authenticator.create(&options), &state)
        .unwrap();
    let mut passkey: Passkey =
        serde_json::from_slice(&serde_json::to_vec(&new.passkey).unwrap()).unwrap();
    let (options, state) = rp.start_authentication(&[]).unwrap();
    let state = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
    rp.finish_authentication(&authenticator.get(&options), &state, OWNER, &mut passkey)
        .unwrap();
}

#[test]
fn identify_reads_the_claim_and_refuses_what_is_none() {
    let (rp, mut authenticator) = (relying_party(), Authenticator::new());
    let (options, _) = rp.start_authentication(&[]).unwrap();
    let claimed = identify(&authenticator.get(&options)).unwrap();
    assert_eq!(
        claimed,
        Asserted {
            account: Some(OWNER),
            credential_id: authenticator.id.clone()
        }
    );
    authenticator.handle = None;
    let mut body = authenticator.get(&options);
    assert_eq!(identify(&body).unwrap().account, None);
    body["response"]["userHandle"] = json!("AAAA");
    assert_eq!(code(identify(&body)), "passkey-invalid");
    body["response"]["userHandle"] = json!(7);
    assert_eq!(code(identify(&body)), "passkey-invalid");
    assert_eq!(
        code(identify(&json!({"prf": {"results": 1}}))),
        "prf-results-refused"
    );
    assert_eq!(code(identify(&Value::Null)), "passkey-invalid");
}
