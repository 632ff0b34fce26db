//! Codes that are sent to a contact: by e-mail, or through an SMS gateway.
//!
//! Called by `service/` and its delivery worker: [`PendingCodes::issue`] or
//! [`PendingCodes::attach`] in the commit of a request, [`OtpSecret::code`] when
//! the message is written, [`PendingCodes::find`] on attempts that were charged,
//! [`PendingCodes::redeem`] in the commit of the outcome. It must never keep a
//! code: what is kept is the secret of the contact and what the code was made
//! for, so that the envelope's opener sees no code, and erasing the contact
//! ends all of them.
//!
//! A code is short only if every device that may redeem it was bound when it
//! asked. Strangers get 80 bits, so that guessing is hopeless without a budget,
//! and a budget that strangers use up locks nobody out.

mod code;
mod pending;
#[cfg(test)]
mod tests;

use aws_lc_rs::hmac;
use custodyd_hsm::SecretBytes;
use serde::{Deserialize, Serialize};

pub use self::code::{Code, CodeFormat, Form};
pub use self::pending::{
    IssueError, MAX_PENDING, MAX_REQUESTERS, Pending, PendingCodes, Requester,
};
use super::{RandomFailed, b64, random, random_secret, sha256_fields};
use crate::bytes::SharedSecret;

/// Bytes of a long code.
const LONG_BYTES: usize = 10;
/// Bytes of the HMAC that a short code is the remainder of.
const WIDE_BYTES: usize = 16;

/// The OTP secret of one contact.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtpSecret {
    /// The HMAC key; it never leaves the envelope.
    pub secret: SharedSecret,
    /// Random; of the device identifier only.
    #[serde(with = "super::text_bytes")]
    pub salt: [u8; 16],
}

impl OtpSecret {
    /// A fresh secret of 256 bits, for a contact that was just named.
    pub fn new() -> Result<Self, RandomFailed> {
        Ok(Self {
            secret: random_secret(32)?,
            salt: random()?,
        })
    }

    /// `base64url(SHA-256(domain, salt, secret))`: what the binding of this contact names.
    pub fn device_id(&self) -> String {
        b64(&sha256_fields(
            "custodyd/otp-device-id/v1",
            &[&self.salt, self.secret.expose()],
        ))
    }

    /// The code that was or will be sent for `pending`.
    ///
    /// `HMAC-SHA-256(secret, domain || BE64(step) || BE64(counter) || form)`, of
    /// which a long code takes the first 80 bits. A short one is the first 128
    /// bits as a number, modulo 10^n: no digit is likelier than another by more
    /// than 2^-94. (The 31 bits of RFC 4226 would not reach ten digits.)
    pub fn code(&self, pending: &Pending) -> Code {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose());
        let mut context = hmac::Context::with_key(&key);
        context.update(b"custodyd/delivered-code/v1");
        context.update(&pending.step.to_be_bytes());
        context.update(&pending.counter.to_be_bytes());
        context.update(&pending.form.encoded());
        let tag = context.sign();
        match pending.form {
            Form::Digits(count) => {
                let wide = tag.as_ref().iter().take(WIDE_BYTES);
                let number = wide.fold(0u128, |number, byte| number << 8 | u128::from(*byte));
                Code::of_digits(number, count)
            }
            Form::Long => Code::of_bytes(SecretBytes::init(LONG_BYTES, |bytes| {
                for (byte, tag) in bytes.iter_mut().zip(tag.as_ref()) {
                    *byte = *tag;
                }
            })),
        }
    }

    /// Whether `code` is the one for `pending`, in constant time. It says
    /// nothing of expiry and requester: [`PendingCodes::find`] does.
    pub fn matches(&self, pending: &Pending, code: &Code) -> bool {
        self.code(pending).ct_eq(code)
    }
}
