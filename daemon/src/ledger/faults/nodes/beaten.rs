//! A number that another node's batch took, and lost again before anybody was told of it: what this node had made under that
//! number is the only batch that it may write there.

use std::time::Duration;

use super::super::broken::{Anchor, Commit, Script};
use super::super::rig::{Rig, charge as deciding};
use super::super::tables::{self, Tables};
use super::anchors::loaded;
use super::turns::hangs_up;
use super::{charge, ends_with, two};
use crate::ledger::LedgerError;

/// How often a script must let it fail that nobody counts.
const OFTEN: usize = 5000;

/// One node's charge of which the server took nothing, and the other's, which has that number then. Returns the database of
/// before both, and after them; and the other node has ended.
async fn beats(one: &Rig, other: &mut Rig, told: bool) -> (Tables, Tables) {
    let before = one.tables().await;
    if !told && other.anchoring_left() == 0 {
        other.anchoring(&[Anchor::Lost; 100]);
    }
    let base = loaded(one).await;
    one.script(Script::new(&[Commit::Lost; OFTEN], &[false; OFTEN], &[]));
    let (answer, ()) = tokio::join!(one.ledger().commit(base, deciding), async {
        // It has made its head, and has tried.
        while one.script_left(|script| script.commits.len()) == OFTEN {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Its connection is lost, and its turn with it.
        hangs_up(&one.place, "state = 'idle in transaction'");
        match other.charge_only(other.accounts[0]).await {
            Ok(number) => assert!(told && number == 3),
            Err(LedgerError::Token(_)) => assert!(!told),
            Err(error) => panic!("{error:?}"),
        }
        // It anchors nothing any more, and writes nothing again.
        other.crash().await;
        other.anchoring(&[]);
        one.script(Script::default());
    });
    assert!(matches!(answer, Err(LedgerError::Overtaken)), "{answer:?}");
    (before, one.tables().await)
}

/// The token makes the other one's anchor late, while this node has its own batch of that number in the database, and not
/// in the token: nobody was told of either, and this one goes on once the other has given way.
#[tokio::test]
async fn a_rival_of_the_same_number_is_waited_for_and_stops_nobody() {
    let [mut one, mut other] = two().await;
    assert_eq!(charge(&one).await, 1);
    assert_eq!(charge(&other).await, 2);
    other.anchoring(&[Anchor::Late; 100]);
    let (before, _) = beats(&one, &mut other, false).await;
    one.put(&before, &tables::ALL).await;
    one.anchoring(&[Anchor::Lost; 100]);
    let refused = one.charge_only(one.accounts[0]).await;
    assert!(matches!(refused, Err(LedgerError::Token(_))), "{refused:?}");
    let anchors = one.anchors.contents();
    other.sluggish.comes_to_it(&other.anchors);
    assert!(one.anchors.contents().len() > anchors.len());
    one.anchoring(&[]);
    let waits = |told: Result<(), LedgerError>| match told {
        Err(LedgerError::Refused(why)) => why.contains("until that node gives way"),
        // It has been asked for too long already.
        Err(LedgerError::Unconfirmed) => false,
        told => panic!("{told:?}"),
    };
    loop {
        one.ledger().reader.freshness().doubt();
        if waits(one.ledger().is_newest().await) {
            break;
        }
    }
    assert!(!one.has_stopped().await);
    // As its node does, once it sees that the database has gone on without it.
    one.anchors.put_back(&anchors);
    assert_eq!(charge(&one).await, 4);
    one.crash().await;
    ends_with([one, other], 4).await;
}

/// The log's entries.
async fn log(rig: &Rig) -> Vec<Vec<u8>> {
    let leaves = rig.store().leaves(0, u64::MAX).await.unwrap().of_a_test();
    leaves.into_iter().map(|(_, leaf)| leaf).collect()
}

#[tokio::test]
async fn a_number_that_another_node_has_had_and_lost_is_of_the_batch_that_was_made_for_it() {
    for (told, cache) in [(false, 0), (false, 1 << 20), (true, 1 << 20)] {
        let [mut one, mut other] = two().await;
        one.crash().await;
        one.cache = cache;
        one.try_serve(Script::default()).await.unwrap();
        assert_eq!(charge(&one).await, 1);
        // It has nothing to catch up with.
        assert_eq!(charge(&other).await, 2);
        let (before, newest) = beats(&one, &mut other, told).await;
        one.put(&before, &tables::ALL).await;
        if told {
            // Control: what the token remembers, nothing is put in the place of.
            let refused = one.charge_only(one.accounts[0]).await;
            assert!(
                matches!(
                    refused,
                    Err(LedgerError::Unconfirmed | LedgerError::Refused(_))
                ),
                "{refused:?}"
            );
            one.put(&newest, &tables::ALL).await;
        }
        // One that was charged by its batch, or by the other's, and this one.
        assert_eq!(charge(&one).await, 4);
        let repaired = log(&one).await.into_iter().any(|leaf| {
            String::from_utf8_lossy(&leaf)
                .contains("which the database had lost before it was told of")
        });
        assert_eq!(repaired, !told);
        ends_with([one, other], 4).await;
    }
}
