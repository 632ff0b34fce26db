//! Strict and bounded anchoring side by side: what a recovery costs and how long it takes, alone and
//! under load, and how often the token was told.
//!
//! Measured once, each mode with a daemon and accounts of its own, one after the other in the same
//! run. The token is SoftHSM2 on a tmpfs: how long its anchor takes says nothing of other tokens, the
//! ratio of anchors to recoveries does.

use std::time::Duration;

use custodyd_tests::{Setup, TestApp};
use tokio::runtime::Runtime;

use crate::cpu;
use crate::load::Crowd;
use crate::report::Figure;
use crate::statistics::quantile;

const ALONE: Duration = Duration::from_secs(3);
const LOADED: Duration = Duration::from_secs(5);
const CLIENTS: usize = 16;

/// What a daemon says of its commits and anchors so far.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    batches: f64,
    changes: f64,
    anchors: f64,
}

impl Told {
    async fn now(app: &TestApp) -> Self {
        let (_, metrics) = app.operator("/metrics").await;
        let metric = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.map_or(0.0, |value| value.trim().parse().unwrap())
        };
        Self {
            batches: metric("custodyd_commit_batch_changes_count"),
            changes: metric("custodyd_commit_batch_changes_sum"),
            anchors: metric("custodyd_anchor_seconds_count"),
        }
    }
}

/// One mode.
#[derive(Debug)]
struct Mode {
    per_cpu_second: f64,
    per_second: f64,
    anchors: f64,
    batch: f64,
    alone: Vec<f64>,
    loaded: Vec<f64>,
}

impl Mode {
    fn measured(runtime: &Runtime, config: &str) -> Self {
        let mut app = runtime.block_on(TestApp::with(Setup {
            config: config.into(),
            ..Setup::default()
        }));
        let server = cpu::child("custodyd");
        let mut alone = Crowd::of(&app, 1).passkey_latencies(ALONE);
        let mut crowd = Crowd::of(&app, CLIENTS);
        let before = runtime.block_on(Told::now(&app));
        let load = crowd.passkeys(server, LOADED);
        let after = runtime.block_on(Told::now(&app));
        assert!(app.stop(), "{}", app.log());
        let mut loaded = load.latencies;
        alone.sort_by(f64::total_cmp);
        loaded.sort_by(f64::total_cmp);
        Self {
            per_cpu_second: load.sample.per_cpu_second(),
            per_second: load.sample.per_second(),
            anchors: (after.anchors - before.anchors) / load.sample.wall,
            batch: (after.changes - before.changes) / (after.batches - before.batches),
            alone,
            loaded,
        }
    }
}

/// Both modes. No other daemon may run meanwhile.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    println!("strict and bounded anchoring ...");
    let runtime_directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let bounded = format!(
        "[ledger]\nanchor = \"bounded\"\nruntime_directory = \"{}\"\n",
        runtime_directory.path().display()
    );
    let strict = Mode::measured(runtime, "");
    let bounded = Mode::measured(runtime, &bounded);
    let ratio = bounded.per_cpu_second / strict.per_cpu_second;
    let mut figures = vec![
        Figure::new(
            "anchor_bounded_over_strict",
            ratio,
            "ratio",
            "recoveries per CPU-second",
        )
        .beside("anchor_strict_recoveries", ratio),
    ];
    let mut add = |name, value, unit, note| figures.push(Figure::new(name, value, unit, note));
    let cpu = "1/s CPU";
    add(
        "anchor_strict_recoveries",
        strict.per_cpu_second,
        cpu,
        "16 clients",
    );
    add(
        "anchor_bounded_recoveries",
        bounded.per_cpu_second,
        cpu,
        "16 clients",
    );
    add(
        "anchor_strict_rate",
        strict.anchors,
        "1/s",
        "anchors in the token",
    );
    add(
        "anchor_bounded_rate",
        bounded.anchors,
        "1/s",
        "anchors in the token",
    );
    add(
        "anchor_strict_per_second",
        strict.per_second,
        "1/s",
        "recoveries",
    );
    add(
        "anchor_bounded_per_second",
        bounded.per_second,
        "1/s",
        "recoveries",
    );
    add("anchor_strict_batch", strict.batch, "changes", "per anchor");
    add(
        "anchor_bounded_batch",
        bounded.batch,
        "changes",
        "per commit",
    );
    let quantiles = [
        ("anchor_strict_alone_p50", &strict.alone, 0.5),
        ("anchor_strict_alone_p99", &strict.alone, 0.99),
        ("anchor_bounded_alone_p50", &bounded.alone, 0.5),
        ("anchor_bounded_alone_p99", &bounded.alone, 0.99),
        ("anchor_strict_loaded_p50", &strict.loaded, 0.5),
        ("anchor_strict_loaded_p99", &strict.loaded, 0.99),
        ("anchor_bounded_loaded_p50", &bounded.loaded, 0.5),
        ("anchor_bounded_loaded_p99", &bounded.loaded, 0.99),
    ];
    for (name, times, at) in quantiles {
        add(name, quantile(times, at), "ms", "options and login");
    }
    figures
}
