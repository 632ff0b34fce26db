//! `DELETE /v1/account/recovery`: the owner's no to changes that wait.

use axum::http::StatusCode;

use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Cancel every change that waits
///
/// Where the policy delays them, a factor that is too weak by itself may ask for a new PIN or
/// for its device to be bound; `GET /v1/account` lists what waits. Any session may cancel.
#[utoipa::path(
    delete, path = "/v1/account/recovery", tag = "account",
    security(("session" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: nothing waits"),
    ),
)]
pub(in crate::http) async fn cancel(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    context.service.cancel_recoveries(caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
