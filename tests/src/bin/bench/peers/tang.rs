//! Tang as Debian packages it, behind TLS: a `tangd` for each connection, nginx before it.
//!
//! Debian has systemd start a unit for each connection. Here `systemd-socket-activate` starts the bare program, which is
//! less work. Everything that nginx, it, and every `tangd` spend is counted. The answers are checked: a client knows
//! from its own key what the exchange has to give.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::agreement::{ECDH_P521, PrivateKey, UnparsedPublicKey, agree};
use custodyd_tests::app::{certificates, free_port};
use custodyd_tests::device::{b64, sha256, unb64};
use custodyd_tests::token::repository;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fresh::Fresh;
use crate::workers::Connected;

/// Bytes of a coordinate of P-521.
const COORDINATE: usize = 66;

pub(crate) struct Tang {
    nginx: Child,
    activator: Child,
    /// A `tangd` for each recovery, and one for as long as the client's connection stands.
    fresh_url: String,
    kept_url: String,
    exchange: Value,
    fresh: Fresh,
    _dir: TempDir,
}

/// Where `scripts/ensure-tools bench` puts a program, or where Debian's package does.
fn program(name: &str, packaged: &str) -> Option<PathBuf> {
    let ours = repository().join("target/tools/bin").join(name);
    [ours, PathBuf::from(packaged)]
        .into_iter()
        .find(|path| path.is_file())
}

impl Tang {
    /// None where the programs are not there.
    pub(crate) async fn start() -> Option<Self> {
        let nginx = program("nginx", "/usr/sbin/nginx")?;
        let tangd = program("tangd", "/usr/libexec/tangd")?;
        let activate = program(
            "systemd-socket-activate",
            "/usr/bin/systemd-socket-activate",
        )?;
        let dir = tempfile::Builder::new()
            .prefix("custodyd-tang-")
            .tempdir()
            .unwrap();
        let fresh = Fresh::new(&certificates(dir.path()));
        let [inner, one, many] = [free_port(), free_port(), free_port()];
        let keys = dir.path().join("keys");
        // Tang makes its keys where it finds none.
        std::fs::create_dir(&keys).unwrap();
        let activator = Command::new(activate)
            .args(["--accept", "--inetd", "-l", &format!("127.0.0.1:{inner}")])
            .arg(tangd)
            .arg(&keys)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let configuration = dir.path().join("nginx.conf");
        write_configuration(&configuration, dir.path(), [inner, one, many]);
        let nginx = Command::new(nginx)
            .arg("-c")
            .arg(&configuration)
            .arg("-p")
            .arg(dir.path())
            .args(["-e", "stderr"])
            .process_group(0)
            .spawn()
            .unwrap();
        let fresh_url = format!("https://localhost:{one}");
        let exchange = exchange_key(&fresh.client(), &fresh_url).await;
        Some(Self {
            nginx,
            activator,
            fresh_url,
            kept_url: format!("https://localhost:{many}"),
            exchange,
            fresh,
            _dir: dir,
        })
    }

    /// Whose trees of processes do all the work.
    pub(crate) fn ids(&self) -> [u32; 2] {
        [self.nginx.id(), self.activator.id()]
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine::new(self)
    }
}

impl Drop for Tang {
    fn drop(&mut self) {
        // nginx's master takes its workers along, which a killed one would not.
        let master = i32::try_from(self.nginx.id()).unwrap();
        let master = rustix::process::Pid::from_raw(master).unwrap();
        let _ = rustix::process::kill_process(master, rustix::process::Signal::TERM);
        let _ = self.nginx.wait();
        let _ = self.activator.kill();
        let _ = self.activator.wait();
    }
}

