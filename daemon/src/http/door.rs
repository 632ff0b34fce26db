//! Where a request gets its place among those under way, and is carried to its end.
//!
//! Called by the router, innermost: behind the rates at the door and inside of the deadline to which strangers'
//! answers are held, so that nobody holds a place while an answer waits to leave. The body is read first, with
//! bounds on its time and on the bytes of all, or whoever sends slowly would hold places with nothing
//! in them. Of what comes as the end of a sign-in the body shows whether it is one: by a sealed token, which nobody has
//! who has not begun a login. So it is asked for no rate, and has room by connection, until that is opened; and what
//! ends nothing is any stranger's request from there on. From there on the request is a task of its own: a client that leaves, or gives up because we are
//! slow, does not cut a guess off between its charge and its outcome, nor the outcome from being counted and logged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use custodyd_hsm::Lane;
use serde::Deserialize;
use tracing::Instrument as _;

use super::connection::BodyIsHere;
use super::objects;
use super::problem::{Code, Problem};
use super::request::{MAX_BODY, session_token, whole};
use super::router::{DESCRIPTION, REQUEST_LIMIT, took_too_long};
use super::server::PeerAddress;
use super::state::Context;
use super::strangers;
use crate::service::{AnswerPlace, END_BODY, End, Kind, Way, standing};
use crate::store::Asker;

/// From a request's head to the end of its body.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The app that a path names, and what is below it.
fn app_in(path: &str) -> Option<(&str, &str)> {
    let below = path.strip_prefix("/v1/apps/")?;
    Some(below.split_once('/').unwrap_or((below, "")))
}

/// Whether a route ends what was charged when it began. (`/v1/account/opaque/finish` does not: it sets a PIN.)
pub(super) fn finishes(path: &str) -> bool {
    match app_in(path) {
        // A name with an escape is none.
        Some((app, below)) => below == "sessions/opaque/finish" && !app.contains('%'),
        None => path == "/v1/session/opaque/finish",
    }
}

/// What is looked for in the body of an end before the route looks at it. Its other fields are the route's matter.
#[derive(Deserialize)]
struct Ends {
    login: String,
}

/// Whose places this request is counted among, and the device that its session names. A name that no app has, and a session that does not open, are
/// nobody's: such a request is refused soon, and has one way with all of its kind. What is public and the log's have
/// another.
async fn way(context: &Context, path: &str, headers: &HeaderMap) -> (Way, Option<String>) {
    let nobody = Way {
        lane: Lane::Behind,
        kind: Kind::Open,
    };
    if let Some((app, _)) = app_in(path) {
        let way = match context.service.apps().get(app) {
            Ok(app) => Way {
                lane: Lane::of(&app.id),
                kind: Kind::Open,
            },
            Err(_) => nobody,
        };
        return (way, None);
    }
    if !strangers::wants_session(path) {
        let kind = Kind::Public;
        return (Way { kind, ..nobody }, None);
    }
    let session = match session_token(headers) {
        Some(token) => context.service.open_session(token).await.ok(),
        None => None,
    };
    match session {
        Some(session) => {
            let way = Way {
                lane: Lane::of(&session.app),
                kind: Kind::Session,
            };
            (way, Some(session.device_thumbprint))
        }
        None => (nobody, None),
    }
}

/// What a request ends, and the way that it goes: its own where it is let in as an end, and otherwise that of any
/// request to this app.
async fn end(
    context: &Context,
    request: &Parts,
    (way, bearer): (Way, Option<String>),
    body: &Bytes,
) -> Result<(Way, Option<End>), Problem> {
    let service = &context.service;
    let with_session = way.kind == Kind::Session;
    let ending = match objects::parse::<Ends>(body) {
        Ok(body) => service.ending(&body.login, way.lane, with_session).await,
        Err(_) => None,
    };
    let end = ending.map(|ending| {
        let kind = match ending.by_stranger {
            true => Kind::StrangersFinish,
            false => Kind::Finish,
        };
        let way = Way { kind, ..way };
        (way, service.ends.admit(ending, way, service.now()))
    });
    match end {
        Some((way, end)) if end.let_in => Ok((way, Some(end))),
        other => {
            ends_nothing(context, request, bearer.as_deref())?;
            Ok((way, other.map(|(_, end)| end)))
        }
    }
}

/// The rates of what came on the path of an end and is none.
fn ends_nothing(context: &Context, request: &Parts, bearer: Option<&str>) -> Result<(), Problem> {
    let address = address(&request.extensions);
    match bearer {
        Some(device) => Ok(context.service.callers.admit_bearer(address, device)?),
        None => strangers::admit_after_all(context, request.uri.path(), address),
    }
}

fn peer(of: &Extensions) -> Option<SocketAddr> {
    of.get::<PeerAddress>().map(|peer| peer.0)
}

fn address(of: &Extensions) -> Option<IpAddr> {
    peer(of).map(|peer| peer.ip())
}

