//! Reads that honest batches cross, again and again: they are no evidence, and what is altered is found beside them.

use custodyd_hsm::{AccountId, RecordId};
use futures_util::FutureExt as _;

use super::attacks::strong;
use super::broken::Between;
use super::names::{claim, claiming, name};
use super::rig::{Rig, app, charge};
use super::tables::{MEMBERS, RECORDS};
use crate::ledger::weakness::Weakness;
use crate::ledger::{BUCKET_BITS, Ledger, LedgerError};

/// More often than a reader lets pass without an explanation.
const OFTEN: usize = 7;

async fn guess(ledger: Ledger, id: AccountId) {
    let loaded = ledger.load(&app(), id).await.unwrap().unwrap();
    ledger.commit(loaded, charge).await.unwrap();
}

/// Whoever reads finds that this account has changed since the database was asked.
fn crossed(rig: &Rig, times: usize, of: RecordId, guesses: AccountId) {
    let ledger = rig.ledger().clone();
    rig.between(Some(Between {
        left: times,
        of: vec![of],
        before: false,
        what: Box::new(move || guess(ledger.clone(), guesses).boxed()),
    }));
}

async fn rig(weakness: Weakness) -> Rig {
    let mut rig = Rig::new().await;
    rig.start(weakness).await.unwrap();
    rig
}

fn credulous() -> Weakness {
    Weakness {
        any_read: true,
        ..strong()
    }
}

fn is_tampered<T: std::fmt::Debug>(answer: &Result<T, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Tampered(_)))
}

#[tokio::test]
async fn a_list_that_moves_while_it_is_read_is_read_again() {
    let rig = rig(strong()).await;
    let [a, _] = rig.accounts;
    crossed(&rig, OFTEN, rig.record(a).await, a);
    let read = rig.ledger().load(&app(), a).await.unwrap().unwrap();
    assert_eq!(read.account.session_epoch, OFTEN as u64);
    // For ever: nobody can say what stands there, and nobody is accused.
    crossed(&rig, usize::MAX, rig.record(a).await, a);
    let read = rig.ledger().load(&app(), a).await;
    assert!(matches!(read, Err(LedgerError::Overtaken)), "{read:?}");
    rig.between(None);
    rig.ledger().load(&app(), a).await.unwrap().unwrap();
}

/// The control: where each such read is taken for evidence, an honest database is accused.
#[tokio::test]
async fn else_an_honest_database_is_accused() {
    let rig = rig(credulous()).await;
    let [a, _] = rig.accounts;
    crossed(&rig, OFTEN, rig.record(a).await, a);
    let read = rig.ledger().load(&app(), a).await;
    assert!(is_tampered(&read), "{read:?}");
    rig.between(None);
}

/// Batches that are about others are no excuse.
#[tokio::test]
async fn what_was_put_back_is_found_while_others_write() {
    let rig = rig(strong()).await;
    let [a, b] = rig.accounts;
    let (of, other) = (rig.record(a).await, rig.record(b).await);
    let moves = |record: &RecordId| {
        rig.ledger()
            .reader
            .memory()
            .moves(record.bucket(BUCKET_BITS))
    };
    let older = rig.tables().await;
    guess(rig.ledger().clone(), a).await;
    rig.put(&older, &[RECORDS, MEMBERS]).await;
    let (still, moved) = (moves(&of), moves(&other));
    crossed(&rig, usize::MAX, of, b);
    let read = rig.ledger().load(&app(), a).await;
    assert!(is_tampered(&read), "{read:?}");
    assert_eq!(moves(&of), still);
    assert_ne!(moves(&other), moved);
    rig.between(None);
}

async fn moves_over(ledger: Ledger, [a, b]: [AccountId; 2]) {
    let (of_a, of_b) = (
        ledger.load(&app(), a).await.unwrap().unwrap(),
        ledger.load(&app(), b).await.unwrap().unwrap(),
    );
    let (from, to) = match of_a.account.alias(&name("ann")) {
        Some(_) => (of_a, of_b),
        None => (of_b, of_a),
    };
    let dropped = ledger.commit(from, |account, _, _| {
        Ok::<_, LedgerError>(account.drop_alias(&name("ann")))
    });
    assert!(dropped.await.unwrap().0);
    let alias = ledger.alias(&app(), name("ann")).await.unwrap();
    ledger.commit(to, claiming(vec![alias])).await.unwrap();
}

/// An alias goes from one account to the other each time that somebody has read where it leads.
async fn wandering(rig: &Rig, times: usize) {
    let [a, b] = rig.accounts;
    let ledger = rig.ledger().clone();
    rig.between(Some(Between {
        left: times,
        of: vec![rig.record(a).await, rig.record(b).await],
        before: true,
        what: Box::new(move || moves_over(ledger.clone(), [a, b]).boxed()),
    }));
}

#[tokio::test]
async fn an_alias_that_moves_while_it_is_followed_is_followed_again() {
    let rig = rig(strong()).await;
    let [a, b] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    wandering(&rig, 5).await;
    let found = rig.ledger().find_alias(&app(), &name("ann")).await;
    assert_eq!(found.unwrap().unwrap().account.id, b);
    wandering(&rig, usize::MAX).await;
    let found = rig.ledger().find_alias(&app(), &name("ann")).await;
    assert!(matches!(found, Err(LedgerError::Overtaken)), "{found:?}");
    rig.between(None);
}

#[tokio::test]
async fn else_an_honest_alias_is_accused() {
    let rig = rig(credulous()).await;
    claim(&rig, rig.accounts[0], "ann").await.unwrap();
    wandering(&rig, 5).await;
    let found = rig.ledger().find_alias(&app(), &name("ann")).await;
    assert!(is_tampered(&found), "{found:?}");
    rig.between(None);
}
