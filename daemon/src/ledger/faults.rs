//! Every failure of the database, twice: lost, and done but its answer lost.
//!
//! The real committer, reader and SQLite; between them a store that fails by a script, and a
//! custody in memory. What must hold: nothing is answered `Ok` that is not durable after a
//! restart; nothing is refused that is, unless the committer stopped; N charges cost N; events
//! are numbered without gaps; after a stop, a restart serves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod admin;
mod adversary;
pub(in crate::ledger) mod attacks;
mod auditing;
mod bounded;
mod broken;
mod crossing;
pub(in crate::ledger) mod dice;
mod erasing;
mod escrowed;
mod limits;
mod mac_keys;
pub(in crate::ledger) mod names;
mod nodes;
mod older_mac_keys;
mod outcomes;
mod pruning;
mod restoring;
mod retiring;
pub(in crate::ledger) mod rig;
mod rotating;
pub(in crate::ledger) mod several;
pub(in crate::ledger) mod tables;
pub(in crate::ledger) mod truth;
mod verifying;

use proptest::prelude::*;

use self::attacks::{BUDGET, guess, is_exhausted};
use self::broken::{Commit, Script};
use self::rig::{Rig, app};
use super::LedgerError;

#[tokio::test]
async fn without_a_fault_n_charges_cost_n() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    assert_eq!(rig.burst(&[a, b, a, a]).await, 4);
    rig.check().await;
}

/// Who is answered before the committer comes to them, because it took too long, is not charged.
#[tokio::test]
async fn who_left_before_the_decision_costs_nothing() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    {
        let mut left = Box::pin(rig.charge_only(a));
        // Until it has queued its change.
        for _ in 0..20_000 {
            let polled = futures_util::FutureExt::now_or_never(&mut left);
            assert!(polled.is_none(), "the committer was faster");
            if rig.ledger().waiting() > 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(rig.ledger().waiting(), 1);
    }
    assert_eq!(rig.one(b).await.unwrap(), 1);
    assert_eq!(rig.durable(a).await, 0);
    // The control: who stays is charged.
    assert_eq!(rig.one(a).await.unwrap(), 1);
    rig.check().await;
}

#[tokio::test]
async fn a_commit_that_may_be_durable_is_never_called_failed() {
    // Written, its answer lost, the head unreadable; then the disk is full for ever.
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    let commits = [&[Commit::AnswerLost][..], &[Commit::Full; 8]].concat();
    rig.script(Script::new(&commits, &[false; 5], &[]));
    let answer = rig.one(a).await;
    assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
    rig.restart().await;
    assert_eq!(rig.durable(a).await, 1);
    rig.check().await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_known_again_even_after_a_full_disk() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    let commits = [Commit::AnswerLost, Commit::Full, Commit::Honest];
    rig.script(Script::new(&commits, &[false, false, true], &[]));
    assert_eq!(rig.one(a).await.unwrap(), 1);
    rig.check().await;
}

#[tokio::test]
async fn a_full_disk_refuses_one_batch_and_the_next_is_served() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    rig.script(Script::new(&[Commit::Full; 5], &[], &[]));
    let answer = rig.one(a).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert_eq!(rig.durable(a).await, 0);
    assert_eq!(rig.one(a).await.unwrap(), 1);
    rig.check().await;
}

