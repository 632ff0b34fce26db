//! Retention: what has ended goes, with its leaf and its mark, and a trail that ends at the mark
//! is whole; whatever fails, and whatever else happens to the account.

use std::time::Duration;

use custodyd_hsm::{AccountId, AppId};
use custodyd_policies::{Retention, Timestamp};
use proptest::prelude::*;

use super::broken::{Commit, Script};
use super::erasing::{erase, gone_and_covered, load, make};
use super::rig::{Rig, app, charge};
use super::tables::MEMBERS;
use crate::ledger::members::MemberList;
use crate::ledger::tree::BUCKETS;
use crate::ledger::weakness::Weakness;
use crate::ledger::{BUCKET_BITS, LedgerError, Leisure, Loaded, PARTS, Page, Pass, Place};
use crate::store::admin::Cell;

const DAY: u64 = 86_400;
const AT_ONCE: Leisure = Leisure {
    between: Duration::ZERO,
    all: Duration::ZERO,
};

fn policy(events: u64) -> Retention {
    Retention {
        inactive: None,
        events: Duration::from_secs(events),
    }
}

/// A pass over everything, by a policy that keeps events for ten days.
async fn pass(rig: &Rig) -> Result<Pass, LedgerError> {
    let apps = || {
        let other = AppId::parse("other").unwrap();
        vec![(other, policy(DAY)), (app(), policy(10 * DAY))]
    };
    rig.ledger().retire_all(7, AT_ONCE, apps, |_| {}).await
}

async fn all(rig: &Rig, loaded: &Loaded) -> Result<Page, LedgerError> {
    rig.ledger().events(loaded, None, usize::MAX).await
}

/// The numbers of the events that the account's trail shows, newest first, and where it begins.
async fn numbers(rig: &Rig, id: AccountId) -> (Vec<u64>, u64) {
    let page = all(rig, &load(rig, id).await.unwrap()).await.unwrap();
    assert_eq!(page.next, None);
    let numbers = page.events.iter().map(|event| event.number).collect();
    (numbers, page.complete_from)
}

#[tokio::test]
async fn what_has_ended_goes_of_every_account_and_nothing_else() {
    for cache in [0, 1 << 20] {
        let mut rig = Rig::new().await;
        rig.cache = cache;
        rig.restart().await;
        let [a, b] = rig.accounts;
        rig.burst(&[a, a]).await;
        rig.later(9 * DAY);
        rig.burst(&[a, a]).await;
        let quiet = Pass {
            accounts: 2,
            ..Pass::default()
        };
        assert_eq!(pass(&rig).await.unwrap(), quiet);
        // The batches' own leaves do not count.
        let entries = "SELECT count(*) FROM log_entries WHERE hex(substr(leaf, 1, 1)) = '04'";
        rig.later(2 * DAY);
        let early = load(&rig, a).await.unwrap();
        // The dormant one loses all, the other three of five.
        let done = pass(&rig).await.unwrap();
        assert_eq!(done, Pass { bodies: 4, ..quiet });
        assert_eq!(numbers(&rig, a).await, (vec![5, 4], 4));
        assert_eq!(numbers(&rig, b).await, (vec![], 2));
        let (gone, named) = gone_and_covered(&rig).await;
        assert_eq!((gone.len(), &gone), (4, &named));
        // Each has one leaf, and the next pass finds nothing to do.
        assert_eq!(rig.number(entries).await, 2);
        assert_eq!(pass(&rig).await.unwrap(), quiet);
        assert_eq!(rig.number(entries).await, 2);
        // Who read the account before sees what is there now; old cursors lead to the end.
        let page = all(&rig, &early).await.unwrap();
        assert_eq!((page.events.len(), page.complete_from), (2, 4));
        let old = Place {
            number: 2,
            index: early.account.trail.oldest.unwrap().index + 2,
        };
        let page = rig.ledger().events(&early, Some(old), 9).await.unwrap();
        assert!(page.events.is_empty() && page.next.is_none());
        // Events go on after a gap and after nothing alike.
        rig.burst(&[a, b]).await;
        assert_eq!(numbers(&rig, a).await, (vec![6, 5, 4], 4));
        assert_eq!(numbers(&rig, b).await, (vec![2], 2));
        rig.restart().await;
        assert_eq!(numbers(&rig, a).await, (vec![6, 5, 4], 4));
        assert_eq!(numbers(&rig, b).await, (vec![2], 2));
    }
}

