//! What the token remembers, what the database shows, and whether the two agree.
//!
//! Called by `custodyd ledger anchor`, above all when a daemon refuses to start. Each of them
//! is an answer of its own: one that can not be had hides nothing of the others.

use std::sync::Arc;

use custodyd_hsm::anchor::Anchor;
use custodyd_hsm::{Pool, RealmName};

use super::start;
use crate::ledger::anchoring;
use crate::ledger::restore::{Claim, Token};
use crate::ledger::{Head, LedgerError, Mode};
use crate::store::Store;

#[derive(Debug)]
pub struct Standing {
    /// The newest anchor of the realm; `None` where the token holds none.
    pub token: Result<Option<Anchor>, LedgerError>,
    /// What this boot of the kernel remembers beyond it, under bounded anchoring.
    pub host: Result<Option<Anchor>, LedgerError>,
    /// Every anchor, where one token holds several, and what the database has of each.
    pub claims: Vec<Claim>,
    /// Batch, log epoch and entries of the head that the database shows and this token has made.
    pub database: Result<(u64, u64, u64), LedgerError>,
    /// Whether a daemon would start on the two, and why not.
    pub relation: Result<(), LedgerError>,
}

/// A daemon that writes may have gone on between two looks.
const LOOKS: u32 = 5;

/// Asks the token and the database, and changes neither.
pub async fn standing(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
    mode: Mode<'_>,
) -> Standing {
    // The head says whom to ask: a token that was given up may be away, and is asked for nothing.
    let database = Head::read(store, pool, realm)
        .await
        .map(|head| (head.state.seq, head.state.log_epoch, head.size));
    let token = anchoring::remembered(pool, realm).await;
    let host = match &token {
        Ok(Some(last)) => anchoring::remembered_here(mode, pool, realm, last).await,
        _ => Ok(None),
    };
    let claims = claims(store, pool, realm).await.unwrap_or_default();
    Standing {
        token,
        host,
        claims,
        database,
        relation: relation(store, pool, realm, mode).await,
    }
}

/// What is remembered is asked for after the database was read. Where a daemon has written in between, that is newer.
async fn relation(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
    mode: Mode<'_>,
) -> Result<(), LedgerError> {
    for _ in 0..LOOKS {
        let before = shown(store).await?;
        match start::believe(store, pool, realm, mode).await {
            Err(LedgerError::Tampered(_)) if shown(store).await? != before => {}
            believed => return believed.map(drop),
        }
    }
    Err(LedgerError::Refused(
        "the database goes on while it is looked at, so a daemon writes to it: ask that one (`/readyz`), or stop it first".into(),
    ))
}

/// The number of the head that the database shows.
async fn shown(store: &Arc<dyn Store>) -> Result<Option<u64>, LedgerError> {
    Ok(store.head().await?.examine().map(|head| head.seq))
}

/// Nothing to be shown where a set of tokens is asked, or the database is not one: the other answers say so.
async fn claims(
    store: &Arc<dyn Store>,
    pool: &Pool,
    realm: &RealmName,
) -> Result<Vec<Claim>, LedgerError> {
    if pool.set().is_some() {
        return Ok(Vec::new());
    }
    let held = Token::read(pool, realm, Mode::Strict).await?;
    let found = start::find(store, pool, realm).await?;
    held.claims(store, &found.believed).await
}
