//! The owner's view: `GET /v1/account` and `GET /v1/account/events`.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::{AccountView, EventPage};
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// The account: keys, devices, factors and the names of its secrets
#[utoipa::path(
    get, path = "/v1/account", tag = "account",
    security(("session" = [])),
    responses(
        (status = 200, body = AccountView),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
    ),
)]
pub(in crate::http) async fn show(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<AccountView>, Problem> {
    let caller = signed.caller().await?;
    Ok(Json(context.service.account_view(&caller)?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct EventsQuery {
    /// `next` of the page before.
    from: Option<String>,
    /// Size of a checkpoint that was kept: the answer shows that the log continues it.
    since: Option<u64>,
}

/// The account's events, newest first
///
/// Numbered without gaps; each names the log entry of the one before it. Each is proven against
/// the page's checkpoint.
#[utoipa::path(
    get, path = "/v1/account/events", tag = "account",
    security(("session" = [])),
    params(EventsQuery),
    responses(
        (status = 200, body = EventPage),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: the cursor"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "record-tampered, log-tampered"),
    ),
)]
pub(in crate::http) async fn events(
    Shared(context): Shared,
    Query(query): Query<EventsQuery>,
    signed: Signed,
) -> Result<Json<EventPage>, Problem> {
    let caller = signed.caller().await?;
    let page = context
        .service
        .events(&caller, query.from.as_deref(), query.since)
        .await?;
    Ok(Json(page))
}
