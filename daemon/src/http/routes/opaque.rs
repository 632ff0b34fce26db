//! PINs by OPAQUE (RFC 9807): register one, sign in with one, go on with one after a code. Two calls each.

use axum::Json;
use axum::http::StatusCode;

use super::pin::PinBound;
use crate::api::{
    FinishOpaqueAfterCode, FinishOpaqueRegistration, FinishOpaqueSession, OpaqueLoginStarted,
    OpaqueRegistrationStarted, SessionStarted, StartOpaqueAfterCode, StartOpaqueRegistration,
    StartOpaqueSession,
};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Begin to register a PIN by OPAQUE
///
/// Offline registration of RFC 9807, section 5, with ristretto255 and SHA-512. The PIN stays with the
/// client. Needs what `PUT /v1/account/pin` needs. Nothing is changed yet.
#[utoipa::path(
    post, path = "/v1/account/opaque/start", tag = "factors",
    security(("session" = [])),
    request_body = StartOpaqueRegistration,
    responses(
        (status = 200, body = OpaqueRegistrationStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not a RegistrationRequest"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required (need_at_least, need_fresh), read-only-session, not-allowed-by-policy, confirm-first"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "recovery-waits (due, Retry-After): asked for by a weaker factor"),
    ),
)]
pub(in crate::http) async fn start_registration(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<OpaqueRegistrationStarted>, Problem> {
    // Half a sign-in too, here and below: for those who forgot the PIN that comes next.
    let caller = signed.limited_caller().await?;
    let started = context
        .service
        .start_opaque_registration(caller, signed.json::<StartOpaqueRegistration>()?)
        .await?;
    Ok(Json(started))
}

/// Register a PIN by OPAQUE
///
/// It takes the place of the PIN that the account has, also of one that the server checks. `key_stretching` is
/// what the client has spent on it: the policy has a minimum, and every login is told to spend the same.
/// `secrets` stores contents rewrapped for the new PIN in the same commit. Every other session that
/// the old PIN opened ends.
#[utoipa::path(
    post, path = "/v1/account/opaque/finish", tag = "factors",
    security(("session" = [])),
    request_body = FinishOpaqueRegistration,
    responses(
        (status = 200, body = PinBound),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not a RegistrationRecord"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "ceremony-*, session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required (need_at_least, need_fresh), read-only-session, not-allowed-by-policy, confirm-first"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "recovery-waits (due, Retry-After): asked for by a weaker factor; too-many; last-slot"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "ksf-weak: key_stretching is less than the policy's, or out of range; those of rewrapped secrets: secret-malformed, prf-only-slot, server-slot-forbidden, slot-unknown"),
    ),
)]
pub(in crate::http) async fn finish_registration(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<PinBound>, Problem> {
    let caller = signed.limited_caller().await?;
    let (pin, session) = context
        .service
        .finish_opaque_registration(caller, signed.json::<FinishOpaqueRegistration>()?)
        .await?;
    Ok(Json(PinBound::new(pin, session)))
}

/// Begin to sign in with a PIN by OPAQUE
///
/// Online login of RFC 9807, section 6, with ristretto255 and SHA-512, 3DH, no context and no identifiers. The attempt
/// is charged before the answer is made, and a right end gives it back. A device that is not bound
/// to the account gets an answer that no PIN fits, unless the policy has a budget for strangers' PINs; whether there is
/// such an account does not show. It is charged nothing.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/opaque/start", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = StartOpaqueSession,
    responses(
        (status = 200, body = OpaqueLoginStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not a KE1"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "authentication-failed: the PIN was replaced meanwhile; dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "pin-exhausted, not-allowed-by-policy, confirm-first"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "pin-not-set; pin-other-way: the server checks this PIN"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "pin-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn start_sign_in(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<Json<OpaqueLoginStarted>, Problem> {
    let device = signed.device(&app)?;
    let started = context
        .service
        .start_opaque_sign_in(device, signed.json::<StartOpaqueSession>()?)
        .await?;
    Ok(Json(started))
}

/// Sign in with a PIN by OPAQUE
///
/// The end of a login that this device began, until it expires. `release` returns secrets with the session.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/opaque/finish", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = FinishOpaqueSession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not a KE3"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "pin-wrong (attempts_left, wait_until, exhausted) from a bound device; authentication-failed, ceremony-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "not-allowed-by-policy, release-forbidden, confirm-first"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: a secret to release"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "pin-other-way"),
    ),
)]
pub(in crate::http) async fn finish_sign_in(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let started = context
        .service
        .finish_opaque_sign_in(device, signed.json::<FinishOpaqueSession>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}

/// Begin to go on with a PIN by OPAQUE
///
/// For a session of scope `pin-only`. The PIN is tried on a budget of its own, as by `POST /v1/session/pin`.
#[utoipa::path(
    post, path = "/v1/session/opaque/start", tag = "sessions",
    security(("session" = [])),
    request_body = StartOpaqueAfterCode,
    responses(
        (status = 200, body = OpaqueLoginStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not a KE1"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "authentication-failed: no PIN, or no attempt left now; session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "not-allowed-by-policy"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "session-complete: this session needs no PIN; pin-other-way"),
    ),
)]
pub(in crate::http) async fn start_after_code(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<OpaqueLoginStarted>, Problem> {
    let caller = signed.limited_caller().await?;
    let started = context
        .service
        .start_opaque_after_code(caller, signed.json::<StartOpaqueAfterCode>()?)
        .await?;
    Ok(Json(started))
}

/// Go on with a PIN by OPAQUE
///
/// Makes a full session of one of scope `pin-only`.
#[utoipa::path(
    post, path = "/v1/session/opaque/finish", tag = "sessions",
    security(("session" = [])),
    request_body = FinishOpaqueAfterCode,
    responses(
        (status = 201, body = SessionStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not a KE3"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "authentication-failed: a wrong PIN; ceremony-*, session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "release-forbidden, not-allowed-by-policy"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "session-complete: this session needs no PIN; pin-other-way"),
    ),
)]
pub(in crate::http) async fn finish_after_code(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let caller = signed.limited_caller().await?;
    let started = context
        .service
        .finish_opaque_after_code(caller, signed.json::<FinishOpaqueAfterCode>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}
