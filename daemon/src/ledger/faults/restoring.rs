//! The restore ceremony, and everything that it must not be good for.

mod contradiction;
mod host;
mod older_keys;

use std::sync::{Arc, Mutex};

use custodyd_hsm::AccountId;
use custodyd_policies::{Rounds, Timestamp};

use super::broken::{Anchor, Faulty, Script};
use super::rig::{Rig, account, app, charge, realm_name};
use crate::ledger::log::RestoreLeaf;
use crate::ledger::restore::testing::{approve, approvers};
use crate::ledger::restore::{Accepted, Approvers, Ceremony, NAMESPACE, Statement, Wishes};
use crate::ledger::verify::{Progress, verify};
use crate::ledger::weakness::Weakness;
use crate::ledger::{EventKind, LedgerError, NewEvent};
use crate::store::admin::Kept;
use crate::store::{Exclusive, Sqlite, Store};

const NOW: Timestamp = Timestamp(4_000_000_000);

/// The store of a rig that rests.
async fn store(rig: &Rig) -> Arc<dyn Store> {
    Arc::new(Faulty {
        inner: rig.place.open().await.unwrap(),
        script: Mutex::default(),
        weakness: rig.weakness,
        strike: Mutex::default(),
        between: Mutex::default(),
        meanwhile: Mutex::default(),
        mirror: Arc::default(),
        written: None,
        largest: Arc::default(),
    })
}

fn two_of_three() -> Approvers {
    approvers(&[1, 2, 3], 2)
}

fn three_guesses() -> Wishes {
    Wishes {
        guesses_left: 3,
        ..Wishes::default()
    }
}

async fn propose(rig: &Rig, wishes: &Wishes) -> Result<Statement, LedgerError> {
    let store = store(rig).await;
    let ceremony = Ceremony {
        store: &store,
        pool: rig.pool(),
        realm: &realm_name(),
        approvers: &two_of_three(),
        mode: rig.mode(),
    };
    let proposed = ceremony.propose(wishes, NOW).await;
    store.close().await;
    proposed
}

async fn accept(rig: &Rig, text: &str, approvals: &[String]) -> Result<Accepted, LedgerError> {
    let store = store(rig).await;
    let ceremony = Ceremony {
        store: &store,
        pool: rig.pool(),
        realm: &realm_name(),
        approvers: &two_of_three(),
        mode: rig.mode(),
    };
    let accepted = ceremony.accept(text, approvals, NOW).await;
    store.close().await;
    accepted
}

fn approvals(text: &str) -> [String; 2] {
    [1, 3].map(|seed| approve(seed, NAMESPACE, text))
}

/// What a database shows, in words.
fn says<T: std::fmt::Debug>(refused: Result<T, LedgerError>, what: &str) {
    let said = refused.unwrap_err().to_string();
    assert!(said.contains(what), "{said}");
}

/// A rig that rests, its database of before three guesses, and the one after them.
async fn lost() -> (Rig, Kept, Kept) {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let older = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    let [a, _] = rig.accounts;
    for _ in 0..3 {
        rig.one(a).await.unwrap();
    }
    rig.stop().await;
    let newest = rig.database();
    rig.put_database(&older);
    (rig, older, newest)
}

/// Proposes and accepts what is in place.
async fn restore(rig: &Rig, wishes: &Wishes) -> String {
    let text = propose(rig, wishes).await.unwrap().encode().unwrap();
    accept(rig, &text, &approvals(&text)).await.unwrap();
    text
}

async fn clean(rig: &Rig) {
    let lock = Exclusive::take(&rig.file()).unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::look(&rig.file(), Some(lock)).await.unwrap());
    let progress = Arc::new(Progress::default());
    let report = verify(
        &store,
        rig.pool(),
        (&realm_name(), rig.mode()),
        Some(vec![app()]),
        &progress,
    )
    .await;
    store.close().await;
    let report = report.unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