/// Who is refused because of others in the same batch is told so once those have what they asked for.
#[tokio::test]
async fn what_a_batch_refuses_because_of_itself_is_told_with_it() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    for lost in [true, false] {
        let loaded = rig.ledger().load(&app(), a).await.unwrap().unwrap();
        if lost {
            rig.script(Script::new(&[Commit::Full; 5], &[], &[]));
        }
        // All are asked before the committer comes to them.
        let guesses = (0..=BUDGET).map(|_| rig.ledger().commit(loaded.clone(), guess));
        let answers = futures_util::future::join_all(guesses).await;
        let answers: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.map(|(charged, _)| charged))
            .collect();
        if lost {
            let failed = |answer: &_| matches!(answer, Err(LedgerError::Store(_)));
            assert!(answers.iter().all(failed), "{answers:?}");
            assert_eq!(rig.durable(a).await, 0);
        } else {
            // The control: then none is left.
            assert!(is_exhausted(answers.last().unwrap()), "{answers:?}");
            assert_eq!(rig.durable(a).await, BUDGET);
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_head_that_was_shown_is_the_only_one_of_its_number() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    rig.script(Script::new(&[Commit::Declined; 10], &[], &[]));
    // It may happen yet: nobody was told otherwise than that the database is not there.
    for _ in 0..2 {
        let answer = rig.charge_only(a).await;
        assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    }
    assert_eq!(rig.durable(a).await, 0);
    assert_eq!(rig.one(b).await.unwrap(), 1);
    // The first was written before anything else, and the second never made.
    assert_eq!(rig.durable(a).await, 1);
    rig.book(a, &Err(LedgerError::Stopped));
    rig.restart().await;
    assert_eq!(rig.durable(a).await, 1);
    // Control: of a head that nobody was shown nothing is left.
    rig.script(Script::new(&[Commit::Full; 5], &[], &[]));
    let answer = rig.charge_only(a).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert_eq!(rig.one(b).await.unwrap(), 2);
    assert_eq!(rig.durable(a).await, 1);
}

#[tokio::test]
async fn a_head_that_was_found_is_answered_once_it_is_acknowledged() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    let mut script = Script::new(&[Commit::AnswerLost], &[], &[]);
    script.acknowledgements = [false, true].into();
    rig.script(script);
    assert_eq!(rig.one(a).await.unwrap(), 1);
    assert_eq!(rig.script_left(|script| script.acknowledgements.len()), 0);
    // While it is not, the outcome is as unknown as before.
    let mut script = Script::new(&[Commit::AnswerLost], &[], &[]);
    script.acknowledgements = [false; 5].into();
    rig.script(script);
    let answer = rig.one(a).await;
    assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
    rig.restart().await;
    assert_eq!(rig.durable(a).await, 2);
    rig.check().await;
}

#[tokio::test]
async fn anothers_batch_of_the_same_number_size_and_second_is_not_taken_for_ours() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    rig.script(Script::new(&[Commit::Overtaken], &[], &[]));
    let answer = rig.one(a).await;
    assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
    assert!(rig.has_stopped().await);
}

#[tokio::test]
async fn a_lost_race_stops_the_committer() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    rig.one(a).await.unwrap();
    rig.overtake().await;
    let answer = rig.one(b).await;
    assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
    assert!(rig.has_stopped().await);
}

/// Steps of a run: which accounts are charged at once.
fn steps() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(0usize..2, 1..4), 1..5)
}

/// Faults come in runs, longer than the committer's patience at times.
fn faults() -> impl Strategy<Value = Vec<Commit>> {
    let one = prop_oneof![
        Just(Commit::Honest),
        Just(Commit::Lost),
        Just(Commit::AnswerLost),
        Just(Commit::Full),
    ];
    prop::collection::vec((one, 1usize..6), 0..6).prop_map(|runs| {
        let runs = runs.iter().map(|(fault, times)| vec![*fault; *times]);
        runs.flatten().collect()
    })
}

fn reads(success: f64) -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(prop::bool::weighted(success), 0..24)
}

#[test]
fn whatever_fails_answers_and_database_agree() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fresh = runtime.block_on(Rig::new());
    let mut cases = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(128));
    let scripts = (faults(), reads(0.3), reads(0.9));
    let cache = prop_oneof![Just(0), Just(20_000), Just(1 << 20)];
    cases
        .run(
            &(steps(), scripts, cache),
            |(steps, (commits, heads, reads), cache)| {
                runtime.block_on(async {
                    let mut rig = fresh.copy().await;
                    rig.cache = cache;
                    rig.restart().await;
                    rig.script(Script::new(&commits, &heads, &reads));
                    for step in steps {
                        let accounts: Vec<_> = step.iter().map(|at| rig.accounts[*at]).collect();
                        rig.burst(&accounts).await;
                        if rig.has_stopped().await {
                            rig.restart().await;
                        }
                    }
                    rig.check().await;
                });
                Ok(())
            },
        )
        .unwrap();
}
