//! Erasure: everything of one account goes in one commit, nothing of another's, and for good.

use std::time::Duration;

use custodyd_hsm::{AccountId, RecordKind};

use super::broken::{Anchor, Commit, Script};
use super::names::{claim, name};
use super::rig::{Rig, account, app};
use crate::account::Account;
use crate::ledger::deletions::Why;
use crate::ledger::log::{LEAF_ERASURE, LEAF_EVENT, LEAF_RETENTION};
use crate::ledger::{EventKind, Journal, LedgerError, Loaded, Moment, NewEvent};

pub(super) async fn load(rig: &Rig, id: AccountId) -> Option<Loaded> {
    rig.ledger().load(&app(), id).await.unwrap()
}

pub(super) async fn erase(rig: &Rig, id: AccountId) -> Result<Loaded, LedgerError> {
    let loaded = rig.ledger().load(&app(), id).await?.unwrap();
    rig.ledger().erase(loaded, |_, _| Ok(())).await
}

pub(super) fn make(_: &mut Account, _: Moment, journal: &mut Journal) -> Result<(), LedgerError> {
    journal.note(NewEvent::new(EventKind::AccountCreated));
    Ok(())
}

/// The entries of the log that have no body, and those that its erasure leaves name.
pub(super) async fn gone_and_covered(rig: &Rig) -> (Vec<u64>, Vec<u64>) {
    let (mut gone, mut named) = (Vec::new(), Vec::new());
    for index in 0.. {
        let Some(row) = rig.store().event(index).await.unwrap().examine() else {
            break;
        };
        match row.leaf[0] {
            LEAF_EVENT if row.body.is_none() => gone.push(index),
            LEAF_ERASURE => named.append(&mut Why::Erasure.covered(&row).unwrap()),
            LEAF_RETENTION => named.append(&mut Why::Retention.covered(&row).unwrap()),
            _ => {}
        }
    }
    named.sort_unstable();
    (gone, named)
}

#[tokio::test]
async fn an_erased_account_is_gone_for_good_and_no_other_is_touched() {
    for cache in [0, 1 << 20] {
        let mut rig = Rig::new().await;
        rig.cache = cache;
        rig.restart().await;
        let [a, b] = rig.accounts;
        rig.burst(&[a, b, a, b]).await;
        claim(&rig, a, "ann").await.unwrap();
        claim(&rig, b, "bob").await.unwrap();
        let before = load(&rig, a).await.unwrap();
        let last = erase(&rig, a).await.unwrap();
        assert_eq!(last.account.id, a);
        for restarted in [false, true] {
            if restarted {
                rig.restart_without(a).await;
            }
            assert!(load(&rig, a).await.is_none());
            let found = rig.ledger().find_alias(&app(), &name("ann")).await;
            assert!(found.unwrap().is_none());
            // Neither made again, nor changed from what somebody had read before.
            let again = rig.ledger().create(account(a), &[], make).await;
            assert!(matches!(again, Err(LedgerError::Exists)), "{again:?}");
            for read in [&before, &last] {
                let late = rig.ledger().commit(read.clone(), make).await;
                assert!(matches!(late, Err(LedgerError::Erased)), "{late:?}");
                let agree = |_: &Account, _: Moment| Ok::<_, LedgerError>(());
                let twice = rig.ledger().erase(read.clone(), agree).await;
                assert!(matches!(twice, Err(LedgerError::Erased)), "{twice:?}");
                let events = rig.ledger().events(read, None, 9).await;
                assert!(matches!(events, Err(LedgerError::Erased)), "{events:?}");
            }
        }
        let (gone, named) = gone_and_covered(&rig).await;
        assert_eq!(gone, named);
        assert_eq!(gone.len() as u64, before.account.trail.count);
        let bob = load(&rig, b).await.unwrap();
        assert_eq!(bob.account.session_epoch, 2);
        let page = rig.ledger().events(&bob, None, 100).await.unwrap();
        assert_eq!(page.events.len() as u64, bob.account.trail.count);
        // The name is free, the account's row is a small tombstone of the next generation.
        claim(&rig, b, "ann").await.unwrap();
        let stone = rig.row(before.record()).await;
        assert_eq!(stone.member.kind, RecordKind::Tombstone);
        assert_eq!(stone.member.generation, before.account.generation + 1);
        assert!(stone.sealed.len() < 1200);
        let rows = "SELECT count(*) FROM records";
        assert_eq!(
            rig.number(rows).await,
            1 + 2 + 2,
            "realm, two accounts, two aliases"
        );
    }
}

