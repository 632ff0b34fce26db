//! The client for outgoing HTTPS: whom it believes, and what it never does.
//!
//! Used by `way`, for the calls of `webhook` and `witness`. TLS 1.2 or 1.3, the host's authorities
//! and a `ca_file` beside them; no redirects, no proxy, no cookies, HTTP/1.1. Plain HTTP only where
//! the address says so, which the configuration lets through for this machine alone. The caller
//! bounds the time of a call and the length of what it reads.

use std::path::Path;
use std::time::Duration;

use http_body_util::Full;
use hyper::Uri;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{SetupError, trust};

/// How the daemon names itself.
pub(crate) const USER_AGENT: &str = concat!("custodyd/", env!("CARGO_PKG_VERSION"));

pub(crate) type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for this address and others of its scheme.
pub(crate) fn client(uri: &Uri, ca_file: Option<&Path>) -> Result<HttpsClient, SetupError> {
    let tls = trust::client_config(ca_file)?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    let connector = match uri.scheme_str() {
        Some("http") => connector.https_or_http(),
        _ => connector.https_only(),
    };
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build(connector.enable_http1().build()))
}

/// An address that the configuration has judged.
pub(crate) fn address(url: &str) -> Result<Uri, SetupError> {
    url.parse()
        .map_err(|_| SetupError::Address("expected a URL for what is called".to_owned()))
}

/// The error with its causes: hyper's own text is no more than "client error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
