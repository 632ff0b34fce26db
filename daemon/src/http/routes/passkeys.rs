//! `/v1/account/passkeys`: register, confirm, remove.

use axum::Json;
use axum::http::StatusCode;

use crate::api::{
    AddPasskey, Bound, CeremonyOptions, ConfirmPasskey, ManagePasskeyOptions, RemoveFactor,
};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Options to register a passkey, or with `confirm` to confirm one
#[utoipa::path(
    post, path = "/v1/account/passkeys/options", tag = "factors",
    security(("session" = [])),
    request_body = Option<ManagePasskeyOptions>,
    responses(
        (status = 200, body = CeremonyOptions),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, not-allowed-by-policy"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: no such passkey"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "too-many"),
    ),
)]
pub(in crate::http) async fn options(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<CeremonyOptions>, Problem> {
    let caller = signed.caller().await?;
    let options = context
        .service
        .passkey_options(&caller, signed.json_or_default::<ManagePasskeyOptions>()?)
        .await?;
    Ok(Json(options))
}

/// Register a passkey
///
/// Needs a fresh session of a passkey or the account's creation, or of the account's strongest
/// factor. The device identifier is the SHA-256 of the COSE public key.
#[utoipa::path(
    post, path = "/v1/account/passkeys", tag = "factors",
    security(("session" = [])),
    request_body = AddPasskey,
    responses(
        (status = 201, body = Bound),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "passkey-invalid, ceremony-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "passkey-known, too-many"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "prf-results-refused; those of rewrapped secrets: secret-malformed, prf-only-slot, server-slot-forbidden, slot-unknown"),
    ),
)]
pub(in crate::http) async fn add(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<Bound>), Problem> {
    let caller = signed.caller().await?;
    let bound = context
        .service
        .add_passkey(caller, signed.json::<AddPasskey>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(bound)))
}

/// Confirm a passkey that expires
///
/// From any session that may write, by an assertion of that passkey itself.
#[utoipa::path(
    post, path = "/v1/account/passkeys/{device_id}/confirm", tag = "factors",
    security(("session" = [])),
    params(("device_id" = String, Path, description = "device identifier of the passkey")),
    request_body = ConfirmPasskey,
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "passkey-invalid, authentication-failed, ceremony-*"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "prf-results-refused"),
    ),
)]
pub(in crate::http) async fn confirm(
    Shared(context): Shared,
    Path(device_id): Path<String>,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    context
        .service
        .confirm_passkey(caller, device_id, signed.json::<ConfirmPasskey>()?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a passkey; the sessions that it opened end
///
/// Its slots go with it, in the same commit; secrets that would not open any more refuse it.
#[utoipa::path(
    delete, path = "/v1/account/passkeys/{device_id}", tag = "factors",
    security(("session" = [])),
    params(("device_id" = String, Path, description = "device identifier of the passkey")),
    request_body = Option<RemoveFactor>,
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "last-slot: without it a secret could not be opened any more"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed: a secret has another version"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "secret-malformed, prf-only-slot, slot-unknown"),
    ),
)]
pub(in crate::http) async fn remove(
    Shared(context): Shared,
    Path(device_id): Path<String>,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let request = signed.json_or_default::<RemoveFactor>()?;
    context
        .service
        .remove_passkey(caller, device_id, request)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