#[tokio::test]
async fn what_happens_meanwhile_goes_as_well_or_comes_too_late() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let stale = load(&rig, a).await.unwrap();
    rig.one(a).await.unwrap();
    // Walked before the newest charge; in its batch, another charge comes first, one after.
    let (before, erased, after) = tokio::join!(
        biased;
        rig.ledger().commit(stale.clone(), make),
        rig.ledger().erase(stale.clone(), |_, _| Ok::<_, LedgerError>(())),
        rig.ledger().commit(stale.clone(), make),
    );
    before.unwrap();
    erased.unwrap();
    assert!(after.is_ok() || matches!(after, Err(LedgerError::Erased)));
    assert!(load(&rig, a).await.is_none());
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!(gone, named);
    assert_eq!(gone.len(), if after.is_ok() { 4 } else { 3 });
    // Two at once: one erases, the other finds nothing.
    let loaded = load(&rig, b).await.unwrap();
    let (one, other) = tokio::join!(
        rig.ledger()
            .erase(loaded.clone(), |_, _| Ok::<_, LedgerError>(())),
        rig.ledger().erase(loaded, |_, _| Ok::<_, LedgerError>(())),
    );
    assert_eq!(
        [one.is_ok(), other.is_ok()]
            .iter()
            .filter(|ok| **ok)
            .count(),
        1
    );
}

