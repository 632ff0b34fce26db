//! What every route starts from: the request's bytes, and the proof that belongs to them.
//!
//! The adversary controls all of it. The proof is verified against the method, the address and
//! the body as they arrived, before the body is parsed; `htu` is built from configuration,
//! never from the Host header.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, Method, header};
use custodyd_hsm::Lane;
use serde::de::DeserializeOwned;

use super::objects;
use super::problem::Problem;
use super::state::Context;
use crate::factors::dpop::{Expected, ProofError};
use crate::service::{Caller, Device, End, Precondition, Refused, standing};

/// Bodies above this are refused before they are read.
pub const MAX_BODY: usize = 64 << 10;

static DPOP: HeaderName = HeaderName::from_static("dpop");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request whose body has been read and whose proof has not been checked yet.
#[derive(Debug)]
pub struct Signed {
    context: Arc<Context>,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    /// Where the door has let it in as the end of a sign-in.
    end: Option<End>,
}

impl FromRequest<Arc<Context>> for Signed {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Arc<Context>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = whole(body, MAX_BODY).await?;
        standing::arrived();
        Ok(Self {
            context: Arc::clone(context),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            end: parts.extensions.get().copied(),
            headers: parts.headers,
            body,
        })
    }
}

/// All of a body of so many bytes at most.
pub(super) async fn whole(body: axum::body::Body, most: usize) -> Result<Bytes, Problem> {
    axum::body::to_bytes(body, most).await.map_err(|_| {
        Problem::new(
            axum::http::StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            format!("a body may have at most {most} bytes here"),
        )
    })
}

/// The session that a request brings, if it looks like one.
pub(super) fn session_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, &header::AUTHORIZATION)
        .ok()??
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("dpop").then_some(token)
}

/// What is wrong with a body, without the value that is wrong: it may be a PIN, and clients log
/// the problems they are sent.
fn unquoted(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let about_a_value = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .any(|start| text.starts_with(start));
    if !about_a_value {
        return text;
    }
    let expected = text
        .rfind(", expected ")
        .and_then(|at| text.get(at..))
        .unwrap_or_default();
    format!("a value of the wrong kind{expected}")
}

impl Signed {
    /// The holder of a device key, without a session.
    pub fn device(&self, app: &str) -> Result<Device, Problem> {
        let app = self.context.service.apps().get(app)?;
        app.admits(self.text(&header::ORIGIN)?)?;
        let lane = Lane::of(&app.id);
        let service = &self.context.service;
        let key = self.with_proof(None, |expected, proof| {
            let clock = service.ledger.clock().read();
            Ok(match self.end {
                Some(end) => {
                    let is_new = |proof| service.ends.is_new(end, proof);
                    let memory = (lane, end.let_in);
                    service
                        .proofs
                        .verify_end(memory, clock, expected, proof, is_new)?
                }
                None => service.proofs.verify_in(lane, clock, expected, proof)?,
            })
        })?;
        standing::proven();
        Ok(Device { app, key })
    }

    /// The holder of a device key and of a session that stands and is more than half a sign-in.
    pub async fn caller(&self) -> Result<Caller, Problem> {
        let caller = self.limited_caller().await?;
        caller.is_signed_in()?;
        Ok(caller)
    }

