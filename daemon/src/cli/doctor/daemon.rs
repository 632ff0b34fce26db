//! The daemon that runs, if one does: found, and asked how it is and where it listens.
//!
//! Called by `doctor` only. The operator's socket is asked first: only the daemon's user and root answer there, and
//! it is there in a unit without a network. Where no socket is configured, or nobody listens on it, the listener on loopback
//! is asked; whoever holds that port controls its answer, which is bounded, and only shown.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::Operator;
use crate::listening::Listening;

const CONNECT: Duration = Duration::from_secs(1);
/// For a whole answer. Longer than a readiness check may take in the daemon.
const ANSWER: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum Found {
    Runs(Daemon),
    /// Something has the place and does not answer: it may be a daemon that hangs, with the token and the database in its hands.
    Silent(String),
    Nobody(String),
}

/// A custodyd that has answered.
#[derive(Debug)]
pub(super) enum Daemon {
    AtSocket(PathBuf),
    OnLoopback(SocketAddr),
}

pub(super) fn find(operator: &Operator) -> Found {
    let at_socket = match &operator.socket {
        Some(socket) => known(Daemon::AtSocket(socket.clone())),
        None => Found::Nobody("operator.socket is not set".to_owned()),
    };
    let Found::Nobody(nobody) = at_socket else {
        return at_socket;
    };
    match known(Daemon::OnLoopback(operator.listen)) {
        Found::Nobody(loopback) => Found::Nobody(format!("{nobody}, {loopback}")),
        found => found,
    }
}

/// Whether it is a custodyd that answers there: another program that has taken a port is none.
fn known(place: Daemon) -> Found {
    let (status, body) = match place.get("/healthz") {
        Ok(answer) => answer,
        Err(error) => {
            let told = format!("{place}: {error}");
            // What a socket's timeout is called, on either kind of it.
            let hangs = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            return if hangs {
                Found::Silent(told)
            } else {
                Found::Nobody(told)
            };
        }
    };
    let service: Value = serde_json::from_str(&body).unwrap_or_default();
    let is_custodyd = service.get("service").and_then(Value::as_str) == Some("custodyd");
    if status == 200 && is_custodyd {
        Found::Runs(place)
    } else {
        Found::Nobody(format!("{place}: another program answers"))
    }
}

impl Daemon {
    /// Its readiness, and what it says beside; the error is what it says has failed.
    pub(super) fn ready(&self) -> Result<Value, String> {
        let (status, body) = self
            .get("/readyz")
            .map_err(|error| format!("no answer ({error})"))?;
        if status == 200 {
            return Ok(serde_json::from_str(&body).unwrap_or_default());
        }
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        let failed = problem.get("failed").and_then(Value::as_array);
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

    /// Where it listens. Its socket alone says so; beside the listener on loopback there is this host's network to look at.
    pub(super) fn listening(&self) -> Option<Result<Vec<Listening>, String>> {
        let Self::AtSocket(_) = self else { return None };
        let answer = self.get("/listeners").map_err(|error| error.to_string());
        Some(answer.and_then(|(_, body)| {
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            let listeners = body.get("listeners").cloned().unwrap_or_default();
            serde_json::from_value(listeners).map_err(|error| error.to_string())
        }))
    }

    fn get(&self, path: &str) -> io::Result<(u16, String)> {
        match self {
            Self::AtSocket(socket) => over_unix(socket, path),
            Self::OnLoopback(address) => over_tcp(*address, path),
        }
    }
}

impl std::fmt::Display for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtSocket(socket) => socket.display().fmt(f),
            Self::OnLoopback(address) => address.fmt(f),
        }
    }
}

fn over_unix(socket: &Path, path: &str) -> io::Result<(u16, String)> {
    let until = Instant::now() + ANSWER;
    exchange(UnixStream::connect(socket)?, path, until)
}

fn over_tcp(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let until = Instant::now() + ANSWER;
    exchange(TcpStream::connect_timeout(&address, CONNECT)?, path, until)
}

