//! The background task that deletes event bodies which have been kept for long enough, and
//! accounts that nobody has used for long enough.
//!
//! Started by `startup` and dropped with the service's other tasks: a commit that is under way
//! then is the committer's, whole or not at all. What has ended goes within one pass: after an
//! hour and a half at most where there are few accounts, and a day where there are many; or longer where the
//! token takes more than half of that for them, for it and the committer are there for people first. Must never hurry.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::factors::random;
use crate::ledger::{Leisure, Loaded};
use crate::service::Service;

const LEISURE: Leisure = Leisure {
    between: Duration::from_millis(200),
    all: Duration::from_secs(24 * 3600),
};
/// Before the first pass, so that starting is over by then.
const FIRST: Duration = Duration::from_secs(60);
/// After a pass.
const REST: Duration = Duration::from_secs(3600);

/// Runs until it is dropped.
pub(crate) async fn run(service: Arc<Service>) {
    tokio::time::sleep(about(FIRST)).await;
    loop {
        // A daemon that is often started anew comes round nevertheless: it begins elsewhere
        // each time.
        let first = u32::from_be_bytes(random().unwrap_or_default());
        let apps = || service.apps().retention();
        let erased = |last: &Loaded| service.after_erasure(last);
        match service
            .ledger
            .retire_all(first, LEISURE, apps, erased)
            .await
        {
            Ok(pass) => {
                // Quiet where there was nothing to do.
                if pass.bodies > 0 {
                    tracing::info!(
                        bodies = pass.bodies,
                        accounts = pass.accounts,
                        "event bodies were deleted at the end of their retention"
                    );
                }
                if pass.erased > 0 {
                    tracing::info!(
                        accounts = pass.erased,
                        "accounts were erased that nobody had used for as long as their policy says"
                    );
                }
                if pass.unopened > 0 {
                    tracing::warn!(
                        accounts = pass.unopened,
                        "no served app opens these accounts: their app is retired, or they are damaged"
                    );
                }
                if pass.damaged == 0 && pass.left == 0 {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH);
                    metrics::gauge!("custodyd_retention_pass_time_seconds")
                        .set(now.map_or(0.0, |now| now.as_secs_f64()));
                }
            }
            Err(error) => tracing::warn!(%error, "retention can not go on"),
        }
        tokio::time::sleep(about(REST)).await;
    }
}

/// This long, or up to half as much longer: nodes that started together do not work together.
fn about(time: Duration) -> Duration {
    let [part] = random().unwrap_or_default();
    time + time * u32::from(part) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_never_shorter_and_never_much_longer() {
        for _ in 0..1000 {
            assert!((REST..REST * 3 / 2).contains(&about(REST)));
        }
    }
}
