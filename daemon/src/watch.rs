//! What is looked at every second while the daemon has something to do: how full the queues and the disk are, which
//! guesses were never finished, and whether the slow mode is over.
//!
//! A daemon that nobody asks anything rests: it looks four times a minute, and at once when somebody comes.
//!
//! Started by `startup` and dropped with the service's other tasks. It changes nothing that
//! requests depend on, except for the slow mode, and waits for nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use custodyd_hsm::{Pool, Standing};

use crate::service::{Service, tokens};

const EVERY: Duration = Duration::from_secs(1);
/// Seconds for small corrections.
pub(crate) const CLOCK_GRACE: u64 = 60;
/// While nothing happens. The disk is other programs', too.
const AT_REST: Duration = Duration::from_secs(15);

/// Measures each call on the token from now on, by the name of what it is for.
pub(crate) fn measure_token(pool: &Pool) {
    pool.observe(|operation, took| {
        metrics::histogram!("custodyd_token_call_seconds", "operation" => operation)
            .record(took.as_secs_f64());
    });
}

/// Runs until it is dropped.
pub(crate) async fn run(service: Arc<Service>, pool: Pool, database: PathBuf) {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    metrics::gauge!("custodyd_start_time_seconds").set(started.unwrap_or_default().as_secs_f64());
    let mut behind = false;
    loop {
        let waits = service.look();
        show(&service, &pool);
        behind = show_clock(&service, behind);
        show_disk(&database);
        tokio::time::sleep(EVERY).await;
        // Not where the last look was at something, or somebody has come since.
        if !waits && is_quiet(&service, &pool) {
            let _ = tokio::time::timeout(AT_REST, service.door.stirred()).await;
        }
    }
}

/// Whether every queue is empty and no request is under way.
fn is_quiet(service: &Service, pool: &Pool) -> bool {
    let token = pool.status();
    let under_way = service.door.taken() + service.hasher.taken() + service.ledger.waiting();
    under_way + token.queued + token.running == 0
}

fn show(service: &Service, pool: &Pool) {
    let token = pool.status();
    let stuck = token.stuck + token.left_behind;
    let [queued, running, stuck] = [token.queued, token.running, stuck].map(|n| n as f64);
    metrics::gauge!("custodyd_token_queue").set(queued);
    metrics::gauge!("custodyd_token_running").set(running);
    metrics::gauge!("custodyd_token_stuck").set(stuck);
    if let Some(set) = pool.set() {
        for standing in [Standing::Well, Standing::Sick, Standing::Outside] {
            let count = tokens::count(set, standing) as f64;
            metrics::gauge!("custodyd_token_members", "state" => standing.name()).set(count);
        }
        metrics::gauge!("custodyd_tokens_unheard").set(tokens::unheard(set) as f64);
    }
    metrics::gauge!("custodyd_token_epoch").set(token.epoch as f64);
    metrics::gauge!("custodyd_commit_queue").set(service.ledger.waiting() as f64);
    metrics::gauge!("custodyd_pin_places_taken").set(service.hasher.taken() as f64);
    metrics::gauge!("custodyd_requests_under_way").set(service.door.taken() as f64);
    metrics::gauge!("custodyd_request_body_bytes").set(service.door.bytes() as f64);
    metrics::gauge!("custodyd_apps").set(service.apps.count() as f64);
}

/// A host's clock that is behind what was committed is told of once, and once when it is not any more.
fn show_clock(service: &Service, was_behind: bool) -> bool {
    let seconds = service.ledger.clock().behind();
    metrics::gauge!("custodyd_clock_behind_seconds").set(seconds as f64);
    let behind = seconds > CLOCK_GRACE;
    if behind && !was_behind {
        tracing::error!(
            seconds,
            "the host's clock is behind what was committed: it was set back, or had been set forward wrongly; time goes on at \
             half its pace until it has caught up"
        );
    } else if was_behind && !behind {
        tracing::info!("the host's clock has caught up");
    }
    behind
}

/// A write-ahead log that can not grow any more refuses every change, so its place is watched with the file's.
fn show_disk(database: &Path) {
    if let Some(Ok(space)) = database.parent().map(rustix::fs::statvfs) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        metrics::gauge!("custodyd_disk_free_bytes").set(free as f64);
    }
    // A server's database has no size here.
    if !database.exists() {
        return;
    }
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let bytes = size(database).saturating_add(size(Path::new(&log)));
    metrics::gauge!("custodyd_database_bytes").set(bytes as f64);
}
