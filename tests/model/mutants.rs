//! Each rule left out or done wrong, and the property that then breaks. A
//! mutant that survives is a hole in the model.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    config::{Bounds, Ledger, Mode, Mutant, NOTHING},
    properties::{ANCHOR, BUDGET, CHARGE, CHECKPOINTS, CODE, DECLARED, REVOCATION, START},
};

const GUESSES: Bounds = Bounds {
    heads: 4,
    guesses: 3,
    crashes: 2,
    ..NOTHING
};

const CREDENTIAL: Bounds = Bounds {
    heads: 4,
    revoke: true,
    uses: 1,
    crashes: 1,
    ..NOTHING
};

fn one(bounds: Bounds) -> Ledger {
    Ledger::new(Mode::Strict, 1, bounds).unwrap()
}

fn two(bounds: Bounds) -> Ledger {
    Ledger::new(Mode::Strict, 2, bounds).unwrap()
}

fn bounded(bounds: Bounds) -> Ledger {
    Ledger::new(Mode::Bounded, 1, bounds).unwrap()
}

/// The checker finds a counterexample to just this property.
#[track_caller]
fn killed(model: Ledger, mutant: Mutant, property: &'static str) {
    let sought = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let run = model.with(mutant).checker().finish_when(sought);
    let run = run.spawn_bfs().join();
    println!("{mutant:?}: {} states", run.unique_state_count());
    let found = run.discoveries();
    assert!(
        found.contains_key(property),
        "{mutant:?} survives: {property}"
    );
}

#[test]
fn no_second_list() {
    killed(two(GUESSES).budget(1), Mutant::NoSecondList, BUDGET);
    killed(two(GUESSES), Mutant::NoSecondList, CHECKPOINTS);
}

#[test]
fn second_list_looks_at_the_newest_only() {
    let bounds = Bounds {
        heads: 5,
        ..GUESSES
    };
    killed(two(bounds).budget(1), Mutant::SecondListNewestOnly, ANCHOR);
}

#[test]
fn another_nodes_anchor_is_trusted() {
    let bounds = Bounds {
        crashes: 1,
        heads: 5,
        ..GUESSES
    };
    killed(
        two(bounds).budget(1),
        Mutant::TrustOthersAnchor,
        CHECKPOINTS,
    );
}

#[test]
fn equal_anchors_of_others_are_destroyed() {
    let bounds = Bounds {
        heads: 2,
        ..CREDENTIAL
    };
    killed(two(bounds).honest(), Mutant::DestroyEquals, START);
}

#[test]
fn an_exclusive_node_catches_up() {
    let bounds = Bounds {
        heads: 5,
        consumptions: 2,
        crashes: 2,
        ..CREDENTIAL
    };
    killed(bounded(bounds), Mutant::ExclusiveCatchesUp, REVOCATION);
}

#[test]
fn a_head_is_made_upon_one_that_is_not_covered() {
    killed(two(GUESSES), Mutant::CatchUpUncovered, CHECKPOINTS);
}

#[test]
fn an_anchor_of_the_same_number_is_taken_for_an_orphan() {
    killed(two(GUESSES).budget(1), Mutant::OrphansByNumber, CHECKPOINTS);
}

#[test]
fn sign_before_anchor() {
    killed(one(GUESSES), Mutant::SignBeforeAnchor, CHECKPOINTS);
}

#[test]
fn no_anchor_at_start() {
    let bounds = Bounds {
        crashes: 2,
        ..CREDENTIAL
    };
    killed(one(bounds), Mutant::NoAnchorAtStart, REVOCATION);
}

#[test]
fn missing_anchor_taken_as_zero() {
    let bounds = Bounds {
        token_loss: true,
        heads: 5,
        ..GUESSES
    };
    killed(one(bounds).budget(1), Mutant::MissingAnchorIsZero, BUDGET);
}

#[test]
fn attempts_set_to_zero() {
    let bounds = Bounds {
        heads: 6,
        guesses: 4,
        rights: 1,
        crashes: 0,
        ..NOTHING
    };
    killed(one(bounds), Mutant::AttemptsToZero, BUDGET);
}

#[test]
fn evaluation_on_an_unknown_outcome() {
    killed(one(GUESSES), Mutant::EvaluateUnknown, CHARGE);
    killed(one(GUESSES).budget(1), Mutant::EvaluateUnknown, BUDGET);
}

#[test]
fn evaluation_after_expiry() {
    let bounds = Bounds {
        heads: 6,
        guesses: 4,
        rights: 1,
        expiry: true,
        ..NOTHING
    };
    killed(one(bounds), Mutant::EvaluateExpired, BUDGET);
}

#[test]
fn neighbours_reread() {
    killed(one(CREDENTIAL), Mutant::NeighboursReread, DECLARED);
    let bounds = Bounds {
        guesses: 1,
        ..CREDENTIAL
    };
    killed(one(bounds), Mutant::NeighboursReread, REVOCATION);
}

#[test]
fn lazy_anchor() {
    killed(one(GUESSES), Mutant::LazyAnchor, CHARGE);
    killed(one(GUESSES).budget(1), Mutant::LazyAnchor, BUDGET);
}

#[test]
fn read_from_a_head_that_nobody_anchored() {
    killed(two(CREDENTIAL), Mutant::ReadUncovered, REVOCATION);
}

#[test]
fn the_clean_flag_stands_after_a_start() {
    let bounds = Bounds {
        crashes: 1,
        guesses: 1,
        ..CREDENTIAL
    };
    killed(one(bounds).honest(), Mutant::CleanFlagStands, START);
}

#[test]
fn no_boot_epoch() {
    killed(bounded(GUESSES).budget(1), Mutant::NoBootEpoch, BUDGET);
}

#[test]
fn no_dirty_flag() {
    killed(bounded(GUESSES).budget(1), Mutant::NoDirtyFlag, BUDGET);
}

#[test]
fn codes_outlive_a_boot_epoch() {
    let bounds = Bounds {
        consumptions: 2,
        crashes: 1,
        heads: 3,
        ..NOTHING
    };
    killed(bounded(bounds), Mutant::CodesOutliveBoot, CODE);
}

#[test]
fn a_restore_keeps_the_budget() {
    let bounds = Bounds {
        restores: 1,
        crashes: 1,
        ..GUESSES
    };
    killed(one(bounds).budget(1), Mutant::RestoreKeepsBudget, BUDGET);
}

#[test]
fn a_restore_that_may_leave_one_guess_leaves_all() {
    let bounds = Bounds {
        heads: 6,
        guesses: 4,
        restores: 1,
        crashes: 1,
        ..NOTHING
    };
    killed(one(bounds).leaving(1), Mutant::RestoreLeavesAll, BUDGET);
    // Also where one is left, a budget that stays as it was is too much.
    let mutant = Mutant::RestoreKeepsBudget;
    killed(one(bounds).leaving(1), mutant, BUDGET);
}

#[test]
fn a_restore_keeps_the_log_epoch() {
    let bounds = Bounds {
        restores: 1,
        crashes: 1,
        ..GUESSES
    };
    killed(
        one(bounds).budget(1),
        Mutant::RestoreKeepsEpoch,
        CHECKPOINTS,
    );
}