/// A place for the request, and its way to the end.
pub(super) async fn place(context: &Arc<Context>, request: Request, next: Next) -> Response {
    match carried(context, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn carried(
    context: &Arc<Context>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let service = &context.service;
    // No name needs an escape. With one, a route would read another name than is counted here and at the rates.
    if let Some((app, _)) = app_in(request.uri().path())
        && app.contains('%')
    {
        return Err(Problem::malformed(
            "an app's name in the path has no escape: write it as it is",
        ));
    }
    let (path, peer) = (request.uri().path(), peer(request.extensions()));
    let address = peer.map(|peer| peer.ip());
    let (mut way, mut bearer) = way(context, path, request.headers()).await;
    let lacks_session = way.kind == Kind::Open && strangers::wants_session(path);
    if lacks_session {
        strangers::admit_without_session(context, address)?;
    }
    let may_end = finishes(path) && !lacks_session;
    if let Some(device) = bearer.take_if(|_| !may_end) {
        service.callers.admit_bearer(address, &device)?;
    }
    let most = if may_end { END_BODY } else { MAX_BODY };
    let announced = request.body().size_hint().upper();
    let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
    // What is too large is refused by `whole` before it is read.
    let room = announced.unwrap_or(most).min(most);
    let bytes = match may_end {
        true => (None, Some(service.door.end(peer, room)?)),
        false => (service.door.body(address, way, room)?, None),
    };
    // What everybody gets alike is here once, whoever leaves it lying.
    let reads = request.method().is_safe() && path != DESCRIPTION;
    let may_be_large = match reads {
        true => Some(service.door.may_read(address)?),
        false => None,
    };
    let (mut parts, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_LIMIT, whole(body, most)).await;
    let body = match body.unwrap_or_else(|_| Err(took_too_long())) {
        Ok(body) => body,
        Err(problem) => {
            if may_end {
                ends_nothing(context, &parts, bearer.as_deref())?;
            }
            return Err(problem);
        }
    };
    standing::arrived();
    if let Some(body) = parts.extensions.remove::<BodyIsHere>() {
        body.tell();
    }
    let mut ends = None;
    if may_end {
        (way, ends) = end(context, &parts, (way, bearer), &body).await?;
    }
    let entered = service.door.enter(way);
    if let Some(end) = ends {
        if entered.is_err() {
            service.ends.withdraw(end);
        }
        parts.extensions.insert(end);
    }
    let entered = entered?;
    let request = Request::from_parts(parts, Body::from(body));
    let counting = Arc::clone(context);
    let work = async move {
        let _held = (entered, bytes);
        let response = next.run(request).await;
        strangers::count(&counting, &response);
        response
    };
    let asking = standing::current();
    let asker = match way.kind {
        Kind::Finish => Asker::End,
        _ => Asker::Request,
    };
    let work = asker.during(way.lane.during(work));
    let work = async move {
        match asking {
            Some(asking) => asking.during(work).await,
            None => work.await,
        }
    };
    // With an end of its own: nobody may be there any more who cuts it.
    let work = tokio::time::timeout(REQUEST_LIMIT, work);
    let waiting = Arc::new(());
    let waits = Arc::downgrade(&waiting);
    let work = async move {
        let ended = work.await;
        if waits.strong_count() == 0 {
            tell_of(ended.as_ref().ok());
        }
        ended
    };
    match tokio::spawn(work.in_current_span()).await {
        Ok(Ok(response)) => match may_be_large {
            Some(place) => kept(place, response).await,
            None => Ok(response),
        },
        Ok(Err(_)) => Err(took_too_long()),
        Err(error) => match error.try_into_panic() {
            // For the barrier above, which counts it.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(took_too_long()),
        },
    }
}

/// An answer with the room that it takes until its client has taken it.
async fn kept(place: AnswerPlace, response: Response) -> Result<Response, Problem> {
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    let Some(place) = place.of(bytes) else {
        return Ok(response);
    };
    let (parts, body) = response.into_parts();
    // It is here already, and in one piece.
    let bytes = whole(body, usize::MAX).await?;
    let answer = Bytes::from_owner(Answer {
        bytes,
        _place: place,
    });
    Ok(Response::from_parts(parts, Body::from(answer)))
}

struct Answer {
    bytes: Bytes,
    /// Held for its Drop.
    _place: AnswerPlace,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How a request ended for which nobody waits any more, in the log. Its client's leaving has a line before.
fn tell_of(response: Option<&Response>) {
    let status = response.map_or(503, |response| response.status().as_u16());
    let code = response.map_or("timeout", |response| {
        let code = response.extensions().get::<Code>();
        code.map_or("", |code| code.0)
    });
    tracing::info!(status, code, "carried to its end after its client had gone");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_app_and_whether_it_ends_what_was_charged() {
        assert_eq!(
            app_in("/v1/apps/notes/sessions/pin"),
            Some(("notes", "sessions/pin"))
        );
        assert_eq!(app_in("/v1/apps/notes"), Some(("notes", "")));
        assert_eq!(app_in("/v1/account/pin"), None);
        assert!(finishes("/v1/apps/notes/sessions/opaque/finish"));
        assert!(finishes("/v1/session/opaque/finish"));
        assert!(!finishes("/v1/apps/%6eotes/sessions/opaque/finish"));
        assert!(!finishes("/v1/account/opaque/finish"));
        assert!(!finishes("/v1/apps/notes/opaque/finish"));
        assert!(!finishes("/v1/apps/notes/sessions/opaque/start"));
    }
}
