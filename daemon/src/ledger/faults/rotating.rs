//! Keys that are rotated, moved to and retired, under an administrator, beside somebody who writes
//! into the token, and through crashes.

use std::sync::Arc;

use custodyd_hsm::{KeyId, KeyPurpose, KeyVersions, seal};

use super::attacks::{HURRIED, is_tampered};
use super::broken::{Anchor, Commit, Script};
use super::erasing::erase;
use super::names::claim;
use super::rig::{Rig, app};
use super::tables::{ALL, HEAD, RECORDS, Tables};
use crate::ledger::LedgerError;
use crate::ledger::rewrap::{Census, Moving, Share};
use crate::ledger::verify::{Progress, verify};
use crate::ledger::weakness::Weakness;
use crate::store::admin::Cell;
use crate::store::{Exclusive, Sqlite, Store};

pub(super) const V2: KeyId = KeyId {
    purpose: KeyPurpose::Wrap,
    version: 2,
};
const V1: KeyId = KeyId {
    purpose: KeyPurpose::Wrap,
    version: 1,
};

impl Rig {
    pub(super) async fn make(&self, key: KeyId) {
        let made = self.pool().call("make", move |token| token.make_key(key));
        made.await.unwrap();
    }

    /// What a process finds in the token when it begins.
    pub(super) async fn take_up(&self, key: KeyId) {
        let took_up = self
            .pool()
            .call("take-up", move |token| token.take_up_key(key));
        took_up.await.unwrap();
    }

    pub(super) async fn destroy(&self, key: KeyId) {
        let gone = self
            .pool()
            .call("destroy", move |token| token.destroy_key(key));
        gone.await.unwrap();
    }

    pub(super) async fn rotate(&self, key: KeyId) -> Result<(), LedgerError> {
        let before = self.ledger().keys();
        let after = before.with_newer(key).unwrap();
        self.ledger().change_keys(before, after).await
    }

    pub(super) async fn retire_key(&self, key: KeyId) -> Result<(), LedgerError> {
        let before = self.ledger().keys();
        let after = before.without(key).unwrap();
        self.ledger().change_keys(before, after).await
    }

    async fn rewrap(&self) -> Result<Census, LedgerError> {
        let share = Share::percent(100).unwrap();
        let apps = vec![app()];
        self.ledger().rewrap(apps, share, &Moving::default()).await
    }

    async fn under(&self, version: u16) -> u64 {
        let census = self.ledger().census().await.unwrap();
        assert_eq!(census.damaged, 0);
        census.under.get(&version).copied().unwrap_or(0)
    }

    /// Nothing is found wrong with what the daemon leaves.
    async fn verifies(&mut self) {
        let (pool, realm) = (self.pool().clone(), self.ledger().realm().clone());
        self.stop().await;
        let lock = Exclusive::take(&self.file()).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::look(&self.file(), Some(lock)).await.unwrap());
        let progress = Arc::new(Progress::default());
        let report = verify(
            &store,
            &pool,
            (&realm, self.mode()),
            Some(vec![app()]),
            &progress,
        )
        .await;
        let report = report.unwrap();
        store.close().await;
        drop(store);
        assert_eq!(report.refused, None);
        assert_eq!(report.findings.count(), 0, "{:?}", report.findings);
        assert_eq!(report.counts.unopened, 0);
        self.try_serve(Script::default()).await.unwrap();
    }
}

fn hurried() -> Weakness {
    Weakness {
        patience: HURRIED,
        ..Weakness::default()
    }
}

/// A realm with records of every kind, and its key rotated.
async fn rotated() -> Rig {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    claim(&rig, b, "bob").await.unwrap();
    erase(&rig, a).await.unwrap();
    rig.restart_without(a).await;
    rig.make(V2).await;
    rig.rotate(V2).await.unwrap();
    rig
}

#[tokio::test]
async fn every_kind_of_record_moves_and_the_old_key_goes() {
    let mut rig = rotated().await;
    let [_, b] = rig.accounts;
    // The realm's record, an account, an alias and a tombstone.
    assert_eq!((rig.under(1).await, rig.under(2).await), (4, 0));
    // What changes is sealed under the new key at once.
    rig.one(b).await.unwrap();
    assert_eq!((rig.under(1).await, rig.under(2).await), (3, 1));
    let census = rig.rewrap().await.unwrap();
    assert_eq!(census.under.into_iter().collect::<Vec<_>>(), [(2, 4)]);
    rig.retire_key(V1).await.unwrap();
    rig.destroy(V1).await;
    assert_eq!(rig.found("bob").await.unwrap(), Some(b));
    assert_eq!(rig.one(b).await.unwrap(), 2);
    rig.verifies().await;
    assert_eq!(rig.found("bob").await.unwrap(), Some(b));
    let keys = rig.ledger().keys();
    assert!(!keys.accepts(V1) && keys.current(KeyPurpose::Wrap) == V2);
}

