//! The owner's rights: `GET /v1/account/export` and `DELETE /v1/account`.

use axum::Json;
use axum::http::StatusCode;

use crate::api::{EraseAccount, Export};
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Export everything held about the owner, in one document
///
/// Secrets come with it where the policy releases them to the session's factor; each release is
/// an event, and so is the export. The newest 1000 events are in the document.
#[utoipa::path(
    get, path = "/v1/account/export", tag = "account",
    security(("session" = [])),
    responses(
        (status = 200, body = Export),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "read-only-session"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "record-tampered"),
    ),
)]
pub(in crate::http) async fn export(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<Export>, Problem> {
    let caller = signed.caller().await?;
    Ok(Json(context.service.export(caller).await?))
}

/// Erase the account, for good
///
/// Needs a fresh session by the strongest factor that the account has. Secrets, devices, factors,
/// aliases and the bodies of all events go in one commit; every session ends; the account's
/// identifier can not be used again.
#[utoipa::path(
    delete, path = "/v1/account", tag = "account",
    security(("session" = [])),
    request_body = EraseAccount,
    responses(
        (status = 204),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: `confirm` names another account"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required, read-only-session"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "record-tampered"),
    ),
)]
pub(in crate::http) async fn erase(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let request = signed.json::<EraseAccount>()?;
    context
        .service
        .erase_account(caller, request.confirm)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
