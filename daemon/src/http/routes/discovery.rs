//! What anybody may read: the realm's public keys, and which pages may use an app's passkeys.
//! (`/openapi.json` is in the router.)

use axum::Json;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::problem::Problem;
use crate::http::state::Shared;

/// The realm's public keys (RFC 7517): verify bindings with them
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "discovery",
    responses((status = 200, body = Object, content_type = "application/jwk-set+json")),
)]
pub(in crate::http) async fn jwks(Shared(context): Shared) -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "application/jwk-set+json"),
            (header::CACHE_CONTROL, "public, max-age=300"),
        ],
        Json(context.service.jwks()),
    )
}

/// WebAuthn Level 3, section 5.11.1.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct RelatedOrigins {
    origins: Vec<String>,
}

/// The origins that may use the passkeys of the app whose relying party is this host
///
/// Browsers ask it of `https://<relying party id>` before a page of another site may use those
/// passkeys (WebAuthn Level 3, related origin requests). So the identifier's own host must lead
/// to custodyd for this path. The list is the policy's `origins`.
#[utoipa::path(
    get, path = "/.well-known/webauthn", tag = "discovery",
    responses(
        (status = 200, body = RelatedOrigins),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no-relying-party"),
    ),
)]
pub(in crate::http) async fn webauthn(
    Shared(context): Shared,
    uri: Uri,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    // HTTP/2 has the host in the address, HTTP/1.1 in a header. It decides only which of the
    // public lists is shown.
    let host = uri.host().or_else(|| {
        let authority = headers.get(header::HOST)?.to_str().ok()?;
        Some(authority.split(':').next().unwrap_or(authority))
    });
    let id = host.unwrap_or_default().to_ascii_lowercase();
    let origins = context.service.apps().origins_of(&id);
    if origins.is_empty() {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no-relying-party",
            "no app here has this host as its relying party id",
        ));
    }
    Ok((
        [(header::CACHE_CONTROL, "public, max-age=300")],
        Json(RelatedOrigins { origins }),
    ))
}
