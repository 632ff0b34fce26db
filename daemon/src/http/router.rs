//! The public REST surface: the route table, and what every request passes through.
//!
//! From outside in: request id, log and metrics, panic barrier, time limit, CORS, security
//! headers, the limits and deadlines of strangers, a place among the requests under way, the count of what failed, then
//! the route. Nothing here decides anything about an account.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt as _;
use tower::ServiceBuilder;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::describe;
use super::door;
use super::problem::{Code, Problem};
use super::routes::{
    account, accounts, app_keys, bindings, contacts, devices, discovery, log, offline, opaque, otp,
    passkeys, pin, privacy, recover, recovery_codes, secrets, sessions, totp,
};
use super::state::Context;
use super::strangers;

/// Longer than any wait that a handler has inside: the token's deadline, the commit queue.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(30);

static DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(OpenApi)]
#[openapi(
    info(
        title = "custodyd",
        description = "Key custody for Progressive Web Apps: backs a device secret up and \
            returns it after a passkey or a PIN. Every `/v1` call carries a DPoP proof \
            (RFC 9449, ES256) with the nonce of the newest `DPoP-Nonce` header; every call that \
            is not a GET adds the claim `body_sha256`: base64url(SHA-256(body)). Calls with a \
            session add `ath` and send `Authorization: DPoP <token>`. Errors are RFC 9457 \
            problem documents with a stable `code`. Times are seconds since the Unix epoch, \
            byte strings unpadded base64url.",
        license(name = "MIT OR Apache-2.0")
    ),
    // Their indexes have slashes, which no path of OpenAPI can say; `table` routes them.
    paths(log::tile, log::entries),
    modifiers(&SessionScheme)
)]
struct Api;

struct SessionScheme;

impl Modify for SessionScheme {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = ApiKey::Header(ApiKeyValue::with_description(
            "Authorization",
            "`DPoP <token>`: a session token bound to the device's DPoP key (RFC 9449)",
        ));
        api.components
            .get_or_insert_default()
            .add_security_scheme("session", SecurityScheme::ApiKey(scheme));
        let mut backend = Http::new(HttpAuthScheme::Bearer);
        backend.description = Some(
            "A credential of the app's backend; the app's policy lists its SHA-256".to_owned(),
        );
        api.components
            .get_or_insert_default()
            .add_security_scheme("backend", SecurityScheme::Http(backend));
        let mut auditor = Http::new(HttpAuthScheme::Bearer);
        auditor.description = Some(
            "A credential of an auditor; the daemon's configuration lists its SHA-256".to_owned(),
        );
        api.components
            .get_or_insert_default()
            .add_security_scheme("auditor", SecurityScheme::Http(auditor));
    }
}

fn table() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(accounts::create))
        .routes(routes!(sessions::pin))
        .routes(routes!(sessions::passkey_options))
        .routes(routes!(sessions::passkey))
        .routes(routes!(sessions::device))
        .routes(routes!(sessions::refresh))
        .routes(routes!(sessions::end))
        .routes(routes!(sessions::end_all))
        .routes(routes!(account::show))
        .routes(routes!(account::events))
        .routes(routes!(offline::report))
        .routes(routes!(pin::set, pin::remove))
        .routes(routes!(opaque::start_registration))
        .routes(routes!(opaque::finish_registration))
        .routes(routes!(opaque::start_sign_in))
        .routes(routes!(opaque::finish_sign_in))
        .routes(routes!(opaque::start_after_code))
        .routes(routes!(opaque::finish_after_code))
        .routes(routes!(passkeys::options))
        .routes(routes!(passkeys::add))
        .routes(routes!(passkeys::confirm))
        .routes(routes!(passkeys::remove))
        .routes(routes!(devices::bind))
        .routes(routes!(devices::remove))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::store, secrets::release, secrets::delete))
        .routes(routes!(app_keys::add))
        .routes(routes!(app_keys::remove))
        .routes(routes!(bindings::look_up))
        .routes(routes!(contacts::claim_contact, contacts::remove_contact))
        .routes(routes!(contacts::confirm_contact))
        .routes(routes!(contacts::claim_alias, contacts::remove_alias))
        .routes(routes!(contacts::confirm_alias))
        .routes(routes!(otp::request))
        .routes(routes!(otp::sign_in))
        .routes(routes!(otp::pin))
        .routes(routes!(discovery::jwks))
        .routes(routes!(totp::enrol, totp::remove))
        .routes(routes!(totp::confirm))
        .routes(routes!(totp::sign_in))
        .routes(routes!(recovery_codes::set, recovery_codes::remove))
        .routes(routes!(recovery_codes::sign_in))
        .routes(routes!(recover::cancel))
        .routes(routes!(discovery::webauthn))
        .routes(routes!(privacy::export))
        .routes(routes!(privacy::erase))
        .routes(routes!(log::checkpoint))
        .routes(routes!(log::witnessed))
        .route("/log/tile/{level}/{*index}", get(log::tile))
        .route("/log/tile/entries/{*index}", get(log::entries))
}

/// The OpenAPI 3.1 description, generated from the code.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().1
}

fn described() -> (Router<Arc<Context>>, utoipa::openapi::OpenApi) {
    let (router, mut api) = table().split_for_parts();
    describe::complete(&mut api);
    (router, api)
}

/// Where the description is.
pub(super) const DESCRIPTION: &str = "/openapi.json";

