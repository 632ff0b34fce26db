//! The proofs of a token, a line each, and the anchoring that its speed suggests.
//!
//! Called by `token check` and `token provision`. What is proven, and that it leaves nothing behind, is
//! `custodyd_hsm::proof`'s.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use custodyd_hsm::proof::{self, AnchorCost};
use custodyd_hsm::{Custody, Error};
use serde_json::json;

use super::super::output::Line;
use super::{failed, is_tpm};
use crate::config::TokenKind;

/// A change is answered after its own batch, and may wait for the one before it: two anchors. A fifth
/// of a second is what a person does not mind.
const STRICT_UP_TO: Duration = Duration::from_millis(100);

/// How many anchors to try a token with. A TPM's memory wears out.
pub(super) fn writes(kind: &TokenKind, to_measure: bool) -> u32 {
    match (is_tpm(kind), to_measure) {
        (true, true) => 3,
        (true, false) => 2,
        (false, true) => 16,
        (false, false) => 3,
    }
}

/// Every proof; the first that fails ends them.
pub(super) fn all(custody: &mut dyn Custody, writes: u32) -> (Vec<Line>, Option<AnchorCost>) {
    let mut lines = Vec::new();
    match keys(custody, &mut lines).and_then(|()| proof::anchors(custody, now(), writes)) {
        Ok(cost) => {
            lines.push(cost_line(&cost));
            (lines, Some(cost))
        }
        Err(error) => {
            lines.push(failed("proof", &error));
            (lines, None)
        }
    }
}

fn keys(custody: &mut dyn Custody, lines: &mut Vec<Line>) -> Result<(), Error> {
    let refused = proof::records(custody)?;
    lines.push(Line::ok(
        "sealing",
        format!(
            "a record was sealed and opened again; {refused} altered or moved ones were refused"
        ),
    ));
    let pairs = proof::signatures(custody)?;
    lines.push(Line::ok(
        "signing",
        format!("{pairs} keys sign, each verifies its own signatures and no others"),
    ));
    proof::random(custody)?;
    lines.push(Line::ok("random", "the token gives random bytes"));
    Ok(())
}

fn cost_line(cost: &AnchorCost) -> Line {
    let detail = format!(
        "a scratch anchor was made, moved on {} times and removed: {} each, {} at most",
        cost.writes.len(),
        shown(cost.median()),
        shown(cost.slowest())
    );
    Line::ok("anchor", detail).with_data(json!({
        "writes": cost.writes.len(),
        "median_ms": milliseconds(cost.median()),
        "slowest_ms": milliseconds(cost.slowest()),
    }))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn shown(duration: Duration) -> String {
    format!("{:.1} ms", milliseconds(duration))
}

/// What to write into `[ledger]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proposal {
    Strict,
    /// With this interval.
    Bounded(&'static str),
}

/// From what kind of token it is and what an anchor costs.
pub(super) fn propose(kind: &TokenKind, cost: &AnchorCost) -> (Proposal, Line) {
    let median = cost.median();
    let (proposal, why) = if is_tpm(kind) {
        let why = "bounded: a TPM's memory wears out, so it is told every ten minutes, and at once where something \
                   is taken away or used up for good"
            .to_owned();
        (Proposal::Bounded("10m"), why)
    } else if median <= STRICT_UP_TO {
        let why = format!(
            "strict: with {} for each batch the token can be told of all of them before anything is answered",
            shown(median)
        );
        (Proposal::Strict, why)
    } else {
        let why = format!(
            "bounded: each request would wait {} or more for a strict anchor. In bounded mode the token is told \
             every ten seconds, and at once where something is taken away; docs/handbook/plan.md has what that \
             costs after a loss of power. Strict is the safer one if people can wait",
            shown(median)
        );
        (Proposal::Bounded("10s"), why)
    };
    (proposal, Line::ok("anchoring", why))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_slow_token_is_anchored_at_an_interval() {
        let kind = TokenKind::Pkcs11 {
            module: PathBuf::new(),
            label: String::new(),
            serial: None,
        };
        let proposed = |milliseconds: [u64; 3]| {
            let writes = milliseconds.map(Duration::from_millis).to_vec();
            propose(&kind, &AnchorCost { writes }).0
        };
        assert_eq!(proposed([3, 4, 400]), Proposal::Strict);
        assert_eq!(proposed([3, 100, 100]), Proposal::Strict);
        assert_eq!(proposed([3, 101, 110]), Proposal::Bounded("10s"));
    }
}
