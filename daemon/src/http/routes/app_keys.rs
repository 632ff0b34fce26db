//! `/v1/account/app-keys`: bind a further app key, remove one.

use axum::Json;
use axum::http::StatusCode;

use crate::api::Bound;
use crate::api::app_keys::AddAppKey;
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Bind a further app key
///
/// To rotate, add the new key and then remove the old one. At most 8 keys. Needs a fresh session
/// with the strongest factor that the account has. A key that is bound already is answered with
/// the binding that it has.
#[utoipa::path(
    post, path = "/v1/account/app-keys", tag = "app keys",
    security(("session" = [])),
    request_body = AddAppKey,
    responses(
        (status = 201, body = Bound),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "dpop-invalid: the request's proof or app_key_proof; dpop-*, use-dpop-nonce, session-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session, origin-not-allowed"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "too-many, account-full, app-key-revoked"),
    ),
)]
pub(in crate::http) async fn add(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<Bound>), Problem> {
    let caller = signed.caller().await?;
    let bound = context
        .service
        .add_app_key(caller, signed.json::<AddAppKey>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(bound)))
}

/// Remove an app key
///
/// From then on the look-up by the app's backend says `revoked`. The last key stays: add another
/// first. Needs a fresh session with the strongest factor that the account has.
#[utoipa::path(
    delete, path = "/v1/account/app-keys/{device_id}", tag = "app keys",
    security(("session" = [])),
    params(("device_id" = String, Path, description = "RFC 7638 thumbprint of the app key")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "dpop-*, use-dpop-nonce, session-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session, origin-not-allowed"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "last-app-key"),
    ),
)]
pub(in crate::http) async fn remove(
    Shared(context): Shared,
    Path(device_id): Path<String>,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    context.service.remove_app_key(caller, device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
