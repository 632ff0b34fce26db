//! Time-based one-time passwords (TOTP, RFC 6238), as authenticator apps make them.
//!
//! Called by `service/`: [`TotpRecord::new`] at enrolment, the URI and its QR
//! code once and never again, then [`TotpRecord::matched_step`] on attempts
//! that were charged, and [`TotpRecord::take`] in the commit of the outcome. It
//! must never accept a step at or before the last one taken: a code that was
//! seen over a shoulder is a used code.
//!
//! `totp-rs` computes; the window, the order of steps and the bounds of what a
//! record may ask for are decided here.

mod qr;
#[cfg(test)]
mod tests;

use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};
use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

pub use self::qr::{QrCode, QrError};
use super::{RandomFailed, b64, random, random_secret, sha256_fields};
use crate::bytes::SharedSecret;

/// Digits that authenticator apps show (RFC 4226 section 5.3 asks for six at least).
pub const DIGITS: std::ops::RangeInclusive<u8> = 6..=8;
/// Seconds that a step may last.
pub const PERIOD: std::ops::RangeInclusive<u64> = 15..=300;
/// Longest issuer and longest account label, in bytes: escaped, they take half
/// of what a QR code holds.
pub const MAX_LABEL: usize = 128;
/// Most steps accepted before and after the current one.
pub const MAX_WINDOW: u8 = 10;

/// The hash under the HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// What every authenticator app computes. Collisions of SHA-1 do not
    /// weaken HMAC (RFC 4226 appendix B.2).
    Sha1,
    /// Ignored by many apps, which then show wrong codes.
    Sha256,
    /// As for SHA-256.
    Sha512,
}

/// Why there is no record, no URI or no step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    /// Authenticator apps show no such code.
    #[error("TOTP codes of {0} digits are not supported: choose 6 to 8")]
    Digits(u8),
    /// Shorter than typing takes, or long enough to be read out.
    #[error("a TOTP period of {0} s is not supported: choose 15 to 300")]
    Period(u64),
    /// The URI has no place for it.
    #[error("{0}: expected 1 to 128 bytes without colon or control characters")]
    Label(&'static str),
    /// Not after the last step taken.
    #[error("this code was used already: wait for the next one")]
    StepUsed,
    /// The host has no randomness for a secret.
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The record does not hold what [`TotpRecord::new`] makes.
    #[error("the TOTP record is not usable: {0}")]
    Record(String),
}

/// What the envelope keeps of one authenticator app.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TotpRecord {
    /// The key that the app shares.
    pub secret: SharedSecret,
    /// The hash under the HMAC.
    pub algorithm: Algorithm,
    /// Length of a code.
    pub digits: u8,
    /// Seconds of a step.
    pub period: u64,
    /// Random; of the device identifier only.
    #[serde(with = "super::text_bytes")]
    pub salt: [u8; 16],
    /// The newest step that was accepted.
    pub last_step: Option<u64>,
}

impl TotpRecord {
    /// A record with a fresh 160-bit secret (RFC 4226 section 4, R6). Nothing
    /// shows yet that an app holds it: it counts once a code confirmed it.
    pub fn new(digits: u8, period: u64) -> Result<Self, TotpError> {
        if !DIGITS.contains(&digits) {
            return Err(TotpError::Digits(digits));
        }
        if !PERIOD.contains(&period) {
            return Err(TotpError::Period(period));
        }
        Ok(Self {
            secret: random_secret(20)?,
            algorithm: Algorithm::Sha1,
            digits,
            period,
            salt: random()?,
            last_step: None,
        })
    }

    /// `base64url(SHA-256(domain, salt, secret))`: what the binding of this app names.
    pub fn device_id(&self) -> String {
        b64(&sha256_fields(
            "custodyd/totp-device-id/v1",
            &[&self.salt, self.secret.expose()],
        ))
    }

    /// The `otpauth://` URI that an app scans. It contains the secret: it goes
    /// to the enrolling device once, and into no log. (`totp-rs` joins it from
    /// strings that it does not wipe; only the whole is wiped here.)
    pub fn otpauth_uri(
        &self,
        issuer: &str,
        account_label: &str,
    ) -> Result<Zeroizing<String>, TotpError> {
        label("issuer", issuer)?;
        label("account label", account_label)?;
        self.builder()
            .with_issuer(Some(issuer))
            .with_account_name(account_label)
            .build()
            .and_then(|totp| totp.to_url())
            .map(Zeroizing::new)
            .map_err(|error| TotpError::Record(error.to_string()))
    }

    /// The step whose code this is, at most `window` steps from `now` (and never
    /// more than [`MAX_WINDOW`]). Whether that step is still good is
    /// [`TotpRecord::accepts`]'s to say.
    ///
    /// Every step of the window is computed and compared in constant time. Should
    /// two steps have the same code, the newer one is meant: else a code could be
    /// refused as used which its owner has just been shown.
    pub fn matched_step(
        &self,
        code: &str,
        now: Timestamp,
        window: u8,
    ) -> Result<Option<u64>, TotpError> {
        let totp = self.totp()?;
        let current = now.0 / totp.step(); // not zero: `build` refuses that
        let window = u64::from(window.min(MAX_WINDOW));
        let steps = current.saturating_sub(window)..=current.saturating_add(window);
        Ok(steps
            .filter_map(|step| step.checked_mul(totp.step()))
            .fold(None, |found, time| totp.check(code, time).or(found)))
    }

    /// Whether a step is newer than the last one taken.
    pub fn accepts(&self, step: u64) -> bool {
        self.last_step.is_none_or(|last| step > last)
    }

    /// Use a step up, and with it every earlier one. A restore uses up the
    /// steps of its time in the same way.
    pub fn take(&mut self, step: u64) -> Result<(), TotpError> {
        if !self.accepts(step) {
            return Err(TotpError::StepUsed);
        }
        self.last_step = Some(step);
        Ok(())
    }

    /// Uses up every step whose code may have been shown until now, those included that the
    /// widest window lets come early.
    pub fn use_up_to(&mut self, now: Timestamp) {
        let current = now.0.checked_div(self.period).unwrap_or(u64::MAX);
        let latest = current.saturating_add(u64::from(MAX_WINDOW));
        self.last_step = self.last_step.max(Some(latest));
    }

    fn totp(&self) -> Result<Totp, TotpError> {
        self.builder()
            .build()
            .map_err(|error| TotpError::Record(error.to_string()))
    }

    /// Without a skew: the window is walked here, so that the matching step is
    /// known and no early match ends the walk.
    fn builder(&self) -> Builder {
        Builder::new()
            .with_algorithm(match self.algorithm {
                Algorithm::Sha1 => totp_rs::Algorithm::SHA1,
                Algorithm::Sha256 => totp_rs::Algorithm::SHA256,
                Algorithm::Sha512 => totp_rs::Algorithm::SHA512,
            })
            .with_digits(self.digits)
            .with_step_duration(self.period)
            .with_skew(0)
            .with_secret(self.secret.expose())
    }
}

fn label(name: &'static str, text: &str) -> Result<(), TotpError> {
    let bounded = (1..=MAX_LABEL).contains(&text.len());
    let plain = text.chars().all(|c| c != ':' && !c.is_control());
    (bounded && plain)
        .then_some(())
        .ok_or(TotpError::Label(name))
}
