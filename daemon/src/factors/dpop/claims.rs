//! The claims of proofs, compared with the request at hand.
//!
//! Called by `dpop` before the signature is checked: it is cheap, and what it
//! says helps a developer most. It must never let a claim that is absent pass
//! for one that agrees.

use serde::Deserialize;

use crate::clock::Reading;

use super::super::{b64, quoted, sha256};
use super::{AppKeyExpected, CLOCK_TOLERANCE, Expected, NONCE_LIFETIME};

const MAX_JTI: usize = 128;

#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) jti: String,
    htm: String,
    htu: String,
    iat: u64,
    pub(super) nonce: Option<String>,
    ath: Option<String>,
    body_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AppKeyClaims {
    aud: String,
    jkt: String,
    iat: u64,
    pub(super) nonce: Option<String>,
}

/// Every claim of a DPoP proof but the nonce (RFC 9449, section 4.3).
pub(super) fn check_claims(
    clock: Reading,
    expected: &Expected<'_>,
    claims: &Claims,
) -> Result<(), String> {
    equal("htm", expected.method, &claims.htm)?;
    equal("htu", expected.uri, &claims.htu)?;
    check_iat(clock, claims.iat)?;
    if claims.jti.is_empty() || claims.jti.chars().count() > MAX_JTI {
        return Err(format!("claim jti: expected 1 to {MAX_JTI} characters"));
    }
    hash(
        "ath",
        "the session token",
        expected.session_token.map(str::as_bytes),
        &claims.ath,
    )?;
    match expected.body {
        // A hash of the body of a read says nothing false: it is not looked at.
        None => Ok(()),
        body => hash("body_sha256", "the request body", body, &claims.body_sha256),
    }
}

/// Every claim of an app-key proof but the nonce.
pub(super) fn check_app_key_claims(
    clock: Reading,
    expected: &AppKeyExpected<'_>,
    claims: &AppKeyClaims,
) -> Result<(), String> {
    equal(
        "aud",
        &format!("{}/{}", expected.realm, expected.app),
        &claims.aud,
    )?;
    equal("jkt", expected.device_thumbprint, &claims.jkt)?;
    check_iat(clock, claims.iat)
}

fn equal(claim: &str, expected: &str, found: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "claim {claim}: expected {}, found {}",
        quoted(expected),
        quoted(found)
    ))
}

/// Where the host's clock was set back, nobody here knows which of its times was right, and devices' clocks are as good as
/// its own: how new a proof is, its nonce says.
fn check_iat(clock: Reading, iat: u64) -> Result<(), String> {
    let tolerance = CLOCK_TOLERANCE.as_secs();
    let earliest = clock.earliest.min(clock.now).0;
    let oldest = earliest.saturating_sub(NONCE_LIFETIME.as_secs() + tolerance);
    let newest = clock.latest.max(clock.now).0.saturating_add(tolerance);
    if (oldest..=newest).contains(&iat) {
        return Ok(());
    }
    Err(format!(
        "claim iat: {iat} is too far from the time here, {}: check the device's clock",
        clock.now.0
    ))
}

/// `claim` must be the hash of `value`, or must be absent where there is none.
fn hash(claim: &str, of: &str, value: Option<&[u8]>, found: &Option<String>) -> Result<(), String> {
    match (value, found) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(format!(
            "claim {claim}: this request has no {}; leave it out",
            of.trim_start_matches("the ")
        )),
        (Some(_), None) => Err(format!(
            "claim {claim} is missing: base64url(SHA-256 of {of})"
        )),
        (Some(value), Some(found)) if *found == b64(&sha256(&[value])) => Ok(()),
        (Some(_), Some(_)) => Err(format!(
            "claim {claim}: it is not base64url(SHA-256 of {of})"
        )),
    }
}