/// An account that is changed while it moves: the change stands.
#[tokio::test]
async fn of_which_apps_records_were_is_known_after_the_move() {
    let rig = rotated().await;
    let other = custodyd_hsm::AppId::parse("other").unwrap();
    for moves in [true, false] {
        let (moving, apps) = (Moving::default(), vec![other.clone(), app()]);
        let share = Share::percent(100).unwrap();
        rig.ledger().rewrap(apps, share, &moving).await.unwrap();
        assert_eq!(moving.found(&app()), moves);
        assert!(!moving.found(&other));
    }
}

#[tokio::test]
async fn a_change_that_comes_first_is_not_undone_by_the_move() {
    let mut rig = rotated().await;
    let [_, b] = rig.accounts;
    for round in 1..=4 {
        let (moved, charged) = tokio::join!(rig.rewrap(), rig.charge_only(b));
        rig.book(b, &charged);
        assert_eq!(moved.unwrap().under.get(&(round + 1)), Some(&4));
        let next = KeyId::new(KeyPurpose::Wrap, round + 2);
        rig.make(next).await;
        rig.rotate(next).await.unwrap();
    }
    assert_eq!(rig.durable(b).await, 4);
    rig.verifies().await;
    assert_eq!(rig.durable(b).await, 4);
}

/// The lists that come along with the records are as old as these are.
#[tokio::test]
async fn a_change_between_the_reading_and_the_move_is_not_undone_by_the_list_that_came_along() {
    // The second is the control.
    for (any_list, moved, charges) in [(false, 3, 1), (true, 4, 0)] {
        let mut rig = rotated().await;
        let [_, b] = rig.accounts;
        let weak = Weakness {
            any_list,
            ..hurried()
        };
        rig.start(weak).await.unwrap();
        let read = rig.ledger().resealed(vec![app()]).await.unwrap();
        assert_eq!(rig.charge_only(b).await.unwrap(), 1);
        let put_back = rig.ledger().put_back(Arc::new(read)).await.unwrap();
        assert_eq!(put_back.moved, moved);
        assert_eq!(rig.durable(b).await, charges);
    }
}

#[tokio::test]
async fn an_old_record_put_back_is_refused_before_and_after_the_old_key_is_retired() {
    let mut rig = rotated().await;
    let [_, b] = rig.accounts;
    let old = rig.tables().await;
    rig.rewrap().await.unwrap();
    let honest = rig.tables().await;
    // The same generation, and only the key is another: nothing but the digest tells.
    for retired in [false, true] {
        if retired {
            rig.retire_key(V1).await.unwrap();
        }
        rig.put(&old, &[RECORDS]).await;
        assert!(is_tampered(&rig.charged(b).await));
        let census = rig.ledger().census().await.unwrap();
        assert!(census.damaged > 0 && !census.under.contains_key(&1));
        rig.put(&honest, &[RECORDS]).await;
        assert_eq!(rig.charged(b).await.unwrap(), Some(0));
    }
    // With the defence of the digest off, the retired key is the one that refuses; the control is
    // the same while the key is accepted.
    let blind = Weakness {
        any_content: true,
        ..hurried()
    };
    rig.start(blind).await.unwrap();
    rig.put(&old, &[RECORDS]).await;
    assert!(is_tampered(&rig.charged(b).await));
    let mut control = rotated().await;
    let [_, b] = control.accounts;
    let old = control.tables().await;
    control.rewrap().await.unwrap();
    control.start(blind).await.unwrap();
    control.put(&old, &[RECORDS]).await;
    assert_eq!(control.charged(b).await.unwrap(), Some(0));
}

