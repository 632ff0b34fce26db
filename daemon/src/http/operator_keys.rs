//! The part of the operator's socket that rotates keys; what it does stands in `service::rotation`.
//!
//! Merged into the socket's router. Every action leaves a line in the log, and those that change the
//! keys in use an entry in the realm's log. The one secret that comes this way is the password of a TPM's owner, as the
//! body of the request that needs it: it is used for that and forgotten.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path as Segments, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use custodyd_hsm::{AppId, KeyId, KeyPurpose, SecretBytes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::operator_socket::Actions;
use super::problem::Problem;
use crate::ledger::rewrap::Share;
use crate::service::KeyError;

/// A TPM takes no longer password than its digests.
const LONGEST_PASSWORD: usize = 64;

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

/// The password of a TPM's owner, where the request has one.
fn owner(body: Bytes) -> Result<Option<Arc<SecretBytes>>, Problem> {
    match body.len() {
        0 => Ok(None),
        1..=LONGEST_PASSWORD => Ok(Some(Arc::new(SecretBytes::from(Vec::from(body))))),
        _ => Err(malformed(format!(
            "the password of a TPM's owner has at most {LONGEST_PASSWORD} bytes"
        ))),
    }
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
    body: Bytes,
) -> Answer {
    let owner = owner(body)?;
    let purpose = KeyPurpose::ALL.into_iter().find(|p| p.name() == purpose);
    let purpose = purpose.ok_or_else(|| malformed("there is no such kind of key".into()))?;
    tracing::warn!(purpose = purpose.name(), "an operator rotates a key");
    let key = actions
        .service
        .rotate_key(
            purpose,
            rotating.announce,
            rotating.manifest.as_deref(),
            owner,
        )
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
    let percent = |share| {
        Share::percent(share).ok_or_else(|| malformed("the share is a percentage, 1 to 100".into()))
    };
    let share = pass.share.map(percent).transpose()?;
    let apps = pass.apps.unwrap_or_default();
    let apps: Result<Vec<AppId>, _> = apps
        .split(',')
        .filter(|app| !app.is_empty())
        .map(AppId::parse)
        .collect();
    let apps = apps.map_err(|error| malformed(error.to_string()))?;
    tracing::warn!("an operator moves the records to the newest wrap key");
    Ok(Json(actions.service.begin_rewrap(share, apps)?))
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
    body: Bytes,
) -> Answer {
    let owner = owner(body)?;
    let key = KeyId::parse_label(&key)
        .ok_or_else(|| malformed("expected a key such as custodyd-wrap-v1".into()))?;
    tracing::warn!(%key, destroy = retiring.destroy, "an operator retires a key");
    Ok(Json(
        actions
            .service
            .retire_key(key, retiring.destroy, owner)
            .await?,
    ))
}
