//! The two requests that a courier answers.
//!
//! Called by the socket's connections, after SO_PEERCRED. The caller is the process that serves, or
//! whoever has taken it over, and controls every byte: a letter is judged again, a URL is looked up, all
//! is bounded in length, time and number. Of a failure it learns what `delivery` would have told it in
//! its own process.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::time::timeout;

use super::destinations::{Destination, Destinations};
use crate::delivery::way::{Answer, none_within};
use crate::delivery::wire::{self, Trouble, Written};
use crate::delivery::{DeliveryError, SIGNATURE};

/// Less than the one who waits for it does.
const MAIL: Duration = Duration::from_secs(26);
const CALL: Duration = Duration::from_secs(9);
/// For what comes over a local socket.
const BODY: Duration = Duration::from_secs(5);

pub(super) fn router(destinations: Destinations) -> Router {
    Router::new()
        .route(wire::MAIL, post(mail))
        .route(wire::CALL, any(call))
        .with_state(Arc::new(destinations))
}

async fn mail(State(known): State<Arc<Destinations>>, request: Request) -> Response {
    match carried(&known, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse("mail", &error),
    }
}

async fn carried(known: &Destinations, request: Request) -> Result<(), DeliveryError> {
    let server = known.mail()?;
    let body = body(request.into_body(), wire::MAX_LETTER).await?;
    let written: Written = serde_json::from_slice(&body).map_err(|_| not_taken("a letter"))?;
    let letter = written.letter().map_err(not_taken)?;
    known.pace()?;
    let posted = timeout(MAIL, server.post(&letter)).await;
    posted.unwrap_or_else(|_| Err(none_within(MAIL)))
}

async fn call(State(known): State<Arc<Destinations>>, request: Request) -> Response {
    let answer = match called(&known, request).await {
        Ok(answer) => answer,
        Err(error) => return refuse("call", &error),
    };
    let mut response = Response::new(Body::from(answer.body));
    let status = HeaderValue::from(answer.status.as_u16());
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(wire::STATUS), status);
    if let Some(kind) = answer.content_type {
        headers.insert(CONTENT_TYPE, kind);
    }
    response
}

async fn called(known: &Destinations, request: Request) -> Result<Answer, DeliveryError> {
    let (parts, body) = request.into_parts();
    let to = parts.headers.get(wire::TO).and_then(|to| to.to_str().ok());
    let to = to.ok_or_else(|| not_taken("the address of a call"))?;
    let destination = known.find(&parts.method, to)?;
    let body = self::body(body, wire::MAX_CALL).await?;
    let mut outgoing = hyper::Request::builder().method(parts.method).uri(to);
    let way = match destination {
        Destination::Texts(way) => {
            let signature = parts.headers.get(SIGNATURE);
            let signature = signature.ok_or_else(|| not_taken("a signature"))?;
            outgoing = outgoing
                .header(CONTENT_TYPE, "application/json")
                .header(SIGNATURE, signature);
            known.pace()?;
            way
        }
        Destination::Witness(way) => way,
    };
    let outgoing = outgoing
        .body(Full::new(body))
        .map_err(|_| not_taken("a call"))?;
    let answered = timeout(CALL, way.call(outgoing)).await;
    answered.unwrap_or_else(|_| Err(none_within(CALL)))
}

async fn body(body: Body, most: usize) -> Result<Bytes, DeliveryError> {
    let read = timeout(BODY, to_bytes(body, most)).await;
    let read = read.map_err(|_| not_taken("a body within its time"))?;
    read.map_err(|_| not_taken("a body of the length that is allowed"))
}

/// Two versions that do not agree, or a peer that was taken over.
fn not_taken(what: &str) -> DeliveryError {
    DeliveryError::Permanent(format!("not taken: {what}"))
}

fn refuse(what: &'static str, error: &DeliveryError) -> Response {
    tracing::warn!(what, reason = error.reason(), "not carried");
    let status = match error {
        DeliveryError::Temporary(_) => StatusCode::SERVICE_UNAVAILABLE,
        DeliveryError::Permanent(_) => StatusCode::UNPROCESSABLE_ENTITY,
        DeliveryError::Misconfigured(_) => StatusCode::FORBIDDEN,
    };
    (status, axum::Json(Trouble::from(error))).into_response()
}
