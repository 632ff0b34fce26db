//! How a call leaves this process: over the network, or through the courier.
//!
//! Made by `webhook` and by the witnesses. Whoever is called controls the answer, and where a courier
//! stands between, that one, too: of an answer there are a status, a content type and a bounded body,
//! and nothing here believes any of them. Redirects are not followed.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};

use super::by_courier::Client;
use super::https::{self, HttpsClient, chain};
use super::wire::MAX_ANSWER;
use super::{DeliveryError, SetupError, trust};

#[derive(Clone, Debug)]
pub(crate) enum Way {
    Network(Box<HttpsClient>),
    Courier(Client),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

impl Way {
    /// By the courier where there is one; it has the `ca_file` then. Connects nowhere.
    pub(crate) fn new(
        courier: Option<Client>,
        url: &str,
        ca_file: Option<&Path>,
    ) -> Result<Self, SetupError> {
        let uri = https::address(url)?;
        Ok(match courier {
            Some(courier) => Self::Courier(courier),
            None => Self::Network(Box::new(https::client(&uri, ca_file)?)),
        })
    }

    /// One call. The caller bounds its time.
    ///
    /// # Errors
    /// Where there is no answer, or a longer one than anybody needs.
    pub(crate) async fn call(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, DeliveryError> {
        match self {
            Self::Network(client) => over_the_network(client, request).await,
            Self::Courier(courier) => courier.call(request).await,
        }
    }
}

async fn over_the_network(
    client: &HttpsClient,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, DeliveryError> {
    let name = HeaderValue::from_static(https::USER_AGENT);
    request.headers_mut().insert(USER_AGENT, name);
    let answer = client.request(request).await.map_err(|e| judge(&e))?;
    let (mut parts, body) = answer.into_parts();
    // Read to its end so that the connection can be used again.
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|error| DeliveryError::Temporary(chain(&*error)))?;
    Ok(Answer {
        status: parts.status,
        content_type: parts.headers.remove(CONTENT_TYPE),
        body: body.to_bytes(),
    })
}

fn judge(error: &hyper_util::client::legacy::Error) -> DeliveryError {
    match trust::tls_error(error) {
        Some(tls) => DeliveryError::Misconfigured(format!("TLS: {tls}")),
        None => DeliveryError::Temporary(chain(error)),
    }
}

/// Nobody answered.
pub(crate) fn none_within(patience: Duration) -> DeliveryError {
    DeliveryError::Temporary(format!("no answer within {} s", patience.as_secs()))
}
