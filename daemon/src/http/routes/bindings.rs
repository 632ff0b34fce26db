//! `GET /v1/apps/{app}/bindings/{device_id}`: the app's backend asks whether a key still holds.
//!
//! The one route for machines of the app's operator: a bearer credential instead of a DPoP
//! proof, because a backend has no device key. It reads, and nothing of it is a secret.

use axum::Json;
use axum::http::HeaderMap;
use custodyd_hsm::AccountId;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::api::app_keys::LookedUp;
use crate::http::extract::{Path, Query};
use crate::http::problem::Problem;
use crate::http::request::bearer;
use crate::http::state::Shared;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct LookUpQuery {
    /// The account, as `sub` of the binding names it.
    #[param(value_type = String, format = "uuid")]
    account: AccountId,
}

/// Is this key still bound to this account?
///
/// For the app's backend, before it takes a signature by an app key, device key or passkey. The
/// account must be named, because nothing here maps a key to its account: whoever holds a
/// binding finds the account in its claim `sub`. An account or a key that this app does not have
/// is `unknown`. A key that was removed is `revoked`; the account remembers the last 32.
#[utoipa::path(
    get, path = "/v1/apps/{app}/bindings/{device_id}", tag = "backend",
    security(("backend" = [])),
    params(
        ("app" = String, Path, description = "app identifier of the policy file"),
        ("device_id" = String, Path, description = "device identifier of the key"),
        LookUpQuery,
    ),
    responses(
        (status = 200, body = LookedUp),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: the account"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "credential-invalid"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "app-unknown"),
    ),
)]
pub(in crate::http) async fn look_up(
    Shared(context): Shared,
    Path((app, device_id)): Path<(String, String)>,
    headers: HeaderMap,
    query: Result<Query<LookUpQuery>, Problem>,
) -> Result<Json<LookedUp>, Problem> {
    let credential = bearer(&headers)?;
    let app = context.service.backend(&app, credential)?;
    // Only now: who may not ask is not told how to.
    let Query(query) = query?;
    let found = context
        .service
        .look_up(&app, query.account, &device_id)
        .await?;
    Ok(Json(found))
}
