//! Proofs made by `jsonwebtoken` (another implementation of JWS), each defect
//! alone, replays and clock jumps. App-key proofs and mutations stand beside it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use custodyd_hsm::AppId;
use custodyd_policies::Timestamp;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::super::{b64, sha256};
use super::*;

mod app_key;
mod mutation;

const NOW: Timestamp = Timestamp(1_700_000_000);
const URI: &str = "https://custody.example/v1/account/pin";
const TOKEN: &str = "cs1.19000.AAAA";
const BODY: &[u8] = br#"{"pin":"..."}"#;
const EXPECTED: Expected<'_> = Expected {
    method: "PUT",
    uri: URI,
    session_token: Some(TOKEN),
    body: Some(BODY),
};

struct Client {
    key: EncodingKey,
    jwk: Value,
}

impl Client {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap();
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let full = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let jwk = serde_json::to_value(full.algorithm).unwrap();
        Client { key, jwk }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            b64(header.to_string().as_bytes()),
            b64(claims.to_string().as_bytes())
        );
        let signature = sign(signed.as_bytes(), &self.key, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }

    fn header(&self, typ: &str) -> Value {
        json!({ "typ": typ, "alg": "ES256", "jwk": self.jwk })
    }

    fn proof(&self, proofs: &Proofs, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = self.header("dpop+jwt");
        let mut claims = json!({
            "jti": "one", "htm": "PUT", "htu": URI, "iat": NOW.0,
            "nonce": proofs.nonce(NOW),
            "ath": b64(&sha256(&[TOKEN.as_bytes()])),
            "body_sha256": b64(&sha256(&[BODY])),
        });
        change(&mut header, &mut claims);
        self.sign(&header, &claims)
    }

    fn app_key_proof(&self, proofs: &Proofs, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "aud": "realm.example/demo", "jkt": "device", "iat": NOW.0, "nonce": proofs.nonce(NOW),
        });
        change(&mut claims);
        self.sign(&self.header("custodyd-app-key+jwt"), &claims)
    }
}

const APP_KEY: AppKeyExpected<'_> = AppKeyExpected {
    realm: "realm.example",
    app: "demo",
    device_thumbprint: "device",
};

fn refused(change: impl FnOnce(&mut Value, &mut Value)) -> ProofError {
    let proofs = Proofs::new().unwrap();
    let proof = Client::new().proof(&proofs, change);
    proofs.verify(NOW, &EXPECTED, &proof).unwrap_err()
}

fn says(error: &ProofError, words: &str) {
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.code(), "dpop-invalid");
}

#[test]
fn a_good_proof_is_accepted_once() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let proof = client.proof(&proofs, |_, _| {});
    let device = proofs.verify(NOW, &EXPECTED, &proof).unwrap();
    assert_eq!(device.thumbprint, device.jwk.thumbprint());
    assert_eq!(serde_json::to_value(&device.jwk).unwrap(), client.jwk);
    assert_eq!(
        proofs.verify(NOW, &EXPECTED, &proof),
        Err(ProofError::Replayed)
    );
}

#[test]
fn the_same_jti_by_another_key_is_another_proof() {
    let proofs = Proofs::new().unwrap();
    for _ in 0..3 {
        let proof = Client::new().proof(&proofs, |_, _| {});
        proofs.verify(NOW, &EXPECTED, &proof).unwrap();
    }
}

#[test]
fn a_refused_proof_is_not_remembered() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let proof = client.proof(&proofs, |_, _| {});
    let elsewhere = Expected {
        uri: "https://custody.example/v1/account",
        ..EXPECTED
    };
    assert!(proofs.verify(NOW, &elsewhere, &proof).is_err());
    proofs.verify(NOW, &EXPECTED, &proof).unwrap();
}

#[test]
fn each_header_defect_is_named() {
    says(
        &refused(|h, _| h["typ"] = json!("jwt")),
        r#"typ: expected "dpop+jwt", found "jwt""#,
    );
    says(
        &refused(|h, _| h["alg"] = json!("none")),
        r#"alg: expected "ES256", found "none""#,
    );
    says(&refused(|h, _| h["alg"] = json!("HS256")), "alg");
    says(&refused(|h, _| h["crit"] = json!(["exp"])), "crit");
    says(
        &refused(|h, _| h["jwk"]["d"] = json!("AAAA")),
        "private key",
    );
    says(&refused(|h, _| h["jwk"] = Value::Null), "jwk is missing");
    says(
        &refused(|h, _| h["jwk"] = Client::new().jwk),
        "does not verify",
    );
}

