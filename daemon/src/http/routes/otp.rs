//! Delivered codes: ask for one, sign in with it, and go on with the PIN.

use axum::Json;

use axum::http::StatusCode;

use crate::api::{CodeRequested, CodeSession, PinAfterCode, RequestCode, SessionStarted};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Ask for a code
///
/// Answered at once, and alike whether there is such an account or not. A code that is sent can
/// be used once, from this device, for `valid_for` seconds. Where one was sent a moment ago, or many within a day, no
/// other is: this device may then use the one that was sent last, whose message says how long it is good.
#[utoipa::path(
    post, path = "/v1/apps/{app}/otp", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = RequestCode,
    responses(
        (status = 202, body = CodeRequested),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "not-allowed-by-policy"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "busy: for everybody"),
    ),
)]
pub(in crate::http) async fn request(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<CodeRequested>), Problem> {
    let device = signed.device(&app)?;
    let requested = context
        .service
        .request_code(device, signed.json::<RequestCode>()?)?;
    Ok((StatusCode::ACCEPTED, Json(requested)))
}

/// Sign in with a code
///
/// From the device that asked for it. A device that is not bound gets what the policy says: a
/// full session, or one of scope `pin-only`, which may go on with `POST /v1/session/pin`,
/// replace a forgotten PIN or bind the device where the policy's `[recover]` says so, and sign
/// out. Such a session releases nothing and binds nothing: ask for that with the PIN.
#[utoipa::path(
    post, path = "/v1/apps/{app}/sessions/otp", tag = "sessions",
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("DPoP" = String, Header, description = "RFC 9449 proof with nonce and body_sha256"),
    ),
    request_body = CodeSession,
    responses(
        (status = 201, body = SessionStarted),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: not the shape of a code"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "code-wrong (attempts_left, wait_until, exhausted) from a bound device; authentication-failed, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "code-exhausted, release-forbidden, confirm-first, step-up-required: to bind the device"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: a secret to release"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "code-wait (Retry-After)"),
    ),
)]
pub(in crate::http) async fn sign_in(
    Shared(context): Shared,
    Path(app): Path<String>,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let device = signed.device(&app)?;
    let started = context
        .service
        .sign_in_with_code(device, signed.json::<CodeSession>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}

/// Go on with the PIN
///
/// Makes a full session of one of scope `pin-only`. The PIN is tried on a budget of its own,
/// which is not that of the bound devices; how much of it is left is not told.
#[utoipa::path(
    post, path = "/v1/session/pin", tag = "sessions",
    security(("session" = [])),
    request_body = PinAfterCode,
    responses(
        (status = 201, body = SessionStarted),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "authentication-failed: a wrong PIN, none, or no attempt left now; session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "release-forbidden, not-allowed-by-policy"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "session-complete: this session needs no PIN; pin-other-way: it stays with the client, by OPAQUE"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "busy: nothing was charged"),
    ),
)]
pub(in crate::http) async fn pin(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<SessionStarted>), Problem> {
    let caller = signed.limited_caller().await?;
    let started = context
        .service
        .go_on_with_pin(caller, signed.json::<PinAfterCode>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(started)))
}
