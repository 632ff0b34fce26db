//! The operator's socket: what an operator does to a daemon that runs, as JSON over HTTP.
//!
//! Called by start-up; spoken to by the command line. It is a Unix socket of mode 0600, and the
//! kernel says who is at the other end: the daemon's own user and root are answered, everybody
//! else is not. It offers actions and the numbers of a trail, and never a secret; names and
//! addresses in an export alone, which its owner sees. Each action leaves a line in the log. Health and readiness
//! are here, too, and where the daemon listens: for `doctor`, whose unit has no network to ask in.

use std::sync::Arc;

use axum::extract::{Path as Segments, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::operator::{self, Operator};
use super::problem::Problem;
use super::server::{Drained, Limits};
use super::unix_socket::{self, Peers};
use super::{operator_evidence, operator_keys, operator_tokens};
use crate::listening::Listening;
use crate::service::Service;

/// Connections at once: an operator and a few scripts.
const CONNECTIONS: usize = 16;

/// Reads again what can be read again; says what changed, or what is wrong with the files.
pub(crate) type Reload = dyn Fn() -> BoxFuture<'static, Result<Value, String>> + Send + Sync;

pub(crate) struct Actions {
    pub(crate) service: Arc<Service>,
    pub(crate) reload: Arc<Reload>,
    pub(crate) listening: Vec<Listening>,
}

pub(crate) fn router(actions: Actions, health: &Arc<Operator>) -> Router {
    Router::new()
        .route("/reload", post(reload))
        .route("/listeners", get(listeners))
        .route("/server-slots", get(server_slots))
        .route("/accounts/{app}/{account}/trail", get(trail))
        .route("/accounts/{app}/{account}/export", post(export))
        .route("/accounts/{app}/{account}", delete(erase))
        .merge(operator_keys::router())
        .merge(operator_evidence::router())
        .merge(operator_tokens::router())
        .with_state(Arc::new(actions))
        .merge(operator::health(health))
}

async fn listeners(State(actions): State<Arc<Actions>>) -> Response {
    Json(json!({ "listeners": actions.listening })).into_response()
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
struct Part {
    part: u32,
}

async fn server_slots(
    State(actions): State<Arc<Actions>>,
    Query(query): Query<Part>,
) -> Result<Response, Problem> {
    if query.part == 0 {
        tracing::info!("an operator counts the accounts that have server slots");
    }
    let part = actions.service.server_slots(query.part).await?;
    Ok(Json(part).into_response())
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

/// Serves until `shutdown`, then drains.
pub(crate) async fn serve(
    listener: UnixListener,
    router: Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
) -> Drained {
    let peers = Peers::root_and("operator.socket", [unix_socket::own()]);
    unix_socket::serve(listener, (router, peers), CONNECTIONS, limits, shutdown).await
}