#[tokio::test]
async fn an_account_of_an_app_that_is_not_served_is_left_alone() {
    let rig = Rig::new().await;
    rig.later(11 * DAY);
    let apps = || vec![(AppId::parse("other").unwrap(), policy(DAY))];
    let done = rig.ledger().retire_all(0, AT_ONCE, apps, |_| {}).await;
    let expected = Pass {
        unopened: 2,
        ..Pass::default()
    };
    assert_eq!(done.unwrap(), expected);
    assert_eq!(gone_and_covered(&rig).await, (Vec::new(), Vec::new()));
}

/// Whoever takes member lists away while a pass or a count comes by hides nobody from it.
#[tokio::test]
async fn a_list_that_is_not_the_newest_hides_nobody() {
    for any_list in [false, true] {
        let mut rig = Rig::new().await;
        rig.cache = 0;
        let weakness = Weakness {
            any_list,
            ..Weakness::default()
        };
        rig.start(weakness).await.unwrap();
        let mut buckets = Vec::new();
        for id in rig.accounts {
            buckets.push(rig.record(id).await.bucket(BUCKET_BITS));
        }
        let honest = rig.tables().await;
        let mut hidden = honest.clone();
        hidden.remove(MEMBERS, &[Cell::Number(buckets[0].into())]);
        let empty = Cell::Bytes(MemberList::EMPTY.into());
        hidden.put(MEMBERS, vec![Cell::Number(buckets[1].into()), empty]);
        rig.put(&hidden, &[MEMBERS]).await;
        rig.later(11 * DAY);
        let done = pass(&rig).await.unwrap();
        assert_eq!((done.accounts, done.bodies), (0, 0));
        let mut counted = (0, 0);
        for bucket in &buckets {
            let part = bucket / (BUCKETS / PARTS);
            let (of, wrong) = rig
                .ledger()
                .count_in(part, &[app()], |_| true)
                .await
                .unwrap();
            counted = (counted.0 + of[0].holding, counted.1 + wrong);
        }
        // Control: there is nobody then, and all is well.
        let missed = if any_list { 0 } else { 2 };
        assert_eq!(done.damaged, missed);
        assert_eq!(counted, (0, missed));
        rig.put(&honest, &[MEMBERS]).await;
        assert_eq!(pass(&rig).await.unwrap().accounts, 2);
    }
}

/// The administrator's part: a body that is newer than the mark is missed, an older one is not.
#[tokio::test]
async fn a_body_above_the_mark_can_not_be_taken() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    rig.burst(&[a, a]).await;
    rig.later(9 * DAY);
    rig.burst(&[a, a]).await;
    let page = all(&rig, &load(&rig, a).await.unwrap()).await.unwrap();
    let entries: Vec<u64> = page
        .events
        .iter()
        .filter_map(|event| event.previous)
        .collect();
    let mut admin = rig.admin().await;
    let mend = "INSERT OR REPLACE INTO log_bodies SELECT * FROM kept";
    let keep = "CREATE TEMP TABLE kept AS SELECT * FROM log_bodies";
    admin.run(keep, &[]).await;
    // Events 1, 2 and 4: the oldest, one in the middle, one that stays.
    let attacked = [entries[3], entries[2], entries[0]];
    let take = |entry: u64| format!("DELETE FROM log_bodies WHERE idx = {entry}");
    let tampered = async |rig: &Rig| {
        let read = all(rig, &load(rig, a).await.unwrap()).await;
        assert!(matches!(read, Err(LedgerError::Tampered(_))), "{read:?}");
    };
    rig.later(2 * DAY);
    for entry in attacked {
        assert_eq!(admin.run(&take(entry), &[]).await, 1);
        tampered(&rig).await;
        // Nor does retention cover what somebody else has taken.
        let done = pass(&rig).await.unwrap();
        assert_eq!((done.accounts, done.damaged), (2, 1));
        tampered(&rig).await;
        admin.run(mend, &[]).await;
        let page = all(&rig, &load(&rig, a).await.unwrap()).await.unwrap();
        assert_eq!(page.events.len(), 5);
    }
    // Control: with the mark raised, the same bodies are missing and nobody misses them.
    assert_eq!(pass(&rig).await.unwrap().bodies, 3);
    let whole = (vec![5, 4], 4);
    assert_eq!(numbers(&rig, a).await, whole);
    for entry in &attacked[..2] {
        assert_eq!(admin.run(&take(*entry), &[]).await, 0);
    }
    // The one above the mark still is missed; old ones that are put back say nothing.
    assert_eq!(admin.run(&take(attacked[2]), &[]).await, 1);
    tampered(&rig).await;
    admin.run(mend, &[]).await;
    assert_eq!(numbers(&rig, a).await, whole);
}

