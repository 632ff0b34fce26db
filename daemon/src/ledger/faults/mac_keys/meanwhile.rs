//! What was begun under a MAC key and comes to be when another one is current; and which accounts need a key.

use super::*;
use crate::account::{Account, AliasName};
use crate::ledger::faults::names::{claiming, name};
use crate::ledger::{Journal, Moment};

/// Somebody was given the name before, and it was looked for under the older key alone.
#[tokio::test]
async fn a_name_that_was_looked_for_before_a_rotation_is_not_given_twice() {
    for defended in [true, false] {
        let mut rig = Rig::new().await;
        rig.weakness.made_under_any_key = !defended;
        rig.restart().await;
        let [a, b] = rig.accounts;
        let before = rig.ledger().alias(&app(), name("bob")).await.unwrap();
        rig.make(mac(2)).await;
        rig.rotate(mac(2)).await.unwrap();
        claim(&rig, b, "bob").await.unwrap();
        let loaded = load(&rig, a).await.unwrap();
        let late = rig.ledger().commit(loaded, claiming(vec![before])).await;
        match defended {
            true => {
                assert!(matches!(late, Err(LedgerError::Stale)), "{:?}", late.err());
                let taken = claim(&rig, a, "bob").await;
                assert!(matches!(taken, Err(LedgerError::AliasTaken)), "{taken:?}");
            }
            // The control: both have it.
            false => {
                late.unwrap();
                for id in [a, b] {
                    let account = load(&rig, id).await.unwrap().account;
                    assert!(account.alias(&name("bob")).is_some());
                }
            }
        }
    }
}

/// An account is counted before its key is retired: nothing of it may be under that key afterwards.
#[tokio::test]
async fn nothing_comes_to_be_under_a_key_that_was_counted() {
    for defended in [true, false] {
        let mut rig = rotated().await;
        rig.weakness.made_under_any_key = !defended;
        rig.restart().await;
        assert_eq!(rig.create_new(NEW).await.unwrap(), 2);
        let under_the_older = |account: &mut Account, _: Moment, _: &mut Journal| {
            account.mac_key = 1;
            Ok::<_, LedgerError>(())
        };
        let loaded = load(&rig, NEW).await.unwrap();
        let late = rig.ledger().commit(loaded, under_the_older).await;
        match defended {
            true => assert!(matches!(late, Err(LedgerError::Stale)), "{:?}", late.err()),
            false => drop(late.unwrap()),
        }
    }
}

/// One that is found by the first key has a name under the second: it needs both, and retiring either would take something.
#[tokio::test]
async fn an_account_needs_each_key_that_something_of_it_is_under() {
    let rig = rotated().await;
    let [a, b] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    rig.make(mac(3)).await;
    rig.rotate(mac(3)).await.unwrap();
    let census = rig.mac_census().await;
    assert_eq!([1, 2, 3].map(|version| census.of(version)), [2, 1, 0]);
    let ann = AliasName::clone(&name("ann"));
    let account = load(&rig, a).await.unwrap().account;
    assert_eq!(account.mac_keys().into_iter().collect::<Vec<_>>(), [1, 2]);
    assert!(account.alias(&ann).is_some());
    // Given up, it needs the first one alone.
    let loaded = load(&rig, a).await.unwrap();
    let give_up = move |account: &mut Account, _: Moment, _: &mut Journal| {
        Ok::<_, LedgerError>(account.drop_alias(&ann))
    };
    rig.ledger().commit(loaded, give_up).await.unwrap();
    let census = rig.mac_census().await;
    assert_eq!([1, 2, 3].map(|version| census.of(version)), [2, 0, 0]);
    rig.retire_key(mac(2)).await.unwrap();
    rig.destroy(mac(2)).await;
    for id in [a, b] {
        assert_eq!(load(&rig, id).await.unwrap().account.mac_key, 1);
    }
    assert_eq!(rig.found("bob").await.unwrap(), Some(b));
}

/// A rotation whose anchor did not come to be is true once it has one: until then its key looks like one that nobody uses.
#[tokio::test]
async fn what_a_rotation_has_begun_has_its_outcome_after_settling() {
    let rig = Rig::new().await;
    rig.make(mac(2)).await;
    rig.anchoring(&[Anchor::Lost]);
    let rotated = rig.rotate(mac(2)).await;
    assert!(rotated.is_err(), "{rotated:?}");
    rig.ledger().settle().await.unwrap();
    assert!(rig.ledger().keys().accepts(mac(2)));
}
