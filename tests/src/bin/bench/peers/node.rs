//! The server in Node (`bench/peers`): its process, and clients that enrol with it and recover.
//!
//! Clients make the same messages with the same libraries as those of the daemon. Only what a server is told about who
//! asks differs: a bearer token here, a proof by DPoP there.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use custodyd_tests::SoftAuthenticator;
use custodyd_tests::app::{certificates, free_port};
use custodyd_tests::device::b64;
use custodyd_tests::opaque::{LoggingIn, Registering};
use custodyd_tests::token::repository;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::workers::Connected;

const PIN: &str = "583926";
/// Attempts that the server grants, `ATTEMPTS` of `src/recovery.mjs`.
const ATTEMPTS: usize = 10;
const NAME: &str = "device-secret";
const SECRET: [u8; 32] = [7; 32];

pub(crate) struct NodeServer {
    process: Child,
    url: String,
    ca: String,
    _dir: TempDir,
}

fn folder() -> PathBuf {
    repository().join("bench/peers")
}

/// Whether `scripts/ensure-tools bench` has put the packages of the lock file there.
fn installed() -> bool {
    let read = |name: &str| std::fs::read(folder().join(name)).ok();
    let stamp = read("node_modules/.installed-lock");
    stamp.is_some() && stamp == read("package-lock.json")
}

