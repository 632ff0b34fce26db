//! A token that fails in the middle of anchoring: before the anchor is there, or after. Until it
//! is known to be there nothing of the batch is told to anybody.

use super::{HURRIED, Rig, Weakness, says, strong};
use crate::ledger::LedgerError;
use crate::ledger::faults::broken::{Anchor, Script};
use crate::ledger::faults::rig::app;

const FAULTS: [Anchor; 2] = [Anchor::Lost, Anchor::AnswerLost];

async fn serving(cache: usize, weakness: Weakness) -> Rig {
    let mut rig = Rig::new().await;
    rig.cache = cache;
    rig.start(weakness).await.unwrap();
    let [a, b] = rig.accounts;
    for id in [a, b] {
        rig.guess(id).await.unwrap();
    }
    rig
}

fn is_the_tokens<T: std::fmt::Debug>(answer: &Result<T, LedgerError>) {
    assert!(matches!(answer, Err(LedgerError::Token(_))), "{answer:?}");
}

#[tokio::test]
async fn nothing_is_told_before_it_is_anchored_and_the_next_batch_anchors_it_first() {
    for fault in FAULTS {
        for cache in [0, 1 << 20] {
            let mut rig = serving(cache, strong()).await;
            let [a, b] = rig.accounts;
            rig.anchoring(&[fault, Anchor::Honest]);
            is_the_tokens(&rig.guess(a).await);
            // Who only reads is told neither the old nor the new state.
            let read = rig.charged(a).await;
            assert!(matches!(read, Err(LedgerError::Late(_))), "{read:?}");
            // Others are served, and it is their batch that anchors the one before.
            assert_eq!(rig.charged(b).await.unwrap(), Some(1));
            assert_eq!(rig.guess(b).await.unwrap(), 2);
            assert_eq!(rig.charged(a).await.unwrap(), Some(2));
            assert_eq!(rig.guess(a).await.unwrap(), 3);
            // All of it was durable.
            rig.start(strong()).await.unwrap();
            assert_eq!(rig.charged(a).await.unwrap(), Some(3));
            assert_eq!(rig.charged(b).await.unwrap(), Some(2));
        }
    }
}

/// Control: told before, the guess is evaluated and then taken back.
#[tokio::test]
async fn what_is_told_before_it_is_anchored_can_be_taken_back() {
    let lazy = Weakness {
        lazy: true,
        ..strong()
    };
    let mut rig = serving(0, lazy).await;
    let [a, _] = rig.accounts;
    let before = rig.tables().await;
    rig.anchoring(&[Anchor::Lost]);
    assert_eq!(rig.guess(a).await.unwrap(), 2);
    rig.anchoring(&[]);
    rig.start_upon(&before, lazy).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}

/// Who reads a batch that is not anchored has no answer. On a slow machine it may be anchored by now, without anybody.
fn is_told_nothing<T>(rig: &Rig, reader: &tokio::task::JoinHandle<T>) {
    let told = reader.is_finished();
    let pending = rig.ledger().reader.memory().pending().is_some();
    assert!(!(told && pending), "it was told before");
}

#[tokio::test]
async fn a_reader_that_waits_is_answered_once_it_is_anchored() {
    for fault in FAULTS {
        let mut rig = serving(0, strong()).await;
        rig.crash().await;
        // A patient reader.
        rig.weakness = Weakness::default();
        rig.try_serve(Script::default()).await.unwrap();
        let [a, b] = rig.accounts;
        rig.anchoring(&[fault]);
        is_the_tokens(&rig.guess(a).await);
        let ledger = rig.ledger().clone();
        let reader = tokio::spawn(async move { ledger.load(&app(), a).await });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        is_told_nothing(&rig, &reader);
        rig.guess(b).await.unwrap();
        let loaded = reader.await.unwrap().unwrap().unwrap();
        assert_eq!(loaded.account.session_epoch, 2);
    }
}