#[tokio::test]
async fn an_older_database_serves_again_once_approvers_say_so() {
    let (mut rig, _, _) = lost().await;
    says(rig.try_serve(Script::default()).await, "rolled back");
    let statement = propose(&rig, &three_guesses()).await.unwrap();
    // Its start's boot entry, three charges.
    assert_eq!(statement.lost_batches, Some(4));
    assert_eq!((statement.adopt.log_epoch, statement.new_log_epoch), (1, 2));
    assert!(statement.under_older_keys.is_empty());
    restore(&rig, &three_guesses()).await;
    rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(rig.ledger().era().log_epoch, 2);
    let [a, b] = rig.accounts;
    let loaded = rig.ledger().load(&app(), a).await.unwrap().unwrap();
    assert!(loaded.account.quarantined);
    let left = loaded
        .account
        .contacts
        .guesses
        .standing(&Rounds::default(), NOW);
    assert_eq!(left.total_left, 3);
    // What is written from here on stays, and is not put back twice.
    let confirm = rig.ledger().commit(loaded, |account, _, journal| {
        account.quarantined = false;
        journal.note(NewEvent::new(EventKind::SessionStarted));
        Ok::<_, LedgerError>(())
    });
    confirm.await.unwrap();
    let new = AccountId([9; 16]);
    let create = rig
        .ledger()
        .create(account(new), &[], |account, moment, journal| {
            charge(account, moment, journal)
        });
    create.await.unwrap();
    rig.stop().await;
    rig.try_serve(Script::default()).await.unwrap();
    for (id, quarantined) in [(a, false), (b, true), (new, false)] {
        let loaded = rig.ledger().load(&app(), id).await.unwrap().unwrap();
        assert_eq!(loaded.account.quarantined, quarantined);
        assert_eq!(loaded.account.log_epoch, 2);
    }
    rig.stop().await;
    clean(&rig).await;
}

#[tokio::test]
async fn bounded_anchoring_goes_on_after_a_restore() {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let older = rig.database();
    rig.bounded = true;
    rig.try_serve(Script::default()).await.unwrap();
    let [a, _] = rig.accounts;
    rig.one(a).await.unwrap();
    rig.crash().await;
    rig.put_database(&older);
    says(rig.try_serve(Script::default()).await, "rolled back");
    restore(&rig, &three_guesses()).await;
    // The warm anchor of before is of another history.
    rig.try_serve(Script::default()).await.unwrap();
    rig.ledger().load(&app(), a).await.unwrap().unwrap();
    rig.crash().await;
    rig.try_serve(Script::default()).await.unwrap();
    rig.stop().await;
    clean(&rig).await;
}

#[tokio::test]
async fn nothing_is_restored_that_serves_anyway_or_is_not_ours() {
    let (rig, older, newest) = lost().await;
    rig.put_database(&newest);
    says(propose(&rig, &three_guesses()).await, "nothing to restore");
    rig.put_database(&older);
    rig.admin()
        .await
        .run("UPDATE head SET mac = zeroblob(32)", &[])
        .await;
    says(
        propose(&rig, &three_guesses()).await,
        "not made by this token",
    );
    rig.put_database(&older);
    let altered = "UPDATE records SET sealed = zeroblob(99); DELETE FROM log_entries WHERE idx = 2";
    rig.admin().await.run(altered, &[]).await;
    assert!(matches!(
        propose(&rig, &three_guesses()).await,
        Err(LedgerError::Tampered(_))
    ));
}

#[tokio::test]
async fn what_is_not_approved_changes_nothing() {
    let (mut rig, _, newest) = lost().await;
    let statement = propose(&rig, &three_guesses()).await.unwrap();
    let text = statement.encode().unwrap();
    let [one, two] = approvals(&text);
    says(
        accept(&rig, &text, std::slice::from_ref(&one)).await,
        "1 of 2",
    );
    let generous = text.replace("\"guesses_left\": 3", "\"guesses_left\": 99");
    assert_ne!(generous, text);
    let both = [one.clone(), two.clone()];
    says(accept(&rig, &generous, &both).await, "byte for byte");
    // It was approved for the older database, and the newest has come back.
    rig.put_database(&newest);
    says(
        accept(&rig, &text, &both).await,
        "another state than the one",
    );
    rig.try_serve(Script::default()).await.unwrap();
    let [a, _] = rig.accounts;
    assert_eq!(rig.durable(a).await, 3);
    rig.stop().await;
}

