//! The background task that verifies the whole database, over and over.
//!
//! Started by `startup` and dropped with the service's other tasks; it writes nothing, so that
//! costs nothing. What a request reads is verified as it is read; the scrub finds what nobody
//! reads, before a backup rotates away that still has it right. It never changes readiness: one
//! corrupt record must not stop the others.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::factors::random;
use crate::service::Service;

/// A pass takes this part of the period at the most, so that a slow disk does not break it.
const PART: u32 = 2;
/// After a pass that could not be finished.
const AGAIN: Duration = Duration::from_secs(60);

/// Runs until it is dropped. Each `period` sees a whole pass end, where the database answers.
pub(crate) async fn run(service: Arc<Service>, period: Duration) {
    loop {
        let first = u32::from_be_bytes(random().unwrap_or_default());
        let begun = tokio::time::Instant::now();
        match service.ledger.scrub(first, period / PART).await {
            Ok(scrubbed) => {
                let (counts, findings) = (scrubbed.counts, scrubbed.findings.count());
                metrics::gauge!("custodyd_scrub_findings").set(findings as f64);
                metrics::gauge!("custodyd_scrub_completed_time_seconds").set(now());
                if findings == 0 {
                    metrics::gauge!("custodyd_scrub_clean_time_seconds").set(now());
                    tracing::info!(
                        entries = counts.entries,
                        records = counts.records,
                        "the whole database was verified"
                    );
                } else {
                    tracing::error!(
                        findings,
                        first = scrubbed
                            .findings
                            .first()
                            .map(|found| found.evidence.as_str()),
                        "the database is not what was written; stop the daemon and run `custodyd ledger verify`"
                    );
                }
                tokio::time::sleep((period / PART).saturating_sub(begun.elapsed())).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the scrub could not go on; it tries again");
                tokio::time::sleep(AGAIN.min(period)).await;
            }
        }
    }
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}
