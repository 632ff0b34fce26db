//! Tickets as a backend would make them, one defect at a time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::b64;
use super::*;

const NOW: Timestamp = Timestamp(1_000_000);
const EXPECTED: TicketExpected<'static> = TicketExpected {
    realm: "realm.example",
    app: "bank",
    device_thumbprint: "the-device",
};

struct Backend {
    pair: EcdsaKeyPair,
    keys: Vec<TicketKey>,
}

impl Backend {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let key = TicketKey {
            kid: "k1".into(),
            x: b64(&point[1..33]),
            y: b64(&point[33..65]),
        };
        Self {
            pair,
            keys: vec![key],
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| b64(value.to_string().as_bytes());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), input.as_bytes());
        format!("{input}.{}", b64(signature.unwrap().as_ref()))
    }

    fn verify(&self, ticket: &str) -> Result<Ticket, TicketError> {
        verify(NOW, ticket, &self.keys, &EXPECTED)
    }
}

fn header() -> Value {
    json!({"typ": TICKET_TYP, "alg": "ES256", "kid": "k1"})
}

fn claims() -> Value {
    json!({"iss": "bank", "aud": "realm.example/bank", "exp": NOW.0 + 600, "jti": "one",
        "jkt": "the-device", "sub": "customer 7", "iat": NOW.0})
}

/// The refusal of a ticket with one member of header or claims changed; null removes it.
fn refusal(of_header: bool, member: &str, to: Value) -> String {
    let (mut header, mut claims) = (header(), claims());
    let changed = if of_header { &mut header } else { &mut claims };
    changed.as_object_mut().unwrap().remove(member);
    if !to.is_null() {
        changed[member] = to;
    }
    let backend = Backend::new();
    let ticket = backend.sign(&header, &claims);
    backend.verify(&ticket).unwrap_err().to_string()
}

#[test]
fn a_good_ticket_gives_its_name_with_and_without_a_device() {
    let backend = Backend::new();
    let expected = Ticket { jti: "one".into() };
    let ticket = backend.sign(&header(), &claims());
    assert_eq!(backend.verify(&ticket), Ok(expected.clone()));
    let mut bearer = claims();
    bearer.as_object_mut().unwrap().remove("jkt");
    let ticket = backend.sign(&header(), &bearer);
    assert_eq!(backend.verify(&ticket), Ok(expected));
}

#[test]
fn each_defect_is_named() {
    for (of_header, member, to, says) in [
        (true, "typ", json!("JWT"), "typ: expected"),
        (true, "typ", Value::Null, "typ is missing"),
        (true, "alg", json!("none"), "alg: expected \"ES256\""),
        (true, "alg", json!("HS256"), "alg: expected \"ES256\""),
        (true, "kid", json!("k2"), "the policy has no such key"),
        (true, "kid", Value::Null, "kid is missing"),
        (true, "crit", json!(["x"]), "crit"),
        (false, "iss", json!("other"), "claim iss"),
        (false, "aud", json!("realm.example/other"), "claim aud"),
        (false, "aud", json!(["realm.example/bank"]), "claims: "),
        (false, "jkt", json!("another-device"), "claim jkt"),
        (false, "jti", json!(""), "claim jti"),
        (false, "jti", json!("j".repeat(129)), "claim jti"),
        (false, "jti", Value::Null, "claims: missing field"),
        (false, "exp", Value::Null, "claims: missing field"),
        (false, "exp", json!(NOW.0 + MAX_LIFETIME + 61), "claim exp"),
        (false, "exp", json!(u64::MAX), "claim exp"),
        (false, "exp", json!(NOW.0 - 60), "has expired"),
        (false, "exp", json!(-1), "claims: "),
        (false, "nbf", json!(NOW.0 + 61), "claim nbf"),
    ] {
        let said = refusal(of_header, member, to.clone());
        assert!(said.contains(says), "{member} = {to}: {said}");
    }
}

#[test]
fn a_ticket_lives_until_its_end_and_a_day_at_most() {
    let backend = Backend::new();
    for (exp, good) in [
        (NOW.0 - 60, false),
        (NOW.0 - 59, true),
        (NOW.0 + MAX_LIFETIME, true),
    ] {
        let mut claims = claims();
        claims["exp"] = json!(exp);
        let ticket = backend.sign(&header(), &claims);
        assert_eq!(backend.verify(&ticket).is_ok(), good, "{exp}");
    }
}

#[test]
fn only_the_listed_key_signs() {
    let backend = Backend::new();
    let forged = Backend::new().sign(&header(), &claims());
    let said = backend.verify(&forged).unwrap_err().to_string();
    assert!(said.contains("does not verify"), "{said}");
    // A key that the forger brings along is not looked at.
    let mut header = header();
    header["jwk"] = json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"});
    let ticket = backend.sign(&header, &claims());
    assert!(backend.verify(&ticket).is_ok());
}

#[test]
fn a_key_off_the_curve_is_no_key() {
    let mut listed = Backend::new().keys.remove(0);
    assert!(key(&listed).is_ok());
    listed.y.clone_from(&listed.x);
    assert!(key(&listed).unwrap_err().contains("not a point of P-256"));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        prop_assert!(Backend::new().verify(&text).is_err());
    }

    #[test]
    fn no_character_is_free(at in any::<prop::sample::Index>(), to in any::<char>()) {
        let backend = Backend::new();
        let good = backend.sign(&header(), &claims());
        let mut changed: Vec<char> = good.chars().collect();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != to);
        changed[at] = to;
        let changed: String = changed.into_iter().collect();
        prop_assert!(backend.verify(&changed).is_err());
    }
}
