//! Recovery codes: ten, written down at enrolment, each good for one recovery.
//!
//! Called by `service/`: [`RecoveryCodes::enrol`] with what the client uploads,
//! [`RecoveryCodes::find`] on attempts that were charged, and
//! [`RecoveryCodes::spend`] in the commit of the outcome. It must never see a
//! code: the client makes it and derives two parts ([`RecoveryCode`] is the
//! reference). The *auth* part is sent, and only its salted hash is kept; the
//! *slot* part opens an end-to-end sealed slot, and is never sent. Neither part
//! tells anything of the other.

mod code;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

pub use self::code::{AUTH_INFO, RecoveryCode, RecoveryCodeError, SLOT_INFO};
use super::{RandomFailed, b64, random, sha256_fields};
use crate::bytes::SharedSecret;

/// Codes of a set.
pub const CODES: usize = 10;
/// Bytes of an auth part and of a slot part.
pub const PART_BYTES: usize = 32;

/// Domain of the name that slots under a code have.
pub const SLOT_ID_DOMAIN: &str = "custodyd/recovery-code-slot-id/v1";

/// Why there is no set of codes, or no code to spend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryCodesError {
    /// A set is ten.
    #[error("expected {CODES} auth parts, found {0}")]
    Count(usize),
    /// An auth part is 32 bytes; counted from one.
    #[error("auth part {place}: expected {PART_BYTES} bytes, found {length}")]
    Length {
        /// Which one, counted from one.
        place: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// Spending one would spend two.
    #[error("two auth parts are the same: each must come from a code of its own")]
    Repeated,
    /// No code has that index, or it was spent.
    #[error("this recovery code was used already: take the next one on the list")]
    Spent,
    /// The host has no randomness for a salt.
    #[error(transparent)]
    Random(#[from] RandomFailed),
}

/// What the envelope keeps of a set. 256 bits cannot be guessed from a hash, so
/// no slow function is needed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryCodes {
    /// Random, of this set only.
    #[serde(with = "super::text_bytes")]
    salt: [u8; 16],
    codes: [Kept; CODES],
}

/// One code of a set.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// SHA-256 over domain, salt and auth part.
    #[serde(with = "super::text_bytes")]
    verifier: [u8; 32],
    /// What slots under this code are named by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    slot_id: String,
    spent: bool,
}

impl fmt::Debug for RecoveryCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryCodes")
            .field("left", &self.left())
            .finish_non_exhaustive()
    }
}

impl RecoveryCodes {
    /// Take a set over from its ten auth parts, in the order of the owner's list.
    pub fn enrol(auth_parts: &[SharedSecret]) -> Result<Self, RecoveryCodesError> {
        for (index, part) in auth_parts.iter().enumerate() {
            if part.len() != PART_BYTES {
                return Err(RecoveryCodesError::Length {
                    place: index + 1,
                    length: part.len(),
                });
            }
        }
        let salt = random()?;
        let kept = auth_parts.iter().map(|part| Kept {
            verifier: verifier(&salt, part.expose()),
            slot_id: slot_id(part.expose()),
            spent: false,
        });
        let codes: [Kept; CODES] = kept
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|kept: Vec<_>| RecoveryCodesError::Count(kept.len()))?;
        for (index, code) in codes.iter().enumerate() {
            let mut later = codes.iter().skip(index + 1);
            if later.any(|other| other.verifier == code.verifier) {
                return Err(RecoveryCodesError::Repeated);
            }
        }
        Ok(Self { salt, codes })
    }

    /// `base64url(SHA-256(domain, salt, verifier 1, ..., verifier 10))`, each
    /// verifier being the salted hash of its auth part: what the binding of this
    /// set names. Spending a code does not change it, another set does.
    pub fn device_id(&self) -> String {
        let fields: Vec<&[u8]> = std::iter::once(self.salt.as_slice())
            .chain(self.codes.iter().map(|code| code.verifier.as_slice()))
            .collect();
        b64(&sha256_fields(
            "custodyd/recovery-codes-device-id/v1",
            &fields,
        ))
    }

    /// The index of the code that `auth` is the auth part of, if it was not
    /// spent. All ten are compared, in constant time, whichever it is.
    pub fn find(&self, auth: &[u8]) -> Option<usize> {
        let shown = verifier(&self.salt, auth);
        let mut found = Choice::from(0);
        let mut index = 0u64;
        for (place, code) in (0u64..).zip(&self.codes) {
            let fresh = Choice::from(u8::from(!code.spent));
            let same = code.verifier.ct_eq(&shown) & fresh;
            index.conditional_assign(&place, same);
            found |= same;
        }
        bool::from(found)
            .then(|| usize::try_from(index).ok())
            .flatten()
    }

    /// Whether a slot of this name is for one of the codes, spent or not.
    pub fn has_slot(&self, id: &str) -> bool {
        self.codes.iter().any(|code| code.slot_id == id)
    }

    /// Whether a slot of this name is for one that was not spent.
    pub fn has_unspent(&self, id: &str) -> bool {
        let mut unspent = self.codes.iter().filter(|code| !code.spent);
        unspent.any(|code| code.slot_id == id)
    }

    /// Use a code up.
    pub fn spend(&mut self, index: usize) -> Result<(), RecoveryCodesError> {
        match self.codes.get_mut(index) {
            Some(code) if !code.spent => {
                code.spent = true;
                Ok(())
            }
            _ => Err(RecoveryCodesError::Spent),
        }
    }

    /// How many were not spent.
    pub fn left(&self) -> usize {
        self.codes.iter().filter(|code| !code.spent).count()
    }
}

/// The name of slots under a code. The client computes it before the set has a salt; of 256 random bits
/// a hash without one tells nothing.
pub fn slot_id(auth: &[u8]) -> String {
    b64(&sha256_fields(SLOT_ID_DOMAIN, &[auth]))
}

fn verifier(salt: &[u8; 16], auth: &[u8]) -> [u8; 32] {
    sha256_fields("custodyd/recovery-code-verifier/v1", &[salt, auth])
}
