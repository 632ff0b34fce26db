//! The addresses of the configuration: free, or taken by a running custodyd.
//!
//! Called by `doctor` only. It binds for a moment and connects to the operator listener.
//! Whoever holds that port controls the answer, which is bounded, and only shown.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::super::output::Line;
use crate::config::Config;

const CONNECT: Duration = Duration::from_secs(1);
/// Longer than a readiness check may take in the daemon.
const ANSWER: Duration = Duration::from_secs(10);
const MAX_ANSWER: u64 = 64 * 1024;

/// A custodyd that answers on the operator address.
#[derive(Debug)]
pub(super) struct Daemon(SocketAddr);

pub(super) fn find_daemon(operator: SocketAddr) -> Option<Daemon> {
    let (status, body) = get(operator, "/healthz").ok()?;
    let body: serde_json::Value = serde_json::from_str(&body).ok()?;
    let is_custodyd = body.get("service").and_then(|name| name.as_str()) == Some("custodyd");
    (status == 200 && is_custodyd).then_some(Daemon(operator))
}

impl Daemon {
    /// Its readiness, and what it says beside; the error is what it says has failed.
    pub(super) fn ready(&self) -> Result<serde_json::Value, String> {
        let (status, body) =
            get(self.0, "/readyz").map_err(|error| format!("no answer ({error})"))?;
        if status == 200 {
            return Ok(serde_json::from_str(&body).unwrap_or_default());
        }
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let failed = problem.get("failed").and_then(|list| list.as_array());
        let reasons: Vec<String> = failed
            .into_iter()
            .flatten()
            .filter_map(|one| {
                Some(format!(
                    "{}: {}",
                    one.get("check")?.as_str()?,
                    one.get("reason")?.as_str()?
                ))
            })
            .collect();
        Err(match reasons.as_slice() {
            [] => format!("status {status}"),
            reasons => reasons.join("; "),
        })
    }
}

/// One line for each listener.
pub(super) fn check(config: &Config, daemon_runs: bool) -> Vec<Line> {
    let development = config
        .listen
        .development
        .as_ref()
        .map(|development| development.listen);
    [
        ("public", Some(config.listen.public)),
        ("development", development),
        ("operator", Some(config.operator.listen)),
    ]
    .into_iter()
    .filter_map(|(name, address)| Some(line(name, address?, daemon_runs)))
    .collect()
}

fn line(name: &str, address: SocketAddr, daemon_runs: bool) -> Line {
    match TcpListener::bind(address) {
        Ok(_) if daemon_runs => Line::red(
            "listen",
            format!("{name} {address}: nobody listens, although a custodyd runs"),
            "restart it with this configuration",
        ),
        Ok(_) => Line::ok("listen", format!("{name} {address}: free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && daemon_runs => Line::ok(
            "listen",
            format!("{name} {address}: in use by the running custodyd"),
        ),
        Err(error) => Line::red(
            "listen",
            format!("{name} {address}: {error}"),
            action(&error),
        ),
    }
}

fn action(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program holds the port (see ss -ltnp); stop it or choose another"
        }
        io::ErrorKind::AddrNotAvailable => "this host has no such address (see ip address)",
        io::ErrorKind::PermissionDenied => "take a port above 1023, or grant CAP_NET_BIND_SERVICE",
        _ => "choose another address",
    }
}

/// A plain HTTP/1.1 request over a socket of its own: status and body.
fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(CONNECT))?;
    // In one piece: a listener that answers after the first of several would reset the rest.
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let malformed = || io::Error::other("not an HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(malformed)?, body.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;
    use crate::cli::output::Status;

    /// A listener that gives the same answer to everybody.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    #[test]
    fn a_running_custodyd_is_recognised_and_another_program_is_not() {
        assert!(
            find_daemon(answering(
                "HTTP/1.1 200 OK\r\n\r\n{\"service\":\"custodyd\"}"
            ))
            .is_some()
        );
        assert!(find_daemon(answering("HTTP/1.1 200 OK\r\n\r\n<html>")).is_none());
        assert!(find_daemon(answering("220 mail.example ESMTP\r\n")).is_none());
    }

    #[test]
    fn what_failed_is_told_as_the_daemon_tells_it() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\n\r\n\
                      {\"failed\":[{\"check\":\"token\",\"reason\":\"away\"}]}";
        assert_eq!(
            Daemon(answering(answer)).ready(),
            Err("token: away".to_owned())
        );
        assert_eq!(
            Daemon(answering("HTTP/1.1 200 OK\r\n\r\n{}")).ready(),
            Ok(serde_json::json!({}))
        );
    }

    #[test]
    fn a_port_is_free_or_taken_by_us_or_red() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(line("public", address, true).status, Status::Ok);
        assert_eq!(line("public", address, false).status, Status::Red);
        drop(taken);
        assert_eq!(line("public", address, false).status, Status::Ok);
        assert_eq!(line("public", address, true).status, Status::Red);
    }
}
