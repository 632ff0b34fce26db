//! What must work for this daemon to be sent anybody: the checks of `/readyz`.
//!
//! Called by `startup`, once. A check that asks the service outlives it: the committer waits for its end.

use std::sync::{Arc, Weak};

use custodyd_hsm::Pool;

use crate::http::operator::Check;
use crate::service::Service;
use crate::store::Store;

/// In the order in which they are named.
pub(super) fn checks(pool: &Pool, store: &Arc<dyn Store>, service: &Arc<Service>) -> Vec<Check> {
    let mut checks = vec![
        Check::token(pool.clone()),
        answers(Arc::clone(store)),
        writes(Arc::downgrade(service)),
        Check::clock(service.ledger.clock()),
    ];
    if store.comes_back() {
        checks.push(newest(Arc::downgrade(service)));
    }
    checks
}

/// Whether the database answers, a file or a server.
fn answers(store: Arc<dyn Store>) -> Check {
    Check::new("store", move || {
        let store = Arc::clone(&store);
        async move { store.ping().await.map_err(|error| error.to_string()) }
    })
}

/// And whether it takes what is to be written: it may answer and not do so.
fn writes(service: Weak<Service>) -> Check {
    Check::new("writes", move || {
        let service = service.upgrade();
        async move {
            let service = service.ok_or("the daemon stops")?;
            let written = service.ledger.can_write();
            written.map_err(|error| error.to_string())
        }
    })
}

/// Ready is who knows the newest state, by the token's word: the server's is not believed.
fn newest(service: Weak<Service>) -> Check {
    Check::new("newest", move || {
        let service = service.upgrade();
        async move {
            let service = service.ok_or("the daemon stops")?;
            let newest = service.ledger.is_newest().await;
            newest.map_err(|error| error.to_string())
        }
    })
}
