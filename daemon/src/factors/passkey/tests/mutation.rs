//! Random changes to good answers, and random bodies. Each run has its control.

use proptest::prelude::*;

use super::super::super::unb64;
use super::*;

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
