//! Tests of the guess budget: named cases.
//! Called by the test harness only; must never be compiled into a build.
#![allow(clippy::expect_used)] // fixtures and granted charges that fail must stop the test

use std::time::Duration;

use super::*;

pub(super) fn rounds(list: &[(u32, u64)]) -> Rounds {
    let round = |(attempts, seconds): &(u32, u64)| Round {
        attempts: *attempts,
        wait: Duration::from_secs(*seconds),
    };
    Rounds::new(list.iter().map(round).collect()).expect("the fixture is right")
}

/// Two guesses at once, three after a minute.
fn two_then_three() -> Rounds {
    rounds(&[(2, 0), (3, 60)])
}

fn charge(budget: &mut Budget, now: u64, expires: u64) -> ChargeId {
    budget
        .charge(&two_then_three(), Timestamp(now), Timestamp(expires))
        .expect("granted")
}

fn total_left(budget: &Budget, now: u64) -> u32 {
    budget
        .standing(&two_then_three(), Timestamp(now))
        .total_left
}

#[test]
fn a_round_that_is_used_up_makes_the_next_one_wait_from_the_last_charge() {
    let mut budget = Budget::default();
    charge(&mut budget, 100, 200);
    charge(&mut budget, 130, 200);
    let before = budget.clone();
    let early = budget.charge(&two_then_three(), Timestamp(189), Timestamp(500));
    let until = Timestamp(190);
    assert_eq!(early, Err(Refused::Wait { until }));
    assert_eq!(budget, before);
    let standing = budget.standing(&two_then_three(), Timestamp(189));
    let expected = Standing {
        left: 0,
        total_left: 3,
        wait_until: Some(until),
        exhausted: false,
    };
    assert_eq!(standing, expected);
    charge(&mut budget, 190, 500);
    assert_eq!(budget.standing(&two_then_three(), Timestamp(190)).left, 2);
}

#[test]
fn everything_spent_is_exhausted_for_ever() {
    let mut budget = Budget::default();
    for now in [0, 0, 60, 60, 60] {
        charge(&mut budget, now, now + 10);
    }
    let before = budget.clone();
    let far = Timestamp(u64::MAX);
    assert_eq!(
        budget.charge(&two_then_three(), far, far),
        Err(Refused::Exhausted)
    );
    assert_eq!(budget, before);
    let standing = budget.standing(&two_then_three(), far);
    assert!(standing.exhausted && standing.left == 0 && standing.wait_until.is_none());
}

#[test]
fn a_success_clears_what_is_resolved_and_leaves_what_is_in_flight() {
    let mut budget = Budget::default();
    let wrong = charge(&mut budget, 0, 100);
    charge(&mut budget, 0, 50); // expires below
    let right = charge(&mut budget, 60, 200);
    charge(&mut budget, 60, 200); // stays in flight
    assert_eq!(budget.fail(wrong, Timestamp(60)), Ok(()));
    assert_eq!(total_left(&budget, 60), 1);
    assert_eq!(budget.succeed(right, Timestamp(61)), Ok(()));
    assert_eq!(budget.in_flight(Timestamp(61)), 1);
    assert_eq!(total_left(&budget, 61), 4);
}

#[test]
fn an_outcome_counts_once() {
    let mut budget = Budget::default();
    let (one, two) = (charge(&mut budget, 0, 100), charge(&mut budget, 0, 100));
    assert_eq!(budget.fail(one, Timestamp(1)), Ok(()));
    let before = budget.clone();
    assert_eq!(budget.fail(one, Timestamp(1)), Err(UnknownCharge));
    assert_eq!(budget.succeed(one, Timestamp(1)), Err(UnknownCharge));
    assert_eq!(budget, before);
    assert_eq!(budget.succeed(two, Timestamp(2)), Ok(()));
    let third = charge(&mut budget, 3, 100);
    assert_ne!(third, two);
    assert_eq!(budget.fail(third, Timestamp(4)), Ok(()));
    assert_eq!(budget.succeed(two, Timestamp(5)), Err(UnknownCharge));
    assert_eq!(total_left(&budget, 5), 4);
}

#[test]
fn what_may_be_forgotten_is_spent_and_the_wait_begins_again() {
    let mut budget = Budget::default();
    let id = charge(&mut budget, 100, 200);
    budget.forgotten(1, Timestamp(150));
    assert_eq!(total_left(&budget, 150), 3);
    let wait = budget
        .standing(&two_then_three(), Timestamp(150))
        .wait_until;
    assert_eq!(wait, Some(Timestamp(210)));
    // The charge in flight is another one: its success clears what is resolved, as always.
    budget.succeed(id, Timestamp(151)).expect("in flight");
    assert_eq!(total_left(&budget, 300), 5);
    budget.forgotten(u32::MAX, Timestamp(400));
    assert!(budget.standing(&two_then_three(), Timestamp(999)).exhausted);
}

