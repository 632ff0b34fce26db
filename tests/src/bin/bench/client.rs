//! What the client in TypeScript weighs, and how long an unlock takes in Chromium from the tap to the open key.
//!
//! `client/scripts/size.mjs` weighs, `client/bench/unlock.ts` taps, on a daemon of its own. Browser and daemon share the
//! cores, and the browser stretches PINs on them: see docs/BENCH.md. Left out where there is no browser.

use std::path::Path;

use custodyd_tests::app::said;
use custodyd_tests::stories::{CHROMIUM, Stories, node};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::report::Figure;
use crate::statistics::quantile;

/// Names this part, to be measured alone.
pub(crate) const CLIENT: &str = "client";

/// Codes come as often as they are asked for, and may give the key back.
const POLICY: &str = r#"[totp]
period = "15s"
window = 2
[delivered_codes]
interval = "10s"
per_day = 200
"#;

const WEIGHTS: [(&str, &str); 3] = [
    (
        "sdk_gzip_bytes",
        "of an app that imports everything; aim: at most 20000",
    ),
    (
        "sdk_on_demand_gzip_bytes",
        "OPAQUE and Argon2id; aim: at most 200000",
    ),
    (
        "sdk_threshold_gzip_bytes",
        "what threshold mode adds, an entry of its own",
    ),
];

/// What the story measures, and the figures that it becomes.
const UNLOCKS: [(&str, [&str; 2]); 8] = [
    ("pin", ["unlock_pin_p50", "unlock_pin_p95"]),
    ("passkey", ["unlock_passkey_p50", "unlock_passkey_p95"]),
    ("totp", ["unlock_totp_p50", "unlock_totp_p95"]),
    (
        "recovery_code",
        ["unlock_recovery_code_p50", "unlock_recovery_code_p95"],
    ),
    (
        "delivered_code",
        ["unlock_delivered_code_p50", "unlock_delivered_code_p95"],
    ),
    (
        "offline_pin",
        ["unlock_offline_pin_p50", "unlock_offline_pin_p95"],
    ),
    (
        "offline_passkey",
        ["unlock_offline_passkey_p50", "unlock_offline_passkey_p95"],
    ),
    ("read_only", ["open_read_only_p50", "open_read_only_p95"]),
];

fn weights() -> Vec<Figure> {
    let output = node(&["scripts/size.mjs"]).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    WEIGHTS
        .iter()
        .map(|(name, note)| {
            let bytes = said
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
                .unwrap_or_else(|| panic!("{name}: {said}"));
            Figure::new(*name, bytes, "bytes", note)
        })
        .collect()
}

/// Milliseconds by factor, sorted.
fn unlocks(runtime: &Runtime) -> Value {
    runtime.block_on(async {
        let mut stories = Stories::of(&[custodyd_tests::app::REALM], POLICY).await;
        let output = stories.run("bench/unlock.ts").await;
        assert!(output.status.success(), "{}", said(&output));
        let times = std::fs::read_to_string(stories.path("unlock-times.json")).unwrap();
        serde_json::from_str(&times).unwrap()
    })
}

/// No other daemon may run meanwhile.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    if !Path::new(CHROMIUM).exists() {
        println!("the client is left out: scripts/ensure-tools bench installs a browser");
        return Vec::new();
    }
    println!("the client, in a browser ...");
    let mut figures = weights();
    let times = unlocks(runtime);
    for (way, [p50, p95]) in UNLOCKS {
        let taken = times[way]
            .as_array()
            .unwrap_or_else(|| panic!("{way}: {times}"));
        let mut sorted: Vec<f64> = taken.iter().map(|one| one.as_f64().unwrap()).collect();
        sorted.sort_by(f64::total_cmp);
        figures.push(Figure::new(
            p50,
            quantile(&sorted, 0.5),
            "ms",
            "tap to open key",
        ));
        figures.push(Figure::new(
            p95,
            quantile(&sorted, 0.95),
            "ms",
            "tap to open key",
        ));
    }
    figures
}
