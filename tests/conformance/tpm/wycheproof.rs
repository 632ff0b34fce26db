//! Wycheproof vectors inside the TPM: HMAC with keys that are loaded from outside, and verification of ECDSA.
//!
//! As `crate::wycheproof` does it behind PKCS#11 modules, over the same files. custodyd loads no key so, and verifies on
//! the host: this asks whether the mechanisms that it builds on compute what they should. Commands are written out here, as
//! Part 3 of the TPM 2.0 Library Specification has them, so that no library stands between a vector and the TPM. AES-GCM
//! is no mechanism of a TPM.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use aws_lc_rs::digest;
use custodyd_hsm::PublicKey;

use super::PerStart;
use crate::wycheproof::{bytes, vectors};

// Part 2, sections 6.3, 6.4, 6.5.2, 6.6.3, 6.9 and 7.4.
const KEYED_HASH: u16 = 0x08;
const ECC: u16 = 0x23;
const HMAC: u16 = 0x05;
const ECDSA: u16 = 0x18;
const SHA256: u16 = 0x0b;
const NONE: u16 = 0x10;
const NIST_P256: u16 = 0x03;
const FLUSH_CONTEXT: u32 = 0x165;
const COMPUTE_HMAC: u32 = 0x155;
const LOAD_EXTERNAL: u32 = 0x167;
const VERIFY_SIGNATURE: u32 = 0x177;
const NO_HIERARCHY: u32 = 0x4000_0007;
const PASSWORD: u32 = 0x4000_0009;
const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// TPM_RC_KEY_SIZE of the first parameter, TPM_RC_SIGNATURE of the second.
const KEY_SIZE: u32 = 0x1c7;
const SIGNATURE: u32 = 0x2db;
const RETRY: u32 = 0x922;
/// TPM_RC_FAILURE: it does nothing any more until it is started anew.
const FAILURE: u32 = 0x101;
/// Those of `ecdsa_p256_in_the_tpm` that libtpms (swtpm 0.7) fails at.
const AT_INFINITY: [u64; 5] = [169, 205, 208, 222, 223];
/// The attributes `userWithAuth` and `sign`.
const SIGNS: u32 = 1 << 6 | 1 << 18;

/// A TPM, reached past every library.
struct Wire(UnixStream);

/// What comes after the code of a response that is no refusal; else that code.
type Answer = Result<Vec<u8>, u32>;

impl Wire {
    fn to(rig: &PerStart) -> Self {
        Self(UnixStream::connect(rig.0.dir().join("s")).unwrap())
    }

    /// What the TPM puts off, as it does before it has tested itself, it is asked again.
    fn ask(&mut self, tag: u16, code: u32, rest: &[u8]) -> Answer {
        loop {
            match self.ask_once(tag, code, rest) {
                Err(RETRY) => thread::sleep(Duration::from_millis(5)),
                answer => return answer,
            }
        }
    }

    fn ask_once(&mut self, tag: u16, code: u32, rest: &[u8]) -> Answer {
        let length = u32::try_from(rest.len() + 10).unwrap();
        let head = [&number(tag)[..], &length.to_be_bytes(), &code.to_be_bytes()].concat();
        self.0.write_all(&[&head, rest].concat()).unwrap();
        let mut head = [0; 10];
        self.0.read_exact(&mut head).unwrap();
        let [length, code] = [&head[2..6], &head[6..]].map(word);
        let mut answer = vec![0; usize::try_from(length).unwrap() - head.len()];
        self.0.read_exact(&mut answer).unwrap();
        match code {
            0 => Ok(answer),
            refused => Err(refused),
        }
    }

    /// Does something with a key that is loaded for it alone.
    fn with_key(
        &mut self,
        (private, public): (&[u8], &[u8]),
        work: impl FnOnce(&mut Self, [u8; 4]) -> Answer,
    ) -> Answer {
        let hierarchy = NO_HIERARCHY.to_be_bytes();
        let key = [&sized(private)[..], &sized(public), &hierarchy].concat();
        let handle = self.ask(NO_SESSIONS, LOAD_EXTERNAL, &key)?[..4]
            .try_into()
            .unwrap();
        let done = work(self, handle);
        // One that has failed does not do this any more, either.
        let _ = self.ask(NO_SESSIONS, FLUSH_CONTEXT, &handle);
        done
    }

