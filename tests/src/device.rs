//! A client as a PWA would be one: a device key, an app key, proofs for every call.
//!
//! Written from the RFCs (7515, 7638, 9449), not from the daemon's code, so that both can not
//! be wrong in the same way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

#[must_use]
pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[must_use]
pub fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    b64(digest(&SHA256, bytes).as_ref())
}

#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A P-256 key that signs compact JWS. A clone is the same key: a device that asks several things at once.
#[derive(Clone, Debug)]
pub struct Key(Arc<EcdsaKeyPair>);

impl Default for Key {
    fn default() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self(Arc::new(pair.unwrap()))
    }
}

impl Key {
    #[must_use]
    pub fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({"crv": "P-256", "kty": "EC", "x": b64(&point[1..33]), "y": b64(&point[33..65])})
    }

    #[must_use]
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        sha256(
            format!(
                r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#,
                jwk["x"], jwk["y"]
            )
            .as_bytes(),
        )
    }

    #[must_use]
    pub fn jws(&self, header: &Value, claims: &Value) -> String {
        let input = format!(
            "{}.{}",
            b64(header.to_string().as_bytes()),
            b64(claims.to_string().as_bytes())
        );
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", b64(signature.as_ref()))
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The stable code of a problem document, with its status: `"401 pin-wrong"`.
    #[must_use]
    pub fn refusal(&self) -> String {
        format!(
            "{} {}",
            self.status,
            self.body["code"].as_str().unwrap_or("-")
        )
    }

    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The answer, if it has the status.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "often the status is all that matters"
    )]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub fn refused(&self, status_and_code: &str) {
        assert_eq!(self.refusal(), status_and_code, "{}", self.body);
    }
}

#[derive(Clone, Debug)]
pub struct Device {
    pub http: reqwest::Client,
    pub url: String,
    pub realm: String,
    pub app: String,
    pub key: Key,
    pub app_key: Key,
    pub nonce: String,
    pub token: Option<String>,
    pub account: String,
}

/// One call, for tests that change a part of it.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub body: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    /// Changes to the proof's claims; null removes one.
    pub claims: Value,
    /// Changes to the proof's header.
    pub jose: Value,
    /// Sent in place of the proof.
    pub proof: Option<String>,
}

impl Device {
    #[must_use]
    pub fn new(url: &str, ca: &str, app: &str) -> Self {
        Self::at(None, url, ca, app)
    }

    /// One that finds the daemon's name at this address.
    #[must_use]
    pub fn at(address: Option<IpAddr>, url: &str, ca: &str, app: &str) -> Self {
        let authority = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
        let mut http = reqwest::Client::builder().tls_certs_only([authority]);
        if let Some(address) = address {
            // The URL's port counts.
            http = http.resolve("localhost", SocketAddr::new(address, 0));
        }
        Self {
            http: http.build().unwrap(),
            url: url.to_owned(),
            realm: crate::app::REALM.to_owned(),
            app: app.to_owned(),
            key: Key::default(),
            app_key: Key::default(),
            nonce: String::new(),
            token: None,
            account: String::new(),
        }
    }

    #[must_use]
    pub fn prepare(&self, method: &str, path: &str, body: Option<Value>) -> Call {
        Call {
            method: method.parse().unwrap(),
            path: path.replace("{app}", &self.app),
            body: body.map(|value| value.to_string().into_bytes()),
            headers: Vec::new(),
            claims: json!({}),
            jose: json!({}),
            proof: None,
        }
    }

