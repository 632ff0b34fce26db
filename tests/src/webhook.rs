//! A gateway for text messages on loopback: takes the daemon's signed calls over TLS and keeps
//! them. Whether a signature is right is for the test to ask, against the realm's keys.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use custodyd::http::server::{self, Entrance, Limits};
use custodyd::http::tls;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::app::certificates;
use crate::device::sha256;

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Call {
    /// The JWS of the header `Custodyd-Signature`.
    pub signature: String,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Webhook {
    dir: TempDir,
    url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    _stop: watch::Sender<bool>,
}

impl Webhook {
    /// Answers 204 to everything, unless told otherwise.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("custodyd-webhook-")
            .tempdir()
            .unwrap();
        let authority = certificates(dir.path());
        std::fs::write(dir.path().join("authority.pem"), authority).unwrap();
        let certificate = dir.path().join("certificate.pem");
        let tls = tls::server_config(
            &certificate,
            &custodyd::private_file::Place::File(dir.path().join("private-key.pem")),
        )
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/send",
            listener.local_addr().unwrap().port()
        );
        let (stop, stopping) = watch::channel(false);
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let answers = Arc::<Mutex<VecDeque<u16>>>::default();
        let (kept, next) = (Arc::clone(&calls), Arc::clone(&answers));
        let take = move |headers: HeaderMap, body: Bytes| async move {
            let signature = headers.get("custodyd-signature");
            kept.lock().unwrap().push(Call {
                signature: signature.map_or("", |s| s.to_str().unwrap()).to_owned(),
                body: body.to_vec(),
            });
            let status = next.lock().unwrap().pop_front().unwrap_or(204);
            StatusCode::from_u16(status).unwrap()
        };
        let router = Router::new().route("/send", axum::routing::post(take));
        let limits = Limits::new(16, Duration::ZERO);
        tokio::spawn(server::serve(
            listener,
            Some(Entrance {
                tls: tls::Tls::new(tls),
                proxies: Arc::default(),
            }),
            router,
            limits,
            stopping,
        ));
        Self {
            dir,
            url,
            calls,
            answers,
            _stop: stop,
        }
    }

    /// The statuses of the next answers.
    pub fn answer(&self, statuses: &[u16]) {
        self.answers.lock().unwrap().extend(statuses);
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The section of a configuration that sends text messages here.
    #[must_use]
    pub fn config(&self) -> String {
        format!(
            "[delivery.sms]\nwebhook = \"{}\"\nca_file = \"{}\"\n",
            self.url,
            self.dir.path().join("authority.pem").display()
        )
    }

    #[must_use]
    pub fn received(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Waits until `count` calls have come.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn wait_for(&self, count: usize) -> Vec<Call> {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(Instant::now() < give_up, "only {received:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Call {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The claims, where the signature is right by one of these keys (a JWK set) and the body
    /// is the one that was signed: what FORMAT.md asks of a gateway, with a library of its own.
    #[must_use]
    pub fn verified(&self, jwks: &Value) -> Option<Value> {
        let header = jsonwebtoken::decode_header(&self.signature).ok()?;
        if header.typ.as_deref() != Some("custodyd-webhook+jwt") {
            return None;
        }
        let keys: JwkSet = serde_json::from_value(jwks.clone()).ok()?;
        let key = DecodingKey::from_jwk(keys.find(&header.kid?)?).ok()?;
        let mut validation = Validation::new(Algorithm::ES256);
        // A call has no expiry: its age and its receiver are compared by the caller.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Value>(&self.signature, &key, &validation)
            .ok()?
            .claims;
        (claims["body_sha256"] == sha256(&self.body)).then_some(claims)
    }
}