/// Whoever waits for a batch whose committer has ended is told so at once, and not when all patience is spent.
#[tokio::test]
async fn a_reader_that_waits_for_a_committer_that_ended_is_told_so() {
    let mut rig = serving(0, strong()).await;
    rig.crash().await;
    rig.weakness = Weakness::default();
    rig.try_serve(Script::default()).await.unwrap();
    let [a, _] = rig.accounts;
    rig.anchoring(&[Anchor::Lost; 1000]);
    is_the_tokens(&rig.guess(a).await);
    let ledger = rig.ledger().clone();
    let reader = tokio::spawn(async move { ledger.load(&app(), a).await });
    // The control: as long as there is a committer it waits.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    is_told_nothing(&rig, &reader);
    rig.committer_ends().await;
    // All patience is ten seconds.
    let soon = std::time::Duration::from_secs(8);
    let told = tokio::time::timeout(soon, reader).await.unwrap().unwrap();
    assert!(matches!(told, Err(LedgerError::Stopped)), "{told:?}");
    let ledger = rig.ledger().clone();
    let late = tokio::time::timeout(soon, ledger.load(&app(), a))
        .await
        .unwrap();
    assert!(matches!(late, Err(LedgerError::Stopped)), "{late:?}");
}

/// A token that stays away: no batch is written upon one that is not anchored.
#[tokio::test]
async fn nothing_is_written_upon_a_batch_that_is_not_anchored() {
    let rig = serving(0, strong()).await;
    let [a, b] = rig.accounts;
    rig.anchoring(&[Anchor::Lost; 6]);
    is_the_tokens(&rig.guess(a).await);
    let pending = rig.tables().await;
    for _ in 0..5 {
        is_the_tokens(&rig.guess(b).await);
        assert_eq!(rig.tables().await, pending);
    }
    // Control: the token is back.
    assert_eq!(rig.guess(b).await.unwrap(), 2);
    assert_eq!(rig.charged(a).await.unwrap(), Some(2));
}

/// Faults of both kinds in all orders of three, then the next batch.
#[tokio::test]
async fn however_often_it_fails_the_next_anchor_is_found_or_made() {
    for order in 0..8 {
        let faults: Vec<_> = (0..3).map(|at| FAULTS[order >> at & 1]).collect();
        let rig = serving(0, strong()).await;
        let [a, b] = rig.accounts;
        rig.anchoring(&faults);
        is_the_tokens(&rig.guess(a).await);
        // Whose own batch waits is not read; the other's next batch anchors it.
        let (mut of_a, mut of_b) = (2, 1);
        for _ in 0..4 {
            of_b += u64::from(rig.guess(b).await.is_ok());
            of_a += u64::from(rig.guess(a).await.is_ok());
        }
        // What was answered happened, and what was not may have: never less.
        let (a, b) = (rig.charged(a).await.unwrap(), rig.charged(b).await.unwrap());
        assert!(
            a >= Some(of_a) && b >= Some(of_b),
            "{faults:?}: {a:?} {b:?}"
        );
        assert!(of_a + of_b > 3, "{faults:?}");
        assert_eq!(rig.anchors.contents().len(), 1);
    }
}

/// The plug is pulled while a batch waits: the next start anchors what it finds.
#[tokio::test]
async fn after_a_crash_in_between_the_start_anchors_what_is_there() {
    for fault in FAULTS {
        let mut rig = serving(0, strong()).await;
        let [a, _] = rig.accounts;
        rig.anchoring(&[fault]);
        is_the_tokens(&rig.guess(a).await);
        let before_boot = rig.tables().await;
        rig.start(strong()).await.unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 3);
        // It can not be gone back to any more.
        says(
            &rig.start_upon(&before_boot, strong()).await,
            "it was rolled back",
        );
    }
}

/// The boot batch itself: a start that can not anchor does not serve, and the next one does.
#[tokio::test]
async fn a_start_that_can_not_anchor_does_not_serve() {
    for fault in FAULTS {
        let mut rig = serving(0, strong()).await;
        let [a, _] = rig.accounts;
        rig.anchoring(&[fault]);
        is_the_tokens(&rig.start(strong()).await);
        rig.start(strong()).await.unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 2);
        assert_eq!(rig.weakness.patience, HURRIED);
    }
}

/// Nobody else's batch has to come: the committer tries the anchor again by itself.
#[tokio::test]
async fn an_anchor_that_failed_is_made_without_another_batch() {
    for fault in FAULTS {
        let mut rig = serving(0, strong()).await;
        rig.crash().await;
        rig.weakness = Weakness::default();
        rig.try_serve(Script::default()).await.unwrap();
        let [a, _] = rig.accounts;
        rig.anchoring(&[fault, Anchor::Lost]);
        is_the_tokens(&rig.guess(a).await);
        assert_eq!(rig.charged(a).await.unwrap(), Some(2));
        rig.anchoring(&[]);
        assert_eq!(rig.guess(a).await.unwrap(), 3);
    }
}
