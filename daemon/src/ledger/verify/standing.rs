//! What the token remembers, what the database shows, and whether the two agree.
//!
//! Called by `custodyd ledger anchor`, above all when a daemon refuses to start. Each of the three
//! is an answer of its own: one that can not be had hides nothing of the others.

use std::sync::Arc;

use custodyd_hsm::anchor::Anchor;
use custodyd_hsm::{Pool, RealmName};

use super::start;
use crate::ledger::anchoring;
use crate::ledger::{Head, LedgerError};
use crate::store::Store;

#[derive(Debug)]
pub struct Standing {
    /// The newest anchor of the realm; `None` where the token holds none.
    pub token: Result<Option<Anchor>, LedgerError>,
    /// Batch, log epoch and entries of the head that the database shows and this token has made.
    pub database: Result<(u64, u64, u64), LedgerError>,
    /// Whether a daemon would start on the two, and why not.
    pub relation: Result<(), LedgerError>,
}

/// Asks the token and the database, and changes neither.
pub async fn standing(store: &Arc<dyn Store>, pool: &Pool, realm: &RealmName) -> Standing {
    // The head says whom to ask: a token that was given up may be away, and is asked for nothing.
    let database = Head::read(store, pool, realm)
        .await
        .map(|head| (head.state.seq, head.state.log_epoch, head.size));
    let token = anchoring::remembered(pool, realm).await;
    Standing {
        token,
        database,
        relation: start::believe(store, pool, realm).await.map(drop),
    }
}