#[test]
fn a_restore_leaves_at_most_what_it_says_until_a_success_or_a_reset() {
    let rounds = two_then_three();
    let mut budget = Budget::default();
    let before = charge(&mut budget, 100, 900);
    budget.leave_at_most(3);
    budget.leave_at_most(7);
    let standing = budget.standing(&rounds, Timestamp(101));
    assert_eq!((standing.left, standing.total_left), (1, 3));
    // Whoever has kept a login from before the restore can not finish it.
    assert_eq!(budget.succeed(before, Timestamp(101)), Err(UnknownCharge));
    charge(&mut budget, 101, 110);
    charge(&mut budget, 161, 170);
    // The rounds would grant two more, of which one is left.
    let standing = budget.standing(&rounds, Timestamp(162));
    assert_eq!((standing.left, standing.total_left), (1, 1));
    let stored = toml::to_string(&budget).expect("a budget serialises");
    budget = toml::from_str(&stored).expect("as it was written");
    let last = charge(&mut budget, 162, 300);
    assert!(budget.standing(&rounds, Timestamp(163)).exhausted);
    assert_eq!(
        budget.charge(&rounds, Timestamp(163), Timestamp(200)),
        Err(Refused::Exhausted)
    );
    budget.succeed(last, Timestamp(163)).expect("in flight");
    // Two others are in flight.
    assert_eq!(total_left(&budget, 163), 3);
    budget.leave_at_most(2);
    budget.forgotten(1, Timestamp(163));
    assert_eq!(total_left(&budget, 300), 1);
    budget.leave_at_most(0);
    assert!(budget.standing(&rounds, Timestamp(300)).exhausted);
    budget.reset(Timestamp(301));
    assert!(!budget.standing(&rounds, Timestamp(301)).exhausted);
}

#[test]
fn a_charge_is_in_flight_until_the_second_in_which_it_expires() {
    let mut budget = Budget::default();
    assert_eq!(budget.in_flight(Timestamp(100)), 0);
    let first = charge(&mut budget, 100, 200);
    charge(&mut budget, 101, 300);
    assert_eq!(budget.in_flight(Timestamp(199)), 2);
    assert_eq!(budget.in_flight(Timestamp(200)), 1);
    // Folded in that second, it does not come back with the clock.
    charge(&mut budget, 200, 400);
    assert!(budget.succeed(first, Timestamp(199)).is_err());
}

#[test]
fn a_success_that_was_held_back_past_its_ceremony_clears_nothing() {
    let mut budget = Budget::default();
    let hoarded = charge(&mut budget, 0, 100);
    let before = budget.clone();
    assert_eq!(budget.succeed(hoarded, Timestamp(100)), Err(UnknownCharge));
    assert_eq!(budget, before);
    assert_eq!(total_left(&budget, 100), 4);
}

#[test]
fn an_expired_charge_stays_spent_even_if_the_clock_goes_back() {
    let mut budget = Budget::default();
    let first = charge(&mut budget, 0, 10);
    charge(&mut budget, 20, 100);
    assert_eq!(budget.succeed(first, Timestamp(5)), Err(UnknownCharge));
    assert_eq!(total_left(&budget, 5), 3);
}

#[test]
fn a_clock_that_goes_back_does_not_shorten_a_wait() {
    let mut budget = Budget::default();
    charge(&mut budget, 1000, 2000);
    charge(&mut budget, 10, 2000);
    let early = budget.charge(&two_then_three(), Timestamp(1059), Timestamp(2000));
    let until = Timestamp(1060);
    assert_eq!(early, Err(Refused::Wait { until }));
}

#[test]
fn a_reset_leaves_charges_in_flight_and_they_may_still_succeed() {
    let mut budget = Budget::default();
    let wrong = charge(&mut budget, 0, 100);
    let pending = charge(&mut budget, 0, 100);
    assert_eq!(budget.fail(wrong, Timestamp(1)), Ok(()));
    budget.reset(Timestamp(2));
    assert_eq!(total_left(&budget, 2), 4);
    assert_eq!(budget.succeed(pending, Timestamp(3)), Ok(()));
    assert_eq!(total_left(&budget, 3), 5);
}

#[test]
fn a_guess_at_the_old_secret_cannot_clear_failures_at_the_new_one() {
    let mut budget = Budget::default();
    let old = charge(&mut budget, 0, 100);
    budget.secret_replaced(Timestamp(1));
    assert_eq!(total_left(&budget, 1), 4);
    let wrong = charge(&mut budget, 2, 100);
    assert_ne!(wrong, old);
    assert_eq!(budget.fail(wrong, Timestamp(3)), Ok(()));
    assert_eq!(budget.succeed(old, Timestamp(4)), Err(UnknownCharge));
    assert_eq!(total_left(&budget, 4), 3);
    budget.reset(Timestamp(100));
    assert_eq!(total_left(&budget, 100), 5);
}

#[test]
fn rounds_that_a_reload_shrank_below_the_count_are_exhausted() {
    let mut budget = Budget::default();
    for now in [0, 0, 60] {
        charge(&mut budget, now, now + 10);
    }
    let fewer = rounds(&[(2, 0)]);
    let standing = budget.standing(&fewer, Timestamp(61));
    assert!(standing.exhausted && standing.total_left == 0);
    assert_eq!(
        budget.charge(&fewer, Timestamp(61), Timestamp(70)),
        Err(Refused::Exhausted)
    );
}

#[test]
fn stored_budgets_that_cannot_have_been_made_here_are_refused() {
    let stored = |charges: &str, next: u64| {
        let text =
            format!("failures = 0\nlast_charge = 5\nnext_id = {next}\nin_flight = [{charges}]");
        toml::from_str::<Budget>(&text).is_ok()
    };
    assert!(stored(
        "{ id = 1, expires = 9 }, { id = 4, expires = 9 }",
        5
    ));
    assert!(!stored(
        "{ id = 1, expires = 9 }, { id = 1, expires = 9 }",
        5
    ));
    assert!(!stored(
        "{ id = 4, expires = 9 }, { id = 1, expires = 9 }",
        5
    ));
    assert!(!stored("{ id = 5, expires = 9 }", 5));
    assert!(!stored("{ id = 1, expires = 9, more = 1 }", 5));
    assert!(stored("", u64::MAX / 2));
    let full: Vec<_> = (0..=100)
        .map(|id| format!("{{ id = {id}, expires = 9 }}"))
        .collect();
    assert!(!stored(&full.join(","), 200));
    assert!(stored(
        full.get(1..).unwrap_or_default().join(",").as_str(),
        200
    ));
}