#[test]
fn what_is_exactly_at_a_bound_is_accepted() {
    let proofs = Proofs::new().unwrap();
    let accepted = |change: &dyn Fn(&mut Value)| {
        let proof = Client::new().proof(&proofs, |_, claims| change(claims));
        proofs.verify(NOW, &EXPECTED, &proof).unwrap();
    };
    accepted(&|c| c["jti"] = json!("j".repeat(128)));
    accepted(&|c| c["iat"] = json!(NOW.0 - 360));
    accepted(&|c| c["iat"] = json!(NOW.0 + 60));
    says(&refused(|_, c| c["jti"] = json!("j".repeat(129))), "jti");
}

#[test]
fn each_claim_defect_is_named() {
    says(
        &refused(|_, c| c["htm"] = json!("POST")),
        r#"htm: expected "PUT", found "POST""#,
    );
    says(
        &refused(|_, c| c["htu"] = json!(format!("{URI}/"))),
        "htu: expected",
    );
    says(
        &refused(|_, c| c["htu"] = json!(URI.to_uppercase())),
        "htu: expected",
    );
    says(&refused(|_, c| c["iat"] = json!(NOW.0 - 361)), "iat");
    says(&refused(|_, c| c["iat"] = json!(NOW.0 + 61)), "iat");
    says(&refused(|_, c| c["iat"] = json!(-1)), "claims:");
    says(&refused(|_, c| c["jti"] = json!("")), "jti");
    says(&refused(|_, c| c["jti"] = json!("x".repeat(129))), "jti");
    says(&refused(|_, c| c["jti"] = Value::Null), "claims:");
    says(
        &refused(|_, c| c["ath"] = json!(b64(&sha256(&[b"other"])))),
        "ath",
    );
    says(&refused(|_, c| c["ath"] = Value::Null), "ath is missing");
    says(
        &refused(|_, c| c["body_sha256"] = Value::Null),
        "body_sha256 is missing",
    );
    says(
        &refused(|_, c| c["body_sha256"] = json!(b64(&sha256(&[b""])))),
        "body_sha256",
    );
    says(
        &refused(|_, c| c["pad"] = json!("x".repeat(5000))),
        "at most 4096",
    );
}

#[test]
fn a_nonce_is_demanded() {
    assert_eq!(
        refused(|_, c| c["nonce"] = Value::Null),
        ProofError::NonceNeeded
    );
    assert_eq!(
        refused(|_, c| c["nonce"] = json!("made-up")),
        ProofError::NonceNeeded
    );
    let other = Proofs::new().unwrap().nonce(NOW);
    assert_eq!(
        refused(|_, c| c["nonce"] = json!(other)),
        ProofError::NonceNeeded
    );
    let old = |c: &mut Value, p: &Proofs| c["nonce"] = json!(p.nonce(Timestamp(NOW.0 - 301)));
    let proofs = Proofs::new().unwrap();
    let proof = Client::new().proof(&Proofs::new().unwrap(), |_, c| old(c, &proofs));
    assert_eq!(
        proofs.verify(NOW, &EXPECTED, &proof),
        Err(ProofError::NonceNeeded)
    );
}

#[test]
fn ath_and_body_are_forbidden_or_free_where_not_expected() {
    let proofs = Proofs::new().unwrap();
    let read = Expected {
        session_token: None,
        body: None,
        ..EXPECTED
    };
    let proof = Client::new().proof(&proofs, |_, _| {});
    says(
        &proofs.verify(NOW, &read, &proof).unwrap_err(),
        "ath: this request has no session token",
    );
    let proof = Client::new().proof(&proofs, |_, c| {
        c.as_object_mut().unwrap().remove("ath");
    });
    proofs.verify(NOW, &read, &proof).unwrap();
}

