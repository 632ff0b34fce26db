//! `init` with PostgreSQL.
//!
//! The tables are made in one transaction and the realm's first batch is
//! another: after a crash between the two there are empty tables, which the next `init` takes.

use std::sync::Arc;

use super::{already_there, made, made_realm, of_new_realm};
use crate::backend::{pool, provision};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::ledger;
use crate::startup::StartError;
use crate::store::{Held, Postgres, Share, Store};

pub(super) async fn init(
    config: &Config,
    place: &config::Postgres,
    finish: bool,
) -> Result<Vec<String>, StartError> {
    let mut held = Postgres::hold(place, Share::Alone).await?;
    if held.is_founded().await? {
        return already_there(config, Held::Server(Box::new(held), place), finish).await;
    }
    let keys = provision(config)?;
    let pool = pool(config, None)?;
    let escrow = of_new_realm(config, &pool).await?;
    held.make().await?;
    let store: Arc<dyn Store> = Arc::new(Postgres::open(held, place).await?);
    let (name, now) = (&config.realm.name, Clock::default().now());
    let made_whole = match ledger::realm::create(&store, &pool, name, escrow, now).await {
        Ok(()) => ledger::realm::anchor_first(&store, &pool, name).await,
        Err(error) => Err(error),
    };
    store.close().await;
    pool.shutdown();
    made_whole?;
    Ok(vec![made(&keys), made_realm(config)])
}
