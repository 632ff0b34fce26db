//! A client's authenticator app and recovery codes, written from RFC 4226, 6238, 5869 and 4648.

use aws_lc_rs::{hkdf, hmac};
use serde_json::{Value, json};

use crate::device::{b64, now};
use crate::{Answer, Device};

/// A policy under which every factor may have everything, so that a test sees what it is about.
/// `window = 2` gives a test five codes without waiting for the next one.
#[must_use]
pub fn policy(app: &str, totp: &str, more: &str) -> (String, String) {
    let text = format!(
        r#"app = "{app}"
origins = ["https://{app}.example.com"]
relying_party = {{ id = "{app}.example.com" }}
[totp]
window = 2
{totp}
[release]
"*" = ["pin", "passkey", "recovery-code", "totp"]
{more}
"#
    );
    (app.to_owned(), text)
}

/// An authenticator app that has scanned the code.
#[derive(Debug, Clone)]
pub struct Authenticator {
    secret: Vec<u8>,
    digits: u32,
    period: u64,
    /// The step that was shown last.
    step: u64,
}

impl Authenticator {
    #[must_use]
    pub fn scan(otpauth: &str) -> Self {
        let uri = url::Url::parse(otpauth).unwrap();
        assert_eq!((uri.scheme(), uri.host_str()), ("otpauth", Some("totp")));
        let parameter = |name: &str, default: &str| {
            let mut pairs = uri.query_pairs();
            let found = pairs.find(|(key, _)| key == name);
            found.map_or(default.to_owned(), |(_, value)| value.into_owned())
        };
        assert_eq!(parameter("algorithm", "SHA1"), "SHA1");
        let period: u64 = parameter("period", "30").parse().unwrap();
        Self {
            secret: base32(&parameter("secret", "")),
            digits: parameter("digits", "6").parse().unwrap(),
            period,
            // One behind, as a slow hand is: so the first code is still good, and three more.
            step: now() / period - 2,
        }
    }

    /// The next code, which was not shown before.
    pub fn show(&mut self) -> String {
        self.step += 1;
        self.code(self.step)
    }

    /// Whether a server with this window takes the next code already.
    #[must_use]
    pub fn may_show(&self, window: u64) -> bool {
        self.step < now() / self.period + window
    }

    /// Passes over codes that such a server may not take any more when they arrive.
    pub fn skip_old(&mut self, window: u64) {
        self.step = self.step.max(now() / self.period - window);
    }

    /// The code shown last, once more.
    #[must_use]
    pub fn again(&self) -> String {
        self.code(self.step)
    }

    /// A code of none of the steps nearby.
    #[must_use]
    pub fn wrong(&self) -> String {
        let near: Vec<String> = (self.step - 5..self.step + 9)
            .map(|step| self.code(step))
            .collect();
        (0..)
            .map(|n| format!("{n:0width$}", width = self.digits as usize))
            .find(|code| !near.contains(code))
            .unwrap()
    }

    /// HOTP of the step (RFC 4226, section 5.3).
    #[must_use]
    pub fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 15);
        let number = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        let width = self.digits as usize;
        format!("{:0width$}", number % 10_u32.pow(self.digits))
    }
}

/// RFC 4648, section 6, without padding.
fn base32(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for symbol in text.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'2'..=b'7' => symbol - b'2' + 26,
            _ => panic!("not base32: {text}"),
        };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

/// Ten fresh recovery codes, by their auth parts.
#[must_use]
pub fn recovery_codes() -> Vec<String> {
    (0..10)
        .map(|_| {
            let mut code = [0; 16];
            aws_lc_rs::rand::fill(&mut code).unwrap();
            let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&code);
            let mut auth = [0; 32];
            prk.expand(&[b"custodyd/recovery-code/auth/v1"], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut auth))
                .unwrap();
            b64(&auth)
        })
        .collect()
}

impl Device {
    pub async fn enrol_totp(&mut self) -> Authenticator {
        let answer = self.call("POST", "/v1/account/totp", None).await;
        let answer = answer.expect(201);
        Authenticator::scan(answer.body["otpauth"].as_str().unwrap())
    }

    pub async fn confirm_totp(&mut self, code: &str) -> Answer {
        let body = json!({"code": code});
        let answer = self
            .call("POST", "/v1/account/totp/confirm", Some(body))
            .await;
        if answer.status == 200 {
            self.take_session(&answer);
        }
        answer
    }

    /// Enrols an authenticator app and confirms it.
    pub async fn add_totp(&mut self) -> Authenticator {
        let mut authenticator = self.enrol_totp().await;
        let code = authenticator.show();
        self.confirm_totp(&code).await.expect(200);
        authenticator
    }

    pub async fn try_totp(&mut self, code: &str, release: &[&str]) -> Answer {
        let body = json!({"account": self.account, "code": code, "release": release});
        self.sign_in("totp", body).await
    }

    /// Sets ten codes and returns their auth parts.
    pub async fn set_recovery_codes(&mut self) -> Vec<String> {
        let codes = recovery_codes();
        let body = json!({"codes": codes});
        let answer = self
            .call("POST", "/v1/account/recovery-codes", Some(body))
            .await
            .expect(201);
        self.take_session(&answer);
        codes
    }

    pub async fn try_recovery_code(&mut self, code: &str, more: Value) -> Answer {
        let mut body = json!({"account": self.account, "code": code});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.sign_in("recovery-code", body).await
    }

    async fn sign_in(&mut self, by: &str, body: Value) -> Answer {
        self.token = None;
        let path = format!("/v1/apps/{{app}}/sessions/{by}");
        let answer = self.call("POST", &path, Some(body)).await;
        if answer.status == 201 {
            self.take_session(&answer);
        }
        answer
    }

    /// Sends the same sign-in many times at once; returns what each was answered.
    pub async fn at_once(&mut self, by: &str, body: Value, times: usize) -> Vec<String> {
        self.token = None;
        let path = format!("/v1/apps/{{app}}/sessions/{by}");
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..times {
            let call = self.prepare("POST", &path, Some(body.clone()));
            let request = self
                .http
                .post(format!("{}{}", self.url, call.path))
                .header("DPoP", self.proof(&call))
                .header("Content-Type", "application/json")
                .body(call.body.clone().unwrap());
            running.spawn(async move {
                let Ok(response) = request.send().await else {
                    return "no answer".to_owned();
                };
                let status = response.status().as_u16();
                let body: Value = response.json().await.unwrap_or_default();
                format!("{status} {}", body["code"].as_str().unwrap_or("-"))
            });
        }
        running.join_all().await
    }

    pub async fn view(&mut self) -> Value {
        self.call("GET", "/v1/account", None).await.expect(200).body
    }
}
