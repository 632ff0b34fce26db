//! The operator's socket: what an operator does to a daemon that runs, as JSON over HTTP.
//!
//! Called by start-up; spoken to by the command line. It is a Unix socket of mode 0600, and the
//! kernel says who is at the other end: the daemon's own user and root are answered, everybody
//! else is not. It offers actions and the numbers of a trail, and never a secret; names and
//! addresses in an export alone, which its owner sees. Each action leaves a line in the log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Path as Segments, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection;
use super::operator_keys;
use super::problem::Problem;
use super::server::{Drained, Limits, PeerAddress, drain, stopped};
use crate::service::Service;

/// Connections at once: an operator and a few scripts.
const CONNECTIONS: usize = 16;

/// Reads again what can be read again; says what changed, or what is wrong with the files.
pub(crate) type Reload = dyn Fn() -> BoxFuture<'static, Result<Value, String>> + Send + Sync;

pub(crate) struct Actions {
    pub(crate) service: Arc<Service>,
    pub(crate) reload: Arc<Reload>,
}

pub(crate) fn router(actions: Actions) -> Router {
    Router::new()
        .route("/reload", post(reload))
        .route("/accounts/{app}/{account}/trail", get(trail))
        .route("/accounts/{app}/{account}/export", post(export))
        .route("/accounts/{app}/{account}", delete(erase))
        .merge(operator_keys::router())
        .with_state(Arc::new(actions))
}

async fn reload(State(actions): State<Arc<Actions>>) -> Response {
    match (actions.reload)().await {
        Ok(done) => Json(done).into_response(),
        Err(error) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reload-refused", error).into_response()
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: Option<String>,
}

async fn trail(
    State(actions): State<Arc<Actions>>,
    Segments((app, account)): Segments<(String, String)>,
    Query(query): Query<From>,
) -> Result<Response, Problem> {
    tracing::info!("an operator reads the trail of an account");
    let page = actions
        .service
        .trail(&app, &account, query.from.as_deref())
        .await?;
    Ok(Json(page).into_response())
}

async fn export(
    State(actions): State<Arc<Actions>>,
    Segments((app, account)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    tracing::warn!("an operator exports an account");
    let document = actions.service.export_named(&app, &account).await?;
    Ok(Json(document).into_response())
}

async fn erase(
    State(actions): State<Arc<Actions>>,
    Segments((app, account)): Segments<(String, String)>,
) -> Result<Response, Problem> {
    tracing::warn!("an operator erases an account");
    actions.service.erase_named(&app, &account).await?;
    Ok(Json(json!({ "erased": account })).into_response())
}

/// Takes the place of a socket that an earlier daemon left: the caller holds the realm's lock,
/// so that one does not run any more.
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

/// Serves until `shutdown`, then drains.
pub(crate) async fn serve(
    listener: UnixListener,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Drained {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
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
        let (true, Ok(permit)) = (admitted(&stream), Arc::clone(&permits).try_acquire_owned())
        else {
            continue;
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        tasks.spawn(async move {
            let nowhere = PeerAddress(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
            connection::run(stream, nowhere, router, limits.connection, shutdown).await;
            drop(permit);
        });
    }
    drop(listener);
    drain(tasks, limits.drain).await
}

/// SO_PEERCRED: whose process connected, as the kernel knows it.
fn admitted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == own || peer.uid() == 0 => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                "somebody else's process was turned away from the operator's socket"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "nobody knows who connected to the operator's socket");
            false
        }
    }
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
}