#[test]
fn an_empty_body_has_the_hash_of_the_empty_string() {
    let proofs = Proofs::new().unwrap();
    let empty = Expected {
        body: Some(b""),
        ..EXPECTED
    };
    let hash = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
    let proof = Client::new().proof(&proofs, |_, c| c["body_sha256"] = json!(hash));
    proofs.verify(NOW, &empty, &proof).unwrap();
}

#[test]
fn a_clock_that_jumps_ahead_and_back_revives_no_proof() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let proof = client.proof(&proofs, |_, _| {});
    proofs.verify(NOW, &EXPECTED, &proof).unwrap();
    for ahead in [4000, 8000] {
        let later = Timestamp(NOW.0 + ahead);
        let nonce = proofs.nonce(later);
        let other = client.proof(&proofs, |_, c| {
            c["nonce"] = json!(nonce);
            c["iat"] = json!(later.0);
            c["jti"] = json!(format!("ahead {ahead}"));
        });
        proofs.verify(later, &EXPECTED, &other).unwrap();
    }
    assert!(proofs.verify(NOW, &EXPECTED, &proof).is_err());
    // And life goes on: a fresh nonce works although the clock went back.
    let fresh = client.proof(&proofs, |_, c| c["jti"] = json!("fresh"));
    proofs.verify(NOW, &EXPECTED, &fresh).unwrap();
}

/// Where the host's clock was set back, nobody knows which of its times was right: nonces say how new a proof is.
#[test]
fn a_device_that_is_right_by_one_of_the_hosts_times_is_not_sent_away() {
    let proofs = Proofs::new().unwrap();
    let hour = |hours: i64| Timestamp(NOW.0.checked_add_signed(3600 * hours).unwrap());
    let clock = Reading {
        now: NOW,
        earliest: hour(-1),
        latest: hour(1),
    };
    let verified = |iat: u64, clock: Reading| {
        let proof = Client::new().proof(&proofs, |_, c| c["iat"] = json!(iat));
        proofs.verify(clock, &EXPECTED, &proof)
    };
    for iat in [hour(-1), NOW, hour(1)] {
        verified(iat.0, clock).unwrap();
    }
    assert!(verified(hour(-1).0 - 361, clock).is_err());
    assert!(verified(hour(1).0 + 61, clock).is_err());
    // Control: a clock that is in order knows one time.
    assert!(verified(hour(-1).0, NOW.into()).is_err());
    assert!(verified(hour(1).0, NOW.into()).is_err());
}

#[test]
fn a_full_memory_refuses() {
    let (proofs, client) = (Proofs::with_capacity(1).unwrap(), Client::new());
    let first = client.proof(&proofs, |_, _| {});
    proofs.verify(NOW, &EXPECTED, &first).unwrap();
    let second = client.proof(&proofs, |_, c| c["jti"] = json!("two"));
    assert_eq!(
        proofs.verify(NOW, &EXPECTED, &second),
        Err(ProofError::Busy)
    );
    assert_eq!(
        proofs.verify(NOW, &EXPECTED, &first),
        Err(ProofError::Replayed)
    );
}

#[test]
fn one_of_many_threads_wins_with_one_proof() {
    let (proofs, client) = (Proofs::new().unwrap(), Client::new());
    let proof = client.proof(&proofs, |_, _| {});
    let accepted = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| proofs.verify(NOW, &EXPECTED, &proof).is_ok()))
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .filter(|ok| *ok)
            .count()
    });
    assert_eq!(accepted, 1);
}

fn thumbprint(client: &Client) -> String {
    serde_json::from_value::<PublicJwk>(client.jwk.clone())
        .unwrap()
        .thumbprint()
}

fn numbered(client: &Client, proofs: &Proofs, jti: &str) -> String {
    let jti = json!(jti);
    client.proof(proofs, |_, claims| claims["jti"] = jti)
}

/// As a request that brings a session.
fn verify_of(
    proofs: &Proofs,
    (app, holder): (Lane, &str),
    proof: &str,
    admit: impl FnOnce() -> Result<(), ProofError>,
) -> Result<DeviceKey, ProofError> {
    let spoken = proofs.speaks(holder, NOW, &EXPECTED, proof)?;
    proofs.accept_of(app, NOW, spoken, admit)
}

