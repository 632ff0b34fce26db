//! `POST /v1/account/offline-report`

use axum::http::StatusCode;

use crate::api::OfflineReport;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

/// Report wrong PINs that were tried without a network
///
/// For a device that keeps a copy which a PIN opens offline. The number becomes an event
/// (`offline-pins-refused`, with the number as its detail) that the owner reads on every device; no
/// budget is charged. Any session will do, a read-only one too. Where the answer is
/// lost, a report that is sent again is a second event: it tells too much rather than nothing.
#[utoipa::path(
    post, path = "/v1/account/offline-report", tag = "account",
    security(("session" = [])),
    request_body = OfflineReport,
    responses(
        (status = 204),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: `wrong_pins` is 0, or above 1,000,000"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "session-*, dpop-*"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "record-tampered"),
    ),
)]
pub(in crate::http) async fn report(
    Shared(context): Shared,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let report = signed.json::<OfflineReport>()?;
    context
        .service
        .report_offline(caller, report.wrong_pins)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
