//! Guesses in numbers: how they end, and when one ends a budget. For metrics only.
//!
//! Called where the outcome of a guess is recorded. Labels are factors and outcomes: nothing
//! that tells whose guess it was.

use custodyd_policies::{Factor, Standing};

/// The guess was right.
pub(super) fn right(factor: Factor) {
    count(factor, "right");
}

/// The guess was wrong, and this is how its budget stands now.
pub(super) fn wrong(factor: Factor, standing: &Standing) {
    count(factor, "wrong");
    if standing.exhausted {
        metrics::counter!("custodyd_lockouts_total", "factor" => name(factor)).increment(1);
    }
}

fn count(factor: Factor, outcome: &'static str) {
    metrics::counter!("custodyd_guesses_total", "factor" => name(factor), "outcome" => outcome)
        .increment(1);
}

/// As the log and the API write it.
fn name(factor: Factor) -> String {
    serde_json::to_value(factor)
        .ok()
        .and_then(|value| value.as_str().map(ToOwned::to_owned))
        .unwrap_or_default()
}
