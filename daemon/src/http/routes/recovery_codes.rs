//! `/v1/account/recovery-codes`, and signing in with one of them.

use axum::Json;

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{
    Bound, RecoveryCodeSession, RemoveFactor, SessionStarted, SessionToken, SetRecoveryCodes,
};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RecoveryCodesBound {
    recovery_codes: Bound,
    /// Replaces the session that asked, which ends where a code of the set before opened it.
    session: SessionToken,
}

/// Set or replace the recovery codes
///
/// The client makes ten codes and sends their auth parts. Needs a fresh session of a passkey, a
/// recovery code or the account's creation, where the account has a factor that strong.
/// `secrets` stores contents rewrapped for the new set in the same commit.
#[utoipa::path(
    post, path = "/v1/account/recovery-codes", tag = "factors",
    security(("session" = [])),
    request_body = SetRecoveryCodes,
    responses(
        (status = 201, body = RecoveryCodesBound),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not ten parts, not 32 bytes, or two alike"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required (need_at_least, need_fresh), read-only-session, not-allowed-by-policy"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "last-slot"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "those of rewrapped secrets: secret-malformed, prf-only-slot, server-slot-forbidden, slot-unknown"),
    ),
)]
pub(in crate::http) async fn set(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<RecoveryCodesBound>), Problem> {
    let caller = signed.caller().await?;
    let request = signed.json::<SetRecoveryCodes>()?;
    let (recovery_codes, session) = context.service.set_recovery_codes(caller, request).await?;
    let bound = RecoveryCodesBound {
        recovery_codes,
        session,
    };
    Ok((StatusCode::CREATED, Json(bound)))
}

/// Remove the recovery codes
#[utoipa::path(
    delete, path = "/v1/account/recovery-codes", tag = "factors",
    security(("session" = [])),
    request_body = Option<RemoveFactor>,
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "last-slot: without it a secret could not be opened any more; recovery-code-not-set"),
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
    context
        .service
        .remove_recovery_codes(caller, request)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign in with a recovery code
///
/// From any device; each code once. `bind_device` binds this device's key to the account in the
/// same commit. A device that is not bound gets `authentication-failed` for every code that is
/// not right, and can not use up anybody's attempts.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/recovery-code", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = RecoveryCodeSession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "recovery-code-wrong (attempts_left, wait_until, exhausted), authentication-failed, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "recovery-code-exhausted, release-forbidden, not-allowed-by-policy"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "recovery-code-not-set; too-many: devices"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "recovery-code-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn sign_in(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let request = signed.json::<RecoveryCodeSession>()?;
    let started = context
        .service
        .sign_in_with_recovery_code(device, request)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}
