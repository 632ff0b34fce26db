//! A batch that waits for its anchor while the database is replaced by one that lacks it, or a key by another.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use custodyd_hsm::{KeyId, KeyPurpose};

use super::super::broken::{Anchor, Script};
use super::super::rig::{Rig, charge as deciding};
use super::super::tables::{self, Tables};
use super::anchors::loaded;
use super::turns::weak;
use super::{anchored, charge, charges, ends_with, stops, two};
use crate::ledger::LedgerError;

/// A batch of this node's is durable, and the token is away.
async fn waits(node: &Rig) {
    node.anchoring(&[Anchor::Lost; 1000]);
    let refused = node.charge_only(node.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Token(_))), "{refused:?}");
}

/// The first of two nodes has such a batch, after one of each; and what the database held before.
async fn one_waits(blindly: bool) -> ([Rig; 2], Tables) {
    let [one, other] = weak(|weakness| weakness.tries_blindly = blindly).await;
    charges(&other, 1).await;
    charges(&one, 1).await;
    let before = one.tables().await;
    waits(&one).await;
    ([one, other], before)
}

/// Both are asked again and again, until each has charged once more; or nothing comes of it.
async fn both_go_on(nodes: [&Rig; 2]) -> bool {
    let begun = Instant::now();
    let mut waiting = nodes.to_vec();
    while begun.elapsed() < Duration::from_secs(40) {
        let mut left = Vec::new();
        for node in waiting {
            if node.charge_only(node.accounts[0]).await.is_err() {
                left.push(node);
            }
        }
        if left.is_empty() {
            return true;
        }
        waiting = left;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// Another node has built on it, and was told so; and a standby is promoted that lacks both. Each has one of the two.
#[tokio::test]
async fn a_batch_that_waits_is_written_again_for_who_has_built_on_it() {
    for blindly in [false, true] {
        let ([one, other], before) = one_waits(blindly).await;
        assert_eq!(charge(&other).await, 4);
        one.put(&before, &tables::ALL).await;
        one.anchoring(&[]);
        // The control never writes it: nobody else has it.
        assert_eq!(both_go_on([&one, &other]).await, !blindly);
        if !blindly {
            ends_with([one, other], 6).await;
        }
    }
}

/// Another node writes its number anew, and is about to anchor that.
#[tokio::test]
async fn a_batch_that_waits_is_not_anchored_once_another_of_its_number_is_there() {
    for blindly in [false, true] {
        let ([one, other], before) = one_waits(blindly).await;
        one.put(&before, &tables::ALL).await;
        let made = other.sluggish.made.load(Ordering::SeqCst);
        other.sluggish.makes.store(4000, Ordering::SeqCst);
        let (told, ()) = tokio::join!(other.charge_only(other.accounts[0]), async {
            while other.sluggish.made.load(Ordering::SeqCst) == made {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            one.anchoring(&[]);
            // The control anchors a batch that is nowhere.
            let ends = match blindly {
                true => {
                    let _ = one.charge_only(one.accounts[0]).await;
                    stops(&one).await
                }
                false => charge(&one).await == 0,
            };
            assert_eq!(ends, blindly);
            other.sluggish.makes.store(0, Ordering::SeqCst);
        });
        if !blindly {
            assert_eq!(told.unwrap(), 3);
            assert_eq!(charge(&other).await, 5);
            ends_with([one, other], 5).await;
        }
    }
}

/// What is anchored after it is tagged by a key that this node has not heard of: it ends, as any that finds a newer one.
#[tokio::test]
async fn a_batch_that_waits_does_not_hide_a_newer_mac_key() {
    let [one, mut other] = two().await;
    let key = KeyId::new(KeyPurpose::Mac, 2);
    assert_eq!(charge(&one).await, 1);
    waits(&other).await;
    assert_eq!(charge(&one).await, 3);
    one.make(key).await;
    one.rotate(key).await.unwrap();
    other.anchoring(&[]);
    let told = other.charge_only(other.accounts[0]).await;
    assert!(told.is_err(), "{told:?}");
    assert!(stops(&other).await);
    other.crash().await;
    other.take_up(key).await;
    other.try_serve(Script::default()).await.unwrap();
    assert_eq!(charge(&other).await, 4);
    ends_with([one, other], 4).await;
}

/// A node takes its anchor back, and the answer is lost. The next one of that content is another node's.
#[tokio::test]
async fn no_node_takes_back_more_than_it_has_made() {
    let [one, other] = two().await;
    charges(&other, 1).await;
    charges(&one, 1).await;
    let before = one.tables().await;
    let base = loaded(&one).await;
    let asked = one.sluggish.made.load(Ordering::SeqCst);
    one.sluggish.makes.store(4500, Ordering::SeqCst);
    one.sluggish.twice.store(true, Ordering::SeqCst);
    one.sluggish.taken_back.store(1, Ordering::SeqCst);
    let (answer, ()) = tokio::join!(one.ledger().commit(base, deciding), async {
        while one.sluggish.made.load(Ordering::SeqCst) == asked {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        one.put(&before, &tables::ALL).await;
        assert_eq!(charge(&other).await, 3);
        one.sluggish.makes.store(0, Ordering::SeqCst);
    });
    assert!(matches!(answer, Err(LedgerError::Token(_))), "{answer:?}");
    assert_eq!(anchored(&one).len(), 2, "its own is gone");
    let told = one.charge_only(one.accounts[0]).await;
    assert!(told.is_err(), "{told:?}");
    assert_eq!(anchored(&one).len(), 2, "{:?}", anchored(&one));
}
