//! A MAC key that is rotated and retired: what is found by which key, who can make a head, and what crashes leave.

mod meanwhile;

use std::sync::Arc;

use custodyd_hsm::software::SoftAnchors;
use custodyd_hsm::{AccountId, KeyId, KeyPurpose, KeyVersions, Pool, PoolOptions};

use super::attacks::{HURRIED, is_tampered};
use super::broken::{Anchor, Commit, Script, Tokens};
use super::erasing::{erase, load, make};
use super::names::claim;
use super::rig::{Rig, account, app, realm_name};
use super::tables::{HEAD, Tables};
use crate::ledger::LedgerError;
use crate::ledger::rewrap::MacCensus;
use crate::ledger::weakness::Weakness;
use crate::store::admin::Cell;

pub(super) const fn mac(version: u16) -> KeyId {
    KeyId {
        purpose: KeyPurpose::Mac,
        version,
    }
}

fn hurried() -> Weakness {
    Weakness {
        patience: HURRIED,
        ..Weakness::default()
    }
}

impl Rig {
    async fn create_new(&self, id: AccountId) -> Result<u16, LedgerError> {
        let made = self.ledger().create(account(id), &[], make).await?;
        Ok(made.1.account.mac_key)
    }

    async fn mac_census(&self) -> MacCensus {
        let census = self.ledger().mac_census(vec![app()]).await.unwrap();
        assert_eq!((census.damaged, census.unopened), (0, 0));
        census
    }
}

/// Another process on the same token, which holds both keys: it has heard of no head yet.
pub(super) async fn another_process(rig: &mut Rig) {
    let pool = another_pool(rig.anchors.clone()).await;
    rig.serve_upon(pool);
}

pub(super) async fn another_pool(anchors: SoftAnchors) -> Pool {
    let backend = Arc::new(Tokens {
        refuse: Arc::default(),
        work: Arc::default(),
        anchors,
        anchoring: Arc::default(),
        sluggish: Arc::default(),
    });
    let options = PoolOptions {
        threads: 1,
        ..PoolOptions::default()
    };
    let pool = Pool::start(backend, options).unwrap();
    let made = pool.call("make", |token| token.make_key(mac(2)));
    made.await.unwrap();
    pool
}

/// Two accounts, one with an alias, and one that was erased; then the key is rotated.
pub(super) async fn rotated() -> Rig {
    let rig = Rig::new().await;
    let [_, b] = rig.accounts;
    rig.create_new(GONE).await.unwrap();
    erase(&rig, GONE).await.unwrap();
    claim(&rig, b, "bob").await.unwrap();
    rig.make(mac(2)).await;
    rig.rotate(mac(2)).await.unwrap();
    rig
}

const GONE: AccountId = AccountId([8; 16]);
const NEW: AccountId = AccountId([9; 16]);

#[tokio::test]
async fn what_is_of_before_is_found_and_what_is_new_is_under_the_new_key() {
    for cache in [0, 1 << 20] {
        let mut rig = rotated().await;
        rig.cache = cache;
        let [a, b] = rig.accounts;
        assert_eq!(rig.create_new(NEW).await.unwrap(), 2);
        claim(&rig, NEW, "new").await.unwrap();
        for _ in 0..2 {
            let rig_now = &rig;
            let under =
                |id| async move { load(rig_now, id).await.map(|loaded| loaded.account.mac_key) };
            assert_eq!([under(a).await, under(b).await], [Some(1), Some(1)]);
            assert_eq!([under(NEW).await, under(GONE).await], [Some(2), None]);
            assert_eq!(rig.found("bob").await.unwrap(), Some(b));
            assert_eq!(rig.found("new").await.unwrap(), Some(NEW));
            let census = rig.mac_census().await;
            assert_eq!((census.of(1), census.of(2)), (2, 1));
            rig.restart().await;
        }
        assert_eq!(rig.one(b).await.unwrap(), 1);
    }
}

/// A name that stands under the older key is taken, and so is what was erased there.
#[tokio::test]
async fn nothing_is_made_twice_under_two_keys() {
    let mut rig = rotated().await;
    let [a, b] = rig.accounts;
    for id in [a, GONE] {
        let again = rig.create_new(id).await;
        assert!(matches!(again, Err(LedgerError::Exists)), "{again:?}");
    }
    let taken = claim(&rig, a, "bob").await;
    assert!(matches!(taken, Err(LedgerError::AliasTaken)), "{taken:?}");
    // One that a request of before would have made by another identifier.
    let other = rig.ledger();
    let made = other.create(account(NEW), &[a], make).await;
    assert!(matches!(made, Err(LedgerError::Exists)), "{:?}", made.err());
    assert_eq!(load(&rig, b).await.unwrap().account.mac_key, 1);
    // The control: who looks under the newest key alone makes them again.
    let blind = Weakness {
        any_mac_key: true,
        ..hurried()
    };
    rig.start(blind).await.unwrap();
    for id in [a, GONE] {
        assert_eq!(rig.create_new(id).await.unwrap(), 2);
    }
}

/// Decided between the making of its identifier and its commit.
#[tokio::test]
async fn a_rotation_meanwhile_refuses_what_may_have_another_identifier_now() {
    let mut rig = Rig::new().await;
    rig.make(mac(2)).await;
    let before = rig.ledger().keys();
    let after = before.with_newer(mac(2)).unwrap();
    let (rotated, named, drawn) = tokio::join!(
        biased;
        rig.ledger().change_keys(before, after),
        rig.ledger().create(account(NEW), &[], make),
        rig.ledger().create(account(GONE), &[], make),
    );
    rotated.unwrap();
    // Each is made before it, or under the newer key, or not at all.
    for made in [named, drawn] {
        match made {
            Ok(((), loaded)) => assert!([1, 2].contains(&loaded.account.mac_key)),
            Err(error) => assert!(matches!(error, LedgerError::Stale), "{error}"),
        }
    }
    rig.restart().await;
}

