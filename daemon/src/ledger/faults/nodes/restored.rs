//! Nodes after a restore: of a token that held two anchors of one number, and of one that makes an older anchor late.

use std::sync::Arc;

use custodyd_policies::Timestamp;

use super::super::broken::Script;
use super::super::rig::{Rig, realm_name};
use super::anchors::orphan;
use super::{LATER, anchored, charge, charges, ends_with, two};
use crate::ledger::LedgerError;
use crate::ledger::restore::testing::{approve, approvers};
use crate::ledger::restore::{Ceremony, NAMESPACE, Statement, Wishes};
use crate::store::Store;

const NOW: Timestamp = Timestamp(4_000_000_000);

/// The whole ceremony, over what is in place.
async fn restored(rig: &Rig) -> Statement {
    let store: Arc<dyn Store> = Arc::from(rig.place.alone().open().await.unwrap());
    let (realm, approvers) = (realm_name(), approvers(&[1], 1));
    let ceremony = Ceremony {
        store: &store,
        pool: rig.pool(),
        realm: &realm,
        approvers: &approvers,
        mode: rig.mode(),
    };
    let made = ceremony.propose(&Wishes::default(), NOW).await.unwrap();
    let text = made.encode().unwrap();
    let approval = approve(1, NAMESPACE, &text);
    ceremony.accept(&text, &[approval], NOW).await.unwrap();
    store.close().await;
    made
}

/// Two nodes have ended over two anchors of one number, and no start is left.
async fn contradicted() -> [Rig; 2] {
    let [mut one, mut other] = two().await;
    charges(&one, 1).await;
    orphan(&mut one, &other).await;
    other.crash().await;
    one.sluggish.comes_to_it(&one.anchors);
    let [first, second] = anchored(&one).try_into().unwrap();
    assert_eq!((first.seq, first.serial), (second.seq, second.serial));
    let started = one.try_serve(Script::default()).await;
    assert!(
        matches!(started, Err(LedgerError::Tampered(_))),
        "{started:?}"
    );
    [one, other]
}

#[tokio::test]
async fn nodes_go_on_after_approvers_have_decided_between_two_anchors() {
    let [mut one, mut other] = contradicted().await;
    let made = restored(&one).await;
    assert_eq!(made.token_holds.len(), 2);
    assert_eq!(anchored(&one).len(), 1);
    one.try_serve(Script::default()).await.unwrap();
    other.try_serve(Script::default()).await.unwrap();
    assert_eq!(charge(&one).await, 3);
    assert_eq!(charge(&other).await, 4);
    ends_with([one, other], 4).await;
}

/// What was given up may be made yet, by a token that was asked for it before.
#[tokio::test]
async fn an_anchor_of_before_a_restore_stops_neither_a_node_nor_a_start() {
    for keeps in [false, true] {
        let [mut one, mut other] = contradicted().await;
        let before = one.anchors.contents();
        restored(&one).await;
        for node in [&mut one, &mut other] {
            node.weakness.keeps_orphans = keeps;
        }
        one.try_serve(Script::default()).await.unwrap();
        assert_eq!(charge(&one).await, 3);
        one.anchors.add(&before[0]);
        tokio::time::sleep(LATER).await;
        let told = one.charge_only(one.accounts[0]).await;
        if keeps {
            // The control meets evidence, and so does every start.
            assert!(told.is_err(), "{told:?}");
            let started = other.try_serve(Script::default()).await;
            assert!(
                matches!(started, Err(LedgerError::Tampered(_))),
                "{started:?}"
            );
            one.crash().await;
            continue;
        }
        assert_eq!(told.unwrap(), 4);
        assert_eq!(anchored(&one).len(), 1, "{:?}", anchored(&one));
        one.anchors.add(&before[1]);
        other.try_serve(Script::default()).await.unwrap();
        assert_eq!(anchored(&one).len(), 1, "{:?}", anchored(&one));
        assert_eq!(charge(&other).await, 5);
        ends_with([one, other], 5).await;
    }
}