/// An administrator has kept statement and approvals of a restore, and plays them once more.
async fn approval_replayed(weakness: Weakness) -> Result<Accepted, LedgerError> {
    let (mut rig, older, _) = lost().await;
    let text = restore(&rig, &three_guesses()).await;
    rig.try_serve(Script::default()).await.unwrap();
    let loaded = rig.ledger().load(&app(), rig.accounts[0]).await.unwrap();
    rig.ledger().commit(loaded.unwrap(), charge).await.unwrap();
    rig.stop().await;
    rig.put_database(&older);
    rig.weakness = weakness;
    accept(&rig, &text, &approvals(&text)).await
}

#[tokio::test]
async fn an_approval_serves_once() {
    let replayed = approval_replayed(Weakness::default()).await;
    says(replayed, "the token remembers another batch");
}

#[tokio::test]
async fn control_an_approval_that_named_no_anchor_would_serve_again() {
    let any_approval = Weakness {
        any_approval: true,
        ..Weakness::default()
    };
    approval_replayed(any_approval).await.unwrap();
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_finished_by_the_same_command() {
    for cut in [Anchor::Lost, Anchor::AnswerLost] {
        let (mut rig, older, newest) = lost().await;
        let statement = propose(&rig, &three_guesses()).await.unwrap();
        let text = statement.encode().unwrap();
        rig.anchoring(&[cut]);
        accept(&rig, &text, &approvals(&text)).await.unwrap_err();
        let begun = rig.database();
        if cut == Anchor::Lost {
            says(rig.try_serve(Script::default()).await, "after, a restore");
            says(propose(&rig, &three_guesses()).await, "run accept-restore");
            // Until then the newest database would serve, if it were found.
            rig.put_database(&newest);
            says(
                accept(&rig, &text, &approvals(&text)).await,
                "another state",
            );
            rig.put_database(&begun);
        }
        accept(&rig, &text, &approvals(&text)).await.unwrap();
        accept(&rig, &text, &approvals(&text)).await.unwrap();
        rig.try_serve(Script::default()).await.unwrap();
        rig.stop().await;
        for database in [&older, &newest, &begun] {
            rig.put_database(database);
            assert!(rig.try_serve(Script::default()).await.is_err());
        }
    }
}

#[tokio::test]
async fn of_two_restores_only_one_is_finished() {
    let (rig, older, _) = lost().await;
    let first = propose(&rig, &three_guesses())
        .await
        .unwrap()
        .encode()
        .unwrap();
    rig.anchoring(&[Anchor::Lost]);
    accept(&rig, &first, &approvals(&first)).await.unwrap_err();
    let begun = rig.database();
    rig.put_database(&older);
    restore(&rig, &Wishes::default()).await;
    rig.put_database(&begun);
    let replayed = accept(&rig, &first, &approvals(&first)).await;
    says(replayed, "another restore was accepted meanwhile");
}

/// A restore was begun and given up. Its database is shown while another one is accepted, with
/// that one's statement in the place of its own.
async fn begun_for_another(weakness: Weakness) -> Result<Accepted, LedgerError> {
    let (mut rig, older, newest) = lost().await;
    let generous = Wishes {
        guesses_left: 99,
        ..Wishes::default()
    };
    let text = propose(&rig, &generous).await.unwrap().encode().unwrap();
    rig.anchoring(&[Anchor::Lost]);
    accept(&rig, &text, &approvals(&text)).await.unwrap_err();
    let begun = rig.database();
    // The newest is found, used, and lost again.
    rig.put_database(&newest);
    rig.try_serve(Script::default()).await.unwrap();
    rig.stop().await;
    rig.put_database(&older);
    let text = propose(&rig, &Wishes::default())
        .await
        .unwrap()
        .encode()
        .unwrap();
    rig.put_database(&begun);
    let leaf = RestoreLeaf {
        version: String::new(),
        statement: text.clone(),
        approvals: Vec::new(),
    };
    let sql = format!(
        "UPDATE log_entries SET leaf = x'{}' WHERE idx = (SELECT max(idx) - 1 FROM log_entries)",
        hex::encode(leaf.encode().unwrap())
    );
    assert_eq!(rig.admin().await.run(&sql, &[]).await, 1);
    rig.weakness = weakness;
    accept(&rig, &text, &approvals(&text)).await
}

#[tokio::test]
async fn a_restore_that_was_given_up_is_not_finished_as_another() {
    let accepted = begun_for_another(Weakness::default()).await;
    assert!(
        matches!(accepted, Err(LedgerError::Tampered(_))),
        "{accepted:?}"
    );
}

#[tokio::test]
async fn control_a_restore_that_is_known_by_an_entry_alone_would_be() {
    let weakness = Weakness {
        any_approval: true,
        any_log: true,
        ..Weakness::default()
    };
    begun_for_another(weakness).await.unwrap();
}

#[tokio::test]
async fn a_statement_says_nothing_but_what_follows() {
    let (rig, _, _) = lost().await;
    let statement = propose(&rig, &three_guesses()).await.unwrap();
    let text = statement.encode().unwrap();
    for (from, to, what) in [
        (
            "\"lost_batches\": 4",
            "\"lost_batches\": 0",
            "does not follow",
        ),
        (
            "\"new_log_epoch\": 2",
            "\"new_log_epoch\": 9",
            "does not follow",
        ),
        (
            "\"guesses_left\": 3",
            "\"guesses_left\": 101",
            "more than 100",
        ),
        (
            "\"guesses_left\": 3",
            "\"guesses_left\":  3",
            "not in the form",
        ),
        ("\n}", "\n}\n", "not in the form"),
    ] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text, "{from}");
        says(accept(&rig, &other, &approvals(&other)).await, what);
    }
}

