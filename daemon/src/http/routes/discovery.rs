//! What anybody may read: the realm's public keys. (`/openapi.json` is in the router.)

use axum::Json;
use axum::http::header;
use axum::response::IntoResponse;

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
        Json(context.service.bindings.jwks()),
    )
}
