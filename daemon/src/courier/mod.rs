//! `custodyd courier`: a second, small process that has a network, and neither token nor database.
//!
//! Called by the command line. The process that serves has no network of its own under the shipped
//! units; mail, text messages and checkpoints for witnesses leave through this one. What each can do
//! where the other was taken over:
//!
//! | taken over | may | must not be able to |
//! |---|---|---|
//! | the process that serves | have messages sent by the operator's mail server and gateway, to anybody, so many a minute | choose a host, a URL, a sender, or see a password of the mail server |
//! | the courier | read, drop and forge the messages that it carries; lie about what witnesses say | sign as the realm: text messages and checkpoints carry the token's signature, cosignatures are verified by who asked. Reach token or database: it answers, and never asks |
//!
//! Its list of destinations is the configuration (`destinations`), which neither process can write.
//! It keeps nothing on disk and logs neither address nor text.

mod destinations;
mod routes;
mod users;

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::destinations::Destinations;
use crate::config::Config;
use crate::handed::{Handed, HandedError};
use crate::http::server::Limits;
use crate::http::unix_socket::{self, Peers};
use crate::startup::{StartError, system};
use crate::{delivery, supervised};

/// The name of its socket where systemd hands it over.
pub const SOCKET: &str = "courier";
/// Where none is configured and the socket was handed over.
const PEER: &str = "custodyd";
/// Connections at once, each with one message: more than all queues of a daemon work on together.
const CONNECTIONS: usize = 192;
/// A mail under way is finished.
const DRAIN: Duration = Duration::from_secs(28);

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    #[error(
        "there is no [courier] in the configuration, so nothing is sent through one: set courier.socket"
    )]
    NotConfigured,
    #[error("courier.peer: there is no user {0:?}")]
    NoUser(String),
    #[error("courier.peer: {path}: {source}", path = path.display())]
    Users {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Setup(#[from] delivery::SetupError),
    #[error("{0}")]
    Handed(#[from] HandedError),
    #[error("{0}")]
    Start(#[from] StartError),
}

/// Carries until SIGTERM or SIGINT, then finishes what is under way.
///
/// # Errors
/// Every reason not to start.
pub async fn run(config: &Config, mut handed: Handed) -> Result<(), CourierError> {
    let settings = config.courier.as_ref();
    let settings = settings.ok_or(CourierError::NotConfigured)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for SIGINT"))?;
    let peer = users::find(settings.peer.as_deref(), PEER)?;
    let peers = Peers::root_and(
        "courier.socket",
        peer.into_iter().chain([unix_socket::own()]),
    );
    let destinations = Destinations::new(config, settings.messages_per_minute)?;
    let carries = destinations.named();
    let socket = handed.unix(SOCKET)?;
    handed.finish(&[SOCKET])?;
    let (listener, own) = match socket {
        Some(listener) => (listener, None),
        None => (bind(&settings.socket)?, Some(&settings.socket)),
    };
    let (stop, stopping) = watch::channel(false);
    let router = routes::router(destinations);
    let limits = Limits::new(CONNECTIONS, DRAIN);
    let serving = tokio::spawn(unix_socket::serve(
        listener,
        (router, peers),
        CONNECTIONS,
        limits,
        stopping,
    ));
    tracing::info!(carries, "the courier carries");
    let watchdog = supervised::ready();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    supervised::stopping();
    let _ = stop.send(true);
    let _ = serving.await;
    watchdog.abort();
    if let Some(path) = own {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn bind(path: &std::path::Path) -> Result<UnixListener, StartError> {
    unix_socket::bind(path).map_err(system(format!("listen on {}", path.display())))
}
