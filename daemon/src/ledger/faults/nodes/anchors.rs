//! Anchors that come late or too fast: whose they are is found out, and nobody waits for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::broken::{Anchor, Script};
use super::super::rig::{Rig, app, charge as deciding};
use super::super::tables;
use super::{LATER, anchored, charge, charges, ends_with, two};
use crate::ledger::{LedgerError, Loaded};

pub(in crate::ledger::faults) async fn loaded(node: &Rig) -> Loaded {
    let loaded = node.ledger().load(&app(), node.accounts[0]).await;
    loaded.unwrap().unwrap()
}

/// Until it has looked for clearly longer, and at more lists, than a node does that takes a turn then.
async fn looks_on(one: &Rig) {
    let begun = tokio::time::Instant::now();
    while one.sluggish.listed.load(Ordering::SeqCst) < 10 || begun.elapsed() < 2 * LATER {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A token that is slow for one node, while another one writes without a pause.
#[tokio::test]
async fn who_is_slow_is_answered_while_others_write() {
    for endless in [false, true] {
        let [mut one, other] = two().await;
        one.crash().await;
        one.weakness.endless = endless;
        one.try_serve(Script::default()).await.unwrap();
        let base = loaded(&one).await;
        // The control's lists all wait for the other node, however slow the host is, within what a call may take: a list
        // that found nothing new would be its last.
        let slow = if endless { 4500 } else { 1500 };
        one.sluggish.lists.store(slow, Ordering::SeqCst);
        let over = AtomicBool::new(false);
        let mut others = 0;
        let (answer, ()) = tokio::join!(
            async {
                let asked = one.ledger().commit(base, deciding);
                let answer = tokio::select! {
                    answer = asked => Some(answer),
                    () = looks_on(&one), if endless => None,
                };
                over.store(true, Ordering::SeqCst);
                answer
            },
            async {
                while !over.load(Ordering::SeqCst) {
                    charge(&other).await;
                    others += 1;
                }
            }
        );
        one.sluggish.lists.store(0, Ordering::SeqCst);
        match endless {
            false => drop(answer.unwrap().unwrap()),
            // The control still looks.
            true => assert!(answer.is_none(), "{answer:?}"),
        }
        ends_with([one, other], others + 1).await;
    }
}

/// The token makes an anchor after its node has given up, for a batch that the database has lost.
pub(super) async fn orphan(one: &mut Rig, other: &Rig) {
    let before = one.tables().await;
    one.anchoring(&[Anchor::Late; 100]);
    let refused = one.charge_only(one.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Token(_))), "{refused:?}");
    one.crash().await;
    one.anchoring(&[]);
    one.put(&before, &tables::ALL).await;
    // Another batch of the same number is told of.
    charge(other).await;
}

#[tokio::test]
async fn an_anchor_of_a_batch_that_went_nowhere_stops_nobody() {
    for (keeps, further) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
        let [mut one, mut other] = two().await;
        other.crash().await;
        other.weakness.keeps_orphans = keeps;
        other.try_serve(Script::default()).await.unwrap();
        charges(&one, 1).await;
        orphan(&mut one, &other).await;
        charges(&other, further).await;
        one.sluggish.comes_to_it(&one.anchors);
        assert_eq!(anchored(&other).len(), 2);
        tokio::time::sleep(LATER).await;
        let told = other.charge_only(other.accounts[0]).await;
        if keeps {
            // The control meets evidence, and no start is left.
            assert!(told.is_err(), "{told:?}");
            other.crash().await;
            one.weakness.keeps_orphans = true;
            let started = one.try_serve(Script::default()).await;
            assert!(
                matches!(started, Err(LedgerError::Tampered(_))),
                "{started:?}"
            );
            continue;
        }
        assert_eq!(told.unwrap(), 3 + further);
        assert_eq!(anchored(&other).len(), 1, "{:?}", anchored(&other));
        one.try_serve(Script::default()).await.unwrap();
        assert_eq!(charge(&one).await, 4 + further);
        ends_with([one, other], 4 + further).await;
    }
}

/// As long as the log goes on, whoever starts finds it to be one; of two that are of one number nobody knows.
#[tokio::test]
async fn a_start_clears_away_what_its_log_disproves_and_nothing_else() {
    for further in [0, 1] {
        let [mut one, mut other] = two().await;
        orphan(&mut one, &other).await;
        charges(&other, further).await;
        other.crash().await;
        one.sluggish.comes_to_it(&one.anchors);
        let before = one.anchors.contents();
        let started = one.try_serve(Script::default()).await;
        match further {
            0 => {
                assert!(
                    matches!(started, Err(LedgerError::Tampered(_))),
                    "{started:?}"
                );
                assert_eq!(one.anchors.contents(), before);
            }
            _ => {
                started.unwrap();
                assert_eq!(one.durable(one.accounts[0]).await, 2);
                ends_with([one, other], 2).await;
            }
        }
    }
}

/// Whether a node has said so.
pub(super) fn is_rolled_back<T>(told: &Result<T, LedgerError>) -> bool {
    matches!(told, Err(LedgerError::Refused(why)) if why.contains("rolled back"))
}

/// The newest anchors are no orphans to a node that is shown a database of before.
#[tokio::test]
async fn a_rolled_back_database_is_not_written_upon() {
    for unasked in [false, true] {
        let [mut one, other] = two().await;
        one.crash().await;
        one.weakness.unasked = unasked;
        one.try_serve(Script::default()).await.unwrap();
        charge(&one).await;
        let base = loaded(&one).await;
        let old = one.tables().await;
        let mut other = other;
        charges(&other, 2).await;
        // Whoever could write it again is gone.
        other.crash().await;
        let newest = one.tables().await;
        let anchors = one.anchors.contents();
        one.put(&old, &tables::ALL).await;
        tokio::time::sleep(LATER).await;
        let told = one.ledger().commit(base, deciding).await;
        assert_eq!(one.anchors.contents(), anchors);
        assert!(is_rolled_back(&told), "{told:?}");
        // The control has made a second history, which it tells nobody of.
        assert_eq!(one.tables().await != old, unasked);
        one.put(&newest, &tables::ALL).await;
        assert_eq!(charge(&one).await, 4);
        ends_with([one, other], 4).await;
    }
}

/// A batch that is rolled back between the first list of its anchor and its making: its node takes it back, and what it
/// has made of it.
#[tokio::test]
async fn who_gives_way_takes_its_own_anchor_back() {
    let [one, other] = two().await;
    charges(&other, 1).await;
    charges(&one, 1).await;
    let before = one.tables().await;
    let base = loaded(&one).await;
    let asked = one.sluggish.made.load(Ordering::SeqCst);
    one.sluggish.makes.store(4500, Ordering::SeqCst);
    let (answer, ()) = tokio::join!(one.ledger().commit(base, deciding), async {
        // It is durable, and its node has asked for its anchor.
        while one.sluggish.made.load(Ordering::SeqCst) == asked {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(anchored(&one).len(), 1);
        one.put(&before, &tables::ALL).await;
        assert_eq!(charge(&other).await, 3);
        one.sluggish.makes.store(0, Ordering::SeqCst);
    });
    assert!(matches!(answer, Err(LedgerError::Overtaken)), "{answer:?}");
    assert_eq!(anchored(&one).len(), 1, "{:?}", anchored(&one));
    assert_eq!(charge(&one).await, 4);
    assert_eq!(charge(&other).await, 5);
    ends_with([one, other], 5).await;
}
