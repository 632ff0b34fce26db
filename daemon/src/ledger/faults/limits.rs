//! What one account may not do to the batch of all: be too large, note too much, not seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use custodyd_hsm::{AccountId, Pool, PoolOptions};
use custodyd_policies::Timestamp;

use super::broken::{Sluggish, Tokens};
use super::rig::{Rig, account, app, charge};
use crate::account::{Account, Slot, SlotType, StoredSecret};
use crate::bytes::Bytes;
use crate::ledger::committer::{HARD_LIMIT, MAX_EVENTS, SOFT_LIMIT};
use crate::ledger::{EventKind, Journal, LedgerError, Loaded, Moment, NewEvent};

/// Makes the account so long by a secret of that size.
fn grow(account: &mut Account, to: usize) {
    let mut secret = |length: usize| {
        let slot = Slot {
            r#type: SlotType::Opaque,
            credential: "c".repeat(length),
            ciphertext: Bytes(Vec::new()),
        };
        let stored = StoredSecret {
            version: 1,
            updated: Timestamp(1000),
            sealed: None,
            slots: vec![slot],
            server_slot: None,
        };
        account.secrets.insert("big".into(), stored);
        account.encoded_len().unwrap()
    };
    let least = secret(0);
    assert_eq!(secret(to - least), to);
}

fn noting(
    kind: EventKind,
    change: impl FnOnce(&mut Account) + Send + 'static,
) -> impl FnOnce(&mut Account, Moment, &mut Journal) -> Result<u64, LedgerError> + Send + 'static {
    move |account, _, journal| {
        change(account);
        journal.note(NewEvent::new(kind));
        Ok(0)
    }
}

async fn load(rig: &Rig, id: AccountId) -> Loaded {
    rig.ledger().load(&app(), id).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_account_at_its_limit_is_refused_alone_and_can_still_sign_in_and_shrink() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let stored = |to| noting(EventKind::SecretStored, move |account| grow(account, to));
    // No request makes an account grow by more than a body holds.
    for to in (1..4).map(|step| step * (60 << 10)) {
        rig.ledger()
            .commit(load(&rig, a).await, stored(to))
            .await
            .unwrap();
    }
    // In one batch: too much for one account, the neighbour's charge.
    let (first, second) = (load(&rig, a).await, load(&rig, b).await);
    let (refused, served) = tokio::join!(
        rig.ledger().commit(first, stored(SOFT_LIMIT + 1)),
        rig.ledger().commit(second, charge),
    );
    assert!(matches!(refused, Err(LedgerError::TooLarge)), "{refused:?}");
    rig.book(b, &served.map(|(number, _)| number));
    // Just enough is taken; then nothing more that is kept, but what passes.
    rig.ledger()
        .commit(load(&rig, a).await, stored(SOFT_LIMIT))
        .await
        .unwrap();
    let more = rig
        .ledger()
        .commit(load(&rig, a).await, stored(SOFT_LIMIT + 200))
        .await;
    assert!(matches!(more, Err(LedgerError::TooLarge)), "{more:?}");
    rig.one(a).await.unwrap();
    let passing = |to| noting(EventKind::SessionStarted, move |account| grow(account, to));
    rig.ledger()
        .commit(load(&rig, a).await, passing(HARD_LIMIT))
        .await
        .unwrap();
    let over = rig
        .ledger()
        .commit(load(&rig, a).await, passing(HARD_LIMIT + 1))
        .await;
    assert!(matches!(over, Err(LedgerError::TooLarge)), "{over:?}");
    // Smaller is always right, even by a change that keeps something.
    rig.ledger()
        .commit(load(&rig, a).await, stored(HARD_LIMIT - 5000))
        .await
        .unwrap();
    rig.ledger()
        .commit(
            load(&rig, a).await,
            noting(EventKind::SecretDeleted, |account| account.secrets.clear()),
        )
        .await
        .unwrap();
    rig.restart().await;
    assert!(load(&rig, a).await.account.secrets.is_empty());
}

