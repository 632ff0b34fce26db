//! The background task that gives spare space of the database back to the file system.
//!
//! Started by `startup` and dropped with the service's other tasks: a step that is under way then is a
//! transaction of SQLite's, whole or not at all. Retention and erasures leave pages that hold nothing; what comes
//! next takes them again, so that a file that only lives does not grow by them. Where many stay, as after
//! many accounts went at once, they are given back in small steps. Must never hurry: a commit waits for each step. On a
//! server this is the server's own work (its automatic vacuum), and nothing is done here.

use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;

/// Between two looks where there is nothing to do.
const REST: Duration = Duration::from_secs(300);
/// Between two steps.
const PACE: Duration = Duration::from_millis(250);

/// Runs until it is dropped.
pub(crate) async fn run(store: Arc<dyn Store>) {
    loop {
        let pause = match store.give_back().await {
            Ok(spare) => {
                metrics::gauge!("custodyd_database_spare_bytes").set(spare.bytes as f64);
                if spare.much { PACE } else { REST }
            }
            Err(error) => {
                tracing::warn!(%error, "spare space of the database could not be given back; it is tried again");
                REST
            }
        };
        tokio::time::sleep(pause).await;
    }
}