/// A connection whose next read and write take so long at the most.
trait Limited: Read + Write {
    fn limit(&self, to: Duration) -> io::Result<()>;
}

impl Limited for UnixStream {
    fn limit(&self, to: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(to))?;
        self.set_write_timeout(Some(to))
    }
}

impl Limited for TcpStream {
    fn limit(&self, to: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(to))?;
        self.set_write_timeout(Some(to))
    }
}

/// A plain HTTP/1.1 request over a connection of its own: status and body. Whoever answers a byte at a time has no longer
/// for all of them than for one.
fn exchange(mut stream: impl Limited, path: &str, until: Instant) -> io::Result<(u16, String)> {
    // In one piece: a listener that answers after the first of several would reset the rest.
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.limit(CONNECT)?;
    stream.write_all(request.as_bytes())?;
    let answer = read_until(stream, until)?;
    let malformed = || io::Error::other("not an HTTP answer");
    let answer = String::from_utf8(answer).map_err(|_| malformed())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(malformed)?, body.to_owned()))
}

/// All that comes, as far as it is no more than an answer may have.
fn read_until(mut stream: impl Limited, until: Instant) -> io::Result<Vec<u8>> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while answer.len() < MAX_ANSWER {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.limit(left)?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(part.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    answer.truncate(MAX_ANSWER);
    Ok(answer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const CUSTODYD: &str = "HTTP/1.1 200 OK\r\n\r\n{\"service\":\"custodyd\"}";

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

    fn found(listen: SocketAddr, socket: Option<PathBuf>) -> Found {
        find(&Operator { listen, socket })
    }

    /// An address where nobody listens.
    fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[test]
    fn a_running_custodyd_is_recognised_and_another_program_is_not() {
        assert!(matches!(
            found(answering(CUSTODYD), None),
            Found::Runs(Daemon::OnLoopback(_))
        ));
        for other in [
            "HTTP/1.1 200 OK\r\n\r\n<html>",
            "220 mail.example ESMTP\r\n",
        ] {
            assert!(matches!(found(answering(other), None), Found::Nobody(_)));
        }
        let told = match found(nowhere(), None) {
            Found::Nobody(told) => told,
            Found::Runs(_) | Found::Silent(_) => String::new(),
        };
        assert!(told.contains("operator.socket is not set"), "{told}");
    }

    #[test]
    fn one_that_has_the_socket_and_does_not_answer_is_not_taken_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("operator.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let hanging = found(nowhere(), Some(socket.clone()));
        assert!(matches!(hanging, Found::Silent(_)), "{hanging:?}");
        // A file that an ended daemon has left is nobody, and another one may be on loopback.
        drop(listener);
        assert!(matches!(
            found(nowhere(), Some(socket.clone())),
            Found::Nobody(_)
        ));
        assert!(matches!(
            found(answering(CUSTODYD), Some(socket)),
            Found::Runs(Daemon::OnLoopback(_))
        ));
    }

    #[test]
    fn one_that_answers_a_byte_at_a_time_is_not_waited_for_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Each byte comes in a tenth of what a whole answer may take, and the last one long after that.
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(ANSWER / 10);
            }
        });
        let began = Instant::now();
        let dripping = found(address, None);
        assert!(matches!(dripping, Found::Silent(_)), "{dripping:?}");
        assert!(began.elapsed() < ANSWER * 2, "{:?}", began.elapsed());
    }

    #[test]
    fn what_failed_is_told_as_the_daemon_tells_it() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\n\r\n\
                      {\"failed\":[{\"check\":\"token\",\"reason\":\"away\"}]}";
        assert_eq!(
            Daemon::OnLoopback(answering(answer)).ready(),
            Err("token: away".to_owned())
        );
        assert_eq!(
            Daemon::OnLoopback(answering("HTTP/1.1 200 OK\r\n\r\n{}")).ready(),
            Ok(serde_json::json!({}))
        );
    }
}
