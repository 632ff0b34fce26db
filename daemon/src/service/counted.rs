//! Guesses in numbers: how they end, and when one ends a budget. For metrics only.
//!
//! Called where the outcome of a guess is recorded. Labels are factors and outcomes: nothing
//! that tells whose guess it was.

use custodyd_policies::{Factor, Standing};

/// A session began by this factor: what can be guessed was guessed right.
pub(super) fn right(factor: Factor) {
    match factor {
        Factor::Pin | Factor::Totp | Factor::DeliveredCode | Factor::RecoveryCode => {
            count(factor, "right");
        }
        Factor::Creation | Factor::Device | Factor::Passkey => {}
    }
}

/// The guess was wrong.
pub(super) fn wrong(factor: Factor) {
    count(factor, "wrong");
}

/// So many guesses by OPAQUE were begun and never finished.
pub(super) fn unfinished(guesses: u32) {
    if guesses > 0 {
        metrics::counter!(
            "custodyd_guesses_total",
            "factor" => Factor::Pin.name(),
            "outcome" => "unfinished"
        )
        .increment(u64::from(guesses));
    }
}

/// How the budget of a wrong guess stands now.
pub(super) fn stands(factor: Factor, standing: &Standing) {
    if standing.exhausted {
        metrics::counter!("custodyd_lockouts_total", "factor" => factor.name()).increment(1);
    }
}

fn count(factor: Factor, outcome: &'static str) {
    metrics::counter!("custodyd_guesses_total", "factor" => factor.name(), "outcome" => outcome)
        .increment(1);
}
