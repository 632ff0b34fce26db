//! What the envelope keeps of a PIN: Argon2id parameters, salt and verifier.
//!
//! Made by `pin_argon2` at enrolment, kept in the sealed envelope, read at each
//! attempt. It must never be written anywhere but into an envelope: with the
//! token's pepper at hand, a verifier can be tried offline against all PINs.

use std::fmt;

use custodyd_hsm::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::super::{b64, sha256_fields};
use super::PinError;
use crate::account::{first_mac_key, is_first_mac_key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The verifier of one PIN. JSON: `salt` and `verifier` in base64url, the
/// Argon2id parameters as numbers (RFC 9106 section 3.1: m in KiB, t, p).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRecord {
    /// Random, of this enrolment only.
    #[serde(with = "super::super::text_bytes")]
    pub salt: [u8; 16],
    /// The version of the MAC key that the pepper comes from, where that is not the first.
    #[serde(default = "first_mac_key", skip_serializing_if = "is_first_mac_key")]
    pub mac_key: u16,
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// The 32-byte tag.
    #[serde(with = "secret_text")]
    pub verifier: Secret<32>,
}

/// Greatest memory of one evaluation, in KiB: the ceiling of the policy files.
pub const MAX_MEMORY_KIB: u32 = 1_048_576;
/// Most passes of one evaluation.
pub const MAX_PASSES: u32 = 16;
/// Most lanes of one evaluation.
pub const MAX_LANES: u32 = 4;

impl PinRecord {
    /// `base64url(SHA-256(domain, salt, verifier))`: what the binding of this
    /// PIN names. The hash of a salted, peppered tag tells nothing of the PIN.
    pub fn device_id(&self) -> String {
        b64(&sha256_fields(
            "custodyd/pin-device-id/v1",
            &[&self.salt, self.verifier.expose()],
        ))
    }

    /// Argon2id parameters, if they lie within what this host will spend. The
    /// record was sealed, so they are authentic; but a number is still no
    /// reason to allocate a terabyte.
    pub(super) fn params(&self) -> Result<argon2::Params, PinError> {
        params(self.memory_kib, self.passes, self.lanes)
    }
}

/// Checked parameters with a 32-byte tag.
pub(super) fn params(memory_kib: u32, passes: u32, lanes: u32) -> Result<argon2::Params, PinError> {
    let bounded = memory_kib <= MAX_MEMORY_KIB && passes <= MAX_PASSES && lanes <= MAX_LANES;
    bounded
        .then(|| argon2::Params::new(memory_kib, passes, lanes, Some(32)).ok())
        .flatten()
        .ok_or(PinError::Parameters {
            memory_kib,
            passes,
            lanes,
        })
}

impl fmt::Debug for PinRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinRecord")
            .field("memory_kib", &self.memory_kib)
            .field("passes", &self.passes)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

/// Serde form of a 32-byte secret that leaves no copy of its own behind.
mod secret_text {
    use super::*;

    const TEXT: usize = 43;

    pub(super) fn serialize<S: Serializer>(
        secret: &Secret<32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut buffer = Zeroizing::new([0u8; TEXT]);
        let text = URL_SAFE_NO_PAD
            .encode_slice(secret.expose(), buffer.as_mut_slice())
            .ok()
            .and_then(|_| std::str::from_utf8(buffer.as_slice()).ok())
            .ok_or_else(|| serde::ser::Error::custom("the verifier has no text form"))?;
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Secret<32>, D::Error> {
        deserializer.deserialize_str(Visitor)
    }

    struct Visitor;

    impl serde::de::Visitor<'_> for Visitor {
        type Value = Secret<32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("32 bytes as base64url")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret<32>, E> {
            // The error of the decoder would quote a byte of the text.
            let refused = || E::custom("expected 32 bytes as base64url");
            if text.len() != TEXT {
                return Err(refused());
            }
            Secret::try_init(
                |bytes| match URL_SAFE_NO_PAD.decode_slice_unchecked(text, bytes) {
                    Ok(32) => Ok(()),
                    _ => Err(refused()),
                },
            )
        }
    }
}
