//! What the TPM signs of its anchors, read here after the specification by a reader of this file's own.

use std::fs;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use custodyd_hsm::{
    Advanced, Anchor, Backend as _, Custody, Evidence, RealmName,
    anchor::{advance, unverified},
    backend::tpm::{Mode, verify},
};
use custodyd_tests::tpm::SwTpm;

use super::{
    PerStart,
    cases::{backend, misconfigured},
};
use crate::rig::Store as _;

const NONCE: [u8; 32] = [0xA5; 32];

fn anchored(custody: &mut dyn Custody, serial: u64) -> Anchor {
    let realm = RealmName::parse("realm").unwrap();
    let at = |serial| Anchor {
        serial,
        log_epoch: 1,
        seq: serial,
        head: [9; 32],
        boot_epoch: 1,
        clean: false,
        dirty: false,
    };
    let from = (serial > 1).then(|| at(serial - 1));
    let step = advance(custody, &realm, from.as_ref(), &at(serial));
    assert_eq!(step, Ok(Advanced::Anchored));
    at(serial)
}

/// TPMS_ATTEST of an NV index, after Part 2 of the specification, section 10.12: extra data, name of the
/// index, contents, and where these begin.
fn parsed(attest: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>, usize) {
    let sized = |at: usize| {
        let length = usize::from(u16::from_be_bytes([attest[at], attest[at + 1]]));
        (attest[at + 2..at + 2 + length].to_vec(), at + 2 + length)
    };
    // TPM_GENERATED_VALUE, TPM_ST_ATTEST_NV.
    assert_eq!(attest[..6], [0xff, 0x54, 0x43, 0x47, 0x80, 0x14]);
    let (_signer, at) = sized(6);
    let (extra, at) = sized(at);
    // Clock info of 17 bytes, firmware of 8.
    let (name, at) = sized(at + 17 + 8);
    assert_eq!(attest[at..at + 2], [0, 0]);
    let begins = at + 4;
    let (contents, end) = sized(at + 2);
    assert_eq!(end, attest.len());
    (extra, name, contents, begins)
}

/// The qualified name of a key below the owner's storage key, after Part 1 of the specification, section 16.
fn qualified(storage_key: &[u8], key: &[u8]) -> Vec<u8> {
    let name = |bytes: &[u8]| [&[0, 0x0b][..], &super::sha256(bytes)].concat();
    let parent = name(&[&0x4000_0001_u32.to_be_bytes()[..], storage_key].concat());
    name(&[parent, name(key)].concat())
}

/// The statement with another signer.
fn signed_by(attest: &[u8], signer: &[u8]) -> Vec<u8> {
    [&attest[..8], signer, &attest[8 + 34..]].concat()
}

