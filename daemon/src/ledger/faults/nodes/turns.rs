//! What a node writes upon: in a turn on a connection to another server, in one that is taken away, and after it has
//! caught up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use custodyd_hsm::AccountId;

use super::super::broken::{Commit, During, Meanwhile, Script};
use super::super::rig::{Rig, app, charge as deciding};
use super::super::tables;
use super::anchors::{is_rolled_back, loaded};
use super::{LATER, anchored, charge, charges, ends_with, two};
use crate::account::Account;
use crate::ledger::weakness::Weakness;
use crate::ledger::{Journal, Ledger, LedgerError, Moment};
use crate::store::admin::Place;

/// One of two nodes with a defence off, or none.
pub(super) async fn weak(off: impl FnOnce(&mut Weakness)) -> [Rig; 2] {
    let [mut one, other] = two().await;
    one.crash().await;
    off(&mut one.weakness);
    one.try_serve(Script::default()).await.unwrap();
    [one, other]
}

/// The server hangs up on those of whom it says this.
pub(super) fn hangs_up(place: &Place, on: &str) {
    let Place::Server(server, place) = place else {
        panic!("these tests are of a server");
    };
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND {on}"
    );
    server.sql(&place.database, &sql);
}

pub(super) async fn charges_by(ledger: &Ledger, id: AccountId) {
    loop {
        let loaded = ledger.load(&app(), id).await;
        if let Ok(Some(loaded)) = loaded
            && ledger.commit(loaded, deciding).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A standby was promoted that lacks what another node has written since this one asked the token, and shows it the head
/// that it knows.
#[tokio::test]
async fn another_server_is_not_believed_for_a_second() {
    for any_server in [false, true] {
        let [one, mut other] = weak(|weakness| weakness.any_server = any_server).await;
        charge(&one).await;
        // One for each try: nothing can be read once the token is asked.
        let mut bases = Vec::new();
        for _ in 0..100 {
            bases.push(loaded(&one).await);
        }
        let old = one.tables().await;
        charges(&other, 2).await;
        // Whoever could write it again is gone.
        other.crash().await;
        let newest = one.tables().await;
        let anchors = one.anchors.contents();
        one.put(&old, &tables::ALL).await;
        let of_before = one.store().connections();
        hangs_up(&one.place, "true");
        let told = loop {
            // The token has said it a moment ago, however slow this host is; but nothing since another server is there.
            if any_server || one.store().connections() == of_before {
                let fresh = one.ledger().reader.freshness();
                fresh.confirm(fresh.now());
            }
            let base = bases.pop().unwrap();
            match one.ledger().commit(base, deciding).await {
                Err(LedgerError::Store(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                told => break told,
            }
        };
        assert!(is_rolled_back(&told), "{told:?}");
        assert_eq!(one.anchors.contents(), anchors);
        // The control has made a second history, which it tells nobody of.
        assert_eq!(one.tables().await != old, any_server);
        one.put(&newest, &tables::ALL).await;
        assert_eq!(charge(&one).await, 4);
        ends_with([one, other], 4).await;
    }
}

/// Another node writes while this one catches up with what it wrote before.
#[tokio::test]
async fn who_has_caught_up_asks_whether_that_was_all() {
    for any_newer in [false, true] {
        let [one, other] = weak(|weakness| weakness.any_newer = any_newer).await;
        charge(&one).await;
        charges(&other, 1).await;
        let (ledger, id) = (other.ledger().clone(), other.accounts[0]);
        one.meanwhile(Meanwhile {
            during: During::CatchingUp,
            left: 1,
            what: Box::new(move || {
                let ledger = ledger.clone();
                Box::pin(async move { charges_by(&ledger, id).await })
            }),
        });
        tokio::time::sleep(LATER).await;
        let reader = &one.ledger().reader;
        reader.freshness().confirmed().await.unwrap();
        let believed = reader.memory().head().state.seq;
        let newest = anchored(&one).iter().map(|anchor| anchor.seq).max();
        // The control has stopped at what was the newest when it began to look.
        let expected = newest.unwrap() - u64::from(any_newer);
        assert_eq!(believed, expected);
        ends_with([one, other], 3).await;
    }
}

/// The server takes a node's turn away, and another node writes: to the first one the token then remembers more than the
/// database has shown it.
#[tokio::test]
async fn a_turn_that_was_taken_away_is_no_evidence() {
    for stands in [false, true] {
        let [one, other] = weak(|weakness| weakness.stands = stands).await;
        charges(&other, 1).await;
        charge(&one).await;
        let base = loaded(&one).await;
        let (ledger, id, place) = (other.ledger().clone(), other.accounts[0], one.place.clone());
        let fresh = one.ledger().reader.freshness().clone();
        one.meanwhile(Meanwhile {
            during: During::Turn,
            left: 1,
            what: Box::new(move || {
                let (ledger, place, fresh) = (ledger.clone(), place.clone(), fresh.clone());
                Box::pin(async move {
                    hangs_up(&place, "state = 'idle in transaction'");
                    charges_by(&ledger, id).await;
                    fresh.doubt();
                })
            }),
        });
        let told = one.ledger().commit(base, deciding).await;
        let accused =
            matches!(&told, Err(LedgerError::Refused(why)) if why.contains("a later one"));
        assert_eq!(accused, stands, "{told:?}");
        let so_far = 3 + u64::from(told.is_ok());
        let durable = charge(&one).await;
        // What was refused may have been written by then, or be written yet: but once.
        assert!((so_far + 1..=5).contains(&durable), "{durable}: {told:?}");
        ends_with([one, other], durable).await;
    }
}

/// What was decided in a turn that is lost never was: another node has gone on without it. So who asked is told to come
/// again, and it is decided upon what stands then; nothing is decided twice by itself.
#[tokio::test]
async fn an_outcome_that_was_decided_in_a_turn_which_was_taken_away_never_was() {
    for taken in [true, false] {
        let [mut one, other] = two().await;
        // What it has in memory it does not look at again.
        one.crash().await;
        one.cache = 1 << 20;
        one.try_serve(Script::default()).await.unwrap();
        charge(&other).await;
        charge(&one).await;
        let (ledger, id, place) = (other.ledger().clone(), other.accounts[0], one.place.clone());
        let fresh = one.ledger().reader.freshness().clone();
        one.meanwhile(Meanwhile {
            during: During::Turn,
            left: 1,
            what: Box::new(move || {
                let (ledger, place, fresh) = (ledger.clone(), place.clone(), fresh.clone());
                Box::pin(async move {
                    if taken {
                        hangs_up(&place, "state = 'idle in transaction'");
                        charges_by(&ledger, id).await;
                    }
                    // The token has said it a moment ago, however slow this host is: it decides upon what it knows.
                    fresh.confirm(fresh.now());
                })
            }),
        });
        let decisions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&decisions);
        let outcome = move |account: &mut Account, moment: Moment, journal: &mut Journal| {
            counted.fetch_add(1, Ordering::SeqCst);
            deciding(account, moment, journal)
        };
        let charged = loaded(&one).await;
        let told = one.ledger().record_outcome(charged, outcome.clone()).await;
        assert_eq!(decisions.load(Ordering::SeqCst), 1);
        match taken {
            true => assert!(matches!(told, Err(LedgerError::Overtaken)), "{told:?}"),
            // Control: in a turn that it keeps.
            false => assert_eq!(told.unwrap().0, 3),
        }
        // The other's charge, or its own: one of them.
        assert_eq!(other_sees(&other).await, 3);
        // Who comes again is decided upon, once.
        let newest = loaded(&one).await;
        let again = one.ledger().record_outcome(newest, outcome).await;
        assert_eq!(again.unwrap().0, 4);
        assert_eq!(decisions.load(Ordering::SeqCst), 2);
        ends_with([one, other], 4).await;
    }
}

/// What a node shows that has looked since.
async fn other_sees(other: &Rig) -> u64 {
    other.ledger().reader.catches_up().await;
    other.durable(other.accounts[0]).await
}

/// Another node has its turn for longer than anybody waits for a lock, and writes nothing.
#[tokio::test]
async fn an_outcome_waits_for_its_turn_and_anything_else_is_refused() {
    let [one, other] = two().await;
    charge(&one).await;
    charge(&other).await;
    let [first, second] = one.accounts;
    let load = async |id| one.ledger().load(&app(), id).await.unwrap().unwrap();
    let (charged, wanted) = (load(first).await, load(second).await);
    other.store().take_turn().await.unwrap();
    let (recorded, refused) = tokio::join!(
        one.ledger().record_outcome(charged, deciding),
        // Control: the same without the patience.
        async {
            let refused = one.ledger().commit(wanted, deciding).await;
            other.store().end_turn().await;
            refused
        },
    );
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    assert_eq!(recorded.unwrap().0, 3);
    ends_with([one, other], 3).await;
}

/// Another node keeps its turn: this one says that it writes nothing, and goes on once it can, though nobody asked for anything.
#[tokio::test]
async fn a_node_that_gets_no_turn_is_not_ready_until_it_does() {
    let [one, other] = two().await;
    assert_eq!(charge(&one).await, 1);
    other.store().take_turn().await.unwrap();
    one.ledger().can_write().unwrap();
    let base = loaded(&one).await;
    let refused = one.ledger().commit(base, deciding).await;
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    let until = async |ready: bool| {
        for _ in 0..600 {
            if one.ledger().can_write().is_ok() == ready {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it stays {:?}", one.ledger().can_write());
    };
    until(false).await;
    other.store().end_turn().await;
    until(true).await;
    assert_eq!(charge(&one).await, 2);
    ends_with([one, other], 2).await;
}

/// And no longer than a request would.
#[tokio::test]
async fn an_outcome_does_not_wait_for_ever() {
    let [one, other] = two().await;
    charge(&one).await;
    let charged = loaded(&one).await;
    other.store().take_turn().await.unwrap();
    let begun = std::time::Instant::now();
    let refused = one.ledger().record_outcome(charged, deciding).await;
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    other.store().end_turn().await;
    ends_with([one, other], 1).await;
}

/// A token that is slow for one node, and another one that has the next turn.
#[tokio::test]
async fn who_comes_next_makes_no_anchor_for_who_was_before() {
    for hurries in [false, true] {
        let [one, other] = weak(|weakness| weakness.hurries = hurries).await;
        charge(&one).await;
        charge(&other).await;
        let (ours, theirs) = (loaded(&one).await, loaded(&other).await);
        let made = || {
            let of = |node: &Rig| node.sluggish.made.load(Ordering::SeqCst);
            of(&one) + of(&other)
        };
        let (before, head) = (made(), head_of(&other).await);
        one.sluggish.makes.store(4000, Ordering::SeqCst);
        let (first, second, ()) = tokio::join!(
            one.ledger().commit(ours, deciding),
            async {
                // It is written, and not anchored yet.
                until(async || head_of(&other).await > head).await;
                other.ledger().commit(theirs, deciding).await
            },
            async {
                until(async || head_of(&other).await > head).await;
                match hurries {
                    // Four times as long as it would wait before it makes one.
                    false => tokio::time::sleep(Duration::from_millis(100)).await,
                    true => until(async || made() - before >= 2).await,
                }
                one.sluggish.makes.store(0, Ordering::SeqCst);
            }
        );
        assert_eq!((first.unwrap().0, second.unwrap().0), (3, 4));
        // The control makes that of the batch before beside its maker.
        assert_eq!(made() - before, if hurries { 3 } else { 2 });
        rests(&[&one, &other]).await;
        ends_with([one, other], 4).await;
    }
}

async fn head_of(node: &Rig) -> u64 {
    let row = node.store().head().await.unwrap().examine();
    row.unwrap().seq
}

async fn until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..2000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it is not so");
}

/// How many have a turn by courtesy, or wait for one.
fn in_line(node: &Rig, granted: bool) -> u64 {
    let Place::Server(server, place) = &node.place else {
        panic!("these tests are of a server");
    };
    let sql = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND objid = 2 AND granted = {granted}"
    );
    let shown = server.sql(&place.database, &sql);
    shown.trim().parse().unwrap()
}

/// Whoever has nothing to write keeps nobody waiting.
async fn rests(nodes: &[&Rig]) {
    for node in nodes {
        until(async || in_line(node, true) == 0).await;
    }
}

#[tokio::test]
async fn a_turn_is_over_whatever_became_of_it() {
    for commit in [
        Commit::Honest,
        Commit::Lost,
        Commit::AnswerLost,
        Commit::Full,
        Commit::Declined,
        Commit::Overtaken,
    ] {
        let [one, other] = two().await;
        charge(&one).await;
        one.script(Script::new(&[commit], &[], &[]));
        let base = loaded(&one).await;
        let _ = one.ledger().commit(base, deciding).await;
        rests(&[&one]).await;
        if commit != Commit::Overtaken {
            charge(&other).await;
            charge(&one).await;
        }
        rests(&[&one]).await;
        drop((one, other));
    }
}

/// It is frozen after its commit, and its connection stands.
#[tokio::test]
async fn a_node_that_does_not_end_its_turn_stops_nobody() {
    let [one, other] = two().await;
    charge(&one).await;
    charge(&other).await;
    let head = other.store().take_turn().await.unwrap().examine().unwrap();
    other.store().acknowledge(&head).await.unwrap();
    assert_eq!(in_line(&one, true), 1);
    let patience = Duration::from_millis(450);
    // It is waited for, until it has rested for so long that it is not.
    let mut number = 2;
    let mut took = Vec::new();
    while took.last().is_none_or(|took| *took > patience) {
        let base = loaded(&one).await;
        let begun = std::time::Instant::now();
        let charged = one.ledger().commit(base, deciding).await;
        took.push(begun.elapsed());
        number += 1;
        assert_eq!(charged.unwrap().0, number);
        assert!(number < 30, "{took:?}");
    }
    assert!(took[0] > patience, "{took:?}");
    // Control: before its commit nobody could have written.
    other.store().take_turn().await.unwrap();
    let base = loaded(&one).await;
    let refused = one.ledger().commit(base, deciding).await;
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    other.store().end_turn().await;
    rests(&[&one]).await;
    assert_eq!(charge(&one).await, number + 1);
    ends_with([one, other], number + 1).await;
}
