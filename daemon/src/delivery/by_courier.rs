//! The courier, seen from the process that serves: a Unix socket, and nothing else leaves.
//!
//! Used by the e-mail queue, the webhook and the witnesses. The courier is another user's process
//! with a network, so it may be somebody else's by now: what it answers is bounded and parsed like
//! any stranger's, it is told a message and never a key, and it can do no more than lose or read what
//! it carries. Each request has a connection of its own, so that a courier that was started anew is
//! found again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::https::chain;
use super::message::Message;
use super::way::{Answer, none_within};
use super::wire::{self, Letter, MAX_ANSWER, Trouble};
use super::{DeliveryError, SetupError, Transport};

/// For a mail, less than a queue waits for one try and more than the courier takes.
const MAIL: Duration = Duration::from_secs(28);

#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// Connects nowhere.
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Whether there is a socket to connect to at all.
    pub(crate) fn is_there(&self) -> Result<(), SetupError> {
        let found = std::fs::metadata(&self.socket);
        found.map(drop).map_err(|source| SetupError::NoCourier {
            path: self.socket.clone(),
            source,
        })
    }

    /// Has a call made: its address goes into a header, for the courier to find in its list.
    pub(super) async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, DeliveryError> {
        let to = HeaderValue::try_from(request.uri().to_string())
            .map_err(|_| DeliveryError::Permanent("not a URL".to_owned()))?;
        request.headers_mut().insert(wire::TO, to);
        *request.uri_mut() = Uri::from_static(wire::CALL);
        let (parts, body) = self.exchange(request).await?;
        let status = parts.headers.get(wire::STATUS);
        let status = status.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
        match (parts.status, status) {
            (StatusCode::OK, Some(status)) => Ok(Answer {
                status,
                content_type: parts.headers.get(CONTENT_TYPE).cloned(),
                body,
            }),
            _ => Err(trouble(parts.status, &body)),
        }
    }

    async fn mail(&self, letter: &Letter<'_>) -> Result<(), DeliveryError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(wire::MAIL)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(letter.json().to_string())))
            .map_err(|error| DeliveryError::Permanent(error.to_string()))?;
        let (parts, body) = self.exchange(request).await?;
        match parts.status {
            StatusCode::NO_CONTENT => Ok(()),
            status => Err(trouble(status, &body)),
        }
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(hyper::http::response::Parts, Bytes), DeliveryError> {
        let away = |what: String| DeliveryError::Temporary(format!("the courier: {what}"));
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| away(format!("{}: {error}", self.socket.display())))?;
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_headers(16)
            .max_buf_size(16 * 1024)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| away(chain(&error)))?;
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("courier"));
        let talk = async {
            let answer: Response<Incoming> = sender.send_request(request).await?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((parts, body.to_bytes()))
        };
        // The connection moves while somebody waits for its answer, and ends with that.
        let talk = async {
            tokio::pin!(talk);
            let mut connection = std::pin::pin!(connection);
            let mut running = true;
            loop {
                tokio::select! {
                    answered = &mut talk => return answered,
                    _ = &mut connection, if running => running = false,
                }
            }
        };
        talk.await.map_err(|error| away(chain(&*error)))
    }
}

/// What it says is wrong, as far as that can be read.
fn trouble(status: StatusCode, body: &[u8]) -> DeliveryError {
    match serde_json::from_slice::<Trouble>(body) {
        Ok(trouble) => DeliveryError::from(trouble).map(|reason| format!("the courier: {reason}")),
        Err(_) => DeliveryError::Temporary(format!("the courier answered {}", status.as_u16())),
    }
}

#[async_trait]
impl Transport for Client {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        let words = message.mail();
        let letter = Letter::of(message, &words)?;
        timeout(MAIL, self.mail(&letter))
            .await
            .unwrap_or_else(|_| Err(none_within(MAIL)))
    }
}
