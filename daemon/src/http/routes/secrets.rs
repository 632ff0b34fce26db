//! `/v1/account/secrets`: backup, recovery, list, delete.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

use crate::api::{Secret, SecretContent, SecretList, SecretWritten};
use crate::http::extract::Path;
use crate::http::problem::Problem;
use crate::http::request::Signed;
use crate::http::state::Shared;
use crate::service::{Precondition, Refused};

fn etag(version: u64) -> [(header::HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&format!("\"{version}\""));
    [(
        header::ETAG,
        value.unwrap_or(HeaderValue::from_static("\"\"")),
    )]
}

/// Back a secret up
///
/// `If-None-Match: *` to create, `If-Match: "<version>"` to replace. Names by convention:
/// `device-secret` and `app-key`. Content and slots are sealed by the client, as `client/sdk/SLOTS.md` describes; a slot
/// names a factor that the account has, PRF is never the only one, and a session changes the slots of no factor that
/// is stronger than its own. A secret that is there is replaced and deleted by a session that may read it
/// (`step-up-required`, with `need_one_of`); one that is not, any session that writes may make.
#[utoipa::path(
    put, path = "/v1/account/secrets/{name}", tag = "secrets",
    security(("session" = [])),
    params(
        ("name" = String, Path, description = "1 to 64 lower-case letters, digits, hyphens"),
        ("If-Match" = Option<String>, Header, description = "ETag of the version to replace"),
        ("If-None-Match" = Option<String>, Header, description = "*"),
    ),
    request_body = SecretContent,
    responses(
        (status = 200, body = SecretWritten, headers(("ETag" = String))),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "read-only-session; step-up-required (need_at_least, need_fresh): slots of a stronger factor would be changed; with need_one_of and secret: the session may not read what it would replace"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "too-many"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed (current_version)"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "secret-too-large"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "secret-malformed, prf-only-slot, server-slot-forbidden; slot-unknown"),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "precondition-required"),
    ),
)]
pub(in crate::http) async fn store(
    Shared(context): Shared,
    Path(name): Path<String>,
    signed: Signed,
) -> Result<impl IntoResponse, Problem> {
    let caller = signed.caller().await?;
    let precondition = signed.precondition()?;
    let content = signed.json::<SecretContent>()?;
    let version = context
        .service
        .store_secret(caller, name, precondition, content)
        .await?;
    Ok((etag(version), Json(SecretWritten { version })))
}

/// Recover a secret
///
/// The policy's release rules say which factor may have it; the release is an event.
#[utoipa::path(
    get, path = "/v1/account/secrets/{name}", tag = "secrets",
    security(("session" = [])),
    params(("name" = String, Path, description = "name of the secret")),
    responses(
        (status = 200, body = Secret, headers(("ETag" = String))),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "release-forbidden"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
    ),
)]
pub(in crate::http) async fn release(
    Shared(context): Shared,
    Path(name): Path<String>,
    signed: Signed,
) -> Result<impl IntoResponse, Problem> {
    let caller = signed.caller().await?;
    let secret = context.service.release_secret(caller, name).await?;
    Ok((etag(secret.version), Json(secret)))
}

/// List the secrets: names and versions
#[utoipa::path(
    get, path = "/v1/account/secrets", tag = "secrets",
    security(("session" = [])),
    responses((status = 200, body = SecretList)),
)]
pub(in crate::http) async fn list(
    Shared(context): Shared,
    signed: Signed,
) -> Result<Json<SecretList>, Problem> {
    let caller = signed.caller().await?;
    Ok(Json(context.service.list_secrets(&caller)))
}

/// Delete a secret
#[utoipa::path(
    delete, path = "/v1/account/secrets/{name}", tag = "secrets",
    security(("session" = [])),
    params(
        ("name" = String, Path, description = "name of the secret"),
        ("If-Match" = String, Header, description = "ETag of the version to delete"),
    ),
    responses(
        (status = 204),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "read-only-session; step-up-required (need_at_least, need_fresh): it has slots of a stronger factor; with need_one_of and secret: the session may not read it"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "last-slot: another secret opens by this one alone"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "precondition-failed (current_version)"),
        (status = 428, body = Problem, content_type = "application/problem+json", description = "precondition-required"),
    ),
)]
pub(in crate::http) async fn delete(
    Shared(context): Shared,
    Path(name): Path<String>,
    signed: Signed,
) -> Result<StatusCode, Problem> {
    let caller = signed.caller().await?;
    let Precondition::Version(version) = signed.precondition()? else {
        return Err(Refused::PreconditionRequired.into());
    };
    context.service.delete_secret(caller, name, version).await?;
    Ok(StatusCode::NO_CONTENT)
}
