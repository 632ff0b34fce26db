//! The part of the operator's socket that asks the TPM for its own word; see `ledger::evidence`.
//!
//! Merged into the socket's router. Nothing is changed by it, and no write of the NV index is spent.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use custodyd_hsm::Error;
use serde::Deserialize;

use super::operator_socket::Actions;
use super::problem::Problem;
use crate::ledger::{AnchorEvidence, LedgerError};

pub(super) fn router() -> Router<Arc<Actions>> {
    Router::new().route("/anchor/evidence", get(evidence))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(with = "hex::serde")]
    nonce: Vec<u8>,
}

async fn evidence(
    State(actions): State<Arc<Actions>>,
    Query(Asked { nonce }): Query<Asked>,
) -> Result<Json<AnchorEvidence>, Problem> {
    let made = actions.service.ledger.anchor_evidence(nonce).await;
    made.map(Json).map_err(|error| {
        let status = match &error {
            LedgerError::Token(Error::Invalid { .. } | Error::Misconfigured(_)) => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, "no-evidence", error.to_string())
    })
}
