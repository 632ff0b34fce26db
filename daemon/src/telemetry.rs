//! Logging and metrics of the process: set up once, at start.
//!
//! Called by start-up and, for the filter's syntax, by the configuration. Log lines go to
//! standard error. What they may hold is decided where they are written; nothing here
//! adds request bodies, headers or secrets.

use std::io::IsTerminal;

use custodyd_hsm::KeyPurpose;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{Log, LogFormat};

/// Latency buckets in seconds, for every metric whose name ends so. They span a token
/// operation (50 us) and an Argon2id evaluation behind a queue (seconds).
const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("log filter {filter:?}: {message}")]
    Filter { filter: String, message: String },
    #[error("logging is already set up in this process")]
    AlreadyLogging,
    #[error("metrics: {0}")]
    Metrics(String),
}

/// Sends log lines to standard error as the configuration says.
pub fn start_logging(log: &Log) -> Result<(), TelemetryError> {
    let filter = parse_filter(&log.filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let result = match log.format {
        LogFormat::Human => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .try_init(),
    };
    result.map_err(|_| TelemetryError::AlreadyLogging)
}

/// Counters of which the first event is worth an alert (`docs/monitoring`). One that appears with its first event
/// has not grown for who compares two scrapes, so these are shown from the start, at zero.
const FROM_ZERO: &[(&str, &[(&str, &str)])] = &[
    ("custodyd_accept_failures_total", &[]),
    ("custodyd_anchor_failures_total", &[("why", "behind")]),
    ("custodyd_anchor_failures_total", &[("why", "outrun")]),
    ("custodyd_anchor_failures_total", &[("why", "raced")]),
    ("custodyd_anchor_failures_total", &[("why", "token")]),
    ("custodyd_anchor_failures_total", &[("why", "worn")]),
    ("custodyd_batches_replayed_total", &[]),
    ("custodyd_boot_epochs_total", &[]),
    ("custodyd_forks_total", &[]),
    ("custodyd_orphan_anchors_total", &[]),
    ("custodyd_panics_total", &[]),
    ("custodyd_reads_unconfirmed_total", &[]),
    ("custodyd_reload_total", &[("outcome", "done")]),
    ("custodyd_reload_total", &[("outcome", "refused")]),
    ("custodyd_tampered_total", &[]),
    ("custodyd_tokens_expelled_total", &[]),
];

/// Installs the recorder behind the `metrics` macros and returns what `/metrics` renders.
/// The caller runs [`upkeep`] as long as the process lives.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|error| TelemetryError::Metrics(error.to_string()))?;
    begin_at_zero();
    Ok(handle)
}

fn begin_at_zero() {
    for (name, labels) in FROM_ZERO {
        metrics::counter!(*name, *labels).increment(0);
    }
    for purpose in KeyPurpose::ALL {
        metrics::counter!("custodyd_keys_rotated_total", "purpose" => purpose.name()).increment(0);
    }
}

/// Moves recorded samples into their buckets now and then, so that memory stays bounded
/// even where nobody scrapes. Runs until it is dropped.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(5));
    loop {
        tick.tick().await;
        handle.run_upkeep();
    }
}

/// Whether a filter can be understood; the message says why not.
pub(crate) fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    parse_filter(filter).map(drop)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    // Without regular expressions: a filter names targets, spans and levels only.
    EnvFilter::builder()
        .with_regex(false)
        .parse(filter)
        .map_err(|error| TelemetryError::Filter {
            filter: filter.to_owned(),
            message: error.to_string(),
        })
}

fn recorder() -> Result<metrics_exporter_prometheus::PrometheusRecorder, TelemetryError> {
    let matcher = metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned());
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(matcher, SECONDS_BUCKETS)
        .map_err(|error| TelemetryError::Metrics(error.to_string()))?
        .build_recorder())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn filters_are_judged_before_they_are_used() {
        assert!(check_filter("info,custodyd=debug").is_ok());
        assert!(check_filter("custodyd=loud").is_err());
    }

    /// Whatever an alert judges by its growth is there before it grows, with the labels that the alert names.
    #[test]
    fn what_alerts_compare_is_shown_from_the_start() {
        let rules = include_str!("../../docs/monitoring/custodyd-alerts.yml");
        let recorder = recorder().unwrap();
        let shown = || recorder.handle().render();
        let counter = |line: &str, name: &str, label: &str| {
            line.starts_with(name) && line.contains(label) && line.ends_with(" 0")
        };
        let grown: Vec<(&str, &str)> = rules
            .split("increase(")
            .skip(1)
            .filter_map(|rest| {
                rest.split_once('[')?.0.strip_suffix('}').map_or_else(
                    || rest.split_once('[').map(|(name, _)| (name, "")),
                    |with| with.split_once('{'),
                )
            })
            .filter(|(name, _)| name.ends_with("_total"))
            .collect();
        assert!(grown.len() > 8, "{grown:?}");
        let missing = |text: &str| {
            let missing = |(name, label): &&(&str, &str)| {
                !text.lines().any(|line| counter(line, name, label))
            };
            grown.iter().filter(missing).count()
        };
        assert_eq!(missing(&shown()), grown.len());
        metrics::with_local_recorder(&recorder, begin_at_zero);
        assert_eq!(missing(&shown()), 0, "{}", shown());
    }

    #[test]
    fn a_histogram_in_seconds_is_rendered_with_buckets() {
        let recorder = recorder().unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("custodyd_test_seconds").record(0.003);
        });
        let text = recorder.handle().render();
        assert!(
            text.contains("custodyd_test_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
    }
}