/// The router for one listener.
pub fn router(context: Arc<Context>) -> Router {
    let (router, api) = described();
    // Copied for nobody: an answer holds it for as long as its client likes.
    let description = Bytes::from(serde_json::to_string(&api).unwrap_or_default());
    let state = || Arc::clone(&context);
    // No more layers than these: a request copies all that is within a layer, and its answer gets a box of its own, once
    // for each that it passes. What goes on in one is functions.
    let layers = ServiceBuilder::new()
        .layer(middleware::from_fn(watched))
        .layer(cors(state()))
        .layer(middleware::from_fn_with_state(state(), admitted));
    router
        .route(
            DESCRIPTION,
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], description) }),
        )
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(layers)
        .with_state(context)
}

async fn no_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-route",
        "there is nothing here; /openapi.json lists what there is",
    )
}

async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "this resource does not take this method; /openapi.json lists those it takes",
    )
}

/// CORS per app: only the origins of the app that is asked. A session route does not name its
/// app in the path, so its preflight is answered for every listed origin, and the session's
/// app decides when the request itself arrives.
fn cors(context: Arc<Context>) -> CorsLayer {
    let allowed = move |origin: &HeaderValue, parts: &Parts| {
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let apps = context.service.apps();
        match app_in(parts.uri.path()) {
            Some(app) => apps.get(app).is_ok_and(|app| app.lists(origin)),
            None => apps.any_lists(origin),
        }
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("dpop"),
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([
            DPOP_NONCE.clone(),
            // A device whose clock is wrong learns by how much (proofs carry its time).
            header::DATE,
            header::ETAG,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
            REQUEST_ID.clone(),
        ])
        .max_age(Duration::from_secs(600))
}

fn app_in(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/apps/")?.split('/').next()
}

/// Who may come in, when the answer leaves, and the headers that it has; between them the door, and the route.
async fn admitted(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let mut response = match strangers::admit(&context, &request) {
        Ok(()) => {
            let asking = strangers::asking(&request);
            let work = door::place(&context, request, next);
            strangers::hold(&context, asking, work).await
        }
        Err(problem) => problem.into_response(),
    };
    finish(&context, response.headers_mut());
    response
}

/// A fresh DPoP nonce on every answer, and the headers that keep browsers strict.
fn finish(context: &Context, headers: &mut HeaderMap) {
    let service = &context.service;
    let nonce = service.proofs.nonce(service.now());
    if let Ok(nonce) = HeaderValue::from_str(&nonce) {
        headers.insert(DPOP_NONCE.clone(), nonce);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if context.base_url.starts_with("https:") {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=63072000"),
        );
    }
}

pub(super) fn took_too_long() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "timeout",
        "the request took too long; it may still have been carried out",
    )
    .again_in(5)
}

/// Within its time, and without taking the connection along where it panics: what it had locked is whole at every moment.
async fn bounded(work: impl Future<Output = Response>) -> Response {
    let work = tokio::time::timeout(REQUEST_LIMIT, work);
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => took_too_long().into_response(),
        // The panic hook has written where; the payload could hold anything and is not shown.
        Err(_) => {
            metrics::counter!("custodyd_panics_total").increment(1);
            let problem = Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "something went wrong inside",
            );
            problem.into_response()
        }
    }
}

/// A method may be any token of the sender's choice. A label of a metric stays for good, so only
/// the methods that routes have get one of their own.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Gives the request an identifier, a span and a line in the log, also where its client does not wait for the answer.
/// Only the route's pattern is logged: addresses hold device identifiers, bodies and headers hold secrets.
async fn watched(request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let method = known_method(request.method());
    let span = tracing::info_span!("request", id = %id, method, route = %route);
    let observed = Observed {
        span: span.clone(),
        route,
        method,
        began: Instant::now(),
        answered: false,
    };
    let mut response = bounded(next.run(request)).instrument(span).await;
    observed.answered(&response);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

/// A request of which one line is written: when it is answered, or when it is dropped before, which a client brings about
/// that hangs up, or a stop that does not wait for it any longer. What has begun by then goes on (`door`).
struct Observed {
    span: tracing::Span,
    route: String,
    method: &'static str,
    began: Instant,
    answered: bool,
}

impl Observed {
    fn answered(mut self, response: &Response) {
        self.answered = true;
        let status = response.status().as_u16();
        let code = response
            .extensions()
            .get::<Code>()
            .map_or("", |code| code.0);
        let micros = self.ends(status.to_string());
        self.span.in_scope(|| match code {
            // A flood is counted, and does not fill the log as well.
            "busy" | "rate-limited" => tracing::debug!(status, code, micros, "answered"),
            // Of these nobody asks a rate: they say what anybody may know.
            "" if self.method == "OPTIONS" => tracing::debug!(status, micros, "answered"),
            _ => tracing::info!(status, code, micros, "answered"),
        });
    }

    /// How long it took, in microseconds.
    fn ends(&mut self, status: String) -> u64 {
        let took = self.began.elapsed();
        let route = std::mem::take(&mut self.route);
        metrics::histogram!("custodyd_request_seconds", "route" => route, "method" => self.method, "status" => status)
            .record(took.as_secs_f64());
        took.as_micros() as u64
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if !self.answered {
            let micros = self.ends("gone".to_owned());
            let _entered = self.span.enter();
            tracing::info!(micros, "its client went away before the answer");
        }
    }
}
