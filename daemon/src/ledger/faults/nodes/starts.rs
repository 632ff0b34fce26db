//! Starts that take long beside nodes that write, and what is told of repairs.

use std::time::{Duration, Instant};

use super::super::broken::Script;
use super::super::rig::{Rig, app};
use super::super::tables;
use super::{charge, charges, ends_with, two};
use crate::ledger::LedgerError;

/// Somebody has altered a cache: the start that finds it reads every list, and that takes longer than a server leaves a
/// turn to who says nothing.
async fn start_that_rebuilds(lapses: bool) {
    let [mut one, other] = two().await;
    one.crash().await;
    // It has nothing to catch up with: the digests that it would need are about to be spoilt.
    charge(&other).await;
    let mut admin = one.admin().await;
    let spoilt = "UPDATE bucket_digests SET digest = sha256(digest)";
    admin.script(spoilt).await;
    one.weakness.lapses = lapses;
    one.weakness.slow_lists = Some(Duration::from_secs(14));
    let began = Instant::now();
    let (started, refused) = tokio::join!(one.try_serve(Script::default()), async {
        // It has its turn by then.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut refused = 0;
        // Until the start has ended, or its turn has.
        while other.charge_only(other.accounts[0]).await.is_err() {
            refused += 1;
        }
        refused
    });
    assert!(began.elapsed() > Duration::from_secs(20));
    assert!(refused > 0);
    match lapses {
        false => {
            started.unwrap();
            one.weakness.slow_lists = None;
            charge(&one).await;
            ends_with([one, other], 3).await;
        }
        // The control has verified what is not the newest any more.
        true => assert!(
            started.is_err(),
            "{started:?} {refused} {:?}",
            began.elapsed()
        ),
    }
}

#[tokio::test]
async fn a_start_keeps_its_turn_however_long_it_verifies() {
    tokio::join!(start_that_rebuilds(false), start_that_rebuilds(true));
}

/// What entries of the log say that was mended.
async fn repairs(rig: &Rig) -> Vec<String> {
    let leaves = rig.store().leaves(0, u64::MAX).await.unwrap().of_a_test();
    let texts = leaves
        .iter()
        .map(|(_, leaf)| String::from_utf8_lossy(leaf).into_owned());
    texts
        .filter(|text| text.contains("which the database had lost"))
        .collect()
}

#[tokio::test]
async fn what_was_written_again_is_in_the_log_and_never_too_much_for_an_entry() {
    let [one, mut other] = two().await;
    other.crash().await;
    charges(&one, 1).await;
    assert!(repairs(&one).await.is_empty());
    let older = one.tables().await;
    charges(&one, 1).await;
    // Somebody shows the older state again and again, and nobody writes meanwhile.
    for _ in 0..20 {
        one.put(&older, &tables::ALL).await;
        one.ledger().reader.freshness().doubt();
        let read = one.ledger().load(&app(), one.accounts[0]).await;
        assert_eq!(read.unwrap().unwrap().account.session_epoch, 2);
    }
    assert_eq!(charge(&one).await, 3);
    let told = repairs(&one).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].matches("had lost").count(), 16, "{told:?}");
    // It is told once.
    charge(&one).await;
    assert_eq!(repairs(&one).await, told);
    ends_with([one, other], 4).await;
}

/// What can not be written again is not told of as if it was.
#[tokio::test]
async fn a_node_that_can_not_repair_says_nothing_of_it_in_the_log() {
    let [one, other] = two().await;
    charges(&one, 1).await;
    let older = other.tables().await;
    charges(&one, 1).await;
    charge(&other).await;
    one.put(&older, &tables::ALL).await;
    // The next one is the first node's: the second can do nothing before that.
    other.ledger().reader.freshness().doubt();
    let read = other.ledger().load(&app(), other.accounts[0]).await;
    assert!(matches!(read, Err(LedgerError::Unconfirmed)), "{read:?}");
    let (some, others) = tokio::join!(charge(&one), charge(&other));
    assert_eq!(some.min(others), 4);
    assert_eq!(some.max(others), 5);
    assert!(!repairs(&one).await.is_empty());
    ends_with([one, other], 5).await;
}
