//! Outcomes of what was charged, where what they are about can not be read: a charge without its outcome counts as a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::broken::Script;
use super::rig::{Rig, app, charge};
use crate::account::Account;
use crate::ledger::{Journal, LedgerError, Loaded, Moment};

async fn loaded(rig: &Rig) -> Loaded {
    let loaded = rig.ledger().load(&app(), rig.accounts[0]).await;
    loaded.unwrap().unwrap()
}

#[tokio::test]
async fn an_outcome_waits_until_what_it_is_about_can_be_read() {
    // The member list; and the account, upon which somebody else's change came first.
    for reads in [&[false][..], &[true, false]] {
        let rig = Rig::new().await;
        let (charged, wanted) = (loaded(&rig).await, loaded(&rig).await);
        assert_eq!(rig.charge_only(rig.accounts[0]).await.unwrap(), 1);
        // Control: anything else is refused, before it cost anybody anything.
        rig.script(Script::new(&[], &[], reads));
        let refused = rig.ledger().commit(wanted, charge).await;
        assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
        rig.script(Script::new(&[], &[], reads));
        let decisions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&decisions);
        let outcome = move |account: &mut Account, moment: Moment, journal: &mut Journal| {
            counted.fetch_add(1, Ordering::SeqCst);
            charge(account, moment, journal)
        };
        let told = rig.ledger().record_outcome(charged, outcome).await;
        assert_eq!(told.unwrap().0, 2);
        assert_eq!(decisions.load(Ordering::SeqCst), 1);
        assert_eq!(rig.script_left(|script| script.reads.len()), 0);
        assert_eq!(rig.durable(rig.accounts[0]).await, 2);
    }
}

/// Whoever asked is told within the time that a request has, and nothing was done then.
#[tokio::test]
async fn an_outcome_that_can_not_be_read_for_long_is_refused() {
    let rig = Rig::new().await;
    let charged = loaded(&rig).await;
    rig.script(Script::new(&[], &[], &[false; 1000]));
    let begun = Instant::now();
    let refused = rig.ledger().record_outcome(charged, charge).await;
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    rig.script(Script::default());
    assert_eq!(rig.durable(rig.accounts[0]).await, 0);
}