/// The administrator would like the old key back in the list, or another one to be the newest.
#[tokio::test]
async fn a_head_with_other_key_versions_is_not_believed() {
    let mut rig = rotated().await;
    rig.rewrap().await.unwrap();
    rig.retire_key(V1).await.unwrap();
    let honest = rig.tables().await;
    for (from, to) in [
        (r#""accepted":[2]"#, r#""accepted":[1,2]"#),
        (
            r#""wrap":{"current":2,"accepted":[2]}"#,
            r#""wrap":{"current":1,"accepted":[1]}"#,
        ),
    ] {
        let mut forged: Tables = honest.clone();
        let mut row = honest.rows(HEAD).next().unwrap().clone();
        let Cell::Bytes(body) = &row[2] else { panic!() };
        let text = String::from_utf8(body.to_vec()).unwrap();
        let edited = text.replace(from, to);
        assert_ne!(edited, text);
        row[2] = Cell::Bytes(edited.into_bytes().into());
        forged.put(HEAD, row);
        let started = rig.start_upon(&forged, hurried()).await;
        assert!(is_tampered(&started), "{started:?}");
    }
    rig.start_upon(&honest, hurried()).await.unwrap();
}

#[tokio::test]
async fn a_token_without_a_key_of_the_head_is_refused_by_its_name() {
    let mut rig = rotated().await;
    rig.crash().await;
    rig.destroy(V2).await;
    let started = rig.start(hurried()).await;
    let said = started.unwrap_err();
    assert!(matches!(&said, LedgerError::Refused(why) if why.contains("custodyd-wrap-v2")));
    // The control: with the key it starts. In this token a key follows from its name.
    rig.make(V2).await;
    rig.start(hurried()).await.unwrap();
}

/// Somebody who writes into the token adds a newer key, whose value they know.
#[tokio::test]
async fn a_key_that_was_put_into_the_token_is_used_for_nothing() {
    let mut rig = rotated().await;
    let [_, b] = rig.accounts;
    let planted = KeyId::new(KeyPurpose::Wrap, 9);
    rig.make(planted).await;
    rig.one(b).await.unwrap();
    rig.restart_without(b).await;
    let charged = rig.charge_only(b).await;
    assert_eq!(charged.unwrap(), 2);
    rig.rewrap().await.unwrap();
    assert_eq!((rig.under(2).await, rig.under(9).await), (4, 0));
    // The control: where the log names it, it is used.
    rig.rotate(planted).await.unwrap();
    rig.rewrap().await.unwrap();
    assert_eq!((rig.under(2).await, rig.under(9).await), (0, 4));
}

/// Killed, or failing, at each step of a rotation: the versions are those of before or after, what
/// is sealed opens, and the next attempt goes through.
#[tokio::test]
async fn a_rotation_that_fails_anywhere_can_be_done_again() {
    for commits in [
        &[Commit::Full; 5][..],
        &[Commit::Lost; 5],
        &[Commit::AnswerLost],
        &[Commit::AnswerLost, Commit::Full],
    ] {
        let mut rig = Rig::new().await;
        let [_, b] = rig.accounts;
        rig.make(V2).await;
        rig.script(Script::new(commits, &[false; 5], &[]));
        let done = rig.rotate(V2).await;
        rig.crash().await;
        rig.start(hurried()).await.unwrap();
        let keys: KeyVersions = rig.ledger().keys();
        assert!(done.is_err() || keys.current(KeyPurpose::Wrap) == V2);
        assert_eq!(*rig.pool().versions().unwrap(), keys);
        if keys.current(KeyPurpose::Wrap) == V1 {
            rig.rotate(V2).await.unwrap();
        }
        rig.one(b).await.unwrap();
        let record = rig.record(b).await;
        let row = rig.ledger().reader.read(&record).await.unwrap().unwrap();
        assert_eq!(seal::key_version(&row.sealed), Some(2));
        rig.verifies().await;
    }
}

#[tokio::test]
async fn a_rotation_counts_once_it_is_anchored() {
    let mut rig = Rig::new().await;
    rig.make(V2).await;
    rig.anchoring(&[Anchor::Lost]);
    assert!(rig.rotate(V2).await.is_err());
    // Durable, and nobody is told: the pool keeps to the head that is anchored.
    assert_eq!(rig.pool().versions().unwrap().current(KeyPurpose::Wrap), V1);
    let [a, _] = rig.accounts;
    rig.one(a).await.unwrap();
    assert_eq!(rig.pool().versions().unwrap().current(KeyPurpose::Wrap), V2);
    assert_eq!(rig.under(2).await, 1);
    rig.verifies().await;
}

#[tokio::test]
async fn a_move_that_is_cut_off_anywhere_is_finished_by_the_next_one() {
    for commits in [
        &[Commit::Lost; 8][..],
        &[Commit::AnswerLost],
        &[Commit::Full; 5],
    ] {
        let mut rig = rotated().await;
        rig.script(Script::new(commits, &[false; 5], &[]));
        let _ = rig.rewrap().await;
        rig.crash().await;
        rig.start(hurried()).await.unwrap();
        let census = rig.rewrap().await.unwrap();
        assert_eq!(census.under.into_iter().collect::<Vec<_>>(), [(2, 4)]);
        rig.verifies().await;
    }
}

/// The commit of a move goes upon lists that are the newest, or not at all.
#[tokio::test]
async fn a_move_writes_upon_no_list_that_was_put_back() {
    let mut rig = rotated().await;
    let [_, b] = rig.accounts;
    let old = rig.tables().await;
    rig.one(b).await.unwrap();
    rig.start(hurried()).await.unwrap();
    let honest = rig.tables().await;
    rig.put(&old, &ALL).await;
    if let Ok(census) = rig.rewrap().await {
        assert!(census.damaged > 0);
    }
    let shown = rig.tables().await;
    assert_eq!(shown.head(), old.head());
    assert!(shown.rows(RECORDS).eq(old.rows(RECORDS)));
    // The control: upon the newest all of them move.
    rig.start_upon(&honest, hurried()).await.unwrap();
    assert_eq!(rig.rewrap().await.unwrap().under.get(&2), Some(&4));
    assert_eq!(rig.charged(b).await.unwrap(), Some(1));
}
