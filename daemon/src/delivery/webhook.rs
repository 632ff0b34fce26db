//! Messages as signed calls to an HTTPS address: how text messages reach a gateway.
//!
//! Called by `Courier`'s queue. The receiver knows the daemon by a signature of the token
//! (`hsm/FORMAT.md`, section 7), so this host keeps no credential of the gateway; the daemon
//! knows the receiver by TLS. What the receiver answers counts by its status alone: redirects
//! are not followed, and of the body no more than a little is read and nothing believed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use custodyd_hsm::{Pool, RealmName, WebhookCall, webhook};
use http_body_util::Full as FullBody;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use serde_json::json;
use tokio::time::timeout;

use super::message::Message;
use super::way::Way;
use super::{DeliveryError, Transport};
use crate::clock::Clock;
use crate::config::Sms;
use crate::factors::b64;

/// The request header with the signature: a compact JWS.
pub const SIGNATURE: &str = "custodyd-signature";
/// For the whole call.
const CALL: Duration = Duration::from_secs(10);

/// What it takes to sign a call in the token.
pub(super) struct Signer {
    pub(super) pool: Pool,
    pub(super) realm: RealmName,
    pub(super) clock: Arc<Clock>,
}

pub(super) struct Webhook {
    way: Way,
    address: String,
    signer: Signer,
}

impl Webhook {
    pub(super) fn new(config: &Sms, way: Way, signer: Signer) -> Self {
        Self {
            way,
            address: config.webhook.clone(),
            signer,
        }
    }

    async fn call(&self, message: &Message) -> Result<(), DeliveryError> {
        let body = body(message);
        let signature = self.signer.sign(&self.address, message.id, &body).await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature)
            .body(FullBody::new(body))
            .map_err(|error| DeliveryError::Misconfigured(format!("the webhook: {error}")))?;
        let answer = self.way.call(request).await.map_err(named)?;
        by_status(answer.status)
    }
}

/// Whom an error is about: the way itself does not know.
fn named(error: DeliveryError) -> DeliveryError {
    error.map(|reason| format!("the webhook: {reason}"))
}

#[async_trait]
impl Transport for Webhook {
    async fn send(&self, message: &Message) -> Result<(), DeliveryError> {
        timeout(CALL, self.call(message)).await.unwrap_or_else(|_| {
            let what = format!("the webhook gave no answer within {} s", CALL.as_secs());
            Err(DeliveryError::Temporary(what))
        })
    }
}

impl Signer {
    async fn sign(&self, url: &str, id: [u8; 16], body: &[u8]) -> Result<String, DeliveryError> {
        let now = self.clock.now().0;
        let call = WebhookCall::new(self.realm.clone(), url, now, id, body)
            .map_err(|error| DeliveryError::Misconfigured(error.to_string()))?;
        self.pool
            .call("sign-webhook", move |custody| webhook::sign(custody, &call))
            .await
            .map_err(|error| {
                let what = format!("the token: {error}");
                if error.is_retryable() {
                    DeliveryError::Temporary(what)
                } else {
                    DeliveryError::Misconfigured(what)
                }
            })
    }
}

/// `id` is the `jti` of the signature: a gateway sends a message once, however often it is called.
fn body(message: &Message) -> Bytes {
    let text = message.short();
    let body = json!({
        "id": b64(&message.id),
        "channel": message.to().channel().name(),
        "kind": message.kind(),
        "to": message.to().expose(),
        "text": text.as_str(),
    });
    Bytes::from(body.to_string())
}

fn by_status(status: StatusCode) -> Result<(), DeliveryError> {
    let code = status.as_u16();
    match code {
        200..300 => Ok(()),
        408 | 425 | 429 | 500..600 => Err(DeliveryError::Temporary(format!(
            "the webhook answered {code}"
        ))),
        // This message, and not the call as such.
        400 | 409 | 410 | 413 | 422 => Err(DeliveryError::Permanent(format!(
            "the webhook answered {code}"
        ))),
        300..400 => Err(DeliveryError::Misconfigured(format!(
            "the webhook answered {code}; redirects are not followed, name the final address"
        ))),
        _ => Err(DeliveryError::Misconfigured(format!(
            "the webhook answered {code}"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::super::{Address, Notice};
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        let of = |code| by_status(StatusCode::from_u16(code).unwrap());
        for code in [200, 202, 204] {
            assert_eq!(of(code), Ok(()));
        }
        for code in [408, 429, 500, 503] {
            assert!(
                matches!(of(code), Err(DeliveryError::Temporary(_))),
                "{code}"
            );
        }
        for code in [400, 413, 422] {
            assert!(
                matches!(of(code), Err(DeliveryError::Permanent(_))),
                "{code}"
            );
        }
        for code in [301, 307, 401, 403, 404, 405] {
            assert!(
                matches!(of(code), Err(DeliveryError::Misconfigured(_))),
                "{code}"
            );
        }
    }

    #[test]
    fn the_body_is_json_with_one_line_of_text() {
        let to = Address::phone("+491701234567").unwrap();
        let message = Message::notice("No\r\n\"tes", to, Notice::PinReplaced).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body(&message)).unwrap();
        let text = |name| body.get(name).unwrap().as_str().unwrap();
        assert_eq!(text("to"), "+491701234567");
        assert_eq!(text("id"), b64(&message.id));
        assert!(text("text").starts_with("The PIN of your No  \"tes account was replaced."));
        assert!(!text("text").contains(['\r', '\n']));
    }
}