#[tokio::test]
async fn the_older_key_goes_once_nobody_needs_it_and_the_realm_stays() {
    let mut rig = rotated().await;
    let [a, b] = rig.accounts;
    assert_eq!(rig.create_new(NEW).await.unwrap(), 2);
    for id in [a, b] {
        erase(&rig, id).await.unwrap();
    }
    assert_eq!(rig.mac_census().await.of(1), 0);
    rig.retire_key(mac(1)).await.unwrap();
    let realm = rig.ledger().realm().clone();
    let needs = rig.pool().call("anchors", move |custody| {
        custodyd_hsm::anchor::needs_key(custody, &realm, 1)
    });
    assert!(!needs.await.unwrap());
    rig.destroy(mac(1)).await;
    rig.crash().await;
    rig.start(hurried()).await.unwrap();
    assert_eq!(load(&rig, NEW).await.unwrap().account.mac_key, 2);
    assert!(load(&rig, b).await.is_none());
    claim(&rig, NEW, "bob").await.unwrap();
    assert_eq!(rig.found("bob").await.unwrap(), Some(NEW));
}

/// Somebody knows the key of before: with it alone they make no head, whether it is accepted still or retired.
#[tokio::test]
async fn a_head_by_the_older_key_alone_is_refused() {
    let mut rig = rotated().await;
    let newest = rig.tables().await;
    for retired in [false, true] {
        if retired {
            rig.retire_key(mac(1)).await.unwrap();
        }
        let honest = rig.tables().await;
        let old = r#""mac":{"current":1,"accepted":[1]}"#;
        let forged = by(&rig, &newest, &[1], old).await;
        assert!(rig.start_upon(&forged, hurried()).await.is_err());
        // Nor one that names the newer key, too, and is not tagged by it.
        let both = r#""mac":{"current":2,"accepted":[1,2]}"#;
        let forged = by(&rig, &newest, &[1], both).await;
        let started = rig.start_upon(&forged, hurried()).await;
        assert!(is_tampered(&started), "{started:?}");
        rig.start_upon(&honest, hurried()).await.unwrap();
    }
    let tagged = |versions: &'static [u16]| {
        let realm = rig.ledger().realm().clone();
        rig.pool().call("head", move |custody| {
            let tag = custodyd_hsm::mac::head(custody, &realm, versions, b"head")?;
            custodyd_hsm::mac::check_head(custody, &realm, versions, b"head", &tag)
        })
    };
    // Retired: what it has tagged alone is nobody's. The control: with a key beside it that is accepted.
    assert!(tagged(&[1]).await.is_err());
    tagged(&[1, 2]).await.unwrap();
    tagged(&[2]).await.unwrap();
}

/// The newest head with other MAC keys, and a tag by some.
async fn by(rig: &Rig, newest: &Tables, tags: &'static [u16], keys: &str) -> Tables {
    let mut row = newest.rows(HEAD).next().unwrap().clone();
    let Cell::Bytes(body) = &row[2] else { panic!() };
    let text = String::from_utf8(body.to_vec()).unwrap();
    let edited = text.replace(r#""mac":{"current":2,"accepted":[1,2]}"#, keys);
    let (realm, body) = (realm_name(), edited.clone().into_bytes());
    let tag = rig.pool().call("head", move |custody| {
        custodyd_hsm::mac::head(custody, &realm, tags, &body)
    });
    row[3] = Cell::Bytes(tag.await.unwrap().to_vec().into());
    row[2] = Cell::Bytes(edited.into_bytes().into());
    let mut forged = newest.clone();
    forged.put(HEAD, row);
    forged
}

/// Killed, or failing, at each step of a rotation and of a retirement: the versions are those of before or after, all is
/// found, and the next attempt goes through.
#[tokio::test]
async fn a_step_that_fails_anywhere_can_be_done_again() {
    let commits = [
        &[Commit::Full; 5][..],
        &[Commit::Lost; 5],
        &[Commit::AnswerLost],
        &[Commit::AnswerLost, Commit::Full],
        &[],
    ];
    for (commits, retiring) in commits.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let mut rig = Rig::new().await;
        let accounts = rig.accounts;
        rig.make(mac(2)).await;
        if retiring {
            rig.rotate(mac(2)).await.unwrap();
            for id in accounts {
                erase(&rig, id).await.unwrap();
            }
        }
        match commits.is_empty() {
            true => rig.anchoring(&[Anchor::Lost]),
            false => rig.script(Script::new(commits, &[false; 5], &[])),
        }
        let step = |versions: KeyVersions| match retiring {
            true => versions.without(mac(1)),
            false => versions.with_newer(mac(2)),
        };
        let before = rig.ledger().keys();
        let after = step(before.clone()).unwrap();
        let changed = rig.ledger().change_keys(before.clone(), after.clone());
        let done = changed.await;
        rig.crash().await;
        rig.start(hurried()).await.unwrap();
        let keys = rig.ledger().keys();
        assert!(keys == after || (done.is_err() && keys == before));
        assert_eq!(*rig.pool().versions().unwrap(), keys);
        if keys == before {
            let again = rig.ledger().change_keys(before, after.clone());
            again.await.unwrap();
        }
        assert_eq!(rig.create_new(NEW).await.unwrap(), 2);
        for id in accounts {
            assert_eq!(load(&rig, id).await.is_none(), retiring);
        }
        if retiring {
            rig.destroy(mac(1)).await;
        }
        rig.crash().await;
        rig.start(hurried()).await.unwrap();
        assert_eq!(load(&rig, NEW).await.unwrap().account.mac_key, 2);
    }
}
