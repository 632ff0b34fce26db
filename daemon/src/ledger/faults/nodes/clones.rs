//! A node whose token has the keys of the others' and is another one: a clone, or a copy of its files. Its word says that
//! nothing newer stands, whatever other nodes have anchored elsewhere.

use custodyd_hsm::software::SoftAnchors;

use super::super::broken::{Anchor, Script};
use super::super::rig::{Rig, app, charge as deciding};
use super::anchors::loaded;
use super::{LATER, charge, charges, ends_with, two};
use crate::ledger::LedgerError;

fn cloned(rig: &Rig) -> SoftAnchors {
    let clone = SoftAnchors::default();
    clone.put_back(&rig.anchors.contents());
    clone
}

fn is_named(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Refused(why) if why.contains("another token than the one"))
}

/// It starts on the nodes' database, and is then shown a copy of that: each guess is charged at one of the two.
#[tokio::test]
async fn a_clone_of_the_token_wins_no_guess_at_a_start() {
    for any_lag in [false, true] {
        let [mut one, mut other] = two().await;
        let clone = cloned(&one);
        charges(&one, 3).await;
        let mut third = one.beside(clone.clone(), one.place.clone());
        third.weakness.any_lag = any_lag;
        let before = clone.contents();
        let started = third.try_serve(Script::default()).await;
        match any_lag {
            false => {
                assert!(is_named(&started.unwrap_err()));
                assert_eq!(clone.contents(), before);
                // Nobody else is stopped by it.
                assert_eq!(charge(&other).await, 4);
                ends_with([one, other], 4).await;
            }
            true => {
                started.unwrap();
                for node in [&mut one, &mut other, &mut third] {
                    node.crash().await;
                }
                let mut led = one.beside(clone, one.place.copied());
                led.try_serve(Script::default()).await.unwrap();
                one.try_serve(Script::default()).await.unwrap();
                // One more guess, twice.
                assert_eq!(charge(&one).await, 4);
                assert_eq!(charge(&led).await, 4);
                led.crash().await;
                one.crash().await;
            }
        }
    }
}

/// Two tokens are alike at the moment of the copy. The first two batches that one node makes before the other looks tell
/// them apart.
#[tokio::test]
async fn a_clone_of_the_token_is_noticed_by_a_node_that_serves() {
    for any_lag in [false, true] {
        let [one, other] = two().await;
        let mut third = one.beside(cloned(&one), one.place.clone());
        third.weakness.any_lag = any_lag;
        third.try_serve(Script::default()).await.unwrap();
        let mut noticed = false;
        for _ in 0..10 {
            let base = loaded(&third).await;
            charges(&one, 3).await;
            let told = third.ledger().commit(base, deciding).await;
            noticed = told.as_ref().is_err_and(is_named);
            // A host that is busy may have looked after each batch.
            if noticed {
                break;
            }
            told.unwrap();
        }
        assert_eq!(noticed, !any_lag);
        if noticed {
            tokio::time::sleep(LATER).await;
            let read = third.ledger().load(&app(), third.accounts[0]).await;
            assert!(matches!(read, Err(LedgerError::Unconfirmed)), "{read:?}");
        }
        third.crash().await;
        let charged = charge(&one).await;
        ends_with([one, other], charged).await;
    }
}

/// A batch that is durable while its anchor is not is as far behind as the nodes' own token ever is.
#[tokio::test]
async fn a_crash_between_a_batch_and_its_anchor_is_started_upon() {
    let [mut one, mut other] = two().await;
    charges(&one, 1).await;
    one.anchoring(&[Anchor::Lost; 100]);
    let refused = one.charge_only(one.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Token(_))), "{refused:?}");
    one.crash().await;
    other.crash().await;
    one.anchoring(&[]);
    other.try_serve(Script::default()).await.unwrap();
    assert_eq!(charge(&other).await, 3);
    ends_with([one, other], 3).await;
}