#[tokio::test]
async fn a_change_with_too_many_events_is_refused_alone() {
    let rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let releases = |count| {
        move |_: &mut Account, _: Moment, journal: &mut Journal| {
            for _ in 0..count {
                journal.note(NewEvent::new(EventKind::SecretReleased));
            }
            Ok::<_, LedgerError>(())
        }
    };
    let (first, second) = (load(&rig, a).await, load(&rig, b).await);
    let (refused, served) = tokio::join!(
        rig.ledger().commit(first, releases(MAX_EVENTS + 1)),
        rig.ledger().commit(second, releases(MAX_EVENTS)),
    );
    assert!(
        matches!(refused, Err(LedgerError::TooManyEvents { .. })),
        "{refused:?}"
    );
    served.unwrap();
    assert_eq!(load(&rig, a).await.account.trail.count, 1);
    assert_eq!(
        load(&rig, b).await.account.trail.count,
        1 + MAX_EVENTS as u64
    );
}

#[tokio::test]
async fn an_account_that_does_not_seal_leaves_no_gap_and_fails_nobody_else() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    for nth in [1, 2] {
        let (first, second) = (load(&rig, a).await, load(&rig, b).await);
        rig.refuse_derivation(nth);
        let answers = tokio::join!(
            rig.ledger().commit(first, charge),
            rig.ledger().commit(second, charge),
        );
        let (answers, ids) = ([answers.0, answers.1], [a, b]);
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        for (answer, id) in answers.into_iter().zip(ids) {
            match answer {
                Ok((number, _)) => rig.book(id, &Ok(number)),
                Err(LedgerError::Token(custodyd_hsm::Error::Invalid { .. })) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    rig.check().await;
}

#[tokio::test]
async fn a_refused_creation_does_not_make_the_next_one_exist() {
    let rig = Rig::new().await;
    let id = AccountId([9; 16]);
    let refuse = |_: &mut Account, _: Moment, _: &mut Journal| Err(LedgerError::Busy);
    let make = noting(EventKind::AccountCreated, |_| {});
    let (refused, made) = tokio::join!(
        biased;
        rig.ledger().create::<u64, _>(account(id), &[], refuse),
        rig.ledger().create(account(id), &[], make),
    );
    assert!(matches!(refused, Err(LedgerError::Busy)), "{refused:?}");
    made.unwrap();
    let again = rig
        .ledger()
        .create(account(id), &[], noting(EventKind::AccountCreated, |_| {}))
        .await;
    assert!(matches!(again, Err(LedgerError::Exists)), "{again:?}");
}

/// A burst of changes to so many accounts at a token that takes its time; how many of them were refused.
async fn refused_of_a_burst(any_size: bool) -> usize {
    const ACCOUNTS: u8 = 40;
    let sluggish = Arc::<Sluggish>::default();
    let backend = Arc::new(Tokens {
        refuse: Arc::default(),
        work: Arc::default(),
        anchors: custodyd_hsm::software::SoftAnchors::default(),
        anchoring: Arc::default(),
        sluggish: Arc::clone(&sluggish),
    });
    let options = PoolOptions {
        threads: 1,
        deadline: Duration::from_millis(400),
        ..PoolOptions::default()
    };
    let mut rig = Rig::of(Pool::start(backend, options).unwrap()).await;
    rig.stop().await;
    rig.weakness.any_size = any_size;
    rig.try_serve(super::broken::Script::default())
        .await
        .unwrap();
    sluggish.derives.store(15, Ordering::SeqCst);
    let mut all = Vec::new();
    for nth in 0..ACCOUNTS {
        let made = noting(EventKind::AccountCreated, |_| {});
        let made = rig
            .ledger()
            .create(account(AccountId([nth + 10; 16])), &[], made);
        all.push(made.await.unwrap().1);
    }
    let ledger = rig.ledger();
    let burst = all.into_iter().map(|loaded| ledger.commit(loaded, charge));
    let answers = futures_util::future::join_all(burst).await;
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    for answer in answers {
        assert!(
            matches!(
                answer,
                Ok(_) | Err(LedgerError::Token(custodyd_hsm::Error::Deadline { .. }))
            ),
            "{answer:?}"
        );
    }
    refused
}

#[tokio::test]
async fn a_slow_token_is_given_batches_that_it_seals_within_its_deadline() {
    assert_eq!(refused_of_a_burst(false).await, 0);
    // Control: all at once are more than it can, and nobody is served.
    assert!(refused_of_a_burst(true).await > 30);
}