/// As `service` would, for one account by itself.
async fn retire(rig: &Rig, loaded: Loaded) -> Result<u64, LedgerError> {
    let now = rig.ledger().now();
    let ended = move |at: Timestamp| now >= at.plus(Duration::from_secs(10 * DAY));
    rig.ledger().retire(loaded, ended).await
}

#[tokio::test]
async fn what_happens_meanwhile_happens_before_or_after_and_nothing_is_lost() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    rig.one(a).await.unwrap();
    rig.later(11 * DAY);
    rig.one(a).await.unwrap();
    let read = load(&rig, a).await.unwrap();
    // In one batch: before it, itself, after it.
    let (before, gone, after) = tokio::join!(
        biased;
        rig.ledger().commit(read.clone(), charge),
        retire(&rig, read.clone()),
        rig.ledger().commit(read.clone(), charge),
    );
    for charged in [before, after] {
        rig.book(a, &charged.map(|(number, _)| number));
    }
    assert_eq!(gone.unwrap(), 2);
    assert_eq!(numbers(&rig, a).await, (vec![5, 4, 3], 3));
    // From the same reading once more: it is done already.
    let again = retire(&rig, read.clone()).await;
    assert!(matches!(again, Err(LedgerError::Stale)), "{again:?}");
    // All of a dormant account's, while it comes back to life: that one event has no mark yet.
    let read = load(&rig, b).await.unwrap();
    let (woken, gone) = tokio::join!(
        biased;
        rig.ledger().commit(read.clone(), charge),
        retire(&rig, read.clone()),
    );
    rig.book(b, &woken.map(|(number, _)| number));
    assert!(matches!(gone, Ok(1) | Err(LedgerError::Stale)), "{gone:?}");
    pass(&rig).await.unwrap();
    assert_eq!(numbers(&rig, b).await, (vec![2], 2));
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!((gone.len(), &gone), (3, &named));
}

#[tokio::test]
async fn an_erasure_names_only_bodies_that_are_still_there() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    for id in [a, b] {
        rig.one(id).await.unwrap();
        rig.one(id).await.unwrap();
    }
    rig.later(11 * DAY);
    rig.burst(&[a, b, a, b]).await;
    // After retention; and at once, from what was read before it.
    pass(&rig).await.unwrap();
    erase(&rig, a).await.unwrap();
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!((gone.len(), &gone), (8, &named));
    rig.later(11 * DAY);
    let read = load(&rig, b).await.unwrap();
    rig.one(b).await.unwrap();
    let (erased, _) = tokio::join!(
        rig.ledger()
            .erase(read.clone(), |_, _| Ok::<_, LedgerError>(())),
        retire(&rig, read.clone()),
    );
    erased.unwrap();
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!((gone.len(), &gone), (11, &named));
    let late = retire(&rig, read).await;
    assert!(matches!(late, Err(LedgerError::Erased)), "{late:?}");
    // An account without any body left is erased as well.
    let last = rig
        .ledger()
        .create(super::rig::account(AccountId([3; 16])), &[], make);
    last.await.unwrap();
    rig.later(11 * DAY);
    assert_eq!(pass(&rig).await.unwrap().bodies, 1);
    erase(&rig, AccountId([3; 16])).await.unwrap();
    let (gone, named) = gone_and_covered(&rig).await;
    assert_eq!((gone.len(), &gone), (12, &named));
}

