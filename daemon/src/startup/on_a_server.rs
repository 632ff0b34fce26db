//! What differs on a PostgreSQL server: `init`, whether it is there, and whether this daemon is still the one that goes on.
//!
//! Called by `startup`. Of `init`: the tables are made in one transaction and the realm's first batch is
//! another: after a crash between the two there are empty tables, which the next `init` takes.

use std::sync::Arc;

use super::{StartError, already_there, made, made_realm, of_new_realm};
use crate::backend::{pool, provision};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::http::operator;
use crate::ledger;
use crate::service::Service;
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

/// Ready is who knows the newest state, by the token's word: the server's is not believed. The check outlives the service,
/// whose end the committer waits for.
pub(super) fn newest_check(service: &Arc<Service>) -> operator::Check {
    let service = Arc::downgrade(service);
    operator::Check::new("newest", move || {
        let service = service.upgrade();
        async move {
            let service = service.ok_or("the daemon stops")?;
            let newest = service.ledger.is_newest().await;
            newest.map_err(|error| error.to_string())
        }
    })
}

/// Whether the database answers, a file or a server.
pub(super) fn store_check(store: Arc<dyn Store>) -> operator::Check {
    operator::Check::new("store", move || {
        let store = Arc::clone(&store);
        async move { store.ping().await.map_err(|error| error.to_string()) }
    })
}
