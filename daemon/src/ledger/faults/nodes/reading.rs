//! What reads cost the token at a node beside which another one writes.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;

use super::super::rig::Rig;
use super::{charge, ends_with, two};

/// Lists of its anchors that the token was asked for by this node.
fn lists(rig: &Rig) -> u64 {
    rig.sluggish.asked.load(Ordering::SeqCst)
}

/// So many readers at once, each of whom was somewhere else a moment ago. Says whether they see what was written there.
async fn readers(node: &Rig, many: usize) -> bool {
    let asked = (0..many).map(|_| node.ledger().overtaken());
    let told = join_all(asked).await;
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    told.iter().any(|told| *told.as_ref().unwrap())
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
