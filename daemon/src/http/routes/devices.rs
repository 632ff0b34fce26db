//! `/v1/account/devices`: bind the device that asks, remove another.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{BindDevice, Bound, SessionToken};
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct DeviceBound {
    device: Bound,
    /// Replaces the session that asked.
    session: SessionToken,
}

/// Bind this device
///
/// A bound device may try the PIN and open read-only sessions. Needs a fresh session.
#[utoipa::path(
    post, path = "/v1/account/devices", tag = "devices",
    security(("session" = [])),
    request_body = Option<BindDevice>,
    responses(
        (status = 201, body = DeviceBound),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "too-many; recovery-waits (due, Retry-After): asked for by a weaker factor"),
    ),
)]
pub(in crate::http) async fn bind(
    Shared(context): Shared,
    signed: Signed,
) -> Result<(StatusCode, Json<DeviceBound>), Problem> {
    // Half a sign-in too: for those who forgot the PIN that comes next.
    let caller = signed.limited_caller().await?;
    let (device, session) = context
        .service
        .bind_device(caller, signed.json_or_default::<BindDevice>()?)
        .await?;
    Ok((StatusCode::CREATED, Json(DeviceBound { device, session })))
}

/// Remove another device; its sessions end
#[utoipa::path(
    delete, path = "/v1/account/devices/{device_id}", tag = "devices",
    security(("session" = [])),
    params(("device_id" = String, Path, description = "RFC 7638 thumbprint of its device key")),
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "step-up-required"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "own-device"),
    ),
)]
pub(in crate::http) async fn remove(
    Shared(context): Shared,
    Path(device_id): Path<String>,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    context.service.remove_device(caller, device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
