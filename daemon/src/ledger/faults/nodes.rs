//! Two nodes on one server and one token: what one has told of the other goes on from, and what a database that
//! lies to one of them wins. Each attack has a control, in which the defence that stops it is off.

pub(super) mod anchors;
mod beaten;
mod clones;
mod hopping;
mod pending;
mod reading;
mod restored;
mod starts;
mod turns;
mod versions;

use std::time::Duration;

use custodyd_hsm::anchor::{Anchor as Anchored, unverified};

use super::broken::{Anchor, Commit, Script};
use super::rig::Rig;
use super::tables;
use crate::ledger::LedgerError;

/// What a node has asked the token holds for a second.
const LATER: Duration = Duration::from_millis(1050);

pub(super) async fn two() -> [Rig; 2] {
    let one = Rig::among_nodes().await;
    let mut other = one.beside(one.anchors.clone(), one.place.clone());
    other.try_serve(Script::default()).await.unwrap();
    [one, other]
}

pub(super) fn anchored(rig: &Rig) -> Vec<Anchored> {
    let contents = rig.anchors.contents();
    contents
        .iter()
        .map(|bytes| unverified(bytes).unwrap().1)
        .collect()
}

/// As often as another node was faster, or the batch had to be given up: nothing was done then.
pub(super) async fn charge(rig: &Rig) -> u64 {
    for _ in 0..50 {
        match rig.charge_only(rig.accounts[0]).await {
            Ok(number) => return number,
            Err(
                LedgerError::Overtaken
                | LedgerError::Late(_)
                | LedgerError::Unconfirmed
                | LedgerError::Refused(_)
                | LedgerError::Store(_),
            ) => {}
            Err(error) => panic!("{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not serve");
}

/// Its committer has something to say to the server first.
async fn stops(rig: &Rig) -> bool {
    for _ in 0..1000 {
        if rig.has_stopped().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

async fn charges(rig: &Rig, many: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..many {
        numbers.push(charge(rig).await);
    }
    numbers
}

/// What a start finds, and whether the whole database is what its head says.
async fn ends_with(nodes: [Rig; 2], charged: u64) {
    let [mut one, mut other] = nodes;
    for node in [&mut one, &mut other] {
        if node.is_serving() {
            node.crash().await;
        }
    }
    one.try_serve(Script::default()).await.unwrap();
    assert_eq!(one.durable(one.accounts[0]).await, charged);
    one.crash().await;
    other.try_serve(Script::default()).await.unwrap();
    assert_eq!(other.durable(other.accounts[0]).await, charged);
    other.crash().await;
}

#[tokio::test]
async fn n_charges_at_two_nodes_at_once_are_n() {
    for cache in [0, 1 << 20] {
        let mut nodes = two().await;
        for node in &mut nodes {
            node.crash().await;
            node.cache = cache;
            node.try_serve(Script::default()).await.unwrap();
        }
        let (some, others) = tokio::join!(charges(&nodes[0], 12), charges(&nodes[1], 12));
        let mut numbers = [some, others].concat();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=24).collect::<Vec<_>>());
        assert!(anchored(&nodes[0]).len() <= 3, "{:?}", anchored(&nodes[0]));
        ends_with(nodes, 24).await;
    }
}

#[tokio::test]
async fn what_one_has_changed_the_other_shows_within_a_second() {
    for blind in [false, true] {
        let [one, mut other] = two().await;
        other.crash().await;
        other.cache = 1 << 20;
        other.weakness.no_look = blind;
        other.try_serve(Script::default()).await.unwrap();
        let [a, _] = one.accounts;
        assert_eq!(charge(&other).await, 1);
        assert_eq!(charge(&one).await, 2);
        tokio::time::sleep(LATER).await;
        // The control does not ask, and shows what it has in memory.
        let expected = if blind { 1 } else { 2 };
        assert_eq!(other.durable(a).await, expected);
        ends_with([one, other], 2).await;
    }
}

#[tokio::test]
async fn an_own_batch_is_found_beneath_anothers() {
    for forgets in [false, true] {
        let [mut one, other] = two().await;
        one.crash().await;
        one.weakness.forgets_own = forgets;
        one.try_serve(Script::default()).await.unwrap();
        one.script(Script::new(&[Commit::AnswerLost], &[false; 17], &[]));
        let before = anchored(&one).iter().map(|anchor| anchor.seq).max();
        let (answer, ()) = tokio::join!(one.charge_only(one.accounts[0]), async {
            // It is durable, and its node can not see that.
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(anchored(&one).iter().map(|anchor| anchor.seq).max(), before);
            assert_eq!(charge(&other).await, 2);
        });
        match forgets {
            false => assert_eq!(answer.unwrap(), 1),
            // The control refuses what has happened.
            true => assert!(matches!(answer, Err(LedgerError::Overtaken)), "{answer:?}"),
        }
        ends_with([one, other], 2).await;
    }
}

#[tokio::test]
async fn a_batch_that_was_not_taken_is_given_up_where_another_node_has_written() {
    let [one, other] = two().await;
    one.script(Script::new(&[Commit::Declined; 5], &[], &[]));
    let refused = one.charge_only(one.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    assert_eq!(charge(&other).await, 1);
    assert_eq!(charge(&one).await, 2);
    // Control: where nobody has, it is written after all.
    one.script(Script::new(&[Commit::Declined; 5], &[], &[]));
    let refused = one.charge_only(one.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    assert_eq!(charge(&one).await, 4);
    ends_with([one, other], 4).await;
}

/// A node whose database is a copy of before a guess: what is guessed there is charged nowhere else.
#[tokio::test]
async fn a_node_on_a_copy_evaluates_no_guess() {
    for blind in [false, true] {
        let [mut one, mut other] = two().await;
        one.crash().await;
        other.crash().await;
        let copy = one.place.copied();
        other.try_serve(Script::default()).await.unwrap();
        charges(&other, 3).await;
        let mut forked = one.beside(one.anchors.clone(), copy);
        forked.weakness.any_anchor = blind;
        forked.weakness.any_node = blind;
        forked.weakness.no_look = blind;
        let begun = forked.try_serve(Script::default()).await;
        match blind {
            false => assert!(matches!(begun, Err(LedgerError::Tampered(_))), "{begun:?}"),
            // The control wins them back.
            true => assert_eq!(charge(&forked).await, 1),
        }
        forked.crash().await;
        if !blind {
            ends_with([one, other], 3).await;
        }
    }
}

/// Two nodes serve, and one is shown the database of a while ago from then on.
#[tokio::test]
async fn who_is_shown_an_older_head_reads_and_decides_nothing() {
    for blind in [false, true] {
        let mut one = Rig::among_nodes().await;
        one.crash().await;
        one.weakness.any_node = blind;
        one.weakness.no_look = blind;
        one.try_serve(Script::default()).await.unwrap();
        let old = one.tables().await;
        // The other node's anchors, whose batches this database does not show any more.
        let mut other = one.beside(one.anchors.clone(), one.place.clone());
        other.try_serve(Script::default()).await.unwrap();
        charges(&other, 2).await;
        other.crash().await;
        let newest = one.tables().await;
        one.put(&old, &tables::ALL).await;
        tokio::time::sleep(LATER).await;
        let [a, _] = one.accounts;
        let read = one.ledger().load(&super::rig::app(), a).await;
        let log = one.ledger().checkpoint().await.map(|shown| shown.size());
        match blind {
            false => {
                assert!(matches!(read, Err(LedgerError::Unconfirmed)), "{read:?}");
                // Somebody was shown more of it by the other node.
                assert!(matches!(log, Err(LedgerError::Unconfirmed)), "{log:?}");
                let told = one.charge_only(a).await;
                assert!(
                    matches!(told, Err(LedgerError::Unconfirmed | LedgerError::Stopped)),
                    "{told:?}"
                );
                // With the newest one back it serves, and has forgotten nothing.
                one.put(&newest, &tables::ALL).await;
                assert_eq!(charge(&one).await, 3);
            }
            true => {
                assert_eq!(read.unwrap().unwrap().account.session_epoch, 0);
                assert_eq!(log.unwrap(), one.ledger().reader.memory().head().size);
                assert_eq!(one.charge_only(a).await.unwrap(), 1);
            }
        }
        one.crash().await;
    }
}

/// A batch that is durable and not anchored is rolled back, and another node goes on without it.
#[tokio::test]
async fn a_batch_that_nobody_was_told_of_gives_way_to_one_that_is_anchored() {
    let [one, other] = two().await;
    charges(&other, 1).await;
    charges(&one, 1).await;
    let before = one.tables().await;
    one.anchoring(&[Anchor::Lost; 100]);
    let refused = one.charge_only(one.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Token(_))), "{refused:?}");
    // It is durable: and then it is not.
    one.put(&before, &tables::ALL).await;
    assert_eq!(charge(&other).await, 3);
    one.anchoring(&[]);
    assert_eq!(charge(&one).await, 4);
    assert_eq!(charge(&other).await, 5);
    ends_with([one, other], 5).await;
}

/// An asynchronous standby that lacks the newest batches is promoted.
#[tokio::test]
async fn a_database_that_has_lost_batches_gets_them_back_from_who_wrote_them() {
    let [mut one, other] = two().await;
    charges(&one, 1).await;
    charges(&other, 1).await;
    let older = one.tables().await;
    // By turns, so that neither has all of them.
    charges(&one, 2).await;
    charges(&other, 1).await;
    charges(&one, 1).await;
    one.put(&older, &tables::ALL).await;
    let (a, b) = tokio::join!(charge(&one), charge(&other));
    assert_eq!(a.min(b), 7);
    assert_eq!(a.max(b), 8);
    // Control: who has written nothing of it can not.
    one.crash().await;
    let older = other.tables().await;
    one.try_serve(Script::default()).await.unwrap();
    charges(&one, 2).await;
    one.crash().await;
    one.put(&older, &tables::ALL).await;
    tokio::time::sleep(LATER).await;
    let told = other.charge_only(other.accounts[0]).await;
    assert!(
        matches!(
            told,
            Err(LedgerError::Unconfirmed | LedgerError::Refused(_))
        ),
        "{told:?}"
    );
    let started = one.try_serve(Script::default()).await;
    assert!(
        matches!(started, Err(LedgerError::Tampered(_))),
        "{started:?}"
    );
}