/// One server for connections that come once, one for such that stay. No log, no resumed sessions: the clients bring none.
fn write_configuration(to: &Path, dir: &Path, [inner, one, many]: [u16; 3]) {
    let dir = dir.display();
    let server = |port: u16, upstream: &str, more: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; server_name localhost;
ssl_certificate {dir}/certificate.pem; ssl_certificate_key {dir}/private-key.pem;
ssl_protocols TLSv1.3; ssl_session_cache off; ssl_session_tickets off; keepalive_requests 1000000;
location / {{ proxy_pass http://{upstream}; {more} }} }}\n"
        )
    };
    let kept = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let mut file = std::fs::File::create(to).unwrap();
    write!(
        file,
        "daemon off; pid {dir}/nginx.pid; worker_processes 2;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
upstream once {{ server 127.0.0.1:{inner}; }}
upstream kept {{ server 127.0.0.1:{inner}; keepalive 64; keepalive_requests 1000000; }}
{}{}}}\n",
        server(one, "once", ""),
        server(many, "kept", kept),
    )
    .unwrap();
}

/// The public half of the key that recovers, from what Tang advertises.
async fn exchange_key(http: &reqwest::Client, url: &str) -> Value {
    let give_up = Instant::now() + Duration::from_secs(10);
    let answer = loop {
        // nginx answers before it has anything behind it.
        match http.get(format!("{url}/adv")).send().await {
            Ok(answer) if answer.status() == 200 => break answer,
            other => assert!(Instant::now() < give_up, "Tang: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let advertised: Value = answer.json().await.unwrap();
    let payload = unb64(advertised["payload"].as_str().unwrap());
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let keys = payload["keys"].as_array().unwrap();
    let recovers = |key: &&Value| key["key_ops"] == json!(["deriveKey"]);
    keys.iter().find(recovers).unwrap().clone()
}

/// A machine that has Tang give its key back.
pub(crate) struct Machine {
    http: reqwest::Client,
    fresh: Fresh,
    fresh_url: String,
    kept_url: String,
    /// Of the connection that stays.
    advertised_url: String,
    body: String,
    /// What the exchange gives: its first coordinate.
    wanted: String,
}

impl Connected for Machine {
    fn connection(&self) -> (reqwest::Client, String) {
        (self.http.clone(), self.advertised_url.clone())
    }
}

impl Machine {
    fn new(tang: &Tang) -> Self {
        let key = PrivateKey::generate(&ECDH_P521).unwrap();
        let public = key.compute_public_key().unwrap();
        let (x, y) = public.as_ref()[1..].split_at(COORDINATE);
        let (x, y) = (b64(x), b64(y));
        let exchange = &tang.exchange;
        let coordinate = |name: &str| exchange[name].as_str().unwrap();
        let point = [vec![4], unb64(coordinate("x")), unb64(coordinate("y"))].concat();
        let peer = UnparsedPublicKey::new(&ECDH_P521, point);
        let wanted = agree(&key, peer, (), |shared| Ok(b64(shared))).unwrap();
        // RFC 7638, as Tang names its keys.
        let thumbprint = sha256(
            format!(
                r#"{{"crv":"P-521","kty":"EC","x":{},"y":{}}}"#,
                exchange["x"], exchange["y"]
            )
            .as_bytes(),
        );
        let body = json!({"alg": "ECMR", "crv": "P-521", "kty": "EC", "key_ops": ["deriveKey"], "x": x, "y": y});
        Self {
            http: tang.fresh.client(),
            fresh: tang.fresh.clone(),
            fresh_url: format!("{}/rec/{thumbprint}", tang.fresh_url),
            kept_url: format!("{}/rec/{thumbprint}", tang.kept_url),
            advertised_url: format!("{}/adv", tang.kept_url),
            body: body.to_string(),
            wanted,
        }
    }

    pub(crate) async fn recover(&mut self) -> Duration {
        self.http = self.fresh.client();
        self.ask(&self.fresh_url).await
    }

    /// On the connection that stands.
    pub(crate) async fn recover_again(&mut self) -> Duration {
        self.ask(&self.kept_url).await
    }

    async fn ask(&self, url: &str) -> Duration {
        let started = Instant::now();
        let request = self.http.post(url).body(self.body.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let point: Value = answer.json().await.unwrap();
        let took = started.elapsed();
        assert_eq!(point["x"], self.wanted.as_str(), "{point}");
        took
    }
}
