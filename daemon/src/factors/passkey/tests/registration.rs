//! Registration, its options, and policies that no relying party can serve.

use super::super::super::unb64;
use super::*;

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
        .start_registration(OWNER, "ada", "Ada", std::slice::from_ref(&authenticator.id))
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
