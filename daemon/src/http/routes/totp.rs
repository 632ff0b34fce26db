//! `/v1/account/totp`, its confirmation, and signing in with a code of it.

use axum::Json;

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{
    Bound, ConfirmTotp, EnrolTotp, SessionStarted, SessionToken, TotpEnrolment, TotpSession,
};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct TotpBound {
    totp: Bound,
    /// Replaces the session that asked, which ends where the app before opened it.
    session: SessionToken,
}

/// Enrol an authenticator app
///
/// Returns its secret, once: as `otpauth` URI, and as QR code in SVG and PNG. It is not in use
/// until a code confirms it; an app in use stays in use until then. Needs a fresh session at
/// least as strong as TOTP, where the account has a factor that strong.
#[utoipa::path(
    post, path = "/v1/account/totp", tag = "factors",
    security(("session" = [])),
    request_body = Option<EnrolTotp>,
    responses(
        (status = 201, body = TotpEnrolment),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: the label"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required (need_at_least, need_fresh), read-only-session, not-allowed-by-policy"),
    ),
)]
pub(in crate::http) async fn enrol(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<TotpEnrolment>), Problem> {
    let caller = signed.caller().await?;
    let request = signed.json_or_default::<EnrolTotp>()?;
    let enrolment = context.service.enrol_totp(caller, request).await?;
    Ok((StatusCode::CREATED, Json(enrolment)))
}

/// Confirm the authenticator app with a code
///
/// Charged like a sign-in; the code can not be used for one any more. `secrets` stores contents
/// rewrapped for the new factor in the same commit.
#[utoipa::path(
    post, path = "/v1/account/totp/confirm", tag = "factors",
    security(("session" = [])),
    request_body = ConfirmTotp,
    responses(
        (status = 200, body = TotpBound),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "totp-wrong (attempts_left, wait_until, exhausted)"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "totp-exhausted: enrol again; step-up-required"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "totp-not-pending: enrol first"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "those of rewrapped secrets: secret-malformed, prf-only-slot, server-slot-forbidden, slot-unknown"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "totp-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn confirm(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<TotpBound>, Problem> {
    let caller = signed.caller().await?;
    let request = signed.json::<ConfirmTotp>()?;
    let (totp, session) = context.service.confirm_totp(caller, request).await?;
    Ok(Json(TotpBound { totp, session }))
}

/// Remove the authenticator app
#[utoipa::path(
    delete, path = "/v1/account/totp", tag = "factors",
    security(("session" = [])),
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "totp-not-set"),
    ),
)]
pub(in crate::http) async fn remove(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    context.service.remove_totp(caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign in with a code of the authenticator app
///
/// Only from a device that is bound to the account; everybody else gets
/// `authentication-failed`. The attempt is charged before the code is looked at, and each code
/// opens one session at most.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/totp", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = TotpSession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "totp-wrong (attempts_left, wait_until, exhausted), authentication-failed, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "totp-exhausted, release-forbidden, confirm-first, not-allowed-by-policy"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: a secret to release; app-unknown"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "totp-not-set"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "totp-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn sign_in(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let request = signed.json::<TotpSession>()?;
    let started = context.service.sign_in_with_totp(device, request).await?;
    Ok((StatusCode::CREATED, Json(started)))
}
