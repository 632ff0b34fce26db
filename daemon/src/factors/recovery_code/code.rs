//! The reference of what a *client* does with a recovery code.
//!
//! Called by tests and by command-line clients. The daemon never calls it while
//! it serves: it must never make a code for an account, nor receive one. The
//! TypeScript SDK does the same; `vectors/recovery_code.json` is what both must
//! agree on.
//!
//! - A code is 16 random bytes.
//! - Its text is those bytes and one check byte, the first of
//!   `SHA-256(CHECK_DOMAIN || code)`, in Crockford's base 32: 28 symbols in
//!   groups of four. The check byte and the four bits that are left over (zero)
//!   tell a slip of the pen before an attempt is spent on it.
//! - Its parts are `HKDF-SHA-256(code, salt = none, info, 32)` (RFC 5869), with
//!   [`AUTH_INFO`] and [`SLOT_INFO`] as the info.

use std::fmt;

use aws_lc_rs::hkdf;
use custodyd_hsm::{Secret, SecretBytes};
use zeroize::Zeroizing;

use super::PART_BYTES;
use crate::factors::{RandomFailed, crockford, sha256};

/// HKDF info of the part that is sent.
pub const AUTH_INFO: &str = "custodyd/recovery-code/auth/v1";
/// HKDF info of the part that never is.
pub const SLOT_INFO: &str = "custodyd/recovery-code/slot/v1";

/// Before the code in the hash that the check byte is taken from.
const CHECK_DOMAIN: &str = "custodyd/recovery-code/check/v1";

const CODE_BYTES: usize = 16;

/// Why there is no code or no part of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryCodeError {
    /// Another length or other letters.
    #[error("not a recovery code: expected 28 letters and digits, in seven groups of four")]
    Format,
    /// One symbol or more is wrong.
    #[error("the recovery code is mistyped: compare it with what was written down")]
    Check,
    /// The host has no randomness for a code.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// HKDF failed.
    #[error("the parts of the recovery code can not be derived")]
    Derivation,
}

/// A recovery code: 128 bits.
pub struct RecoveryCode(Secret<CODE_BYTES>);

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(redacted)")
    }
}

impl RecoveryCode {
    /// A fresh code.
    pub fn generate() -> Result<Self, RecoveryCodeError> {
        let fill = |code: &mut [u8; CODE_BYTES]| aws_lc_rs::rand::fill(code);
        Ok(Self(Secret::try_init(fill).map_err(|_| RandomFailed)?))
    }

    /// Read what was typed, with the liberties of `crockford`.
    pub fn parse(text: &str) -> Result<Self, RecoveryCodeError> {
        let bytes = crockford::decode(text).ok_or(RecoveryCodeError::Format)?;
        let (code, check) = bytes
            .expose()
            .split_first_chunk::<CODE_BYTES>()
            .ok_or(RecoveryCodeError::Format)?;
        let code = Self(Secret::init(|bytes| bytes.copy_from_slice(code)));
        match check {
            [check] if *check == code.check() => Ok(code),
            [_] => Err(RecoveryCodeError::Check),
            _ => Err(RecoveryCodeError::Format),
        }
    }

    /// The text to write down.
    pub fn text(&self) -> Zeroizing<String> {
        let bytes = SecretBytes::init(CODE_BYTES + 1, |bytes| {
            let symbols = self.0.expose().iter().copied().chain([self.check()]);
            for (place, byte) in bytes.iter_mut().zip(symbols) {
                *place = byte;
            }
        });
        crockford::encode(bytes.expose())
    }

    /// The part that is sent.
    pub fn auth(&self) -> Result<Secret<PART_BYTES>, RecoveryCodeError> {
        self.part(AUTH_INFO)
    }

    /// The part that opens the slot, and never leaves the client.
    pub fn slot(&self) -> Result<Secret<PART_BYTES>, RecoveryCodeError> {
        self.part(SLOT_INFO)
    }

    fn part(&self, info: &str) -> Result<Secret<PART_BYTES>, RecoveryCodeError> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(self.0.expose());
        Secret::try_init(|part| {
            prk.expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(part))
                .map_err(|_| RecoveryCodeError::Derivation)
        })
    }

    fn check(&self) -> u8 {
        let [check, ..] = sha256(&[CHECK_DOMAIN.as_bytes(), self.0.expose()]);
        check
    }
}
