//! Signatures over log checkpoints, as C2SP signed notes carry them.
//!
//! Called by the ledger, only for a head that is anchored in the token. This
//! file signs the text it is given and knows nothing of its lines; building the
//! note is the ledger's work.
//!
//! The signature type is 0x02 (c2sp.org/signed-note): ECDSA as in
//! github.com/transparency-dev/witness, that is over SHA-256 of the note text,
//! in ASN.1 DER, with a key id that hashes the key and *not* the name. A realm with a public log
//! signs once more, in type 0x01: Ed25519 over the text, with a key id that hashes both.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    custody::Custody,
    ed25519::Ed25519Key,
    error::Result,
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    seal,
};

/// The signature type of ECDSA in verifier keys (`name+hash+base64(type || SPKI)`).
pub const SIGNATURE_TYPE: u8 = 0x02;

/// The signature type of Ed25519.
pub const ED25519_TYPE: u8 = 0x01;

/// SubjectPublicKeyInfo of a P-256 key up to its point (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Signs the text of a note with the newest checkpoint key; r || s, and the key
/// that verifies it.
///
/// # Errors
/// The token's.
pub fn sign(custody: &mut dyn Custody, note_text: &[u8]) -> Result<([u8; 64], PublicKey)> {
    let key = custody.current(KeyPurpose::Checkpoint)?;
    let signature = custody.sign(key, &seal::sha256(&[note_text]))?;
    Ok((signature, custody.public_key(key)?))
}

/// The realm's public checkpoint keys, the newest last.
///
/// # Errors
/// The token's.
pub fn keys(custody: &mut dyn Custody) -> Result<Vec<PublicKey>> {
    crate::jws::public_keys(custody, KeyPurpose::Checkpoint)
}

/// Signs the text of a note with the newest Ed25519 checkpoint key, and says which that is.
///
/// # Errors
/// The token's; [`crate::Error::Misconfigured`] where there is no such key.
pub fn sign_ed25519(custody: &mut dyn Custody, note_text: &[u8]) -> Result<([u8; 64], Ed25519Key)> {
    let key = custody.current(KeyPurpose::CheckpointEd25519)?;
    let signature = custody.sign_ed25519(key, note_text)?;
    Ok((signature, custody.ed25519_key(key)?))
}

/// The realm's public Ed25519 checkpoint keys, the newest last; none where it has none.
///
/// # Errors
/// The token's.
pub fn ed25519_keys(custody: &mut dyn Custody) -> Result<Vec<Ed25519Key>> {
    let purpose = KeyPurpose::CheckpointEd25519;
    let mut keys = Vec::new();
    for version in custody.versions(purpose)? {
        let key = KeyId::new(purpose, version);
        if custody.holds(key)? {
            keys.push(custody.ed25519_key(key)?);
        }
    }
    Ok(keys)
}

/// The bytes behind the base64 of an Ed25519 signature line of this key name.
#[must_use]
pub fn ed25519_signature(name: &str, key: &Ed25519Key, signature: &[u8; 64]) -> Vec<u8> {
    [&ed25519_key_id(name, key)[..], signature].concat()
}

/// The first four bytes of SHA-256(name || 0A || 01 || key).
#[must_use]
pub fn ed25519_key_id(name: &str, key: &Ed25519Key) -> [u8; 4] {
    let [a, b, c, d, ..] = seal::sha256(&[name.as_bytes(), b"\n", &[ED25519_TYPE], key.as_bytes()]);
    [a, b, c, d]
}

/// The key as other tools want it: `<name>+<key id>+<base64(type || key)>`.
#[must_use]
pub fn ed25519_verifier_key(name: &str, key: &Ed25519Key) -> String {
    let id = u32::from_be_bytes(ed25519_key_id(name, key));
    let material = STANDARD.encode([&[ED25519_TYPE][..], key.as_bytes()].concat());
    format!("{name}+{id:08x}+{material}")
}

/// The bytes behind the base64 of a signature line: `key id || DER(r, s)`.
#[must_use]
pub fn note_signature(key: &PublicKey, signature: &[u8; 64]) -> Vec<u8> {
    [&key_id(key)[..], &der(signature)].concat()
}

/// The first four bytes of SHA-256 over the key's SubjectPublicKeyInfo. For this
/// type neither the key's name nor the type byte is hashed.
#[must_use]
pub fn key_id(key: &PublicKey) -> [u8; 4] {
    let [a, b, c, d, ..] = seal::sha256(&[&spki(key)]);
    [a, b, c, d]
}

/// The key as other tools want it: `<name>+<key id>+<base64(type || SubjectPublicKeyInfo)>`.
#[must_use]
pub fn verifier_key(name: &str, key: &PublicKey) -> String {
    let id = u32::from_be_bytes(key_id(key));
    let material = STANDARD.encode([&[SIGNATURE_TYPE][..], &spki(key)].concat());
    format!("{name}+{id:08x}+{material}")
}

/// The key as DER SubjectPublicKeyInfo.
#[must_use]
pub fn spki(key: &PublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], key.as_point()].concat()
}

/// A signature as the DER of ECDSA-Sig-Value (RFC 3279, section 2.2.3).
#[must_use]
pub fn der(signature: &[u8; 64]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let both = [integer(r), integer(s)].concat();
    // At most 70 bytes, so each length is one byte.
    let length = u8::try_from(both.len()).unwrap_or(u8::MAX);
    [&[0x30, length][..], &both].concat()
}