#[tokio::test]
async fn whatever_fails_all_of_a_step_has_happened_or_nothing() {
    for commits in [
        vec![Commit::Lost, Commit::Honest],
        vec![Commit::AnswerLost],
        vec![Commit::Full; 5],
        [&[Commit::AnswerLost][..], &[Commit::Full; 8]].concat(),
        vec![Commit::Lost; 5],
    ] {
        let mut rig = Rig::new().await;
        rig.cache = 1 << 20;
        rig.restart().await;
        let [a, _] = rig.accounts;
        rig.burst(&[a, a]).await;
        rig.later(11 * DAY);
        rig.script(Script::new(&commits, &[false; 5], &[]));
        let answer = retire(&rig, load(&rig, a).await.unwrap()).await;
        let expected = match answer {
            Ok(bodies) => Some(bodies),
            Err(LedgerError::Store(_)) => Some(0),
            Err(LedgerError::Stopped) => None,
            Err(error) => panic!("{error:?}"),
        };
        rig.script(Script::default());
        rig.restart().await;
        let (gone, named) = gone_and_covered(&rig).await;
        assert_eq!(gone, named, "{commits:?}");
        let bodies = gone.len() as u64;
        assert!(bodies == 0 || bodies == 3, "{commits:?}");
        assert!(expected.is_none_or(|said| said == bodies), "{commits:?}");
        let shown = if bodies == 0 { vec![3, 2, 1] } else { vec![] };
        assert_eq!(numbers(&rig, a).await, (shown, bodies + 1));
    }
}

/// A step of a run.
#[derive(Clone, Debug)]
enum Do {
    Charge(Vec<usize>),
    Later(u64),
    Pass,
    Restart,
}

fn script() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        3 => prop::collection::vec(0usize..2, 1..4).prop_map(Do::Charge),
        3 => (1u64..8).prop_map(Do::Later),
        2 => Just(Do::Pass),
        1 => Just(Do::Restart),
    ];
    prop::collection::vec(step, 1..14)
}

