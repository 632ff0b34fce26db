//! Reads at a node beside which another one writes: what they cost the token, and that they wait for nobody's turn.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::broken::Script;
use super::super::rig::{Rig, charge as deciding};
use super::anchors::loaded;
use super::{LATER, charge, ends_with, two};
use crate::ledger::LedgerError;

/// Lists of its anchors that the token was asked for by this node.
fn lists(rig: &Rig) -> u64 {
    rig.sluggish.asked.load(Ordering::SeqCst)
}

/// So many readers at once, each of whom was somewhere else a moment ago. Says whether they see what was written there.
async fn readers(node: &Rig, many: usize) -> bool {
    let believed = || node.ledger().reader.memory().head().state.seq;
    let before = believed();
    let asked = (0..many).map(|_| node.ledger().reader.follows_others());
    let told = join_all(asked).await;
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    believed() > before
}

#[tokio::test]
async fn fifty_readers_at_once_cost_the_token_what_one_does() {
    let [one, other] = two().await;
    let mut cost = Vec::new();
    let mut charged = 0;
    for many in [1, 50] {
        let before = lists(&one);
        for _ in 0..6 {
            charged = charge(&other).await;
            assert!(readers(&one, many).await);
            assert_eq!(one.durable(one.accounts[0]).await, charged);
        }
        cost.push(lists(&one) - before);
    }
    // One more look for who came while the first one's was under way.
    assert!(cost[0] > 0 && cost[1] <= 2 * cost[0], "{cost:?}");
    // Control: where nothing was written, nobody asks.
    let before = lists(&one);
    assert!(!readers(&one, 50).await);
    assert_eq!(lists(&one), before);
    ends_with([one, other], charged).await;
}

#[tokio::test]
async fn who_asks_at_once_shares_a_look_at_the_database() {
    let [one, other] = two().await;
    let looks = async |many: usize, at_once: bool| {
        let before = one.ledger().reader.looks_begun();
        match at_once {
            true => drop(readers(&one, many).await),
            false => {
                for _ in 0..many {
                    readers(&one, 1).await;
                }
            }
        }
        one.ledger().reader.looks_begun() - before
    };
    let shared = looks(50, true).await;
    // Not all are polled before the first one's answer is here.
    assert!((1..=10).contains(&shared), "{shared}");
    // Control: an answer of before the question is none.
    assert_eq!(looks(50, false).await, 50);
    ends_with([one, other], 0).await;
}

/// Another node keeps its turn, and changes come all the while, each of which waits for one: readers are told all the same.
#[tokio::test]
async fn who_reads_does_not_wait_for_those_who_get_no_turn() {
    for writers_first in [false, true] {
        let [mut one, other] = two().await;
        one.crash().await;
        one.weakness.writers_first = writers_first;
        one.try_serve(Script::default()).await.unwrap();
        charge(&one).await;
        let base = loaded(&one).await;
        other.store().take_turn().await.unwrap();
        let ledger = one.ledger().clone();
        let writers = tokio::spawn(async move {
            loop {
                let (ledger, base) = (ledger.clone(), base.clone());
                tokio::spawn(async move { ledger.commit(base, deciding).await.map(drop) });
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        // The committer waits for a turn by now, and the token's word of before is too old.
        tokio::time::sleep(LATER).await;
        let read = one.ledger().reader.freshness().confirmed().await;
        writers.abort();
        match writers_first {
            false => read.unwrap(),
            true => assert!(matches!(read, Err(LedgerError::Unconfirmed)), "{read:?}"),
        }
        other.store().end_turn().await;
        // What waited has been refused, or is written now.
        let charged = charge(&one).await;
        ends_with([one, other], charged).await;
    }
}
