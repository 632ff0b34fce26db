//! Attacks on an account's trail, by who has bodies of it that never counted, or takes one away.

use custodyd_hsm::AccountId;

use super::{Rig, Weakness, app, is_tampered, strong};
use crate::ledger::LedgerError;
use crate::ledger::faults::erasing::{erase, gone_and_covered, load};
use crate::ledger::faults::tables::{BODIES, ENTRIES, Tables};
use crate::store::admin::Cell;

async fn last_entry(rig: &Rig, id: AccountId) -> u64 {
    let loaded = load(rig, id).await.unwrap();
    loaded.account.trail.last_index.unwrap()
}

fn number(value: u64) -> Cell {
    Cell::Number(i64::try_from(value).unwrap())
}

/// Puts the entry `of` these tables, leaf and body, to the place `at`.
async fn put(rig: &Rig, from: &Tables, of: u64, at: u64) {
    let mut admin = rig.admin().await;
    for table in [ENTRIES, BODIES] {
        let mut row = from.row(table, &[number(of)]).unwrap().clone();
        row[0] = number(at);
        admin
            .put(crate::ledger::faults::tables::TABLES[table].name, &row)
            .await;
    }
}

/// Another history of the realm had events of this account with the same numbers, and the administrator has kept them. They
/// open as this account's; that they are not in this log is all that tells. Led along them, an erasure would delete a body of
/// somebody else, and say in the log that it had to go.
#[tokio::test]
async fn events_of_a_history_that_was_given_up_lead_nowhere() {
    for any_event in [false, true] {
        let mut rig = Rig::new().await;
        let [a, b] = rig.accounts;
        let created = last_entry(&rig, a).await;
        rig.stop().await;
        let mut lost = rig.copy().await;
        lost.guess(a).await.unwrap();
        let first = last_entry(&lost, a).await;
        lost.guess(a).await.unwrap();
        let second = last_entry(&lost, a).await;
        let kept = lost.tables().await;
        lost.stop().await;

        let weakness = Weakness {
            any_event,
            ..strong()
        };
        rig.start(weakness).await.unwrap();
        rig.guess(b).await.unwrap();
        assert_eq!(last_entry(&rig, b).await, first);
        rig.guess(a).await.unwrap();
        rig.guess(a).await.unwrap();
        let newest = last_entry(&rig, a).await;
        let honest = rig.tables().await;
        put(&rig, &kept, second, newest).await;
        put(&rig, &kept, first, first).await;

        let loaded = load(&rig, a).await.unwrap();
        let page = rig.ledger().events(&loaded, None, 9).await;
        assert_eq!(page.is_ok(), any_event, "{page:?}");
        assert!(any_event || is_tampered(&page), "{page:?}");
        // The owner gets rid of the account either way.
        erase(&rig, a).await.unwrap();
        assert!(load(&rig, a).await.is_none());
        put(&rig, &honest, newest, newest).await;
        if !any_event {
            put(&rig, &honest, first, first).await;
        }
        let (gone, named) = gone_and_covered(&rig).await;
        assert_eq!(
            (gone.contains(&first), named.contains(&first)),
            (any_event, any_event)
        );
        // What is the account's own goes, also below what is not.
        assert!(any_event || named == [created], "{named:?}");
        let loaded = load(&rig, b).await.unwrap();
        let page = rig.ledger().events(&loaded, None, 9).await;
        assert_eq!(page.is_ok(), !any_event, "{page:?}");
    }
}

/// Whoever takes one body of an account away is noticed, and keeps nobody's envelope and secrets with that.
#[tokio::test]
async fn an_account_whose_trail_is_broken_can_be_erased_all_the_same() {
    let mut rig = Rig::new().await;
    rig.cache = 0;
    rig.start(strong()).await.unwrap();
    let [a, b] = rig.accounts;
    rig.guess(a).await.unwrap();
    let taken = last_entry(&rig, a).await;
    rig.guess(a).await.unwrap();
    rig.guess(b).await.unwrap();
    let newest = last_entry(&rig, a).await;
    let before = load(&rig, a).await.unwrap();
    let mut admin = rig.admin().await;
    admin.delete("log_bodies", ("idx", &number(taken))).await;
    let page = rig.ledger().events(&before, None, 9).await;
    assert!(is_tampered(&page), "{page:?}");
    erase(&rig, a).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            rig.start(strong()).await.unwrap();
        }
        let gone = rig.ledger().load(&app(), a).await.unwrap();
        assert!(gone.is_none());
        let late = rig
            .ledger()
            .erase(before.clone(), |_, _| Ok::<_, LedgerError>(()));
        let late = late.await;
        assert!(matches!(late, Err(LedgerError::Erased)), "{late:?}");
    }
    // What was reached has gone by right. What somebody has taken is still missing without one.
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!((gone, named), (vec![taken, newest], vec![newest]));
    let loaded = load(&rig, b).await.unwrap();
    rig.ledger().events(&loaded, None, 9).await.unwrap();
}
