//! The published vectors, right and wrong PINs, decoys, and messages that are none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test that cannot go on must stop

use aws_lc_rs::hkdf;
use custodyd_policies::Ksf;
use opaque_ke::{
    ClientLogin, ClientLoginFinishParameters, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialResponse, Identifiers, RegistrationResponse,
};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn server() -> OpaqueServer {
    OpaqueServer::from_seed(&[7; SEED]).unwrap()
}

fn key(byte: u8) -> Secret<32> {
    Secret::init(|bytes| bytes.fill(byte))
}

const COST: Ksf = Ksf {
    memory_kib: 19_456,
    passes: 2,
    lanes: 1,
};

/// A client registers, under the key that this salt stands for.
fn registered(server: &OpaqueServer, under: u8, pin: &[u8]) -> OpaqueRecord {
    let mut random = HostRandom::default();
    let started = ClientRegistration::<Suite>::start(&mut random, pin).unwrap();
    let request = RegistrationStart::parse(&started.message.serialize()).unwrap();
    let response = server.register(&key(under), &request).unwrap();
    assert_eq!(response.len(), 64);
    let finished = started
        .state
        .finish(
            &mut random,
            pin,
            RegistrationResponse::deserialize(&response).unwrap(),
            ClientRegistrationFinishParameters::default(),
        )
        .unwrap();
    OpaqueRecord::new(OpaqueSalt([under; 32]), &finished.message.serialize(), COST).unwrap()
}

struct Client {
    state: ClientLogin<Suite>,
    ke1: Vec<u8>,
}

fn client(pin: &[u8]) -> Client {
    let started = ClientLogin::start(&mut HostRandom::default(), pin).unwrap();
    Client {
        state: started.state,
        ke1: started.message.serialize().to_vec(),
    }
}

impl Client {
    fn request(&self) -> LoginRequest {
        LoginRequest::parse(&self.ke1).unwrap()
    }

    /// The last message, if the PIN was right.
    fn finish(self, pin: &[u8], ke2: &[u8]) -> Option<Vec<u8>> {
        let ke2 = CredentialResponse::deserialize(ke2).unwrap();
        let parameters = ClientLoginFinishParameters::default();
        let finished = self
            .state
            .finish(&mut HostRandom::default(), pin, ke2, parameters)
            .ok()?;
        Some(finished.message.serialize().to_vec())
    }
}

#[test]
fn the_right_pin_ends_a_login_and_no_other_does() {
    let server = server();
    let record = registered(&server, 1, b"830517");
    for (pin, right) in [(&b"830517"[..], true), (b"830518", false), (b"", false)] {
        let client = client(pin);
        let answer = server.login(&key(1), &record, &client.request()).unwrap();
        assert_eq!(answer.ke2.len(), KE2);
        let ke3 = client.finish(pin, &answer.ke2);
        assert_eq!(ke3.is_some(), right);
        let Some(ke3) = ke3 else { continue };
        assert_eq!(ke3.len(), KE3);
        let end = LoginFinish::parse(&ke3).unwrap();
        assert!(answer.awaited.is_answered_by(&end));
        for at in 0..KE3 {
            let mut other = ke3.clone();
            other[at] ^= 1;
            let other = LoginFinish::parse(&other).unwrap();
            assert!(!answer.awaited.is_answered_by(&other));
        }
    }
}

#[test]
fn the_end_of_one_login_is_not_that_of_another() {
    let server = server();
    let record = registered(&server, 1, b"830517");
    let login = || {
        let client = client(b"830517");
        let answer = server.login(&key(1), &record, &client.request()).unwrap();
        let ke3 = client.finish(b"830517", &answer.ke2).unwrap();
        (answer.awaited, LoginFinish::parse(&ke3).unwrap())
    };
    let ((first, end), (second, other)) = (login(), login());
    assert!(first.is_answered_by(&end) && second.is_answered_by(&other));
    assert!(!first.is_answered_by(&other) && !second.is_answered_by(&end));
}

#[test]
fn what_is_awaited_survives_its_token() {
    let server = server();
    let record = registered(&server, 1, b"830517");
    let client = client(b"830517");
    let answer = server.login(&key(1), &record, &client.request()).unwrap();
    let text = serde_json::to_string(&answer.awaited).unwrap();
    let awaited: Awaited = serde_json::from_str(&text).unwrap();
    let ke3 = client.finish(b"830517", &answer.ke2).unwrap();
    assert!(awaited.is_answered_by(&LoginFinish::parse(&ke3).unwrap()));
    let short: Awaited = serde_json::from_str("\"AAAA\"").unwrap();
    assert!(!short.is_answered_by(&LoginFinish::parse(&ke3).unwrap()));
}

