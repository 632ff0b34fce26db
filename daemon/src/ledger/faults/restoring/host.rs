//! Under bounded anchoring: what the host remembers, and the token does not know yet.

use std::sync::Arc;

use super::{accept, approvals, propose, store, three_guesses};
use crate::ledger::faults::broken::Script;
use crate::ledger::faults::rig::{Rig, realm_name};
use crate::ledger::faults::tables::ALL;
use crate::ledger::verify::{Progress, standing, verify};

/// An operator is told what a start is told, and the way on is one that approvers sign: not to start the host anew, after
/// which nobody knows of those batches. That is the control.
#[tokio::test]
async fn what_the_host_alone_remembers_is_not_given_up_without_approvals() {
    for started_anew in [false, true] {
        let mut rig = Rig::new().await;
        rig.bounded = true;
        rig.restart().await;
        let [a, b] = rig.accounts;
        // The first charge is told to the token, with the flag; one of each account after it is not.
        rig.charge_only(a).await.unwrap();
        let old = rig.tables().await;
        rig.charge_only(a).await.unwrap();
        rig.charge_only(b).await.unwrap();
        rig.crash().await;
        rig.put(&old, &ALL).await;
        if started_anew {
            rig.lose_power();
        }
        let store = store(&rig).await;
        let realm = realm_name();
        let of = (&realm, rig.mode());
        let progress = Arc::new(Progress::default());
        let report = verify(&store, rig.pool(), of, None, &progress).await;
        let refused = report.unwrap().refused;
        let standing = standing(&store, rig.pool(), &realm, rig.mode()).await;
        store.close().await;
        drop(store);
        assert_eq!(refused.is_none(), started_anew, "{refused:?}");
        assert_eq!(standing.relation.is_ok(), started_anew, "{standing:?}");
        let remembered = standing.host.unwrap();
        assert_eq!(remembered.is_none(), started_anew);
        let proposed = propose(&rig, &three_guesses()).await;
        if started_anew {
            let said = proposed.unwrap_err().to_string();
            assert!(said.contains("nothing to restore"), "{said}");
            rig.try_serve(Script::default()).await.unwrap();
            continue;
        }
        let said = rig.try_serve(Script::default()).await.unwrap_err();
        assert!(
            said.to_string().contains("this host has anchored"),
            "{said}"
        );
        let made = proposed.unwrap();
        assert_eq!(made.lost_batches, Some(2));
        let batch = made.host_remembers.as_ref().map(|known| known.batch);
        assert_eq!(batch, remembered.map(|anchor| anchor.seq));
        let text = made.encode().unwrap();
        // Whoever leaves out what the host remembers has approvers sign less than is lost.
        let mut less = made.clone();
        less.host_remembers = None;
        less.lost_batches = None;
        let less = less.encode().unwrap();
        let said = accept(&rig, &less, &approvals(&less)).await.unwrap_err();
        assert!(said.to_string().contains("this host remembers"), "{said}");
        // Started anew between the two: what was signed counts.
        rig.lose_power();
        accept(&rig, &text, &approvals(&text)).await.unwrap();
        rig.try_serve(Script::default()).await.unwrap();
    }
}