/// What the flood of one class fills is that class's memory, and nobody else's.
#[test]
fn strangers_cannot_fill_the_memory_of_sessions() {
    let proofs = Proofs::with_capacity(4).unwrap();
    let (stranger, owner) = (Client::new(), Client::new());
    let app = Lane::of(&AppId::parse("notes").unwrap());
    let own = thumbprint(&owner);
    let verify = |app, proof: &str| proofs.verify_in(app, NOW, &EXPECTED, proof).map(drop);
    let of_session = |proof: &str| {
        let verified = verify_of(&proofs, (app, &own), proof, || Ok(()));
        verified.map(drop)
    };
    for jti in ["a", "b"] {
        verify(app, &numbered(&stranger, &proofs, jti)).unwrap();
    }
    let full = Err(ProofError::Busy);
    assert_eq!(verify(app, &numbered(&stranger, &proofs, "c")), full);
    let fifth = numbered(&owner, &proofs, "e");
    assert_eq!(of_session(&fifth), Ok(()));
    assert_eq!(of_session(&fifth), Err(ProofError::Replayed));
    // Nor does an app's flood what ends its sign-ins, and what another's strangers begin.
    let end = numbered(&stranger, &proofs, "f");
    let ended = proofs.verify_end((app, true), NOW, &EXPECTED, &end, |_| true);
    assert_eq!(ended.map(drop), Ok(()));
    let other = numbered(&stranger, &proofs, "g");
    assert_eq!(verify(Lane::Behind, &other), Ok(()));
}

/// Whichever memory has a proof, the other one does not accept it again.
#[test]
fn the_proof_of_an_end_is_good_once_in_whichever_memory() {
    let proofs = Proofs::with_capacity(16).unwrap();
    let client = Client::new();
    let verify = |let_in, proof: &str, is_new: bool| {
        let memory = (Lane::Behind, let_in);
        let verified = proofs.verify_end(memory, NOW, &EXPECTED, proof, |_| is_new);
        verified.map(drop)
    };
    let (one, other) = (
        numbered(&client, &proofs, "a"),
        numbered(&client, &proofs, "b"),
    );
    assert_eq!(verify(false, &one, true), Ok(()));
    assert_eq!(verify(true, &one, true), Err(ProofError::Replayed));
    assert_eq!(verify(false, &other, false), Err(ProofError::Replayed));
    // The control: what neither has is accepted.
    let third = numbered(&client, &proofs, "c");
    assert_eq!(verify(true, &third, true), Ok(()));
}

/// The account takes so long to be read that what was remembered may be forgotten by then.
#[test]
fn a_sessions_proof_is_accepted_while_its_nonce_is_good() {
    let proofs = Proofs::with_capacity(16).unwrap();
    let client = Client::new();
    let own = thumbprint(&client);
    let accept = |jti, at: Timestamp| {
        let proof = numbered(&client, &proofs, jti);
        let spoken = proofs.speaks(&own, NOW, &EXPECTED, &proof).unwrap();
        proofs.accept_of(Lane::Behind, at, spoken, || Ok::<_, ProofError>(()))
    };
    assert!(accept("a", NOW).is_ok());
    let late = accept("b", NOW.plus(2 * NONCE_LIFETIME));
    assert!(matches!(late, Err(ProofError::NonceNeeded)), "{late:?}");
}

/// The same of a login that was charged to a session.
#[test]
fn the_proof_of_a_sessions_end_is_good_once_and_asked_for_no_rate() {
    let proofs = Proofs::with_capacity(16).unwrap();
    let client = Client::new();
    let own = thumbprint(&client);
    let verify = |let_in, proof: &str, is_new: bool, rate: Result<(), ProofError>| {
        let spoken = proofs.speaks(&own, NOW, &EXPECTED, proof).unwrap();
        let memory = (Lane::Behind, let_in);
        let verified = proofs.accept_end_of(memory, NOW, spoken, (|_| is_new, || rate));
        verified.map(drop)
    };
    let of = |jti| numbered(&client, &proofs, jti);
    let (one, other, third, fourth) = (of("a"), of("b"), of("c"), of("d"));
    let (busy, replayed) = (Err(ProofError::Busy), Err(ProofError::Replayed));
    assert_eq!(verify(true, &one, true, busy.clone()), Ok(()));
    assert_eq!(verify(true, &one, false, Ok(())), replayed);
    assert_eq!(verify(false, &other, true, Ok(())), Ok(()));
    assert_eq!(verify(true, &other, true, Ok(())), replayed);
    assert_eq!(verify(false, &third, false, Ok(())), replayed);
    // The control: what is none of them is asked.
    assert_eq!(verify(false, &fourth, true, busy.clone()), busy);
}

