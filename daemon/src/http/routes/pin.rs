//! `PUT` and `DELETE /v1/account/pin`

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{Bound, RemoveFactor, SessionToken, SetPin};
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct PinBound {
    pin: Bound,
    /// Replaces the session that asked, which ends where the old PIN opened it.
    session: SessionToken,
}

impl PinBound {
    pub(super) fn new(pin: Bound, session: SessionToken) -> Self {
        Self { pin, session }
    }
}

/// Set or change the PIN
///
/// The server sees the PIN and hashes it. `POST /v1/account/opaque/start` sets one that stays with the client.
///
/// Needs a fresh session of a PIN, a passkey or the account's creation. `secrets` stores
/// contents rewrapped for the new PIN in the same commit. Every other session that the old PIN
/// opened ends.
#[utoipa::path(
    put, path = "/v1/account/pin", tag = "factors",
    security(("session" = [])),
    request_body = SetPin,
    responses(
        (status = 200, body = PinBound),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required (need_at_least, need_fresh), read-only-session, not-allowed-by-policy"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "recovery-waits (due, Retry-After): asked for by a weaker factor; last-slot"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "pin-weak; those of rewrapped secrets: secret-malformed, prf-only-slot, server-slot-forbidden, slot-unknown"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "busy"),
    ),
)]
pub(in crate::http) async fn set(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<PinBound>, Problem> {
    // Half a sign-in too: for those who forgot the PIN that comes next.
    let caller = signed.limited_caller().await?;
    let (pin, session) = context
        .service
        .set_pin(caller, signed.json::<SetPin>()?)
        .await?;
    Ok(Json(PinBound::new(pin, session)))
}

/// Remove the PIN
#[utoipa::path(
    delete, path = "/v1/account/pin", tag = "factors",
    security(("session" = [])),
    request_body = Option<RemoveFactor>,
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "last-slot: without it a secret could not be opened any more; pin-not-set"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "secret-malformed, prf-only-slot, slot-unknown"),
    ),
)]
pub(in crate::http) async fn remove(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let request = signed.json_or_default::<RemoveFactor>()?;
    context.service.remove_pin(caller, request).await?;
    Ok(StatusCode::NO_CONTENT)
}
