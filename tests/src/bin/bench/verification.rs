//! The whole database against the token, as an operator verifies it: on what the bench has left
//! behind, after everything else, because the daemon has to stop for it.

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use serde_json::Value;

use crate::report::Figure;

/// Turns; the fastest counts, for the first fills the kernel's cache of the file.
const TURNS: usize = 3;

pub(crate) fn figures(app: &mut TestApp) -> Vec<Figure> {
    vec![Figure::new(
        "ledger_verify_rate",
        rate(app),
        "rows/s",
        "log entries and records verified in a second, aim 200,000",
    )]
}

/// Stops the daemon for it.
pub(crate) fn rate(app: &mut TestApp) -> f64 {
    assert!(app.stop(), "{}", app.log());
    (0..TURNS).map(|_| turn(app)).fold(0.0, f64::max)
}

fn turn(app: &TestApp) -> f64 {
    let output = app.command("ledger verify --json").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let data = &answer["checks"].as_array().unwrap().last().unwrap()["data"];
    let number = |pointer: &str| data.pointer(pointer).and_then(Value::as_f64).unwrap();
    let rows = number("/counts/entries") + number("/counts/records");
    let seconds = number("/seconds");
    println!("verified {rows} entries and records in {seconds:.3} s");
    rows / seconds
}