    /// As `caller`, where the second half of a sign-in is asked for.
    pub async fn limited_caller(&self) -> Result<Caller, Problem> {
        let authorization = self
            .text(&header::AUTHORIZATION)?
            .ok_or(Refused::SessionMissing)?;
        let (scheme, token) = authorization
            .split_once(' ')
            .ok_or(Refused::SessionMissing)?;
        if !scheme.eq_ignore_ascii_case("dpop") {
            return Err(Refused::SessionMissing.into());
        }
        // First, because it costs least: a text that is no session of ours reaches neither a
        // signature nor the memory of proofs that sessions have for themselves.
        let service = &self.context.service;
        let session = service.open_session(token).await?;
        let (app, device) = (Lane::of(&session.app), &session.device_thumbprint);
        let spoken = self.with_proof(Some(token), |expected, proof| {
            let clock = service.ledger.clock().read();
            Ok(service.proofs.speaks(device, clock, expected, proof)?)
        })?;
        // Before a rate is asked: a session that has ended takes nothing from its account, whoever has kept its key.
        let standing = service.standing_session(&session).await?;
        // Whoever has the token without its key takes nothing from the device and nothing from the account; and what
        // these rates refuse takes no place among the proofs of the app's other sessions. What ends a charged sign-in
        // is asked for none of them.
        let admit = || {
            service.callers.admit(device)?;
            service.callers.admit_to(session.account)
        };
        let clock = service.ledger.clock().read();
        let key = match self.end {
            Some(end) => {
                let is_new = |proof| service.ends.is_new(end, proof);
                let memory = (app, end.let_in);
                service
                    .proofs
                    .accept_end_of::<Refused>(memory, clock, spoken, (is_new, admit))
            }
            None => service.proofs.accept_of(app, clock, spoken, admit),
        }?;
        let caller = service.authorize(session, standing, key)?;
        caller.app.admits(self.text(&header::ORIGIN)?)?;
        Ok(caller)
    }

    /// The body as JSON of the expected shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let content_type = self.text(&header::CONTENT_TYPE)?.unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(
                axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "send the body as Content-Type: application/json",
            ));
        }
        // Every body is an object.
        let first = self.body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|byte| *byte != b'{') {
            return Err(Problem::malformed(
                "the body does not fit: expected a JSON object",
            ));
        }
        objects::parse(&self.body).map_err(|error| {
            Problem::malformed(format!("the body does not fit: {}", unquoted(&error)))
        })
    }

    /// The body as JSON, or the default where none was sent.
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            Ok(T::default())
        } else {
            self.json()
        }
    }

    pub fn idempotency_key(&self) -> Result<Option<&str>, Problem> {
        self.text(&IDEMPOTENCY_KEY)
    }

    /// RFC 9110 section 13.1, for a resource with strong ETags that are version numbers.
    pub fn precondition(&self) -> Result<Precondition, Problem> {
        let if_match = self.text(&header::IF_MATCH)?;
        let if_none_match = self.text(&header::IF_NONE_MATCH)?;
        match (if_match, if_none_match) {
            (Some(tag), None) => tag
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .and_then(|version| version.parse().ok())
                .map(Precondition::Version)
                .ok_or_else(|| {
                    Problem::malformed("If-Match must be one ETag of this secret, such as \"3\"")
                }),
            (None, Some("*")) => Ok(Precondition::Absent),
            (None, Some(_)) => Err(Problem::malformed("If-None-Match must be *")),
            (Some(_), Some(_)) => Err(Problem::malformed(
                "send either If-Match or If-None-Match, not both",
            )),
            (None, None) => Err(Refused::PreconditionRequired.into()),
        }
    }

    /// Has the proof verified against the request as it arrived.
    fn with_proof<T>(
        &self,
        session_token: Option<&str>,
        verify: impl FnOnce(&Expected<'_>, &str) -> Result<T, Refused>,
    ) -> Result<T, Problem> {
        let proof = self
            .text(&DPOP)?
            .ok_or(Refused::Proof(ProofError::Missing))?;
        let uri = format!("{}{}", self.context.base_url, self.path);
        let reads = matches!(self.method, Method::GET | Method::HEAD);
        let expected = Expected {
            method: self.method.as_str(),
            uri: &uri,
            session_token,
            body: if reads { None } else { Some(&self.body) },
        };
        Ok(verify(&expected, proof)?)
    }

    fn text(&self, name: &HeaderName) -> Result<Option<&str>, Problem> {
        text(&self.headers, name)
    }
}

/// The credential of an app's backend (RFC 6750 section 2.1). `None` where there is none, or
/// another scheme.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let value = text(headers, &header::AUTHORIZATION)?;
    Ok(value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, credential)| credential))
}

/// A header that may stand once at most, as text.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::malformed(format!(
            "the header {name} stands twice"
        )));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::malformed(format!("the header {name} is not plain ASCII")))
}
