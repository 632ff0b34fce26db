//! Signing in, refreshing and signing out.

use axum::Json;
use axum::http::StatusCode;

use crate::api::{
    CeremonyOptions, DeviceSession, PasskeyOptions, PasskeySession, PinSession, SessionStarted,
    SessionToken,
};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Sign in with a PIN
///
/// Only from a device that is bound to the account; everybody else gets
/// `authentication-failed`, unless the policy has a budget for strangers' PINs. The attempt is
/// charged before the PIN is looked at. `release` returns secrets with the session.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/pin", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = PinSession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "pin-wrong (attempts_left, wait_until, exhausted), authentication-failed, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "pin-exhausted, release-forbidden, confirm-first"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: a secret to release; app-unknown"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "pin-not-set; pin-other-way: the PIN stays with the client, by OPAQUE"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "pin-wait (Retry-After)"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "busy: nothing was charged"),
    ),
)]
pub(in crate::http) async fn pin(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let started = context
        .service
        .sign_in_with_pin(device, signed.json::<PinSession>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}

/// Options for signing in with a passkey
///
/// Pass `publicKey` to `navigator.credentials.get` and send its answer with `ceremony`. With
/// `account`, and from a bound device, `allowCredentials` lists the account's passkeys;
/// otherwise the passkey is discovered. `extensions.prf.eval.first` is the app's constant PRF
/// salt.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/passkey/options", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = Option<PasskeyOptions>,
    responses(
        (status = 200, body = CeremonyOptions),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "not-allowed-by-policy"),
    ),
)]
pub(in crate::http) async fn passkey_options(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<Json<CeremonyOptions>, Problem> {
    let device = signed.device(&app)?;
    let options = context
        .service
        .passkey_login_options(&device, signed.json_or_default::<PasskeyOptions>()?)
        .await?;
    Ok(Json(options))
}

/// Sign in with a passkey
///
/// From any device. `bind_device` binds this device's key to the account in the same commit. A
/// body with `prf.results` is refused: that secret is the client's alone.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/passkey", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = PasskeySession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "authentication-failed, passkey-invalid, ceremony-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "passkey-expired, release-forbidden"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "prf-results-refused"),
    ),
)]
pub(in crate::http) async fn passkey(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let started = context
        .service
        .sign_in_with_passkey(device, signed.json::<PasskeySession>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}

/// Open a read-only session
///
/// With the key of a bound device alone: asks the owner for nothing, and may read only.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/device", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = DeviceSession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "authentication-failed, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "release-forbidden, confirm-first"),
    ),
)]
pub(in crate::http) async fn device(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let started = context
        .service
        .sign_in_with_device(device, signed.json::<DeviceSession>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}

/// Refresh the session
///
/// Returns a token for the same session whose idle time starts again. The absolute end stays.
#[utoipa::path(
    post, path = "/v1/session/refresh", tag = "sessions",
    security(("session" = [])),
    responses(
        (status = 200, body = SessionToken),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-expired, session-ended, session-invalid, dpop-*"),
    ),
)]
pub(in crate::http) async fn refresh(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<SessionToken>, Problem> {
    let caller = signed.caller().await?;
    Ok(Json(context.service.refresh_session(&caller).await?))
}

/// Sign out
///
/// Ends all sessions of this device; of a device that is not bound, this one session.
#[utoipa::path(
    delete, path = "/v1/session", tag = "sessions",
    security(("session" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
    ),
)]
pub(in crate::http) async fn end(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.limited_caller().await?;
    context.service.end_session(caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sign out everywhere
#[utoipa::path(
    delete, path = "/v1/sessions", tag = "sessions",
    security(("session" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "read-only-session"),
    ),
)]
pub(in crate::http) async fn end_all(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    context.service.end_all_sessions(caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
