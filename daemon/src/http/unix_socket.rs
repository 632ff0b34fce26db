//! A Unix socket that answers certain users' processes: who they are, the kernel says.
//!
//! Called by start-up for the operator's socket and for the courier's. Whoever can reach the socket's
//! file can connect; before a byte is read, SO_PEERCRED tells whose process it is, and everybody who
//! was not named is cut off. The bounds of a connection are those of every other listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::{self, Around, Crowd};
use super::server::{Drained, Limits, PeerAddress, drain, stopped};

/// Whose processes are answered.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// For the log.
    socket: &'static str,
    users: Vec<u32>,
}

impl Peers {
    /// Root, who could take the socket's place anyway, and these users.
    pub(crate) fn root_and(socket: &'static str, users: impl IntoIterator<Item = u32>) -> Self {
        let users = std::iter::once(0).chain(users).collect();
        Self { socket, users }
    }

    fn admit(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if self.users.contains(&peer.uid()) => true,
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    socket = self.socket,
                    "a process of a user who is not named was turned away"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, socket = self.socket, "nobody knows who connected");
                false
            }
        }
    }
}

/// The user of this process.
pub(crate) fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Takes the place of a socket that an earlier process left: the caller knows that it does not run
/// any more.
///
/// # Errors
/// Of the file system; another kind of file at this place is left alone.
pub(crate) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "there is a file at this place that is no socket",
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The process's mask gives it 0700 at the most; this takes away what means nothing.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `shutdown`, then drains. A connection beyond `most` is closed at once.
pub(crate) async fn serve(
    listener: UnixListener,
    (router, peers): (Router, Peers),
    most: usize,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Drained {
    let permits = Arc::new(Semaphore::new(most));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (true, Ok(permit)) = (
            peers.admit(&stream),
            Arc::clone(&permits).try_acquire_owned(),
        ) else {
            continue;
        };
        let (router, around) = (
            router.clone(),
            Around {
                shutdown: shutdown.clone(),
                // Nobody waits for a place here: what is beyond them is closed.
                crowd: Arc::new(Crowd::default()),
            },
        );
        tasks.spawn(async move {
            let nowhere = PeerAddress(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
            connection::run(stream, nowhere, router, limits.connection, around).await;
            drop(permit);
        });
    }
    drop(listener);
    drain(tasks, limits.drain).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_takes_a_dead_ones_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.sock");
        drop(bind(&path).unwrap());
        let _again = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn another_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn only_who_is_named_is_admitted() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert!(Peers::root_and("test", [own()]).admit(&here));
        let stranger = Peers {
            socket: "test",
            users: vec![own() + 1],
        };
        assert!(!stranger.admit(&here));
    }
}