#[test]
fn under_another_key_or_another_realms_keys_the_right_pin_is_wrong() {
    let server = server();
    let record = registered(&server, 1, b"830517");
    let wrong = client(b"830517");
    let answer = server.login(&key(2), &record, &wrong.request()).unwrap();
    assert_eq!(wrong.finish(b"830517", &answer.ke2), None);
    let other = OpaqueServer::from_seed(&[8; SEED]).unwrap();
    let wrong = client(b"830517");
    let answer = other.login(&key(1), &record, &wrong.request()).unwrap();
    assert_eq!(wrong.finish(b"830517", &answer.ke2), None);
}

/// The evaluated element, the first 32 bytes of KE2, is what does not change.
#[test]
fn a_decoy_is_stable_fits_no_pin_and_is_under_a_key_of_its_own() {
    let server = server();
    let record = registered(&server, 1, b"830517");
    let client = client(b"830517");
    let real = server.login(&key(1), &record, &client.request()).unwrap();
    // The same bytes from the token would be another key still.
    let one = server.decoy(&key(1), &client.request()).unwrap();
    let two = server.decoy(&key(1), &client.request()).unwrap();
    let other = server.decoy(&key(2), &client.request()).unwrap();
    assert_eq!(one.ke2.len(), real.ke2.len());
    assert_eq!(one.ke2[..32], two.ke2[..32]);
    assert_ne!(one.ke2[32..], two.ke2[32..]);
    assert_ne!(one.ke2[..32], other.ke2[..32]);
    assert_ne!(one.ke2[..32], real.ke2[..32]);
    assert_eq!(client.finish(b"830517", &one.ke2), None);
    // After a restart, too: nothing of it is drawn at the start.
    let again = OpaqueServer::from_seed(&[7; SEED]).unwrap();
    assert_eq!(again.nobody, server.nobody);
}

#[test]
fn every_part_of_a_record_is_in_its_name() {
    let server = server();
    let record = registered(&server, 1, b"830517");
    let bytes = record.expose().to_vec();
    let named = |salt: u8, bytes: &[u8], ksf: Ksf| {
        let record = OpaqueRecord::new(OpaqueSalt([salt; 32]), bytes, ksf);
        record.unwrap().device_id()
    };
    let name = record.device_id();
    assert_eq!(named(1, &bytes, COST), name);
    assert_ne!(named(2, &bytes, COST), name);
    for (memory_kib, passes, lanes) in [(19_457, 2, 1), (19_456, 3, 1), (19_456, 2, 2)] {
        let ksf = Ksf {
            memory_kib,
            passes,
            lanes,
        };
        assert_ne!(named(1, &bytes, ksf), name);
    }
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_ne!(named(1, &other, COST), name);
}

#[test]
fn a_record_is_read_as_it_was_written_and_not_shown() {
    let record = registered(&server(), 1, b"830517");
    let text = serde_json::to_string(&record).unwrap();
    let read: OpaqueRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(read.device_id(), record.device_id());
    assert_eq!((read.ksf(), read.mac_key), (COST, 1));
    let text = serde_json::to_string(&read.under(2)).unwrap();
    let read: OpaqueRecord = serde_json::from_str(&text).unwrap();
    assert_eq!(read.mac_key, 2);
    let shown = format!("{record:?}");
    assert!(shown.contains("19456") && shown.len() < 120, "{shown}");
}

/// What the vectors' inputs are drawn as, in the order in which the library draws.
struct Script(Vec<u8>);

impl super::CryptoRng for Script {}

impl super::RngCore for Script {
    fn next_u32(&mut self) -> u32 {
        unimplemented_draw()
    }
    fn next_u64(&mut self) -> u64 {
        unimplemented_draw()
    }
    fn fill_bytes(&mut self, to: &mut [u8]) {
        let rest = self.0.split_off(to.len());
        to.copy_from_slice(&self.0);
        self.0 = rest;
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        super::RngCore::fill_bytes(self, to);
        Ok(())
    }
}

fn unimplemented_draw<T>() -> T {
    panic!("the library has drawn something else")
}

