//! The runs without a mutant: each is exhausted within its bound, no property
//! breaks, and what should be reachable is reached. `CUSTODYD_MODEL_BOUND=large`
//! takes the larger bounds of `docs/MODEL.md`.

use std::time::Instant;

use stateright::{Checker, Expectation, Model};

use crate::{
    config::{Bounds, Ledger, Mode, NOTHING},
    properties::{
        CONSUMED, LEFT, RESTARTED, REVOKED, RIGHT_ANSWERED, STOPPED, USED, WRONG_ANSWERED,
    },
};

const ALL_ANSWERED: [&str; 6] = [
    WRONG_ANSWERED,
    RIGHT_ANSWERED,
    REVOKED,
    USED,
    CONSUMED,
    RESTARTED,
];

/// The small bound for every run of the suite, the large one on request.
fn bound(small: Bounds, large: Bounds) -> Bounds {
    match std::env::var("CUSTODYD_MODEL_BOUND").as_deref() {
        Err(_) => small,
        Ok("large") => large,
        Ok(other) => panic!("CUSTODYD_MODEL_BOUND is {other:?}: leave it out, or set it to large"),
    }
}

fn strict(nodes: usize, bounds: Bounds) -> Ledger {
    Ledger::new(Mode::Strict, nodes, bounds).unwrap()
}

fn bounded(bounds: Bounds) -> Ledger {
    Ledger::new(Mode::Bounded, 1, bounds).unwrap()
}