fn refused(evidence: &Evidence, nonce: &[u8], why: &str) {
    let error = verify(evidence, nonce).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

pub(crate) fn evidence_is_the_tpms_word_and_nothing_else(rig: &PerStart) {
    let backend = rig.backend();
    let mut custody = backend.open().unwrap();
    anchored(&mut *custody, 1);
    let older = custody.certify_anchors(&NONCE).unwrap();
    let newest = anchored(&mut *custody, 2);
    let evidence = custody.certify_anchors(&NONCE).unwrap();
    assert!(
        custody.certify_anchors(&[1; 15]).is_err() && custody.certify_anchors(&[1; 33]).is_err()
    );
    custody.probe().unwrap();
    let attested = verify(&evidence, &NONCE).unwrap();
    // One key for all, which the records are told by.
    assert_eq!(attested.key, verify(&older, &NONCE).unwrap().key);
    let told = attested
        .anchors
        .iter()
        .map(|bytes| unverified(bytes).unwrap().1);
    assert!(told.into_iter().any(|anchor| anchor == newest));
    let (extra, name, contents, _) = parsed(&evidence.attest);
    assert_eq!((extra, contents), (NONCE.to_vec(), attested.value.to_vec()));
    assert_eq!(attested.value.to_vec(), super::nv_value(&rig.0));
    let public = rig.0.tool("tpm2_nvreadpublic", &["0x1818100"]);
    assert!(public.contains(&hex::encode(&name)), "{public}");

    refused(&evidence, &[0xA4; 32], "another nonce");
    refused(&evidence, &NONCE[..31], "another nonce");
    refused(&evidence, &[], "16 to 32 bytes");
    let with = |change: &dyn Fn(&mut Evidence)| {
        let mut changed = evidence.clone();
        change(&mut changed);
        changed
    };
    for at in 0..evidence.attest.len() {
        refused(&with(&|e| e.attest[at] ^= 1), &NONCE, "has not signed it");
    }
    refused(&with(&|e| e.attest.push(0)), &NONCE, "has not signed it");
    for at in [0, 31, 32, 63] {
        refused(
            &with(&|e| e.signature[at] ^= 1),
            &NONCE,
            "has not signed it",
        );
    }
    refused(&with(&|e| e.signature.push(0)), &NONCE, "64 bytes");
    refused(&with(&|e| e.nv_index += 1), &NONCE, "another NV index");
    for at in 0..evidence.record.len() {
        refused(&with(&|e| e.record[at] ^= 1), &NONCE, "does not lead");
    }
    refused(
        &with(&|e| e.record.clone_from(&older.record)),
        &NONCE,
        "does not lead",
    );
    for at in 0..evidence.key.len() {
        assert!(verify(&with(&|e| e.key[at] ^= 1), &NONCE).is_err(), "{at}");
    }
    refused(&with(&|e| e.key.truncate(20)), &NONCE, "no public area");
    // A key that this host may have sign anything is none for this.
    let free = with(&|e| e.key[5] ^= 1);
    refused(&free, &NONCE, "restricted");

    another_program_forges(&evidence, &older);
}

/// What a program in the place of a TPM can do: everything, but have this key.
fn another_program_forges(evidence: &Evidence, older: &Evidence) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let mut forged = evidence.clone();
    let (_, _, _, begins) = parsed(&evidence.attest);
    let x = forged.key.len() - 68;
    forged.key[x + 2..x + 34].copy_from_slice(&pair.public_key().as_ref()[1..33]);
    forged.key[x + 36..].copy_from_slice(&pair.public_key().as_ref()[33..]);
    let old = verify(older, &NONCE).unwrap();
    forged.attest[begins..begins + 32].copy_from_slice(&old.value);
    forged.record.clone_from(&older.record);
    let sign = |bytes: &[u8]| {
        pair.sign(&SystemRandom::new(), bytes)
            .unwrap()
            .as_ref()
            .to_vec()
    };
    // Its name is another one, and so is what the statement calls its signer.
    forged.signature = sign(&forged.attest);
    refused(&forged, &NONCE, "not below the storage key");
    forged.attest = signed_by(&forged.attest, &qualified(&forged.storage_key, &forged.key));
    forged.signature = sign(&forged.attest);
    let told = verify(&forged, &NONCE).unwrap();
    assert_eq!(told.value, old.value);
    assert_ne!(told.key, verify(evidence, &NONCE).unwrap().key);
    // Each thing that it says, wrong by itself, signed and all: the control is the forgery above.
    let name_at = begins - 4 - 34;
    let wrong = |at: usize, to: u8, why: &str| {
        let mut other = forged.clone();
        other.attest[at] = to;
        other.signature = sign(&other.attest);
        refused(&other, &NONCE, why);
    };
    let flipped = |at: usize| forged.attest[at] ^ 1;
    // Qualified signer, nonce, name of the index, offset, contents.
    wrong(8 + 33, flipped(8 + 33), "not below the storage key");
    wrong(42 + 2 + 31, flipped(42 + 2 + 31), "another nonce");
    wrong(name_at + 33, flipped(name_at + 33), "another NV index");
    wrong(begins - 3, 1, "another NV index");
    wrong(begins, flipped(begins), "does not lead");
    // The count of writes is the record's, and that is what the contents commit to.
    let mut counted = forged.clone();
    counted.record[36 + 7] ^= 1;
    refused(&counted, &NONCE, "does not lead");
    // Another storage key than the one that the statement names.
    let mut other = forged.clone();
    other.storage_key[33] ^= 1;
    refused(&other, &NONCE, "not below the storage key");
    other.storage_key.pop();
    refused(&other, &NONCE, "not below the storage key");
    // A statement on something else: TPM_ST_ATTEST_TIME has no index.
    let mut other = forged.clone();
    other.attest[5] = 0x19;
    other.signature = sign(&other.attest);
    assert!(verify(&other, &NONCE).is_err());
    // What only a TPM begins with, and something behind it.
    for change in [
        |attest: &mut Vec<u8>| attest[0] = 0,
        |attest: &mut Vec<u8>| attest.push(0),
    ] {
        let mut other = forged.clone();
        change(&mut other.attest);
        other.signature = sign(&other.attest);
        refused(&other, &NONCE, "statement of");
    }
}

pub(crate) fn the_attestation_key_stays_and_is_of_its_tpm(rig: &PerStart) {
    let certified = |rig: &PerStart| {
        let evidence = rig.backend().open()?.certify_anchors(&NONCE)?;
        Ok::<_, custodyd_hsm::Error>(verify(&evidence, &NONCE)?.key)
    };
    let file = rig.0.anchors().join("attestation-key");
    assert!(!file.exists());
    let name = certified(rig).unwrap();
    assert_eq!(certified(rig).unwrap(), name);
    rig.0.power_off();
    rig.0.power_on();
    assert_eq!(certified(rig).unwrap(), name);
    let kept = fs::read(&file).unwrap();
    // Of another TPM, cut, rubbish: told, and the realm serves on.
    let other = SwTpm::blank();
    other.provision(Mode::PerStart);
    let theirs = backend(other.options(Mode::PerStart));
    theirs.open().unwrap().certify_anchors(&NONCE).unwrap();
    drop(theirs);
    let foreign = fs::read(other.anchors().join("attestation-key")).unwrap();
    for bad in [&foreign[..], &kept[..kept.len() - 1], b"rubbish", b""] {
        fs::write(&file, bad).unwrap();
        let backend = rig.backend();
        let mut custody = backend.open().unwrap();
        misconfigured(
            custody.certify_anchors(&NONCE),
            &["remove the file", "new name"],
        );
        goes_on(&mut *custody);
    }
    fs::write(&file, &kept).unwrap();
    assert_eq!(certified(rig).unwrap(), name);
    fs::remove_file(&file).unwrap();
    assert_ne!(certified(rig).unwrap(), name);
}

fn goes_on(custody: &mut dyn Custody) {
    custody.probe().unwrap();
    custody.anchors().unwrap();
}