#[tokio::test]
async fn a_decision_against_it_leaves_everything() {
    let rig = Rig::new().await;
    let [a, _] = rig.accounts;
    claim(&rig, a, "ann").await.unwrap();
    let loaded = load(&rig, a).await.unwrap();
    let refused = rig
        .ledger()
        .erase(loaded, |_, _| Err(LedgerError::Busy))
        .await;
    assert!(matches!(refused, Err(LedgerError::Busy)));
    assert_eq!(load(&rig, a).await.unwrap().account.aliases.len(), 1);
    assert_eq!(gone_and_covered(&rig).await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_long_trail_goes_in_one_commit() {
    let rig = Rig::new().await;
    let [a, _] = rig.accounts;
    for _ in 0..40 {
        let loaded = load(&rig, a).await.unwrap();
        let many = |_: &mut Account, _: Moment, journal: &mut Journal| {
            for _ in 0..60 {
                journal.note(NewEvent::new(EventKind::PinCharged));
            }
            Ok::<_, LedgerError>(())
        };
        rig.ledger().commit(loaded, many).await.unwrap();
    }
    erase(&rig, a).await.unwrap();
    let bodies = "SELECT count(*) FROM log_bodies";
    assert_eq!(
        rig.number(bodies).await,
        2,
        "the other account's, and the leaf's"
    );
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!((gone.len(), &gone), (2401, &named));
}

#[tokio::test]
async fn whatever_fails_an_account_is_whole_or_erased_as_the_answer_said() {
    for commits in [
        vec![Commit::Lost, Commit::Honest],
        vec![Commit::AnswerLost],
        vec![Commit::Full; 5],
        [&[Commit::AnswerLost][..], &[Commit::Full; 8]].concat(),
        vec![Commit::Lost; 5],
    ] {
        let mut rig = Rig::new().await;
        rig.cache = 1 << 20;
        let [a, b] = rig.accounts;
        rig.restart().await;
        rig.burst(&[a, b]).await;
        claim(&rig, a, "ann").await.unwrap();
        rig.script(Script::new(&commits, &[false; 5], &[]));
        let answer = erase(&rig, a).await;
        let expected = match answer {
            Ok(_) => Some(true),
            Err(LedgerError::Store(_)) => Some(false),
            Err(LedgerError::Stopped) => None,
            Err(error) => panic!("{error:?}"),
        };
        rig.script(Script::default());
        rig.restart_without(a).await;
        let erased = load(&rig, a).await.is_none();
        assert!(expected.is_none_or(|said| said == erased), "{commits:?}");
        let alias = rig.ledger().find_alias(&app(), &name("ann")).await.unwrap();
        assert_eq!(alias.is_none(), erased, "{commits:?}");
        let (gone, named) = gone_and_covered(&rig).await;
        assert_eq!(gone, named, "{commits:?}");
        assert_eq!(gone.is_empty(), !erased, "{commits:?}");
        assert_eq!(load(&rig, b).await.unwrap().account.session_epoch, 1);
    }
}

#[tokio::test]
async fn an_erased_account_and_an_absent_one_cost_the_token_what_a_living_one_does() {
    let rig = Rig::new().await;
    let [a, b] = rig.accounts;
    erase(&rig, a).await.unwrap();
    for (id, there) in [(a, false), (b, true), (AccountId([9; 16]), false)] {
        let before = rig.token_work();
        let found = rig.ledger().look_up(&app(), id).await.unwrap();
        assert_eq!(found.is_some(), there);
        assert_eq!(rig.token_work() - before, 2, "{id}");
    }
}

#[tokio::test]
async fn a_tombstone_that_is_not_one_is_noticed() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let living = load(&rig, b).await.unwrap();
    let record = *load(&rig, a).await.unwrap().record();
    let old = rig.row(&record).await;
    erase(&rig, a).await.unwrap();
    let stone = rig.row(&record).await;
    let noticed = async |rig: &Rig, id| {
        let found = rig.ledger().load(&app(), id).await;
        assert!(matches!(found, Err(LedgerError::Tampered(_))), "{found:?}");
    };
    // A living account called erased, by its kind alone and with the tombstone of another.
    rig.change_kind(living.record(), 3).await;
    noticed(&rig, b).await;
    rig.change_kind(living.record(), 1).await;
    let kept = rig.row(living.record()).await;
    rig.put_row(living.record(), &stone).await;
    rig.vouch(living.record(), &stone).await;
    noticed(&rig, b).await;
    rig.put_row(living.record(), &kept).await;
    rig.vouch(living.record(), &kept).await;
    // Removed; replaced by the old envelope, which the list does not name.
    rig.sql("DELETE FROM records WHERE id = ?", &record).await;
    noticed(&rig, a).await;
    rig.put_row(&record, &old).await;
    noticed(&rig, a).await;
    // Called an account.
    rig.put_row(&record, &stone).await;
    rig.change_kind(&record, 1).await;
    noticed(&rig, a).await;
    // Control: as they were.
    rig.change_kind(&record, 3).await;
    assert!(load(&rig, a).await.is_none());
    rig.one(b).await.unwrap();
    assert!(load(&rig, b).await.is_some());
}

/// Its bodies are gone from the database as soon as the erasure is durable; that it is erased, nobody is told before the
/// token knows. A trail that is read in between is no tampering.
#[tokio::test]
async fn who_reads_a_trail_while_its_erasure_is_anchored_is_not_told_of_tampering() {
    let mut rig = Rig::new().await;
    rig.weakness.patience = Some((Duration::from_millis(1), Duration::from_millis(200)));
    rig.restart().await;
    let a = rig.accounts[0];
    let before = load(&rig, a).await.unwrap();
    rig.anchoring(&[Anchor::Lost]);
    let erased = erase(&rig, a).await;
    assert!(matches!(erased, Err(LedgerError::Token(_))), "{erased:?}");
    let read = rig.ledger().events(&before, None, 10).await;
    assert!(
        matches!(read, Err(LedgerError::Late(_) | LedgerError::Erased)),
        "{read:?}"
    );
    // The control: everything is anchored, and a body is gone for no reason.
    let b = rig.accounts[1];
    rig.one(b).await.unwrap();
    let before = load(&rig, b).await.unwrap();
    let mut admin = rig.admin().await;
    admin.script("DELETE FROM log_bodies").await;
    let read = rig.ledger().events(&before, None, 10).await;
    assert!(matches!(read, Err(LedgerError::Tampered(_))), "{read:?}");
}