/// A DER INTEGER: no leading zeros, but one where the number would look negative.
fn integer(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|byte| *byte != 0);
    let short = first.and_then(|at| number.get(at..)).unwrap_or(&[0]);
    let sign: &[u8] = match short.first() {
        Some(0x80..) => &[0],
        _ => &[],
    };
    let length = u8::try_from(sign.len() + short.len()).unwrap_or(u8::MAX);
    [&[0x02, length][..], sign, short].concat()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
    };

    use super::*;
    use crate::software::SoftCustody;

    const TEXT: &[u8] = b"demo.example/1\n7\nAAAA\n";

    #[test]
    fn a_note_verifies_in_both_forms_under_the_newest_key() {
        let mut custody = SoftCustody::new();
        custody.add_version(KeyPurpose::Checkpoint, 2);
        // Often enough for an r or s that is short or has its top bit set.
        for number in 0..600_u32 {
            let text = [TEXT, &number.to_be_bytes()].concat();
            let (signature, key) = sign(&mut custody, &text).unwrap();
            assert!(key.verifies(&text, &signature));
            assert_eq!(Some(&key), keys(&mut custody).unwrap().last());
            let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_point());
            verifier.verify(&text, &der(&signature)).unwrap();
            assert!(verifier.verify(b"another", &der(&signature)).is_err());
        }
    }

    #[test]
    fn no_other_key_signs_checkpoints() {
        let mut custody = SoftCustody::new();
        let (signature, _) = sign(&mut custody, TEXT).unwrap();
        for purpose in [KeyPurpose::Bind, KeyPurpose::Webhook] {
            let other = custody.public_key(KeyId::new(purpose, 1)).unwrap();
            assert!(!other.verifies(TEXT, &signature));
        }
    }

    // The note, the signer's key and the verifier's of golang.org/x/mod v0.21.0, sumdb/note/note_test.go.
    #[test]
    fn the_ed25519_note_of_go() {
        const TEXT: &[u8] = b"If you think cryptography is the answer to your problem,\n\
                              then you don't know what your problem is.\n";
        const LINE: &str = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let seed = STANDARD
            .decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
            .unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed[1..]).unwrap();
        let key = Ed25519Key::from_bytes(pair.public_key().as_ref()).unwrap();
        let signature: [u8; 64] = pair.sign(TEXT).as_ref().try_into().unwrap();
        assert!(key.verifies(TEXT, &signature));
        let signed = ed25519_signature("PeterNeumann", &key, &signature);
        assert_eq!(STANDARD.encode(&signed), LINE);
        assert_eq!(ed25519_verifier_key("PeterNeumann", &key), VERIFIER);
        // The name is part of the id.
        assert_ne!(ed25519_key_id("PeterNeumanN", &key), signed[..4]);
    }

    // The example of c2sp.org/signed-note.
    #[test]
    fn the_ed25519_verifier_key_of_the_specification() {
        let material = STANDARD
            .decode("AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
            .unwrap();
        let key = Ed25519Key::from_bytes(&material[1..]).unwrap();
        assert_eq!(
            ed25519_verifier_key("example.com/foo", &key),
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
        );
    }

    #[test]
    fn the_newest_ed25519_key_signs_where_there_is_one() {
        let mut custody = SoftCustody::new();
        assert!(sign_ed25519(&mut custody, TEXT).is_err());
        assert!(ed25519_keys(&mut custody).unwrap().is_empty());
        custody.add_version(KeyPurpose::CheckpointEd25519, 1);
        custody.add_version(KeyPurpose::CheckpointEd25519, 2);
        let (signature, key) = sign_ed25519(&mut custody, TEXT).unwrap();
        assert!(key.verifies(TEXT, &signature) && !key.verifies(b"another", &signature));
        let keys = ed25519_keys(&mut custody).unwrap();
        assert!(keys.len() == 2 && keys.last() == Some(&key));
    }

    // The public log of Sigstore: its key and its key id, as they are published
    // (rekor.sigstore.dev, c0d23d6a...).
    #[test]
    fn the_key_id_of_a_known_log() {
        let published = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2G2Y+2tabdTV5BcGiBIx0a9fAFwrkBbmLSGtks4L3qX6yYY0zufBnhC8Ur/iy55GhWP/9A/bY2LhC30M9+RYtw==";
        let published = STANDARD.decode(published).unwrap();
        let key = PublicKey::from_point(&published[26..]).unwrap();
        assert_eq!(spki(&key), published);
        assert_eq!(key_id(&key), [0xc0, 0xd2, 0x3d, 0x6a]);
        let line = note_signature(&key, &[1; 64]);
        assert_eq!(line[..4], [0xc0, 0xd2, 0x3d, 0x6a]);
        assert_eq!(line[4..], der(&[1; 64]));
        let text = verifier_key("rekor.sigstore.dev", &key);
        let material = STANDARD.encode([&[2][..], &published].concat());
        assert_eq!(text, format!("rekor.sigstore.dev+c0d23d6a+{material}"));
    }

    #[test]
    fn integers_have_one_spelling() {
        let number = |last: &[u8]| {
            let mut number = [0; 32];
            number[32 - last.len()..].copy_from_slice(last);
            integer(&number)
        };
        assert_eq!(number(&[]), [2, 1, 0]);
        assert_eq!(number(&[0x7f]), [2, 1, 0x7f]);
        assert_eq!(number(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(number(&[1, 0]), [2, 2, 1, 0]);
        assert_eq!(integer(&[0xff; 32]).len(), 2 + 33);
    }
}
