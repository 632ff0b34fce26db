//! Enrolment tickets: the app's backend says that somebody may create an account.
//!
//! Called by account creation only. A ticket is a JWT (RFC 7519, ES256) by one of the keys that
//! the app's policy lists. It must never be taken for more than that permission: what it says
//! about a person is not read, and that it works once is the account identifier's doing, which
//! is derived from its `jti`.
//!
//! The adversary writes every byte, and may hold tickets of other apps, realms and people.

use custodyd_policies::{TicketKey, Timestamp};
use serde::Deserialize;

use super::jwk::PublicJwk;
use super::{jws, quoted, unb64_array};

/// Header type of a ticket.
pub const TICKET_TYP: &str = "custodyd-ticket+jwt";
/// No ticket is good for longer than this, whatever its `exp` says.
pub const MAX_LIFETIME: u64 = 24 * 3600;
/// How far the clock of the backend may be off.
const CLOCK_TOLERANCE: u64 = 60;
const MAX_JTI: usize = 128;

/// What a ticket has to say.
#[derive(Debug, Clone, Copy)]
pub struct TicketExpected<'a> {
    pub realm: &'a str,
    pub app: &'a str,
    /// Thumbprint of the device key that asks.
    pub device_thumbprint: &'a str,
}

/// A ticket that verified: the name under which it is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub jti: String,
}

/// Why a ticket was not taken. Written for the developer of the backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("ticket: {0}")]
    Invalid(String),
    /// The one defect that a new ticket from the same backend mends.
    #[error("the ticket has expired; ask the app for a new one")]
    Expired,
}

impl TicketError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "ticket-invalid",
            Self::Expired => "ticket-expired",
        }
    }
}

/// Members that are not listed (such as `sub`) are allowed and not looked at.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: u64,
    jti: String,
    #[serde(default)]
    jkt: Option<String>,
    #[serde(default)]
    nbf: Option<u64>,
}

/// A policy's ticket key as a key.
///
/// # Errors
/// A sentence for the operator, without the name of the key.
pub fn key(listed: &TicketKey) -> Result<PublicJwk, String> {
    let coordinate = |name: &str, text: &str| {
        unb64_array(text).ok_or_else(|| format!("{name}: expected 32 bytes of base64url"))
    };
    let (x, y) = (coordinate("x", &listed.x)?, coordinate("y", &listed.y)?);
    PublicJwk::from_coordinates(x, y).map_err(|error| error.to_string())
}

/// Checks a ticket against the request at hand.
///
/// # Errors
/// `Expired` only for a ticket that is right otherwise, its signature included.
pub fn verify(
    now: Timestamp,
    text: &str,
    keys: &[TicketKey],
    expected: &TicketExpected<'_>,
) -> Result<Ticket, TicketError> {
    let claims = jws::parse_by_kid::<Claims>(text, TICKET_TYP, |kid| {
        let listed = keys
            .iter()
            .find(|key| key.kid == kid)
            .ok_or_else(|| format!("header: kid {}: the policy has no such key", quoted(kid)))?;
        key(listed)
    })
    .and_then(jws::Unverified::verify)
    .map(|(claims, _)| claims)
    .map_err(TicketError::Invalid)?;
    check(now, &claims, expected)?;
    Ok(Ticket { jti: claims.jti })
}

fn check(
    now: Timestamp,
    claims: &Claims,
    expected: &TicketExpected<'_>,
) -> Result<(), TicketError> {
    let audience = format!("{}/{}", expected.realm, expected.app);
    equal("iss", expected.app, &claims.iss)?;
    equal("aud", &audience, &claims.aud)?;
    if let Some(jkt) = &claims.jkt {
        equal("jkt", expected.device_thumbprint, jkt)?;
    }
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
        let sentence = format!("claim jti: expected 1 to {MAX_JTI} bytes");
        return Err(TicketError::Invalid(sentence));
    }
    let latest = now.0.saturating_add(CLOCK_TOLERANCE);
    if claims.nbf.is_some_and(|from| from > latest) {
        return Err(TicketError::Invalid(
            "claim nbf: the ticket is not valid yet".into(),
        ));
    }
    if claims.exp > latest.saturating_add(MAX_LIFETIME) {
        let sentence = format!("claim exp: a ticket may live for {MAX_LIFETIME} seconds at most");
        return Err(TicketError::Invalid(sentence));
    }
    if claims.exp.saturating_add(CLOCK_TOLERANCE) <= now.0 {
        return Err(TicketError::Expired);
    }
    Ok(())
}

fn equal(claim: &str, expected: &str, found: &str) -> Result<(), TicketError> {
    if found == expected {
        return Ok(());
    }
    Err(TicketError::Invalid(format!(
        "claim {claim}: expected {}, found {}",
        quoted(expected),
        quoted(found)
    )))
}

#[cfg(test)]
mod tests;
