//! The test vectors of WebAuthn Level 3, and Wycheproof's for the signatures in assertions.
//!
//! Most published vectors do not verify their user in both ceremonies, which this service
//! demands. So each half is held against the rule: taken where the user was verified on the page
//! itself, refused by name where not. For the login every registration is repeated under the
//! library's own weaker demand, to have a credential.

use serde::Deserialize;
use webauthn_rs::prelude::{COSEAlgorithm, COSEEC2Key, COSEKey, COSEKeyType, ECDSACurve};

use super::*;

fn published<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct File<T> {
        vectors: Vec<T>,
    }
    let path = format!(
        "{}/../tests/vectors/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<File<T>>(&text).unwrap().vectors
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    registration: Registration,
    authentication: Authentication,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    challenge: String,
    #[serde(rename = "credential_id")]
    credential_id: String,
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    attestation_object: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    challenge: String,
    authenticator_data: String,
    #[serde(rename = "clientDataJSON")]
    client_data: String,
    signature: String,
}

/// Hexadecimal digits as the base64url of the same bytes.
fn text(hex: &str) -> String {
    b64(&hex::decode(hex).unwrap())
}

impl Vector {
    fn created(&self) -> Value {
        let id = text(&self.registration.credential_id);
        json!({"id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {}, "response": {
            "clientDataJSON": text(&self.registration.client_data),
            "attestationObject": text(&self.registration.attestation_object),
        }})
    }

    fn asserted(&self) -> Value {
        let id = text(&self.registration.credential_id);
        json!({"id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {}, "response": {
            "clientDataJSON": text(&self.authentication.client_data),
            "authenticatorData": text(&self.authentication.authenticator_data),
            "signature": text(&self.authentication.signature),
        }})
    }
}

fn example_org() -> RelyingParty {
    let text = "app = \"demo\"\norigins = [\"https://example.org\"]\n[relying_party]\nid = \"example.org\"";
    let policy = custodyd_policies::parse("demo.toml", text).unwrap();
    RelyingParty::new(&policy, [0; 32]).unwrap()
}

/// A ceremony of ours with the published challenge in it, in its sealed form.
fn with<S: serde::Serialize + serde::de::DeserializeOwned>(
    state: &S,
    changes: &[(&str, Value)],
) -> S {
    let mut json = serde_json::to_value(state).unwrap();
    let members = json.as_object_mut().unwrap();
    let (_, inner) = members.iter_mut().next().unwrap();
    for (name, to) in changes {
        assert!(inner.get(*name).is_some(), "{name} in {inner}");
        inner[*name] = to.clone();
    }
    serde_json::from_value(json).unwrap()
}

fn register_published(vector: &Vector, policy: &str) -> Result<NewPasskey, PasskeyError> {
    let rp = example_org();
    let (_, state) = rp.start_registration(OWNER, "ada", "Ada", &[]).unwrap();
    let state = with(
        &state,
        &[
            ("challenge", json!(text(&vector.registration.challenge))),
            ("policy", json!(policy)),
        ],
    );
    rp.finish_registration(&vector.created(), &state)
}

fn login_published(vector: &Vector, body: &Value) -> Result<(), PasskeyError> {
    let rp = example_org();
    let mut passkey = register_published(vector, "preferred")?.passkey;
    let (_, state) = rp.start_authentication(&[]).unwrap();
    let challenge = text(&vector.authentication.challenge);
    let state = with(&state, &[("challenge", json!(challenge))]);
    rp.finish_authentication(body, &state, OWNER, &mut passkey)
}

fn said<T>(result: Result<T, PasskeyError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

#[test]
fn the_vectors_of_webauthn_level_3() {
    const NO_UV: &str = "passkey-user-not-verified";
    const CROSS: &str = "passkey-cross-origin";
    let expected = [
        ("none-es256", NO_UV, NO_UV),
        ("packed-self-es256", "ok", NO_UV),
        ("none-es256-crossOrigin", CROSS, CROSS),
        ("none-es256-topOrigin", CROSS, CROSS),
        ("none-es256-long-credential-id", NO_UV, "ok"),
        ("packed-es256", "ok", "ok"),
    ];
    let vectors: Vec<Vector> = published("webauthn_level3");
    let found: Vec<_> = vectors
        .iter()
        .map(|vector| {
            let registered = said(register_published(vector, "required"));
            let login = said(login_published(vector, &vector.asserted()));
            (vector.name.as_str(), registered, login)
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_published_assertion_with_another_signature_is_refused() {
    let vectors: Vec<Vector> = published("webauthn_level3");
    let vector = vectors
        .iter()
        .find(|vector| vector.name == "none-es256-long-credential-id")
        .unwrap();
    let mut body = vector.asserted();
    let mut signature = hex::decode(&vector.authentication.signature).unwrap();
    *signature.last_mut().unwrap() ^= 1;
    body["response"]["signature"] = json!(b64(&signature));
    assert_eq!(said(login_published(vector, &body)), "passkey-invalid");
}

/// ECDSA in DER, as authenticators write it: the library's verification, which is what ships.
#[test]
fn wycheproof_ecdsa_in_der() {
    #[derive(Deserialize)]
    struct Signature {
        id: u32,
        comment: String,
        key: String,
        msg: String,
        sig: String,
        valid: bool,
    }
    let vectors: Vec<Signature> = published("wycheproof_ecdsa_secp256r1_sha256");
    assert!(vectors.len() > 400);
    for vector in vectors {
        let point = hex::decode(&vector.key).unwrap();
        let key = COSEKey {
            type_: COSEAlgorithm::ES256,
            key: COSEKeyType::EC_EC2(COSEEC2Key {
                curve: ECDSACurve::SECP256R1,
                x: point[1..33].to_vec(),
                y: point[33..].to_vec(),
            }),
        };
        let message = hex::decode(&vector.msg).unwrap();
        let verified = key.verify_signature(&hex::decode(&vector.sig).unwrap(), &message);
        assert_eq!(
            verified.is_ok_and(|good| good),
            vector.valid,
            "{}: {}",
            vector.id,
            vector.comment
        );
    }
}
