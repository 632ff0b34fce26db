//! The other end of the operator's socket: one request to a daemon that runs.
//!
//! Called by the commands that act on a running daemon. Such a command never opens the database
//! itself: one process has it, and that is the daemon. What answers is the daemon's own user or
//! root, or the socket's mode would have kept us out; its texts are shown made visible.

use std::path::Path;
use std::time::Duration;

use custodyd_hsm::SecretBytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::config::Config;

/// A reload reads a few files, a page of a trail some hundred rows.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 64 << 20;

/// The daemon's answer, or why there is none; an answer that is a problem is one of these.
pub(super) fn ask(config: &Config, method: &str, path: &str) -> Result<Value, String> {
    ask_with(config, (method, path), None)
}

/// The same with a secret that goes along as the body.
pub(super) fn ask_with(
    config: &Config,
    (method, path): (&str, &str),
    secret: Option<&SecretBytes>,
) -> Result<Value, String> {
    let body = secret.map_or_else(Bytes::new, |secret| {
        Bytes::from_owner(Zeroizing::new(secret.expose().to_vec()))
    });
    let socket =
        config.operator.socket.as_deref().ok_or(
            "operator.socket is not set in the configuration; set it and restart the daemon",
        )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, exchange(socket, (method, path), body))
            .await
            .unwrap_or_else(|_| Err(unanswered(socket)))
    })
}

/// A service manager listens for a daemon that does not start.
fn unanswered(socket: &Path) -> String {
    format!(
        "{}: no answer within {} s. It may be a daemon that does not start, for which systemd listens: look in its \
         journal. What is to be done without it: systemctl stop 'custodyd*.socket' custodyd.service, then the same \
         by as-custodyd",
        socket.display(),
        PATIENCE.as_secs()
    )
}

async fn exchange(
    socket: &Path,
    (method, path): (&str, &str),
    body: Bytes,
) -> Result<Value, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        format!(
            "{}: {error}; is the daemon running, and are you its user or root?",
            socket.display()
        )
    })?;
    let broken = |error: hyper::Error| format!("{}: {error}", socket.display());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| format!("{}: {error}", socket.display()))?
        .to_bytes();
    driver.abort();
    let value: Value = serde_json::from_slice(&body)
        .map_err(|_| format!("the answer is no JSON (status {status})"))?;
    if status.is_success() {
        return Ok(value);
    }
    let detail = value.get("detail").and_then(Value::as_str);
    Err(detail.map_or_else(|| format!("status {status}"), ToOwned::to_owned))
}
