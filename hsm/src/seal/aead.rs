//! AES-256-GCM under a key that is used once, and the frame inside it.
//!
//! Called by the two sealings, and by `escrow`. The nonce is zero because the key is fresh
//! for each message (a new salt is part of its derivation); calling [`seal`]
//! twice with one key would break both messages.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{
    error::{Error, Result},
    secret::{Secret, SecretBytes},
};

/// The GCM tag, in bytes.
pub(super) const TAG: usize = 16;
/// The length field at the start of a frame, in bytes.
pub(super) const LENGTH: usize = 4;

/// `BE32(length) || plaintext || zeros`, `size` bytes in all.
pub(super) fn framed(plaintext: &[u8], size: usize) -> SecretBytes {
    let length = u32::try_from(plaintext.len()).unwrap_or(u32::MAX);
    SecretBytes::init(size.max(plaintext.len() + LENGTH), |frame| {
        let (head, rest) = frame.split_at_mut(LENGTH);
        head.copy_from_slice(&length.to_be_bytes());
        let (body, _) = rest.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
    })
}

/// Takes the plaintext out of a frame; the padding must be zeros.
pub(super) fn unframed(frame: &SecretBytes, what: &'static str) -> Result<SecretBytes> {
    let tampered = || Error::Tampered { what };
    let (length, rest) = frame
        .expose()
        .split_first_chunk::<LENGTH>()
        .ok_or_else(tampered)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| tampered())?;
    let (plaintext, padding) = rest.split_at_checked(length).ok_or_else(tampered)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(tampered());
    }
    Ok(SecretBytes::init(length, |out| {
        out.copy_from_slice(plaintext);
    }))
}

fn cipher(key: &Secret<32>) -> Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| Error::invalid("key", "AES-256-GCM did not take it"))
}

/// Ciphertext and tag. The frame is encrypted in place.
pub(crate) fn seal(key: &Secret<32>, aad: &[u8], mut frame: SecretBytes) -> Result<Vec<u8>> {
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = cipher(key)?
        .seal_in_place_separate_tag(nonce, Aad::from(aad), frame.expose_mut())
        .map_err(|_| Error::invalid("plaintext", "AES-256-GCM did not take it"))?;
    Ok([frame.expose(), tag.as_ref()].concat())
}

/// The frame, if key, AAD, ciphertext and tag belong together.
pub(crate) fn open(
    key: &Secret<32>,
    aad: &[u8],
    body: &[u8],
    what: &'static str,
) -> Result<SecretBytes> {
    open_under(key, [0; 12], aad, body, what)
}

/// `open` for any nonce, so that published vectors can be held against it.
fn open_under(
    key: &Secret<32>,
    nonce: [u8; 12],
    aad: &[u8],
    body: &[u8],
    what: &'static str,
) -> Result<SecretBytes> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let mut frame = SecretBytes::from(body.to_vec());
    let length = cipher(key)?
        .open_in_place(nonce, Aad::from(aad), frame.expose_mut())
        .map_err(|_| Error::Tampered { what })?
        .len();
    frame.truncate(length);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::hmac;
    use serde_json::Value;

    fn wycheproof(name: &str) -> Vec<Value> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors");
        let text = std::fs::read_to_string(format!("{folder}/wycheproof_{name}.json")).unwrap();
        let mut file: Value = serde_json::from_str(&text).unwrap();
        let vectors = file["vectors"].as_array_mut().map(std::mem::take).unwrap();
        assert!(vectors.len() > 50, "{name}");
        vectors
    }

    fn bytes(vector: &Value, name: &str) -> Vec<u8> {
        hex::decode(vector[name].as_str().unwrap()).unwrap()
    }

    #[test]
    fn wycheproof_aes_256_gcm() {
        for vector in wycheproof("aes_gcm") {
            let key = Secret::init(|out: &mut [u8; 32]| {
                out.copy_from_slice(&bytes(&vector, "key"));
            });
            let nonce: [u8; 12] = bytes(&vector, "iv").try_into().unwrap();
            let body = [bytes(&vector, "ct"), bytes(&vector, "tag")].concat();
            let opened = open_under(&key, nonce, &bytes(&vector, "aad"), &body, "vector");
            if vector["valid"] == true {
                assert_eq!(opened.unwrap().expose(), bytes(&vector, "msg"), "{vector}");
            } else {
                assert!(matches!(opened, Err(Error::Tampered { .. })), "{vector}");
            }
        }
    }

    /// The host's HMAC-SHA-256, under which `local` derives its keys. The token's own is held
    /// against the host's by the conformance suite.
    #[test]
    fn wycheproof_hmac_sha256() {
        for vector in wycheproof("hmac_sha256") {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes(&vector, "key"));
            let tag = hmac::sign(&key, &bytes(&vector, "msg"));
            let same = tag.as_ref() == bytes(&vector, "tag");
            assert_eq!(same, vector["valid"] == true, "{vector}");
        }
    }
}
