//! The addresses of the configuration: free, or those on which the running custodyd listens.
//!
//! Called by `doctor` only. A daemon that has a socket for operators says where it listens, and is believed: what it was
//! handed over stands in no file, and from a unit without a network its addresses look free. Otherwise each is bound for a
//! moment.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::super::output::Line;
use super::daemon::Daemon;
use crate::config::Config;
use crate::listening::{DEVELOPMENT, Listening, OPERATOR, PUBLIC};

/// One line for each listener.
pub(super) fn check(config: &Config, daemon: Option<&Daemon>) -> Vec<Line> {
    let configured = configured(config);
    match daemon.map(Daemon::listening) {
        Some(Some(Ok(told))) => configured
            .into_iter()
            .map(|(name, address)| compared(name, address, &told))
            .collect(),
        Some(Some(Err(error))) => vec![Line::red(
            "listen",
            format!("the running custodyd does not say where it listens: {error}"),
            "restart it: it may be an older version",
        )],
        runs => configured
            .into_iter()
            .map(|(name, address)| line(name, address, runs.is_some()))
            .collect(),
    }
}

fn configured(config: &Config) -> Vec<(&'static str, SocketAddr)> {
    let development = config
        .listen
        .development
        .as_ref()
        .map(|development| development.listen);
    [
        (PUBLIC, Some(config.listen.public)),
        (DEVELOPMENT, development),
        (OPERATOR, Some(config.operator.listen)),
    ]
    .into_iter()
    .filter_map(|(name, address)| Some((name, address?)))
    .collect()
}

fn compared(name: &str, configured: SocketAddr, told: &[Listening]) -> Line {
    let none = Listening {
        name: name.to_owned(),
        addresses: Vec::new(),
        handed_over: false,
    };
    let at = told.iter().find(|one| one.name == name).unwrap_or(&none);
    let shown: Vec<String> = at.addresses.iter().map(ToString::to_string).collect();
    let shown = shown.join(", ");
    match (at.handed_over, at.addresses.contains(&configured)) {
        (true, _) => Line::ok(
            "listen",
            format!("{name} {shown}: handed over to the running custodyd"),
        ),
        (false, true) => Line::ok(
            "listen",
            format!("{name} {configured}: in use by the running custodyd"),
        ),
        (false, false) => not_there(name, configured),
    }
}

fn not_there(name: &str, address: SocketAddr) -> Line {
    Line::red(
        "listen",
        format!("{name} {address}: nobody listens, although a custodyd runs"),
        "restart it with this configuration",
    )
}

fn line(name: &str, address: SocketAddr, daemon_runs: bool) -> Line {
    match TcpListener::bind(address) {
        Ok(_) if daemon_runs => not_there(name, address),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;
    use crate::cli::output::Status;

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

    #[test]
    fn where_the_daemon_listens_it_says_itself() {
        let here: SocketAddr = "127.0.0.1:8443".parse().unwrap();
        let elsewhere: SocketAddr = "[::]:9443".parse().unwrap();
        let told = |addresses: &[SocketAddr], handed_over| {
            [Listening {
                name: PUBLIC.to_owned(),
                addresses: addresses.to_vec(),
                handed_over,
            }]
        };
        let judged = |told: &[Listening]| compared(PUBLIC, here, told).status;
        assert_eq!(judged(&told(&[here], false)), Status::Ok);
        assert_eq!(judged(&told(&[elsewhere], false)), Status::Red);
        assert_eq!(judged(&[]), Status::Red);
        let handed = compared(PUBLIC, here, &told(&[elsewhere], true));
        assert_eq!(handed.status, Status::Ok);
        assert!(handed.detail.contains("[::]:9443"), "{handed:?}");
    }
}
