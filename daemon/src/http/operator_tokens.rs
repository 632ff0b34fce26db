//! The part of the operator's socket about several tokens; what it does stands in `service::tokens`.
//!
//! Merged into the socket's router. Taking a token in or out leaves a line in the log, and an entry in the
//! realm's log.

use std::sync::Arc;

use axum::extract::{Path as Segments, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::operator_socket::Actions;
use super::problem::Problem;

type Answer = Result<Json<Value>, Problem>;

pub(super) fn router() -> Router<Arc<Actions>> {
    Router::new()
        .route("/tokens", get(list))
        .route("/tokens/{name}/readmit", post(readmit))
        .route("/tokens/{name}/expel", post(expel))
}

async fn list(State(actions): State<Arc<Actions>>) -> Answer {
    Ok(Json(actions.service.tokens()))
}

async fn readmit(State(actions): State<Arc<Actions>>, Segments(name): Segments<String>) -> Answer {
    tracing::warn!(token = name, "an operator takes a token in");
    Ok(Json(actions.service.readmit_token(&name).await?))
}

async fn expel(State(actions): State<Arc<Actions>>, Segments(name): Segments<String>) -> Answer {
    tracing::warn!(token = name, "an operator takes a token out");
    Ok(Json(actions.service.expel_token(&name).await?))
}