impl NodeServer {
    /// With a database of its own, on the disk that the daemon's is on; none where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !installed() {
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("custodyd-peer-")
            .tempdir()
            .unwrap();
        let (ca, port) = (certificates(dir.path()), free_port());
        let mut process = Command::new("node")
            .arg(folder().join("src/main.mjs"))
            .arg(dir.path())
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        assert!(said.starts_with("ready"), "the server in Node: {said:?}");
        Some(Self {
            process,
            url: format!("https://localhost:{port}"),
            ca,
            _dir: dir,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// So many accounts with a passkey and PINs of both kinds, on one connection.
    pub(crate) async fn accounts(&self, count: usize) -> Vec<NodeAccount> {
        let http = self.client();
        let mut accounts = Vec::with_capacity(count);
        for _ in 0..count {
            accounts.push(NodeAccount::enrolled(http.clone(), &self.url, true).await);
        }
        accounts
    }

    /// The same with a passkey alone.
    pub(crate) async fn passkeys(&self, count: usize) -> Vec<NodeAccount> {
        let http = self.client();
        let mut accounts = Vec::with_capacity(count);
        for _ in 0..count {
            accounts.push(NodeAccount::enrolled(http.clone(), &self.url, false).await);
        }
        accounts
    }

    fn client(&self) -> reqwest::Client {
        let authority = reqwest::Certificate::from_pem(self.ca.as_bytes()).unwrap();
        let builder = reqwest::Client::builder().tls_certs_only([authority]);
        builder.build().unwrap()
    }

    /// That it is worth comparing with: it refuses what is wrong, and counts.
    pub(crate) async fn proves_itself(&self) {
        let mut account = self.accounts(1).await.swap_remove(0);
        let mut other = self.accounts(1).await.swap_remove(0);
        account.by_passkey().await;
        account.by_pin().await;
        account.by_opaque().await;
        for body in [
            json!({"account": account.id, "pin": "000000", "name": NAME}),
            json!({"account": "nobody", "pin": PIN, "name": NAME}),
        ] {
            assert_eq!(account.post("/recover/pin", &body).await.0, 401);
        }
        // A passkey's answer to one challenge does for no other, and for no second time.
        let (_, options) = account.post("/recover/passkey/options", &json!({})).await;
        let (_, others) = account.post("/recover/passkey/options", &json!({})).await;
        let credential = account.authenticator.get(&options["publicKey"]).await;
        for ceremony in [&others["ceremony"], &options["ceremony"]] {
            let body = json!({"ceremony": ceremony, "credential": credential, "name": NAME});
            let wanted = if ceremony == &options["ceremony"] {
                200
            } else {
                401
            };
            assert_eq!(account.post("/recover/passkey", &body).await.0, wanted);
            assert_eq!(account.post("/recover/passkey", &body).await.0, 401);
        }
        // Wrong PINs by OPAQUE are counted although the server can not tell that they are wrong.
        for _ in 0..ATTEMPTS {
            let login = LoggingIn::start("000000");
            let started = other.start_opaque(&login).await;
            assert!(login.finish_unstretched(&started).is_none());
        }
        let body = json!({"account": other.id, "pin": PIN, "name": NAME});
        assert_eq!(other.post("/recover/pin", &body).await.0, 423);
        // No session, no secret is stored.
        other.token = b64(&[9; 32]);
        let body = json!({"name": NAME, "secret": ""});
        assert_eq!(other.call("PUT", "/secrets", &body).await.0, 401);
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) struct NodeAccount {
    http: reqwest::Client,
    url: String,
    id: String,
    token: String,
    authenticator: SoftAuthenticator,
}

impl Connected for NodeAccount {
    fn connection(&self) -> (reqwest::Client, String) {
        (self.http.clone(), self.url.clone())
    }
}

impl NodeAccount {
    async fn enrolled(http: reqwest::Client, url: &str, with_pins: bool) -> Self {
        let mut account = Self {
            http,
            url: url.to_owned(),
            id: String::new(),
            token: String::new(),
            authenticator: SoftAuthenticator::new("notes"),
        };
        let made = account.must("POST", "/accounts", json!({})).await;
        account.id = made["account"].as_str().unwrap().to_owned();
        account.token = made["token"].as_str().unwrap().to_owned();
        let body = json!({"name": NAME, "secret": b64(&SECRET)});
        account.must("PUT", "/secrets", body).await;
        let options = account.must("POST", "/passkeys/options", json!({})).await;
        let credential = account.authenticator.create(&options["publicKey"]).await;
        let body = json!({"ceremony": options["ceremony"], "credential": credential});
        account.must("POST", "/passkeys", body).await;
        if with_pins {
            account.must("PUT", "/pin", json!({"pin": PIN})).await;
            account.register_opaque().await;
        }
        account
    }

    /// Unstretched, as the daemon's: the server can not tell.
    async fn register_opaque(&self) {
        let (state, started) = Registering::start(PIN);
        let body = json!({"registrationRequest": started["request"]});
        let answer = self.must("POST", "/opaque", body).await;
        let response = json!({"response": answer["registrationResponse"]});
        let record = &state.finish_unstretched(PIN, &response).body["record"];
        let body = json!({"registrationRecord": record});
        self.must("PUT", "/opaque", body).await;
    }

    /// Both calls. What the authenticator takes between them is not the server's time.
    pub(crate) async fn by_passkey(&mut self) -> Duration {
        let started = Instant::now();
        let path = "/recover/passkey/options";
        let options = self.must("POST", path, json!({})).await;
        let asked = started.elapsed();
        let credential = self.authenticator.get(&options["publicKey"]).await;
        let ceremony = &options["ceremony"];
        let body = json!({"ceremony": ceremony, "credential": credential, "name": NAME});
        let started = Instant::now();
        self.recover("/recover/passkey", body).await;
        asked + started.elapsed()
    }

    pub(crate) async fn by_pin(&mut self) -> Duration {
        let started = Instant::now();
        let body = json!({"account": self.id, "pin": PIN, "name": NAME});
        self.recover("/recover/pin", body).await;
        started.elapsed()
    }

    /// Both calls, without what the client computes between them.
    pub(crate) async fn by_opaque(&mut self) -> Duration {
        let login = LoggingIn::start(PIN);
        let started = Instant::now();
        let answer = self.start_opaque(&login).await;
        let asked = started.elapsed();
        let ke3 = login.finish_unstretched(&answer).unwrap().ke3;
        let body = json!({"login": answer["login"], "finishLoginRequest": ke3, "name": NAME});
        let started = Instant::now();
        self.recover("/recover/opaque", body).await;
        asked + started.elapsed()
    }

    async fn start_opaque(&self, login: &LoggingIn) -> Value {
        let body = json!({"account": self.id, "startLoginRequest": login.ke1});
        let mut answer = self.must("POST", "/recover/opaque/start", body).await;
        // As the daemon calls it.
        answer["ke2"] = answer["loginResponse"].take();
        answer
    }

    /// A recovery that brought no secret would be fast and worth nothing.
    async fn recover(&mut self, path: &str, body: Value) {
        let answer = self.must("POST", path, body).await;
        assert_eq!(answer["secret"], b64(&SECRET), "{answer}");
        self.token = answer["token"].as_str().unwrap().to_owned();
    }

    async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, &body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, body).await
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        let answer = request.json(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }
}