#[tokio::test]
async fn a_token_without_its_anchor_needs_a_word_more() {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let anchored = rig.anchors.contents();
    rig.anchors.put_back(&[]);
    says(propose(&rig, &three_guesses()).await, "--without-anchor");
    let wishes = Wishes {
        without_anchor: true,
        ..three_guesses()
    };
    restore(&rig, &wishes).await;
    rig.try_serve(Script::default()).await.unwrap();
    // No epoch that there may have been is used again.
    assert_eq!(rig.ledger().era().log_epoch, NOW.0);
    rig.stop().await;
    rig.anchors.put_back(&anchored);
    assert!(rig.try_serve(Script::default()).await.is_err());
}

/// A rig that rests on an older database, and a checkpoint of the newer one.
async fn seen_by_auditors() -> (Rig, String, Kept) {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let older = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    rig.one(rig.accounts[0]).await.unwrap();
    let checkpoint = rig.ledger().checkpoint().await.unwrap().note().to_owned();
    rig.stop().await;
    let newest = rig.database();
    rig.put_database(&older);
    (rig, checkpoint, newest)
}

#[tokio::test]
async fn what_auditors_hold_is_given_up_only_where_approvers_sign_that() {
    let (rig, checkpoint, _) = seen_by_auditors().await;
    let mut wishes = three_guesses();
    wishes.checkpoints.push(checkpoint.clone());
    says(propose(&rig, &wishes).await, "--lose-known-entries");
    wishes.lose_known_entries = true;
    let statement = propose(&rig, &wishes).await.unwrap();
    let entries: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    let held = statement.auditors_hold.unwrap();
    assert_eq!((held.log_epoch, held.log_entries), (1, entries));
    assert!(entries > statement.adopt.log_entries);
}

#[tokio::test]
async fn a_database_of_another_history_than_the_auditors_is_refused() {
    // Two histories of equal length, of a token whose objects were put back.
    let mut rig = Rig::new().await;
    rig.stop().await;
    let (start, anchored) = (rig.database(), rig.anchors.contents());
    let mut shown = Vec::new();
    for id in rig.accounts {
        rig.put_database(&start);
        rig.anchors.put_back(&anchored);
        rig.try_serve(Script::default()).await.unwrap();
        let loaded = rig.ledger().load(&app(), id).await.unwrap().unwrap();
        rig.ledger().commit(loaded, charge).await.unwrap();
        shown.push(rig.ledger().checkpoint().await.unwrap().note().to_owned());
        rig.stop().await;
    }
    let older = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    rig.stop().await;
    rig.put_database(&older);
    let [other, own] = shown.try_into().unwrap();
    let with = |checkpoint: String| Wishes {
        checkpoints: vec![checkpoint],
        ..three_guesses()
    };
    propose(&rig, &with(own)).await.unwrap();
    says(propose(&rig, &with(other)).await, "another history");
}
