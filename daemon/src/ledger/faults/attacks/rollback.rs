//! The whole database put back to what it was: running, stopped, again and again.

use super::{BUDGET, Rig, Weakness, is_exhausted, is_tampered, says, strong};
use crate::ledger::LedgerError;
use crate::ledger::faults::broken::Anchor;
use crate::ledger::faults::tables::{ALL, Tables};

const ROLLED_BACK: &str = "it was rolled back";

/// A realm with a guess made, and its backup; then all guesses are made.
async fn exhausted(weakness: Weakness) -> (Rig, Tables, Tables) {
    let mut rig = Rig::new().await;
    rig.start(weakness).await.unwrap();
    let [a, _] = rig.accounts;
    rig.guess(a).await.unwrap();
    let old = rig.tables().await;
    for _ in 1..BUDGET {
        rig.guess(a).await.unwrap();
    }
    let newest = rig.tables().await;
    (rig, old, newest)
}

#[tokio::test]
async fn an_older_database_is_refused_at_the_start() {
    let (mut rig, old, newest) = exhausted(strong()).await;
    let [a, _] = rig.accounts;
    says(&rig.start_upon(&old, strong()).await, ROLLED_BACK);
    // It was not even written to.
    assert_eq!(rig.tables().await, old);
    // Control: the newest.
    rig.start_upon(&newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
}

/// The token refuses an anchor that goes back, too. But each start writes a batch before it is
/// anchored, and so the older history would catch up: the head must be compared before.
#[tokio::test]
async fn without_the_comparison_a_crash_loop_catches_up_with_the_anchor() {
    let any_anchor = Weakness {
        any_anchor: true,
        ..strong()
    };
    let (mut rig, old, _) = exhausted(any_anchor).await;
    let [a, _] = rig.accounts;
    assert!(rig.start_upon(&old, any_anchor).await.is_err());
    let mut starts = 1;
    while rig.start(any_anchor).await.is_err() {
        starts += 1;
        assert!(starts < 10, "it never catches up");
    }
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}

#[tokio::test]
async fn an_older_database_behind_a_running_daemon_is_refused() {
    let (mut rig, old, newest) = exhausted(strong()).await;
    let [a, b] = rig.accounts;
    rig.put(&old, &ALL).await;
    assert!(is_tampered(&rig.guess(a).await));
    // Who has not changed since is served rightly, and nothing is written.
    assert_eq!(rig.charged(b).await.unwrap(), Some(0));
    let answer = rig.guess(b).await;
    assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
    says(&rig.start(strong()).await, ROLLED_BACK);
    rig.start_upon(&newest, strong()).await.unwrap();
    assert!(is_exhausted(&rig.guess(a).await));
    assert_eq!(rig.guess(b).await.unwrap(), 1);
}

/// A batch that was not anchored was told to nobody: it may be taken back, and costs no guess.
#[tokio::test]
async fn what_was_never_told_may_be_taken_back_and_what_was_may_not() {
    for (fault, started) in [(Anchor::Lost, true), (Anchor::AnswerLost, false)] {
        let mut rig = Rig::new().await;
        rig.start(strong()).await.unwrap();
        let [a, _] = rig.accounts;
        assert_eq!(rig.guess(a).await.unwrap(), 1);
        let anchored = rig.tables().await;
        rig.anchoring(&[fault]);
        let answer = rig.guess(a).await;
        assert!(matches!(answer, Err(LedgerError::Token(_))), "{answer:?}");
        let newest = rig.tables().await;
        // The answer of the token was lost, but not the anchor: then it may not.
        let answer = rig.start_upon(&anchored, strong()).await;
        if started {
            answer.unwrap();
            assert_eq!(rig.guess(a).await.unwrap(), 2);
        } else {
            says(&answer, ROLLED_BACK);
            rig.start_upon(&newest, strong()).await.unwrap();
            assert_eq!(rig.guess(a).await.unwrap(), 3);
        }
        // Control: with the batch left in place, the other history is none any more.
        let answer = rig.start_upon(&newest, strong()).await;
        assert!(answer.is_err());
    }
}

/// Guess, pull the plug, put the backup back, start; fifty times.
async fn loop_of(weakness: Weakness) -> u64 {
    let mut rig = Rig::new().await;
    rig.start(weakness).await.unwrap();
    let [a, _] = rig.accounts;
    let backup = rig.tables().await;
    let mut evaluated = 0;
    for round in 0..50 {
        // Some batches stay without an anchor, as if the plug was pulled before it.
        if round % 7 == 3 {
            rig.anchoring(&[Anchor::Lost]);
        }
        if rig.guess(a).await.is_ok() {
            evaluated += 1;
        }
        rig.anchoring(&[]);
        let newest = rig.tables().await;
        if rig.start_upon(&backup, weakness).await.is_err() {
            rig.start_upon(&newest, weakness).await.unwrap();
        }
    }
    evaluated
}

#[tokio::test]
async fn fifty_crashes_with_restores_win_no_guess() {
    assert_eq!(loop_of(strong()).await, BUDGET);
}

/// Control: with the anchor left for later every crash is a new guess.
#[tokio::test]
async fn without_the_anchor_before_the_answer_fifty_crashes_win_fifty_guesses() {
    let lazy = Weakness {
        lazy: true,
        ..strong()
    };
    assert_eq!(loop_of(lazy).await, 50);
}

/// The daemon is shown now one, now the other of two copies.
#[tokio::test]
async fn of_two_copies_that_take_turns_one_is_the_realm() {
    for lazy in [false, true] {
        let weakness = Weakness { lazy, ..strong() };
        let mut rig = Rig::new().await;
        rig.start(weakness).await.unwrap();
        let [a, _] = rig.accounts;
        let mut copies = [rig.tables().await, rig.tables().await];
        let mut evaluated = 0;
        for turn in 0..10 {
            let copy = &mut copies[turn % 2];
            if rig.start_upon(copy, weakness).await.is_ok() {
                if rig.guess(a).await.is_ok() {
                    evaluated += 1;
                }
                *copy = rig.tables().await;
            }
        }
        // Control: each copy would be good for a budget of its own.
        assert_eq!(evaluated, if lazy { 2 * BUDGET } else { BUDGET });
    }
}

/// The file without what is in its write-ahead log is an older database.
#[tokio::test]
async fn a_file_without_its_write_ahead_log_is_refused() {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    rig.guess(a).await.unwrap();
    let file = rig.file();
    let wal = file.with_extension("sqlite-wal");
    let (alone, beside) = (std::fs::read(&file).unwrap(), std::fs::read(&wal).unwrap());
    assert!(!beside.is_empty());
    rig.crash().await;
    let _ = std::fs::remove_file(file.with_extension("sqlite-shm"));
    let _ = std::fs::remove_file(&wal);
    std::fs::write(&file, &alone).unwrap();
    says(&rig.start(strong()).await, ROLLED_BACK);
    // Control: with it.
    rig.crash().await;
    let _ = std::fs::remove_file(file.with_extension("sqlite-shm"));
    std::fs::write(&file, &alone).unwrap();
    std::fs::write(&wal, &beside).unwrap();
    rig.start(strong()).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}