/// Nothing stops the checker early: it has no limit of states, depth or time,
/// and ends only when every property is decided or no state is left. As no
/// "always" property may be decided, no state is left.
#[track_caller]
fn holds(name: &str, model: Ledger, reached: &[&'static str]) {
    let begun = Instant::now();
    let properties = model.properties();
    let run = model.checker().spawn_bfs().join();
    println!(
        "{name}: {} states ({} with repeats), depth {}, {:.1?}",
        run.unique_state_count(),
        run.state_count(),
        run.max_depth(),
        begun.elapsed()
    );
    let found = run.discoveries();
    for property in properties {
        if property.expectation == Expectation::Always
            && let Some(path) = found.get(property.name)
        {
            let steps = path.clone().into_actions();
            panic!("{name}: {:?} breaks after {steps:#?}", property.name);
        }
    }
    assert!(run.is_done() && run.unique_state_count() > 1_000, "{name}");
    for property in reached {
        assert!(found.contains_key(property), "{name}: never {property:?}");
    }
}

#[test]
fn strict_guesses() {
    let small = Bounds {
        heads: 6,
        guesses: 4,
        rights: 1,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 7,
        guesses: 4,
        crashes: 2,
        ..small
    };
    let model = strict(1, bound(small, large));
    let reached = [WRONG_ANSWERED, RIGHT_ANSWERED, RESTARTED, STOPPED];
    holds("strict_guesses", model, &reached);
}

#[test]
fn strict_guesses_that_expire() {
    let small = Bounds {
        heads: 5,
        guesses: 3,
        rights: 1,
        expiry: true,
        ..NOTHING
    };
    let large = Bounds {
        heads: 6,
        guesses: 4,
        ..small
    };
    let model = strict(1, bound(small, large));
    holds("strict_guesses_that_expire", model, &[WRONG_ANSWERED]);
}

#[test]
fn strict_credentials_and_codes() {
    let small = Bounds {
        heads: 5,
        revoke: true,
        uses: 1,
        consumptions: 2,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 6,
        uses: 2,
        crashes: 2,
        ..small
    };
    let model = strict(1, bound(small, large));
    let reached = [REVOKED, USED, CONSUMED, RESTARTED, STOPPED];
    holds("strict_credentials_and_codes", model, &reached);
}

#[test]
fn strict_restores() {
    let small = Bounds {
        heads: 4,
        guesses: 3,
        revoke: true,
        uses: 1,
        consumptions: 1,
        crashes: 1,
        restores: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 5,
        crashes: 2,
        ..small
    };
    let model = strict(1, bound(small, large)).budget(1);
    holds("strict_restores", model, &[RESTARTED]);
}

#[test]
fn strict_restores_that_leave_a_guess() {
    let small = Bounds {
        heads: 5,
        guesses: 3,
        rights: 1,
        crashes: 1,
        restores: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 6,
        guesses: 4,
        restores: 2,
        ..small
    };
    let model = strict(1, bound(small, large)).budget(1).leaving(1);
    let reached = [RESTARTED, WRONG_ANSWERED, RIGHT_ANSWERED, LEFT];
    holds("strict_restores_that_leave_a_guess", model, &reached);
}

#[test]
fn strict_with_a_token_that_loses_its_anchors() {
    let small = Bounds {
        heads: 5,
        guesses: 2,
        crashes: 2,
        token_loss: true,
        ..NOTHING
    };
    let model = strict(1, small).budget(1);
    holds("strict_token_loss", model, &[WRONG_ANSWERED]);
}

#[test]
fn strict_two_nodes_guesses() {
    let small = Bounds {
        heads: 5,
        guesses: 3,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 6,
        crashes: 2,
        ..small
    };
    let model = strict(2, bound(small, large)).budget(1);
    holds("strict_two_nodes_guesses", model, &[WRONG_ANSWERED]);
}

#[test]
fn strict_two_nodes_guesses_one_right() {
    let small = Bounds {
        heads: 4,
        guesses: 3,
        rights: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 5,
        crashes: 1,
        ..small
    };
    let model = strict(2, bound(small, large));
    let reached = [WRONG_ANSWERED, RIGHT_ANSWERED];
    holds("strict_two_nodes_guesses_one_right", model, &reached);
}

#[test]
fn strict_two_nodes_credentials_and_codes() {
    let small = Bounds {
        heads: 3,
        revoke: true,
        uses: 1,
        consumptions: 2,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds { heads: 4, ..small };
    let model = strict(2, bound(small, large));
    let reached = [REVOKED, USED, CONSUMED, RESTARTED];
    holds("strict_two_nodes_credentials_and_codes", model, &reached);
}

#[test]
fn strict_two_nodes_restores() {
    let small = Bounds {
        heads: 4,
        guesses: 2,
        crashes: 1,
        restores: 1,
        ..NOTHING
    };
    let large = Bounds { heads: 5, ..small };
    let model = strict(2, bound(small, large)).budget(1);
    holds("strict_two_nodes_restores", model, &[RESTARTED]);
}

#[test]
fn strict_on_an_honest_database() {
    let small = Bounds {
        heads: 4,
        guesses: 2,
        rights: 1,
        revoke: true,
        uses: 1,
        consumptions: 1,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 5,
        crashes: 2,
        ..small
    };
    let model = strict(1, bound(small, large)).honest();
    holds("strict_honest", model, &ALL_ANSWERED);
}

#[test]
fn strict_two_nodes_on_an_honest_database() {
    let small = Bounds {
        heads: 3,
        guesses: 1,
        rights: 1,
        revoke: true,
        uses: 1,
        consumptions: 1,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds { heads: 4, ..small };
    let model = strict(2, bound(small, large)).honest();
    holds("strict_two_nodes_honest", model, &ALL_ANSWERED);
}

#[test]
fn bounded_guesses() {
    let small = Bounds {
        heads: 4,
        guesses: 3,
        crashes: 2,
        ..NOTHING
    };
    let large = Bounds {
        heads: 6,
        rights: 1,
        crashes: 3,
        ..small
    };
    let model = bounded(bound(small, large));
    holds(
        "bounded_guesses",
        model,
        &[WRONG_ANSWERED, RESTARTED, STOPPED],
    );
}

#[test]
fn bounded_credentials_and_codes() {
    let small = Bounds {
        heads: 4,
        revoke: true,
        uses: 1,
        consumptions: 2,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 5,
        crashes: 2,
        ..small
    };
    let model = bounded(bound(small, large));
    let reached = [REVOKED, USED, CONSUMED, RESTARTED, STOPPED];
    holds("bounded_credentials_and_codes", model, &reached);
}

#[test]
fn bounded_on_an_honest_database() {
    let small = Bounds {
        heads: 3,
        guesses: 2,
        rights: 1,
        revoke: true,
        uses: 1,
        consumptions: 1,
        crashes: 1,
        ..NOTHING
    };
    let large = Bounds {
        heads: 4,
        crashes: 2,
        ..small
    };
    let model = bounded(bound(small, large)).honest();
    holds("bounded_honest", model, &ALL_ANSWERED);
}

#[test]
fn bounded_with_two_nodes_is_refused() {
    assert!(Ledger::new(Mode::Bounded, 2, NOTHING).is_err());
    assert!(Ledger::new(Mode::Bounded, 1, NOTHING).is_ok());
}