/// RFC 9807, appendix C: registration and login as the server has them, in our own code.
#[test]
fn published_vectors() {
    let text = include_str!("../../../vectors/rfc9807_appendix_c.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let given = |field: &str| {
            let text = vector[field].as_str();
            text.map(|text| hex::decode(text).unwrap())
        };
        let value = |field: &str| given(field).unwrap();
        let mut private_key = &value("server_private_key")[..];
        let private_key = Ristretto255::deserialize_take_sk(&mut private_key).unwrap();
        let nobody = GenericArray::clone_from_slice(&[0; 32]);
        let server = OpaqueServer::with_keys(private_key, nobody).unwrap();
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA512, &value("oprf_seed"));
        let info = [&value("credential_identifier")[..], b"OprfKey"];
        let mut material = [0; 32];
        let expanded = prk.expand(&info, hkdf::HKDF_SHA256).unwrap();
        expanded.fill(&mut material).unwrap();
        let record = match given("registration_upload") {
            Some(record) => {
                let request = RegistrationStart::parse(&value("registration_request")).unwrap();
                let key = Secret::init(|bytes| *bytes = material);
                let response = server.register(&key, &request).unwrap();
                assert_eq!(response, value("registration_response"), "{name}");
                record
            }
            // A fake one: as a decoy is made.
            None => [
                value("client_public_key"),
                value("masking_key"),
                vec![0; 96],
            ]
            .concat(),
        };
        let drawn = [
            vec![0; 64],
            value("masking_nonce"),
            value("server_keyshare_seed"),
            value("server_nonce"),
        ];
        let context = value("Context");
        let (client_name, server_name) = (given("client_identity"), given("server_identity"));
        let parameters = ServerLoginParameters {
            context: Some(&context),
            identifiers: Identifiers {
                client: client_name.as_deref(),
                server: server_name.as_deref(),
            },
        };
        let ke1 = LoginRequest::parse(&value("KE1")).unwrap();
        let mut random = Script(drawn.concat());
        let answer = server
            .answer(&material, &record, &ke1, parameters, &mut random)
            .unwrap();
        assert_eq!(
            hex::encode(&answer.ke2),
            hex::encode(value("KE2")),
            "{name}"
        );
        if let Some(ke3) = given("KE3") {
            let end = LoginFinish::parse(&ke3).unwrap();
            assert!(answer.awaited.is_answered_by(&end), "{name}");
        }
    }
}

#[test]
fn the_neutral_element_is_no_message() {
    assert!(RegistrationStart::parse(&[0; 32]).is_err());
    let good = client(b"830517").ke1;
    for at in [0, 64] {
        let mut bad = good.clone();
        bad[at..at + 32].fill(0);
        assert!(LoginRequest::parse(&bad).is_err(), "{at}");
    }
    assert!(OpaqueRecord::new(OpaqueSalt([0; 32]), &[0; 192], COST).is_err());
}

proptest! {
    // Unoptimised, each takes a while.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_refused_or_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = RegistrationStart::parse(&bytes);
        let _ = LoginFinish::parse(&bytes);
        let _ = OpaqueRecord::new(OpaqueSalt([0; 32]), &bytes, COST);
        if let Ok(ke1) = LoginRequest::parse(&bytes) {
            prop_assert!(server().decoy(&key(1), &ke1).is_ok());
        }
    }

    #[test]
    fn a_mutated_message_never_panics(at in any::<prop::sample::Index>(), to: u8, more: bool) {
        let server = server();
        let mut ke1 = client(b"830517").ke1;
        if more {
            ke1.push(to);
            prop_assert!(LoginRequest::parse(&ke1).is_err());
        } else {
            let at = at.index(ke1.len());
            ke1[at] = to;
            if let Ok(ke1) = LoginRequest::parse(&ke1) {
                prop_assert_eq!(server.decoy(&key(1), &ke1).unwrap().ke2.len(), KE2);
            }
        }
    }

    #[test]
    fn a_mutated_record_is_refused_or_fits_no_pin(at in any::<prop::sample::Index>(), to: u8) {
        let server = server();
        let record = registered(&server, 1, b"830517");
        let mut bytes = record.expose().to_vec();
        let at = at.index(bytes.len());
        let same = bytes[at] == to;
        bytes[at] = to;
        if let Ok(record) = OpaqueRecord::new(record.salt, &bytes, COST) {
            let client = client(b"830517");
            let answer = server.login(&key(1), &record, &client.request()).unwrap();
            let end = client.finish(b"830517", &answer.ke2);
            let ends = end.is_some_and(|ke3| {
                answer.awaited.is_answered_by(&LoginFinish::parse(&ke3).unwrap())
            });
            prop_assert_eq!(ends, same);
        }
    }
}