    #[must_use]
    pub fn proof(&self, call: &Call) -> String {
        let path = call.path.split('?').next().unwrap();
        let mut claims = json!({
            "jti": random_id(),
            "htm": call.method.as_str(),
            "htu": format!("{}{path}", self.url),
            "iat": now(),
            "nonce": self.nonce,
        });
        if call.method != Method::GET {
            claims["body_sha256"] = json!(sha256(call.body.as_deref().unwrap_or_default()));
        }
        if let Some(token) = &self.token {
            claims["ath"] = json!(sha256(token.as_bytes()));
        }
        let mut header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.jwk()});
        change(&mut claims, &call.claims);
        change(&mut header, &call.jose);
        self.key.jws(&header, &claims)
    }

    /// Sends once; learns the next nonce from the answer.
    pub async fn send(&mut self, call: &Call) -> Answer {
        self.send_once(call).await.unwrap()
    }

    /// As `run`, to a daemon that may be killed meanwhile: `None` where no answer came.
    pub async fn attempt(&mut self, call: &Call) -> Option<Answer> {
        self.tried(call).await.ok()
    }

    /// The same for who wants to know whether anything was sent.
    ///
    /// # Errors
    /// What kept the answer away.
    pub async fn tried(&mut self, call: &Call) -> reqwest::Result<Answer> {
        let answer = self.send_once(call).await?;
        if answer.refusal() == "401 use-dpop-nonce" {
            return self.send_once(call).await;
        }
        Ok(answer)
    }

    async fn send_once(&mut self, call: &Call) -> reqwest::Result<Answer> {
        let proof = call.proof.clone().unwrap_or_else(|| self.proof(call));
        let mut request = self
            .http
            .request(call.method.clone(), format!("{}{}", self.url, call.path))
            .header("DPoP", proof);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("DPoP {token}"));
        }
        if let Some(body) = &call.body {
            let typed = call.headers.iter().any(|(name, _)| name == "Content-Type");
            if !typed {
                request = request.header("Content-Type", "application/json");
            }
            request = request.body(body.clone());
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if let Some(nonce) = headers.get("dpop-nonce") {
            self.nonce = nonce.to_str().unwrap().to_owned();
        }
        let bytes = response.bytes().await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Sends, and once more if a nonce was missing: what every client does.
    pub async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let call = self.prepare(method, path, body);
        self.run(&call).await
    }

    pub async fn run(&mut self, call: &Call) -> Answer {
        let answer = self.send(call).await;
        if answer.refusal() == "401 use-dpop-nonce" {
            return self.send(call).await;
        }
        answer
    }

    /// Learns a nonce, which a client with a fresh proof inside its body needs first.
    pub async fn meet(&mut self) {
        let call = self.prepare("POST", "/v1/apps/{app}/sessions/device", Some(json!({})));
        self.send(&call).await.refused("401 use-dpop-nonce");
    }

    #[must_use]
    pub fn app_key_proof(&self) -> String {
        self.app_key.jws(
            &json!({"typ": "custodyd-app-key+jwt", "alg": "ES256", "jwk": self.app_key.jwk()}),
            &json!({"aud": format!("{}/{}", self.realm, self.app), "jkt": self.key.thumbprint(),
                "nonce": self.nonce, "iat": now()}),
        )
    }

    /// Creates the account and takes up its first session.
    pub async fn enrol(&mut self) -> Answer {
        self.meet().await;
        let body = json!({"app_key_proof": self.app_key_proof(), "device_name": "test device"});
        let answer = self
            .call("POST", "/v1/apps/{app}/accounts", Some(body))
            .await
            .expect(201);
        self.account = answer.body["account"].as_str().unwrap().to_owned();
        self.take_session(&answer);
        answer
    }

    pub fn take_session(&mut self, answer: &Answer) {
        self.token = Some(answer.body["session"]["token"].as_str().unwrap().to_owned());
    }

    pub async fn set_pin(&mut self, pin: &str) -> Answer {
        let answer = self
            .call("PUT", "/v1/account/pin", Some(json!({"pin": pin})))
            .await;
        if answer.status == 200 {
            self.take_session(&answer);
        }
        answer
    }

    pub async fn try_pin(&mut self, pin: &str, release: &[&str]) -> Answer {
        self.token = None;
        let body = json!({"account": self.account, "pin": pin, "release": release});
        let answer = self
            .call("POST", "/v1/apps/{app}/sessions/pin", Some(body))
            .await;
        if answer.status == 201 {
            self.take_session(&answer);
        }
        answer
    }

    pub async fn try_device(&mut self, release: &[&str]) -> Answer {
        self.token = None;
        let body = json!({"account": self.account, "release": release});
        let answer = self
            .call("POST", "/v1/apps/{app}/sessions/device", Some(body))
            .await;
        if answer.status == 201 {
            self.take_session(&answer);
        }
        answer
    }

    /// Stores a new secret in a server slot.
    pub async fn back_up(&mut self, name: &str, secret: &[u8]) -> Answer {
        self.put(
            name,
            "If-None-Match",
            "*",
            json!({"server_slot": b64(secret)}),
        )
        .await
    }

    pub async fn put(&mut self, name: &str, header: &str, value: &str, content: Value) -> Answer {
        let mut call = self.prepare("PUT", &format!("/v1/account/secrets/{name}"), Some(content));
        call.headers.push((header.to_owned(), value.to_owned()));
        self.run(&call).await
    }

    pub async fn recover(&mut self, name: &str) -> Answer {
        self.call("GET", &format!("/v1/account/secrets/{name}"), None)
            .await
    }

    pub async fn events(&mut self) -> Vec<String> {
        let answer = self
            .call("GET", "/v1/account/events", None)
            .await
            .expect(200);
        let events = answer.body["events"].as_array().unwrap();
        events
            .iter()
            .rev()
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn change(object: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}
