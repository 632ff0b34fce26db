//! All records moved to a newer wrap key, at full speed, beside what the token alone would allow:
//! on what the rounds have left behind.

use std::time::Duration;

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use serde_json::Value;

use crate::parts::Parts;
use crate::report::Figure;

/// Turns, each to another key; the median counts.
const TURNS: usize = 3;
/// Of the token by itself, before each turn.
const RAW: Duration = Duration::from_millis(700);

pub(crate) fn figures(app: &TestApp, parts: &Parts) -> Vec<Figure> {
    let mut turns: Vec<(f64, f64)> = (0..TURNS)
        .map(|_| {
            // The old key opens, the new one seals: two derivations for each record.
            let raw = parts.derivations(RAW).per_second() / 2.0;
            (rewrapped(app), raw)
        })
        .collect();
    turns.sort_by(|one, other| (one.0 / one.1).total_cmp(&(other.0 / other.1)));
    let (rate, raw) = turns[TURNS / 2];
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
            "over half of the token's raw rate of derivations, aim 0.7",
        )
        .beside("token_derivations_halved", rate / raw),
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