#[test]
fn whatever_is_done_and_fails_what_is_missing_has_ended_and_is_covered() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fresh = runtime.block_on(Rig::new());
    let mut cases = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let cache = prop_oneof![Just(0), Just(1 << 20)];
    let strategy = (script(), super::faults(), super::reads(0.3), cache);
    let run = async |steps: Vec<Do>, commits: Vec<Commit>, heads: Vec<bool>, cache| {
        let mut rig = fresh.copy().await;
        rig.cache = cache;
        rig.restart().await;
        rig.script(Script::new(&commits, &heads, &[]));
        let mut days = 0;
        for step in steps {
            match step {
                Do::Charge(of) => {
                    let accounts: Vec<_> = of.iter().map(|at| rig.accounts[*at]).collect();
                    rig.burst(&accounts).await;
                }
                Do::Later(by) => {
                    rig.later(by * DAY);
                    days += by;
                }
                Do::Pass => drop(pass(&rig).await),
                Do::Restart => rig.restart().await,
            }
            if rig.has_stopped().await {
                rig.restart().await;
            }
        }
        rig.script(Script::default());
        rig.restart().await;
        rig.later(days * DAY);
        let (gone, named) = gone_and_covered(&rig).await;
        assert_eq!(gone, named);
        for done in [false, true] {
            if done {
                assert_eq!(pass(&rig).await.unwrap().damaged, 0);
            }
            let (mut kept, mut counted) = (0, 0);
            for id in rig.accounts {
                let (numbers, from) = numbers(&rig, id).await;
                let count = load(&rig, id).await.unwrap().account.trail.count;
                let expected: Vec<u64> = (from..=count).rev().collect();
                assert_eq!(numbers, expected);
                kept += numbers.len();
                counted += count as usize;
            }
            let (gone, _) = gone_and_covered(&rig).await;
            assert_eq!(gone.len(), counted - kept);
        }
    };
    cases
        .run(&strategy, |(steps, commits, heads, cache)| {
            runtime.block_on(run(steps, commits, heads, cache));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn an_account_that_nobody_uses_is_erased_and_a_used_one_is_not() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    let told = std::sync::Mutex::new(Vec::new());
    let unused = |days: u64| {
        let inactive = Some(Duration::from_secs(days * DAY));
        let policy = Retention {
            inactive,
            ..policy(400 * DAY)
        };
        move || vec![(app(), policy.clone())]
    };
    let erased = |last: &Loaded| told.lock().unwrap().push(last.account.id);
    let pass = |rig: &Rig, days| {
        let (ledger, apps) = (rig.ledger().clone(), unused(days));
        async move { ledger.retire_all(0, AT_ONCE, apps, erased).await }
    };
    rig.later(50 * DAY);
    rig.burst(&[b]).await;
    rig.later(50 * DAY);
    assert_eq!(pass(&rig, 101).await.unwrap().erased, 0);
    let done = pass(&rig, 60).await.unwrap();
    assert_eq!((done.accounts, done.erased), (2, 1));
    assert_eq!(*told.lock().unwrap(), [a]);
    assert!(load(&rig, a).await.is_none());
    assert_eq!(load(&rig, b).await.unwrap().account.session_epoch, 1);
    // It is erased as by its owner: whoever looks finds nothing more to do.
    assert_eq!(pass(&rig, 60).await.unwrap().erased, 0);
}

/// A clock says for one batch that it is two years later, on this host or on another node's; then it is right again, and the
/// realm stays ahead. Nobody's account has been unused for as long as that.
#[tokio::test]
async fn a_clock_that_was_ahead_for_a_batch_deletes_nothing_for_good() {
    for realm_time in [false, true] {
        let mut rig = Rig::new().await;
        rig.weakness.realm_time = realm_time;
        rig.restart().await;
        let [a, b] = rig.accounts;
        rig.burst(&[a, a, b]).await;
        let policy = || {
            let inactive = Some(Duration::from_secs(60 * DAY));
            let events = Duration::from_secs(100 * DAY);
            vec![(app(), Retention { inactive, events })]
        };
        let ledger = rig.ledger().clone();
        let pass = async || ledger.retire_all(0, AT_ONCE, policy, |_| {}).await.unwrap();
        let right = rig.host.wall();
        rig.host.set(right + 730 * DAY);
        rig.burst(&[b]).await;
        // As long as it is wrong, the pass waits.
        let early = tokio::time::timeout(Duration::from_secs(1), pass()).await;
        assert_eq!(early.is_ok(), realm_time, "{early:?}");
        rig.host.set(right);
        assert!(ledger.now().0 > right + 700 * DAY);
        match realm_time {
            false => {
                let quiet = Pass {
                    accounts: 2,
                    ..Pass::default()
                };
                assert_eq!(pass().await, quiet);
                assert_eq!(numbers(&rig, a).await, (vec![3, 2, 1], 1));
                // What is due by the right time goes, whatever the realm's is.
                rig.later(61 * DAY);
                let done = pass().await;
                assert_eq!((done.erased, done.bodies), (1, 0));
                assert!(load(&rig, a).await.is_none());
            }
            true => {
                // The control has taken what nobody brings back.
                assert!(load(&rig, a).await.is_none());
                assert_eq!(early.unwrap().erased, 1);
            }
        }
        drop(ledger);
    }
}

/// Whatever is away for a moment, at whichever step, the pass comes round.
#[tokio::test]
async fn a_pass_waits_for_what_is_away_and_goes_on_where_it_was() {
    let mut rig = Rig::new().await;
    let [a, b] = rig.accounts;
    rig.burst(&[a, a, b]).await;
    rig.later(11 * DAY);
    rig.burst(&[a, b]).await;
    let mut script = Script::new(
        &[
            Commit::Full,
            Commit::Full,
            Commit::Full,
            Commit::Full,
            Commit::Full,
            Commit::Full,
        ],
        &[],
        &[],
    );
    script.reads = (0..12).map(|nth| nth % 4 != 3).collect();
    rig.script(script);
    let passed = pass(&rig).await.unwrap();
    let expected = Pass {
        accounts: 2,
        bodies: 5,
        ..Pass::default()
    };
    assert_eq!(passed, expected);
    assert_eq!(numbers(&rig, a).await, (vec![4], 4));
    assert_eq!(numbers(&rig, b).await, (vec![3], 3));
    rig.stop().await;
}
