//! A client that comes from another node, where it was told of something: what it is shown here is no older, whatever has become
//! of the connections and of this node's own batch meanwhile.

use std::time::Duration;

use super::super::broken::{Commit, During, Meanwhile, Script};
use super::super::rig::{Rig, app};
use super::turns::{charges_by, hangs_up, weak};
use super::{charge, ends_with, two};
use crate::ledger::LedgerError;
use crate::ledger::weakness::Weakness;

/// The first of two nodes keeps what it has committed in memory.
async fn remembering(off: impl FnOnce(&mut Weakness)) -> [Rig; 2] {
    let [mut one, other] = weak(off).await;
    one.crash().await;
    one.cache = 1 << 20;
    one.try_serve(Script::default()).await.unwrap();
    [one, other]
}

/// The token has said it a moment ago, however slow this host is.
fn was_told(node: &Rig) {
    let fresh = node.ledger().reader.freshness();
    fresh.confirm(fresh.now());
}

#[tokio::test]
async fn a_server_that_hangs_up_hides_nothing_that_was_told_elsewhere() {
    for unseen in [false, true] {
        let [one, other] = remembering(|weakness| weakness.unseen = unseen).await;
        let [a, _] = one.accounts;
        assert_eq!(charge(&one).await, 1);
        one.durable(a).await;
        assert_eq!(charge(&other).await, 2);
        hangs_up(&one.place, "true");
        was_told(&one);
        // The control goes by what the token has said before. Else the row is read, at the next try: by then there is
        // a connection.
        let shown = loop {
            match one.ledger().load(&app(), a).await {
                Err(LedgerError::Store(_) | LedgerError::Unconfirmed) => {}
                read => break read.unwrap().unwrap().account.session_epoch,
            }
        };
        assert_eq!(shown, if unseen { 1 } else { 2 });
        ends_with([one, other], 2).await;
    }
}

/// This node's batch does not get through, and another node writes the one of its number.
#[tokio::test]
async fn a_batch_that_waits_hides_no_other_of_its_number() {
    const OFTEN: usize = 16;
    for any_pending in [false, true] {
        let [one, other] = remembering(|weakness| weakness.any_pending = any_pending).await;
        let [a, b] = one.accounts;
        assert_eq!(charge(&one).await, 1);
        one.durable(a).await;
        one.script(Script::new(&[Commit::Lost; OFTEN], &[], &[]));
        let (answer, shown) = tokio::join!(one.charge_only(b), async {
            // By now it waits for a second between its tries.
            while one.script_left(|script| script.commits.len()) > 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            hangs_up(&one.place, "state = 'idle in transaction'");
            assert_eq!(charge(&other).await, 2);
            was_told(&one);
            one.durable(a).await
        });
        assert!(matches!(answer, Err(LedgerError::Overtaken)), "{answer:?}");
        assert_eq!(shown, if any_pending { 1 } else { 2 });
        ends_with([one, other], 2).await;
    }
}

/// Whoever reads may wait for what becomes of this node's batch: from now on it is answered for.
async fn while_it_goes_on<T>(one: &Rig, read: impl Future<Output = T>) -> T {
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        one.script(Script::default());
    };
    tokio::join!(read, goes_on).0
}

/// The batch is there, its own node does not know, and another one has told somebody of it.
#[tokio::test]
async fn what_an_own_batch_replaces_is_not_shown_once_others_may_know_it() {
    for shows_replaced in [false, true] {
        let [one, other] = remembering(|weakness| weakness.shows_replaced = shows_replaced).await;
        let [a, _] = one.accounts;
        assert_eq!(charge(&one).await, 1);
        one.durable(a).await;
        let mut script = Script::new(&[Commit::AnswerLost], &[], &[]);
        // As many as it takes, however slow the host is.
        script.acknowledgements = [false; 1000].into();
        one.script(script);
        let (answer, shown) = tokio::join!(one.charge_only(a), async {
            while one.script_left(|script| script.acknowledgements.len()) > 996 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(other.durable(a).await, 2);
            was_told(&one);
            let read = one.durable(a);
            if shows_replaced {
                // The control does not wait for what becomes of it.
                let shown = read.await;
                one.script(Script::default());
                return shown;
            }
            while_it_goes_on(&one, read).await
        });
        assert_eq!(answer.unwrap(), 2);
        assert_eq!(shown, if shows_replaced { 1 } else { 2 });
        ends_with([one, other], 2).await;
    }
}

