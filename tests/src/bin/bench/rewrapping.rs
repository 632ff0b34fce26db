//! All records of a realm moved to a newer wrap key, at full speed, beside what the token alone would allow.
//!
//! The realm is filled as that of `scale` is: with a few hundred records the pass over the buckets would be most of what is
//! measured.

use std::path::Path;
use std::time::Duration;

use custodyd_tests::app::said;
use custodyd_tests::{Setup, TestApp};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::filling;
use crate::load::Crowd;
use crate::parts::Parts;
use crate::report::{self, Figure};
use crate::token_keys::TokenKeys;

/// Names what measures this alone, and its half that has a token in sight.
pub(crate) const REWRAP: &str = "rewrap";
pub(crate) const ALONE: &str = "rewrap-measure";
/// Accounts, beside the few that are enrolled.
const ACCOUNTS: usize = 30_000;
/// Turns, each to another key; the median counts.
const TURNS: usize = 3;
/// Of the token by itself, before each turn.
const RAW: Duration = Duration::from_millis(700);

pub(crate) fn alone(token: &Path) {
    report::list(&figures(&Runtime::new().unwrap(), &Parts::new(token)));
}

/// With a daemon of its own.
pub(crate) fn figures(runtime: &Runtime, parts: &Parts) -> Vec<Figure> {
    println!("a realm of {ACCOUNTS} accounts moves to another key ...");
    let mut app = runtime.block_on(TestApp::with(Setup::notes("")));
    let template = Crowd::of_a_few(&app).accounts().swap_remove(0);
    assert!(app.stop(), "{}", app.log());
    filling::fill(&app, &template, ACCOUNTS);
    runtime.block_on(app.launch());
    let app = &app;
    let keys = TokenKeys::open();
    let mut turns: Vec<[f64; 3]> = (0..TURNS)
        .map(|_| {
            // The old key opens, the new one seals: two HMACs for each record.
            let raw = keys.hmacs(RAW).per_second() / 2.0;
            let copies = parts.derivations(RAW).per_second() / 2.0;
            [rewrapped(app), raw, copies]
        })
        .collect();
    turns.sort_by(|one, other| (one[0] / one[1]).total_cmp(&(other[0] / other[1])));
    let [rate, raw, copies] = turns[TURNS / 2];
    vec![
        Figure::new(
            "rewrap_rate",
            rate,
            "/s",
            "records moved to a newer wrap key in a second",
        ),
        Figure::new(
            "rewrap_over_raw",
            rate / raw,
            "ratio",
            "over half of the token's rate of HMACs by its own keys, aim 0.7",
        )
        .beside("token_keys_halved", rate / raw),
        Figure::new(
            "token_keys_halved",
            raw,
            "/s",
            "by PKCS#11 alone, on all cores",
        ),
        Figure::new(
            "rewrap_over_copies",
            rate / copies,
            "ratio",
            "over half of what the daemon gets out of the same token",
        )
        .beside("token_derivations_halved", rate / copies),
    ]
}

fn rewrapped(app: &TestApp) -> f64 {
    asked(app, "key rotate wrap");
    let answer = asked(app, "key rewrap --share 100");
    let number = |name: &str| answer["result"][name].as_f64().unwrap();
    let (moved, seconds) = (number("moved"), number("seconds"));
    println!("moved {moved} records in {seconds:.3} s");
    moved / seconds
}

fn asked(app: &TestApp, command: &str) -> Value {
    let output = app.command(&format!("{command} --json")).output().unwrap();
    assert!(output.status.success(), "{command}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}