    fn hmac(&mut self, key: &[u8], message: &[u8]) -> Answer {
        let seed = [7; 32];
        let private = [
            &number(KEYED_HASH)[..],
            &sized(&[]),
            &sized(&seed),
            &sized(key),
        ]
        .concat();
        let bound = digest::digest(&digest::SHA256, &[&seed, key].concat());
        let scheme = [number(HMAC), number(SHA256)].concat();
        let public = area(KEYED_HASH, &scheme, &sized(bound.as_ref()));
        self.with_key((&private, &public), |tpm, handle| {
            let session = [&PASSWORD.to_be_bytes()[..], &sized(&[]), &[0], &sized(&[])].concat();
            let length = u32::try_from(session.len()).unwrap().to_be_bytes();
            let asked = [
                &handle[..],
                &length,
                &session,
                &sized(message),
                &number(NONE),
            ]
            .concat();
            let answer = tpm.ask(SESSIONS, COMPUTE_HMAC, &asked)?;
            // The length of the parameters, that of the tag, the tag.
            Ok(answer[6..38].to_vec())
        })
    }

    /// A signature as the TPM takes one: two numbers.
    fn verifies(&mut self, point: &[u8], hash: &[u8], (r, s): (&[u8], &[u8])) -> Answer {
        let (x, y) = point[1..].split_at(32);
        let curve = [NONE, NONE, NIST_P256, NONE].map(number).concat();
        let public = area(ECC, &curve, &[sized(x), sized(y)].concat());
        self.with_key((&[], &public), |tpm, handle| {
            let kind = [number(ECDSA), number(SHA256)].concat();
            let asked = [&handle[..], &sized(hash), &kind, &sized(r), &sized(s)].concat();
            tpm.ask(NO_SESSIONS, VERIFY_SIGNATURE, &asked)
        })
    }
}

fn number(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&number(u16::try_from(bytes.len()).unwrap()), bytes].concat()
}

/// A public area (Part 2, section 12.2.4) without a policy.
fn area(kind: u16, parameters: &[u8], unique: &[u8]) -> Vec<u8> {
    let head = [number(kind), number(SHA256)].concat();
    [
        &head,
        &SIGNS.to_be_bytes()[..],
        &sized(&[]),
        parameters,
        unique,
    ]
    .concat()
}

pub(crate) fn hmac_sha256_in_the_tpm(rig: &PerStart) {
    let mut tpm = Wire::to(rig);
    let (mut right, mut wrong, mut too_long) = (0, 0, 0);
    for vector in vectors("wycheproof_hmac_sha256.json", 80) {
        let (key, id) = (bytes(&vector, "key"), &vector["id"]);
        match tpm.hmac(&key, &bytes(&vector, "msg")) {
            Ok(tag) => {
                let same = tag == bytes(&vector, "tag");
                assert_eq!(same, vector["valid"].as_bool().unwrap(), "{id}");
                *(if same { &mut right } else { &mut wrong }) += 1;
            }
            // A TPM takes no key that is longer than the hash's block; custodyd's have half of it.
            Err(KEY_SIZE) if key.len() > 64 => too_long += 1,
            Err(code) => panic!("{id}: 0x{code:x}"),
        }
    }
    assert_eq!((right, wrong, too_long), (30, 54, 3));
}

pub(crate) fn ecdsa_p256_in_the_tpm(rig: &PerStart) {
    let mut tpm = Wire::to(rig);
    let (mut right, mut wrong, mut no_numbers) = (0, 0, 0);
    let mut failed = 0;
    for vector in vectors("wycheproof_ecdsa_secp256r1_sha256_p1363.json", 250) {
        let [point, message, signature] = ["key", "msg", "sig"].map(|field| bytes(&vector, field));
        let (valid, id) = (vector["valid"].as_bool().unwrap(), &vector["id"]);
        // What is not 64 bytes has no place in the TPM's two numbers: here, as everywhere in custodyd, the type decides.
        let Ok(whole) = <[u8; 64]>::try_from(&signature[..]) else {
            assert!(!valid, "{id}");
            no_numbers += 1;
            continue;
        };
        let hash = digest::digest(&digest::SHA256, &message);
        let verified = match tpm.verifies(&point, hash.as_ref(), whole.split_at(32)) {
            Ok(_) => true,
            Err(SIGNATURE) => false,
            // Where the sum is the point at infinity libtpms takes it for a fault of its own, and the TPM is of no use before
            // it is started anew: refused all the same, and none of these may be more than that.
            Err(FAILURE) if AT_INFINITY.iter().any(|at| id == at) => {
                drop(tpm);
                rig.0.power_off();
                rig.0.power_on();
                tpm = Wire::to(rig);
                failed += 1;
                false
            }
            Err(code) => panic!("{id}: 0x{code:x}"),
        };
        assert_eq!(verified, valid, "{id}");
        // And the host, which is what judges in custodyd, is of the same opinion.
        let on_host = PublicKey::from_point(&point).unwrap();
        assert_eq!(on_host.verifies(&message, &whole), verified, "{id}");
        *(if verified { &mut right } else { &mut wrong }) += 1;
    }
    assert!(failed <= AT_INFINITY.len());
    assert_eq!((right, wrong, no_numbers), (173, 68, 21));
}