/// Others write each time that a node has found its batch beneath theirs.
#[tokio::test]
async fn a_batch_that_others_have_built_on_is_acknowledged_however_fast_they_write() {
    for out_of_turn in [false, true] {
        let [one, other] = weak(|weakness| weakness.out_of_turn = out_of_turn).await;
        let (ledger, id) = (other.ledger().clone(), other.accounts[0]);
        one.script(Script::new(&[Commit::AnswerLost], &[false; 17], &[]));
        one.meanwhile(Meanwhile {
            during: During::Acknowledging,
            left: 5,
            what: Box::new(move || {
                let ledger = ledger.clone();
                Box::pin(async move {
                    let charges = charges_by(&ledger, id);
                    let _ = tokio::time::timeout(Duration::from_millis(500), charges).await;
                })
            }),
        });
        let (answer, ()) = tokio::join!(one.charge_only(one.accounts[0]), async {
            // It is durable, and its node can not see that.
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(charge(&other).await, 2);
        });
        match out_of_turn {
            false => assert_eq!(answer.unwrap(), 1),
            // The control does not find out what became of it.
            true => assert!(matches!(answer, Err(LedgerError::Late(_))), "{answer:?}"),
        }
        let told = charge(&other).await;
        assert!(charge(&one).await > told);
        let charged = other.durable(other.accounts[0]).await;
        ends_with([one, other], charged).await;
    }
}

/// This node does not know that its batch stands, and another one has signed what has it.
#[tokio::test]
async fn the_log_is_no_shorter_at_the_node_whose_batch_waits() {
    let [one, other] = two().await;
    let before = one.ledger().checkpoint().await.unwrap().size();
    let mut script = Script::new(&[Commit::AnswerLost], &[], &[]);
    script.acknowledgements = [false; 1000].into();
    one.script(script);
    let (answer, ()) = tokio::join!(one.charge_only(one.accounts[0]), async {
        while one.script_left(|script| script.acknowledgements.len()) > 996 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let seen = other.ledger().checkpoint().await.unwrap();
        // Control: what this one believes is shorter, and was signed.
        assert_eq!(one.ledger().reader.memory().head().size, before);
        assert!(before < seen.size());
        let shown = while_it_goes_on(&one, one.ledger().checkpoint()).await;
        assert_eq!(shown.unwrap().size(), seen.size());
    });
    assert_eq!(answer.unwrap(), 1);
    ends_with([one, other], 1).await;
}

#[tokio::test]
async fn the_log_that_auditors_read_is_no_shorter_at_the_next_node() {
    let [one, other] = two().await;
    for _ in 0..3 {
        let before = one.ledger().checkpoint().await.unwrap();
        charge(&other).await;
        let seen = other.ledger().checkpoint().await.unwrap();
        // Control: this one has heard of nothing yet.
        assert_eq!(one.ledger().reader.memory().head().size, before.size());
        assert!(before.size() < seen.size());
        let width = usize::try_from(seen.size()).unwrap();
        let tile = one.ledger().tile(0, 0, width).await.unwrap();
        assert_eq!(tile.map(|tile| tile.len()), Some(32 * width));
        charge(&other).await;
        let seen = other.ledger().checkpoint().await.unwrap();
        assert_eq!(one.ledger().checkpoint().await.unwrap().size(), seen.size());
    }
    ends_with([one, other], 6).await;
}
