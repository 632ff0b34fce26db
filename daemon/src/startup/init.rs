//! `init`: the keys that are missing in the token, and a new realm in an empty database.
//!
//! What is true after a crash here: either there is no database, or one that holds a whole realm; keys that
//! were made in the token are found again.

mod in_a_file;
mod on_a_server;

use custodyd_hsm::{Pool, ProvisionReport};

use super::StartError;
use crate::backend::pool;
use crate::clock::Clock;
use crate::config::{Config, Database};
use crate::escrow::{self, Escrowed};
use crate::ledger::{self, LedgerError};
use crate::store::Held;

/// Makes the missing keys in the token and a new realm in an empty database. Where a realm
/// stands already it is opened and left as it is; with `finish` one that was begun a while ago is made whole, too.
///
/// # Errors
/// When another realm's database stands there, or token or disk refuse.
/// Returns what was done, a line each.
pub async fn init(config: &Config, finish: bool) -> Result<Vec<String>, StartError> {
    match &config.store.database {
        Database::Sqlite(place) => in_a_file::init(config, place, finish).await,
        Database::Postgres(place) => on_a_server::init(config, place, finish).await,
    }
}

/// What its record says of its escrow: where the token knows of no realm of this name.
async fn of_new_realm(config: &Config, pool: &Pool) -> Result<Option<Escrowed>, StartError> {
    if ledger::realm::is_anchored(pool, &config.realm.name).await? {
        pool.shutdown();
        return Err(StartError::Ledger(LedgerError::Refused(format!(
            "the token remembers the realm {}, and there is no database in {}: put the realm's \
             newest database in place; for a new realm, choose another name or another token",
            config.realm.name, config.store.database
        ))));
    }
    escrowed(config, pool).await
}

fn made_realm(config: &Config) -> String {
    format!(
        "made the realm {} in {}",
        config.realm.name, config.store.database
    )
}

/// What the realm's record says of its escrow: of one that is of the keys in the token, or it would be
/// believed until the day on which it does not help.
async fn escrowed(config: &Config, pool: &Pool) -> Result<Option<Escrowed>, StartError> {
    let Some(path) = &config.token.escrow else {
        return Ok(None);
    };
    let manifests = escrow::read(path, &config.realm.name)?;
    let note = Escrowed::of(&manifests);
    pool.call("check-escrow", move |custody| {
        Ok(escrow::holds_all(custody, &manifests))
    })
    .await??;
    Ok(Some(note))
}

async fn already_there(
    config: &Config,
    held: Held<'_>,
    finish: bool,
) -> Result<Vec<String>, StartError> {
    let pool = pool(config, None)?;
    let store = held.open().await?;
    let name = &config.realm.name;
    let finished = match ledger::realm::is_begun(&store, &pool, name).await {
        // `init` was stopped before every token remembered what it has made.
        Ok(true) if finish => ledger::realm::anchor_first(&store, &pool, name).await,
        Ok(true) => {
            let now = Clock::default().now();
            ledger::realm::finish(&store, &pool, name, now).await
        }
        Ok(false) => {
            let (mode, escrowed) = (config.ledger.mode_to_look(), config.token.escrow.is_some());
            ledger::check(&store, &pool, name, mode, escrowed).await
        }
        Err(error) => Err(error),
    };
    store.close().await;
    pool.shutdown();
    finished?;
    Ok(vec![format!(
        "the realm {} is in {} already; nothing was changed",
        config.realm.name, config.store.database
    )])
}

fn made(keys: &ProvisionReport) -> String {
    if keys.created.is_empty() {
        "every key is in the token already".to_owned()
    } else {
        format!("made the keys {}", keys.created.join(", "))
    }
}
