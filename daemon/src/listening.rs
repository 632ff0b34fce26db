//! The listeners of a daemon: handed over by systemd, or opened here.
//!
//! Called by `startup`, once everything else is ready. A name that was handed over replaces the address
//! of the configuration. The listener for monitoring asks for no credential, so that it is refused on
//! any other address than a loopback one, wherever it comes from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Config;
use crate::handed::Handed;
use crate::http::unix_socket;
use crate::startup::{StartError, system};

pub(crate) const PUBLIC: &str = "public";
pub(crate) const DEVELOPMENT: &str = "development";
pub(crate) const OPERATOR: &str = "operator";
const OPERATOR_SOCKET: &str = "operator-socket";

/// Where a daemon listens: only it knows, since what was handed over replaces the configuration, and an address
/// that is taken in one network is free in another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Listening {
    pub(crate) name: String,
    pub(crate) addresses: Vec<SocketAddr>,
    /// By systemd, so that the address of the configuration is nobody's.
    pub(crate) handed_over: bool,
}

#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) public: Vec<TcpListener>,
    pub(crate) development: Option<TcpListener>,
    pub(crate) operator: Vec<TcpListener>,
    pub(crate) socket: Option<UnixListener>,
    pub(crate) shown: Vec<Listening>,
    /// The file of a socket that was made here, to be removed at the end.
    made: Option<PathBuf>,
}

impl Listeners {
    /// # Errors
    /// Where an address is taken, or what was handed over is not what its name says.
    pub(crate) async fn open(config: &Config, mut handed: Handed) -> Result<Self, StartError> {
        let public = handed.tcp(PUBLIC)?;
        let operator = handed.tcp(OPERATOR)?;
        let socket = handed.unix(OPERATOR_SOCKET)?;
        handed.finish(&[PUBLIC, OPERATOR, OPERATOR_SOCKET])?;
        for listener in &operator {
            only_loopback(listener)?;
        }
        let handed_over = (!public.is_empty(), !operator.is_empty());
        let development = match &config.listen.development {
            Some(development) => Some(listen(development.listen).await?),
            None => None,
        };
        let (socket, made) = match (socket, &config.operator.socket) {
            (Some(handed), _) => (Some(handed), None),
            (None, Some(path)) => (Some(bind(path)?), Some(path.clone())),
            (None, None) => (None, None),
        };
        let public = or_listen(public, config.listen.public).await?;
        let operator = or_listen(operator, config.operator.listen).await?;
        let shown = vec![
            listening(PUBLIC, &public, handed_over.0),
            listening(DEVELOPMENT, &development, false),
            listening(OPERATOR, &operator, handed_over.1),
        ];
        Ok(Self {
            public,
            development,
            operator,
            socket,
            shown,
            made,
        })
    }

    /// What has to be removed once nobody listens any more.
    pub(crate) fn made(&mut self) -> Option<PathBuf> {
        self.made.take()
    }
}

fn listening<'a>(
    name: &str,
    listeners: impl IntoIterator<Item = &'a TcpListener>,
    handed_over: bool,
) -> Listening {
    let addresses = listeners.into_iter();
    Listening {
        name: name.to_owned(),
        addresses: addresses.filter_map(|one| one.local_addr().ok()).collect(),
        handed_over,
    }
}

async fn or_listen(
    handed: Vec<TcpListener>,
    address: SocketAddr,
) -> Result<Vec<TcpListener>, StartError> {
    if handed.is_empty() {
        return Ok(vec![listen(address).await?]);
    }
    Ok(handed)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(system(format!("listen on {address}")))
}

fn bind(path: &Path) -> Result<UnixListener, StartError> {
    unix_socket::bind(path).map_err(system(format!("listen on {}", path.display())))
}

fn only_loopback(listener: &TcpListener) -> Result<(), StartError> {
    let address = listener.local_addr();
    let address = address.map_err(system("look at the operator listener"))?;
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(StartError::OperatorInTheOpen(address))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_listener_without_a_credential_stays_on_loopback() {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(only_loopback(&inside).is_ok());
        let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let told = only_loopback(&open).unwrap_err().to_string();
        assert!(told.contains("0.0.0.0"), "{told}");
    }
}
