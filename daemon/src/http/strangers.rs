//! Three things around every route: who may come in at all, when a stranger's answer leaves, and which guesses failed.
//!
//! Called by the router. `admit` refuses before anything of a request is believed, by address and
//! by app; the address is that of the connection, and no header of the request can change it.
//! `hold` keeps the answer to a stranger until a fixed time after the request, so that a clock
//! tells nothing about accounts. While it waits it holds its own request's place and nothing
//! else: no lock, no token session, no evaluation. `count` stands within the task that carries a request to its
//! end: `hold` ends where its client hangs up, and a failure that is counted there would be
//! counted for those alone who wait to hear of it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;

use super::door::finishes;
use super::problem::Problem;
use super::request::bearer;
use super::server::PeerAddress;
use super::state::Context;
use crate::service::{Asking, Standing, standing};

/// What a path of a route without a session is about.
struct Open<'a> {
    app: Option<&'a str>,
    /// Whether an account or an alias may be named: all but making an account, and what an
    /// app's backend asks with its own credential.
    names_accounts: bool,
    /// Whether people ask here, each from an address of their own; a backend has one for all.
    by_people: bool,
}

/// `None` for the routes with a session: their token says who asks, and it is opened before
/// anything that costs more.
fn open(path: &str) -> Option<Open<'_>> {
    let below = match path.strip_prefix("/v1/") {
        None => {
            return Some(Open {
                app: None,
                names_accounts: false,
                by_people: true,
            });
        }
        Some(below) => below.strip_prefix("apps/")?,
    };
    let (app, rest) = below.split_once('/').unwrap_or((below, ""));
    Some(Open {
        app: Some(app),
        names_accounts: rest != "accounts" && !rest.starts_with("bindings/"),
        by_people: !rest.starts_with("bindings/"),
    })
}

fn address(request: &Request) -> Option<IpAddr> {
    request
        .extensions()
        .get::<PeerAddress>()
        .map(|peer| peer.0.ip())
}

/// Whether the request carries a credential that the app's policy lists.
fn is_backend(context: &Context, app: Option<&str>, request: &Request) -> bool {
    match (app, bearer(request.headers())) {
        (Some(app), Ok(sent @ Some(_))) => context.service.backend(app, sent).is_ok(),
        _ => false,
    }
}

/// Whether this path's route is for those with a session.
pub(super) fn wants_session(path: &str) -> bool {
    open(path).is_none()
}

/// What comes without a session that opens where there should be one: before any room is given to its body.
///
/// # Errors
/// `RateLimited`.
pub(super) fn admit_without_session(
    context: &Context,
    address: Option<IpAddr>,
) -> Result<(), Problem> {
    Ok(context.service.strangers.admit(address, None)?)
}

/// By address and by app, for what comes without a session. Not yet for what may end a sign-in: a flood would turn an
/// attempt that was charged, and is right, into a lost one. What it is shows its body, and then the door asks here for
/// what ends nothing.
///
/// # Errors
/// `RateLimited`.
pub(super) fn admit(context: &Context, request: &Request) -> Result<(), Problem> {
    let path = request.uri().path();
    if let Some(open) = open(path).filter(|_| !finishes(path)) {
        let service = &context.service;
        let app = open.app.and_then(|name| service.apps().get(name).ok());
        // A backend asks for all its people from one address; who only claims to be one does not.
        let backend = !open.by_people && is_backend(context, open.app, request);
        let address = address(request).filter(|_| !backend);
        service
            .strangers
            .admit(address, app.as_ref().map(|app| &app.id))?;
    }
    Ok(())
}

/// What came as the end of a sign-in and is none, or is one too many.
///
/// # Errors
/// `RateLimited`.
pub(super) fn admit_after_all(
    context: &Context,
    path: &str,
    address: Option<IpAddr>,
) -> Result<(), Problem> {
    let service = &context.service;
    let app = open(path).and_then(|open| service.apps().get(open.app?).ok());
    Ok(service
        .strangers
        .admit(address, app.as_ref().map(|app| &app.id))?)
}

/// What is to be known of who asks, on the routes that name accounts.
pub(super) fn asking(request: &Request) -> Option<Arc<Asking>> {
    let names = open(request.uri().path()).is_some_and(|open| open.names_accounts);
    names.then(|| Asking::from(address(request)))
}

/// A stranger's answer, good or bad, leaves at a multiple of the deadline.
pub(super) async fn hold(
    context: &Context,
    asking: Option<Arc<Asking>>,
    work: impl Future<Output = Response>,
) -> Response {
    let Some(asking) = asking else {
        return work.await;
    };
    let response = asking.during(work).await;
    let service = &context.service;
    let times = asking.arrived().zip(asking.worked());
    if let (Standing::Stranger, Some((arrived, worked))) = (asking.standing(), times) {
        let leaves = service.strangers.leaves_after(worked);
        tokio::time::sleep_until(arrived + leaves).await;
    }
    response
}

/// Counts a guess that failed, whoever made it, and whether anybody still waits for the answer.
pub(super) fn count(context: &Context, response: &Response) {
    // Beside the task only where `hold` has put it: on routes that name accounts.
    let counts = standing::current().is_some_and(|asking| asking.counts());
    if counts && response.status() == StatusCode::UNAUTHORIZED {
        let service = &context.service;
        service.strangers.failed(service.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_without_a_session_are_told_from_those_with_one() {
        let seen = |path| open(path).map(|open| (open.app, open.names_accounts));
        assert_eq!(
            seen("/v1/apps/notes/sessions/pin"),
            Some((Some("notes"), true))
        );
        assert_eq!(seen("/v1/apps/notes/otp"), Some((Some("notes"), true)));
        assert_eq!(
            seen("/v1/apps/notes/accounts"),
            Some((Some("notes"), false))
        );
        assert_eq!(
            seen("/v1/apps/notes/bindings/x"),
            Some((Some("notes"), false))
        );
        assert!(open("/v1/apps/notes/bindings/x").is_some_and(|open| !open.by_people));
        assert_eq!(seen("/v1/account/pin"), None);
        assert_eq!(seen("/.well-known/jwks.json"), Some((None, false)));
        assert_eq!(seen("/nothing"), Some((None, false)));
    }
}
