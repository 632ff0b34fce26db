//! What is looked at every second while the daemon serves: how full the queues are, and whether
//! the slow mode is over.
//!
//! Started by `startup` and dropped with the service's other tasks. It changes nothing that
//! requests depend on, except for ending the slow mode, and waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::{Pool, Standing};

use crate::service::{Service, tokens};

const EVERY: Duration = Duration::from_secs(1);

/// Measures each call on the token from now on, by the name of what it is for.
pub(crate) fn measure_token(pool: &Pool) {
    pool.observe(|operation, took| {
        metrics::histogram!("custodyd_token_call_seconds", "operation" => operation)
            .record(took.as_secs_f64());
    });
}

/// Runs until it is dropped.
pub(crate) async fn run(service: Arc<Service>, pool: Pool) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        service.strangers.look(service.now());
        show(&service, &pool);
    }
}

fn show(service: &Service, pool: &Pool) {
    let token = pool.status();
    let [queued, running, stuck] = [token.queued, token.running, token.stuck].map(|n| n as f64);
    metrics::gauge!("custodyd_token_queue").set(queued);
    metrics::gauge!("custodyd_token_running").set(running);
    metrics::gauge!("custodyd_token_stuck").set(stuck);
    if let Some(set) = pool.set() {
        for standing in [Standing::Well, Standing::Sick, Standing::Outside] {
            let count = tokens::count(set, standing) as f64;
            metrics::gauge!("custodyd_token_members", "state" => standing.name()).set(count);
        }
    }
    metrics::gauge!("custodyd_token_epoch").set(token.epoch as f64);
    metrics::gauge!("custodyd_commit_queue").set(service.ledger.waiting() as f64);
    metrics::gauge!("custodyd_pin_places_taken").set(service.hasher.taken() as f64);
    metrics::gauge!("custodyd_apps").set(service.apps.count() as f64);
}