/// Somebody else's session opens no way into either memory, however many keys are made for it.
#[test]
fn a_session_with_another_key_is_refused_and_takes_no_place() {
    let proofs = Proofs::with_capacity(4).unwrap();
    let (thief, owner) = (Client::new(), Client::new());
    let own = thumbprint(&owner);
    let session = (Lane::Behind, own.as_str());
    // The owner's rates, which are not asked for a thief.
    let unasked = || Err(ProofError::Busy);
    for round in 0..10 {
        let proof = numbered(&thief, &proofs, &round.to_string());
        let refused = verify_of(&proofs, session, &proof, unasked);
        assert_eq!(refused, Err(ProofError::OtherKey));
    }
    // The owner's key in the header, and a signature by another.
    let proof = thief.proof(&proofs, |header, _| header["jwk"] = owner.jwk.clone());
    let refused = verify_of(&proofs, session, &proof, unasked);
    says(&refused.unwrap_err(), "does not verify");
    assert_eq!(held(&proofs), (0, 0));
    // The control: without a session they are a stranger's, who has room for two.
    for round in 0..10 {
        let proof = numbered(&thief, &proofs, &round.to_string());
        let verified = proofs.verify(NOW, &EXPECTED, &proof);
        assert_eq!(verified.is_ok(), round < 2, "{round}");
    }
    assert_eq!(held(&proofs), (2, 0));
}

/// How many proofs of strangers and of sessions are remembered.
fn held(proofs: &Proofs) -> (usize, usize) {
    let of = |memory: &Mutex<ReplayCache<Lane>>| memory.lock().unwrap().len();
    (of(&proofs.strangers), of(&proofs.sessions))
}

/// One device that asks as fast as it can, and another one of the same app.
#[test]
fn what_a_rate_refuses_takes_no_place() {
    let flood = |limited: bool| {
        let proofs = Proofs::with_capacity(20).unwrap();
        let (loud, quiet) = (Client::new(), Client::new());
        let (loud_key, quiet_key) = (thumbprint(&loud), thumbprint(&quiet));
        let holder = |thumbprint| (Lane::Behind, thumbprint);
        let mut admitted = 0;
        for round in 0..50 {
            let proof = numbered(&loud, &proofs, &round.to_string());
            let _ = verify_of(&proofs, holder(loud_key.as_str()), &proof, || {
                admitted += 1;
                match limited && admitted > 3 {
                    true => Err(ProofError::Busy),
                    false => Ok(()),
                }
            });
        }
        let proof = numbered(&quiet, &proofs, "one");
        let served = verify_of(&proofs, holder(quiet_key.as_str()), &proof, || Ok(()));
        (served.map(drop), held(&proofs).1)
    };
    assert_eq!(flood(true), (Ok(()), 4));
    // Without a rate that is asked before, the other one finds no place.
    assert_eq!(flood(false), (Err(ProofError::Busy), 10));
}

/// However many copies of a proof come at once, one is accepted, and one takes from the rates.
#[test]
fn copies_of_a_sessions_proof_take_from_the_rate_once() {
    let (proofs, owner) = (Proofs::new().unwrap(), Client::new());
    let (own, proof) = (thumbprint(&owner), owner.proof(&proofs, |_, _| {}));
    let session = (Lane::Behind, own.as_str());
    let (asked, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let verified = verify_of(&proofs, session, &proof, || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, ProofError>(())
                });
                accepted.fetch_add(verified.is_ok().into(), Ordering::SeqCst);
            });
        }
    });
    assert_eq!((asked.into_inner(), accepted.into_inner()), (1, 1));
}
