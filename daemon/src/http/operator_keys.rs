//! The part of the operator's socket that rotates keys; what it does stands in `service::rotation`.
//!
//! Merged into the socket's router. Every action leaves a line in the log, and those that change the
//! keys in use an entry in the realm's log.

use std::sync::Arc;

use axum::extract::{Path as Segments, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use custodyd_hsm::{AppId, KeyId, KeyPurpose};
use serde::Deserialize;
use serde_json::{Value, json};

use super::operator_socket::Actions;
use super::problem::Problem;
use crate::ledger::rewrap::Share;
use crate::service::KeyError;

type Answer = Result<Json<Value>, Problem>;

pub(super) fn router() -> Router<Arc<Actions>> {
    Router::new()
        .route("/keys", get(list))
        .route("/keys/rewrap", get(rewrapping).post(rewrap))
        .route("/keys/rotate/{purpose}", post(rotate))
        .route("/keys/retire/{key}", post(retire))
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Refused(why) => Self::new(StatusCode::CONFLICT, "key-refused", why),
            error => {
                tracing::error!(%error, "a key could not be rotated, moved or retired");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "keys-unavailable", error.to_string())
            }
        }
    }
}

fn malformed(what: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-request", what)
}

async fn list(State(actions): State<Arc<Actions>>) -> Answer {
    Ok(Json(actions.service.keys().await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotating {
    #[serde(default)]
    announce: bool,
    /// The fingerprint of the escrow's manifest.
    manifest: Option<String>,
}

async fn rotate(
    State(actions): State<Arc<Actions>>,
    Segments(purpose): Segments<String>,
    Query(rotating): Query<Rotating>,
) -> Answer {
    let purpose = KeyPurpose::ALL.into_iter().find(|p| p.name() == purpose);
    let purpose = purpose.ok_or_else(|| malformed("there is no such kind of key".into()))?;
    tracing::warn!(purpose = purpose.name(), "an operator rotates a key");
    let key = actions
        .service
        .rotate_key(purpose, rotating.announce, rotating.manifest.as_deref())
        .await?;
    Ok(Json(json!({ "key": key.to_string() })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pass {
    share: Option<u32>,
    /// Apps that are not served any more, with commas between them.
    apps: Option<String>,
}

async fn rewrap(State(actions): State<Arc<Actions>>, Query(pass): Query<Pass>) -> Answer {
    let share = Share::percent(pass.share.unwrap_or(50))
        .ok_or_else(|| malformed("the share is a percentage, 1 to 100".into()))?;
    let apps = pass.apps.unwrap_or_default();
    let apps: Result<Vec<AppId>, _> = apps
        .split(',')
        .filter(|app| !app.is_empty())
        .map(AppId::parse)
        .collect();
    let apps = apps.map_err(|error| malformed(error.to_string()))?;
    tracing::warn!("an operator moves the records to the newest wrap key");
    Ok(Json(actions.service.begin_rewrap(share, apps)))
}

async fn rewrapping(State(actions): State<Arc<Actions>>) -> Answer {
    Ok(Json(actions.service.rewrapping()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retiring {
    #[serde(default)]
    destroy: bool,
}

async fn retire(
    State(actions): State<Arc<Actions>>,
    Segments(key): Segments<String>,
    Query(retiring): Query<Retiring>,
) -> Answer {
    let key = KeyId::parse_label(&key)
        .ok_or_else(|| malformed("expected a key such as custodyd-wrap-v1".into()))?;
    tracing::warn!(%key, destroy = retiring.destroy, "an operator retires a key");
    Ok(Json(
        actions.service.retire_key(key, retiring.destroy).await?,
    ))
}
