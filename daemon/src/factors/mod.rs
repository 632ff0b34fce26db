//! The factors: everything by which a caller shows who they are.
//!
//! Called by `service/` only. Nothing here knows HTTP, SQL or an account
//! record: each file turns outside bytes into a verified statement, or into an
//! error that says what was wrong. Whether that statement is enough is decided
//! in `service/` with the crate `custodyd_policies`.
//!
//! | file | shows | may never |
//! |---|---|---|
//! | [`dpop`] | the caller holds a device key, now, for this request (RFC 9449) | name an account; accept a proof twice; decide what the key may do |
//! | [`token`] | this process's realm sealed these bytes on that day | touch a database; seal or open under a key that the token did not derive |
//! | [`session`] | who signed in, by which factor, until when | say that the account, the device or the passkey still exists: the envelope does |
//! | [`ceremony`] | a passkey challenge was issued to this app, device and account | make a ceremony single use: its id is consumed in the envelope |
//! | [`passkey`] | a credential answered a challenge with presence and verification (WebAuthn Level 3) | see, keep or log a PRF result; trust a credential that the envelope did not give |
//! | [`pin_argon2`] | the PIN equals the enrolled one (RFC 9106) | run before the attempt was charged; run without a reservation; keep a PIN |
//! | [`pin_opaque`] | the client knows the enrolled PIN, which it never sends (RFC 9807) | answer before the attempt was charged; evaluate for a stranger under a key of a real record; keep a session key |
//! | [`totp`] | an authenticator app shares the secret, in this time step (RFC 6238) | take a step at or before the last one; show the secret after enrolment |
//! | [`delivered_code`] | who asked can read what was sent to a contact | keep a code: it is computed anew; give a stranger a short one; redeem one twice or for another device |
//! | [`recovery_code`] | one of ten codes that were written down at enrolment | see a code or its slot part; accept one twice |
//! | [`ticket`] | the app's backend wants somebody enrolled (RFC 7519) | say who that is; be good twice |
//! | [`jwk`], [`jws`] | a P-256 public key; a compact signature by it | accept another algorithm or a private key |
//! | `crockford` | nothing: the letters of codes that people type | read one text as two codes |
//!
//! All time comes in as an argument. All secrets are `custodyd_hsm::Secret` or
//! `SecretBytes`, which wipe themselves and do not print.

pub mod ceremony;
pub(crate) mod crockford;
pub mod delivered_code;
pub mod dpop;
pub mod jwk;
pub mod jws;
pub mod passkey;
pub mod pin_argon2;
pub mod pin_opaque;
pub mod recovery_code;
pub mod session;
pub mod ticket;
pub mod token;
pub mod totp;

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use custodyd_hsm::SecretBytes;

use crate::bytes::SharedSecret;

/// The host's random generator gave nothing. Nothing may go on without it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random generator of this host failed; nothing was changed")]
pub struct RandomFailed;

/// N fresh random bytes: identifiers, salts and keys of this process.
pub fn random<const N: usize>() -> Result<[u8; N], RandomFailed> {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes).map_err(|_| RandomFailed)?;
    Ok(bytes)
}

/// Fresh secret bytes for an envelope, made in the place where they stay.
pub(crate) fn random_secret(len: usize) -> Result<SharedSecret, RandomFailed> {
    let mut outcome = Ok(());
    let secret = SecretBytes::init(len, |bytes| {
        outcome = rand::fill(bytes).map_err(|_| RandomFailed);
    });
    outcome.map(|()| SharedSecret::new(secret))
}

/// Unpadded base64url (RFC 4648 section 5), the only binary text form in this API.
pub(crate) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Strict inverse of [`b64`]: padding, other alphabets and stray trailing bits
/// are refused, so that one value has one text.
pub(crate) fn unb64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// [`unb64`] for a value whose length is fixed.
pub(crate) fn unb64_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    unb64(text)?.try_into().ok()
}

/// Serde form of a short byte array: base64url text.
pub(crate) mod text_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::b64(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        super::unb64_array(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("expected {N} bytes as base64url")))
    }
}

/// SHA-256 over the given parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// SHA-256 over a domain and fields, each with its length before it (BE32), so
/// that ("ab", "c") and ("a", "bc") differ.
pub(crate) fn sha256_fields(domain: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for field in std::iter::once(&domain.as_bytes()).chain(fields) {
        // A field of 4 GiB cannot occur: bodies are bounded by the HTTP layer.
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        context.update(&length.to_be_bytes());
        context.update(field);
    }
    let mut out = [0u8; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Outside text made safe for an error message: escaped, and cut to 120 characters.
pub(crate) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(120).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        assert_ne!(
            sha256_fields("d", &[b"ab", b"c"]),
            sha256_fields("d", &[b"a", b"bc"])
        );
        assert_ne!(
            sha256_fields("d", &[b"", b"a"]),
            sha256_fields("d", &[b"a", b""])
        );
        assert_ne!(sha256_fields("da", &[b"b"]), sha256_fields("d", &[b"ab"]));
    }

    #[test]
    fn base64url_has_one_text_for_one_value() {
        assert_eq!(unb64("AA"), Some(vec![0]));
        for other in ["AB", "AA==", "AA\n", "A", "+/", " AA"] {
            assert_eq!(unb64(other), None, "{other}");
        }
    }

    #[test]
    fn quoted_text_is_escaped_and_bounded() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert!(quoted(&"x".repeat(5000)).len() < 140);
    }
}
