//! A small authenticator written for these tests, so that every flag, counter,
//! origin and byte can be wrong by itself. The end to end tests use another
//! implementation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{sha256, unb64};
use super::*;

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
fn creation_options_ask_for_what_the_design_needs() {
    let rp = relying_party();
    let (options, _) = rp
        .start_registration(OWNER, "ada", "Ada", &[vec![9; 8]])
        .unwrap();
    let key = &options["publicKey"];
    assert_eq!(key["authenticatorSelection"]["residentKey"], "required");
    assert_eq!(key["authenticatorSelection"]["requireResidentKey"], true);
    assert_eq!(
        key["authenticatorSelection"]["userVerification"],
        "required"
    );
    assert_eq!(key["extensions"]["credProps"], true);
    assert_eq!(
        unb64(key["extensions"]["prf"]["eval"]["first"].as_str().unwrap())
            .unwrap()
            .len(),
        32
    );
    assert_eq!(key["user"]["id"], b64(OWNER.as_bytes()));
    assert_eq!(key["rp"]["id"], "app.example");
    assert_eq!(key["attestation"], "none");
    assert_eq!(key["timeout"], 300_000);
    assert_eq!(key["excludeCredentials"][0]["id"], b64(&[9; 8]));
    let algorithms: Vec<_> = key["pubKeyCredParams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["alg"].clone())
        .collect();
    assert!(algorithms.contains(&json!(-7)) && algorithms.contains(&json!(-257)));
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
fn the_prf_salt_is_of_the_realm_and_the_app() {
    let salt = |realm, app| {
        prf_salt(
            &RealmName::parse(realm).unwrap(),
            &AppId::parse(app).unwrap(),
        )
    };
    assert_eq!(salt("r", "a"), salt("r", "a"));
    assert_ne!(salt("r", "a"), salt("r", "b"));
    assert_ne!(salt("r", "a"), salt("s", "a"));
    assert_ne!(salt("ra", "b"), salt("r", "ab"));
}

#[test]
fn registration_gives_the_id_of_the_key_and_keeps_little() {
    let authenticator = Authenticator::new();
    let new = register(&relying_party(), &authenticator).unwrap();
    assert_eq!(new.device_id, b64(&sha256(&[&authenticator.cose()])));
    assert_eq!(new.device_id, device_id(new.passkey.get_public_key()));
    assert_eq!(*new.passkey.cred_id(), authenticator.id);
    let kept = serde_json::to_value(&new.passkey).unwrap();
    assert_eq!(kept["cred"]["transports"], Value::Null);
    assert_eq!(kept["cred"]["attestation_format"], "none");
    assert!(kept.to_string().len() < 1000, "{kept}");
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
fn each_defect_of_a_registration_has_its_code() {
    let rp = relying_party();
    let with = |change: fn(&mut Authenticator)| {
        let mut authenticator = Authenticator::new();
        change(&mut authenticator);
        code(register(&rp, &authenticator))
    };
    assert_eq!(with(|a| a.flags = UP), "passkey-user-not-verified");
    assert_eq!(with(|a| a.flags = UV), "passkey-user-not-verified");
    assert_eq!(with(|a| a.flags = UP | UV | BS), "passkey-backup-flags");
    assert_eq!(with(|a| a.rp_id = "other.example"), "passkey-invalid");
    assert_eq!(
        with(|a| a.origin = "https://evil.example"),
        "origin-not-allowed"
    );
    assert_eq!(
        with(|a| a.client_data = json!({"type": "webauthn.get"})),
        "passkey-invalid"
    );
    assert_eq!(
        with(|a| a.extensions = json!({"credProps": {"rk": false}})),
        "passkey-not-discoverable"
    );
    assert_eq!(
        with(|a| a.extensions = json!({"prf": {"results": {"first": "AAAA"}}})),
        "prf-results-refused"
    );
    assert_eq!(
        with(|a| a.id = vec![1; MAX_CREDENTIAL_ID + 1]),
        "passkey-invalid"
    );
}

#[test]
fn a_known_credential_is_not_registered_again() {
    let (rp, authenticator) = (relying_party(), Authenticator::new());
    let (options, state) = rp
        .start_registration(OWNER, "ada", "Ada", &[authenticator.id.clone()])
        .unwrap();
    let again = rp.finish_registration(&authenticator.create(&options), &state);
    assert_eq!(code(again), "passkey-not-offered");
}

#[test]
fn the_outer_id_must_be_the_inner_one() {
    let (rp, authenticator) = (relying_party(), Authenticator::new());
    let (options, state) = rp.start_registration(OWNER, "ada", "Ada", &[]).unwrap();
    let mut body = authenticator.create(&options);
    body["id"] = json!(b64(&[7; 32]));
    assert_eq!(
        code(rp.finish_registration(&body, &state)),
        "passkey-invalid"
    );
    body["rawId"] = body["id"].clone();
    assert_eq!(
        code(rp.finish_registration(&body, &state)),
        "passkey-invalid"
    );
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

#[test]
fn a_policy_that_cannot_work_is_told() {
    let with = |change: fn(&mut AppPolicy)| {
        let mut policy = policy();
        change(&mut policy);
        RelyingParty::new(&policy, [0; 32]).unwrap_err().to_string()
    };
    assert!(with(|p| p.origins.push("https://evil.example".into())).contains("neither the host"));
    assert!(
        with(|p| p.origins.push("https://app.example:443".into())).contains("a browser writes it")
    );
    assert!(with(|p| p.origins.push("nonsense".into())).contains("origin nonsense"));
    assert!(with(|p| p.origins.clear()).contains("no origin"));
    assert!(with(|p| p.relying_party.id = "ple".into()).contains("neither the host"));
}

/// Flip one bit of one decoded member of a credential's response.
fn mutate(body: &Value, members: &[&str], member: usize, position: usize, bit: u8) -> Value {
    let mut body = body.clone();
    let name = members[member % members.len()];
    let mut bytes = unb64(body["response"][name].as_str().unwrap()).unwrap();
    let index = position % bytes.len();
    bytes[index] ^= 1 << (bit % 8);
    body["response"][name] = json!(b64(&bytes));
    body
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[A-Za-z0-9_-]{0,60}".prop_map(Value::from),
        Just(json!("public-key")),
        Just(json!("eyJvcmlnaW4iOiJodHRwczovL2FwcC5leGFtcGxlIn0")),
    ];
    let name = prop_oneof![
        Just("id"),
        Just("rawId"),
        Just("type"),
        Just("response"),
        Just("clientDataJSON"),
        Just("attestationObject"),
        Just("authenticatorData"),
        Just("signature"),
        Just("userHandle"),
        Just("clientExtensionResults"),
        Just("prf"),
        Just("results"),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name.clone().prop_map(String::from), inner, 0..8)
                .prop_map(|members| members
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn mutated_assertions_are_never_accepted(member: usize, position: usize, bit: u8) {
        let (rp, authenticator) = (relying_party(), Authenticator::new());
        let mut passkey = register(&rp, &authenticator).unwrap().passkey;
        let (options, state) = rp.start_authentication(&[]).unwrap();
        let body = authenticator.get(&options);
        let members = ["clientDataJSON", "authenticatorData", "signature", "userHandle"];
        let mutated = mutate(&body, &members, member, position, bit);
        prop_assert!(rp.finish_authentication(&mutated, &state, OWNER, &mut passkey).is_err());
        // The control: what was mutated is good.
        prop_assert!(rp.finish_authentication(&body, &state, OWNER, &mut passkey).is_ok());
    }

    /// Registration is unsigned (no attestation is asked for), so a changed key
    /// or counter is another good registration; but never for another page,
    /// challenge, relying party or id, and never a panic.
    #[test]
    fn mutated_registrations_never_panic(member: usize, position: usize, bit: u8) {
        let (rp, authenticator) = (relying_party(), Authenticator::new());
        let (options, state) = rp.start_registration(OWNER, "ada", "Ada", &[]).unwrap();
        let body = authenticator.create(&options);
        let mutated = mutate(&body, &["clientDataJSON", "attestationObject"], member, position, bit);
        if let Ok(new) = rp.finish_registration(&mutated, &state) {
            prop_assert_eq!(new.passkey.cred_id(), &authenticator.id);
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic_and_never_pass(body in arbitrary_json(), object: Vec<u8>) {
        let (rp, authenticator) = (relying_party(), Authenticator::new());
        let mut passkey = register(&rp, &authenticator).unwrap().passkey;
        let (options, registration) = rp.start_registration(OWNER, "ada", "Ada", &[]).unwrap();
        let mut shaped = authenticator.create(&options);
        shaped["response"]["attestationObject"] = json!(b64(&object));
        let (options, login) = rp.start_authentication(&[]).unwrap();
        let mut assertion = authenticator.get(&options);
        assertion["response"]["authenticatorData"] = json!(b64(&object));
        for candidate in [&body, &shaped, &assertion] {
            let _ = identify(candidate);
            prop_assert!(rp.finish_registration(candidate, &registration).is_err());
            prop_assert!(rp.finish_authentication(candidate, &login, OWNER, &mut passkey).is_err());
        }
    }
}
