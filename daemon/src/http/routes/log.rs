//! `/log`: the log for its auditors, as C2SP tlog-tiles lays it out.
//!
//! For machines of whoever checks that the log only grows: a bearer credential that the
//! configuration lists by its hash, instead of a DPoP proof. Nothing here is about a person in
//! clear. How to read it is in docs/LOG.md.

use axum::http::{HeaderMap, Uri, header};
use axum::response::IntoResponse;

use crate::http::problem::Problem;
use crate::http::request::bearer;
use crate::http::state::Shared;
use crate::http::tile_path::TilePath;
use crate::service::Refused;

/// A part of the log never changes. Not for shared caches: who asks must have a credential.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// The newest checkpoint
///
/// A C2SP signed note over the log's origin, size and root, signed in the token with the
/// checkpoint key of `/.well-known/jwks.json` (ECDSA P-256, signature type 0x02). Below it stand the
/// lines of witnesses that have cosigned this very checkpoint until now.
#[utoipa::path(
    get, path = "/log/checkpoint", tag = "log",
    security(("auditor" = [])),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "credential-invalid"),
    ),
)]
pub(in crate::http) async fn checkpoint(
    Shared(context): Shared,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let service = &context.service;
    let auditor = service.auditor(bearer(&headers)?)?;
    let checkpoint = service.log_checkpoint(auditor).await?;
    Ok((
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        checkpoint.cosigned_note(),
    ))
}

/// The newest checkpoint that enough witnesses have cosigned
///
/// As the newest one, with at least as many lines of witnesses below the log's own as the
/// configuration wants (C2SP tlog-cosignature). While the log grows it is some entries behind.
#[utoipa::path(
    get, path = "/log/checkpoint/witnessed", tag = "log",
    security(("auditor" = [])),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "credential-invalid"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found: no witness is configured, or too few have cosigned yet"),
    ),
)]
pub(in crate::http) async fn witnessed(
    Shared(context): Shared,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let service = &context.service;
    let auditor = service.auditor(bearer(&headers)?)?;
    let note = service.witnessed_checkpoint(auditor)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], note))
}

/// Hashes of the log
///
/// `index` in groups of three digits, all but the last with an `x` before it and a `/` behind:
/// `x001/x234/067`. A partial tile has `.p/` and its width, 1 to 255, behind that. Only what the
/// newest checkpoint covers is there.
#[utoipa::path(
    get, path = "/log/tile/{level}/{index}", tag = "log",
    security(("auditor" = [])),
    params(
        ("level" = String, Path, description = "0 to 63"),
        ("index" = String, Path, description = "index of the tile, and its width where it is partial"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: the path"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "credential-invalid"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "log-tampered"),
    ),
)]
pub(in crate::http) async fn tile(
    shared: Shared,
    headers: HeaderMap,
    uri: Uri,
) -> Result<impl IntoResponse, Problem> {
    part(shared, headers, uri).await
}

/// Entries of the log
///
/// Each behind its length as two bytes, the higher first. `index` as for hashes.
#[utoipa::path(
    get, path = "/log/tile/entries/{index}", tag = "log",
    security(("auditor" = [])),
    params(("index" = String, Path, description = "index of the bundle, and its width where it is partial")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-request: the path"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "credential-invalid"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 500, body = Problem, content_type = "application/problem+json", description = "log-tampered"),
    ),
)]
pub(in crate::http) async fn entries(
    shared: Shared,
    headers: HeaderMap,
    uri: Uri,
) -> Result<impl IntoResponse, Problem> {
    part(shared, headers, uri).await
}

async fn part(
    Shared(context): Shared,
    headers: HeaderMap,
    uri: Uri,
) -> Result<impl IntoResponse, Problem> {
    let service = &context.service;
    let auditor = service.auditor(bearer(&headers)?)?;
    // As it came: axum would decode it, and so take other spellings.
    let path = uri.path().strip_prefix("/log/tile/");
    let path = path.and_then(TilePath::parse).ok_or_else(|| {
        Refused::Malformed(
            "this is not how C2SP tlog-tiles writes the path of a tile, such as 0/x001/x234/067 or 0/273.p/112"
                .into(),
        )
    })?;
    let data = service
        .log_part(auditor, path.part, path.index, path.width())
        .await?;
    Ok((
        [
            (header::CONTENT_TYPE, "application/octet-stream"),
            (header::CACHE_CONTROL, FOR_EVER),
        ],
        data,
    ))
}
