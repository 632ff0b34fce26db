//! Bounded anchoring: what the token is told at once, what it is told later, and what a loss of
//! power costs.

use custodyd_policies::{Factor, Round, Rounds, Timestamp};

use super::broken::{Anchor, Script};
use super::rig::{Rig, app};
use crate::account::Account;
use crate::ledger::anchoring::AGAIN;
use crate::ledger::{EventKind, Journal, LedgerError, Moment, NewEvent};

async fn bounded() -> Rig {
    let mut rig = Rig::new().await;
    rig.bounded = true;
    rig.restart().await;
    rig
}

/// The token's anchors, which tell whether it was told.
fn told(rig: &Rig) -> Vec<Vec<u8>> {
    rig.anchors.contents()
}

/// How many guesses at a contact's codes are left of ten, as the envelope says.
async fn left(rig: &Rig) -> u32 {
    let round = Round {
        attempts: 10,
        wait: std::time::Duration::ZERO,
    };
    let loaded = rig.ledger().load(&app(), rig.accounts[0]).await.unwrap();
    let budget = &loaded.unwrap().account.contacts.guesses;
    let rounds = Rounds::new(vec![round]).unwrap();
    budget.standing(&rounds, Timestamp(u64::MAX / 2)).total_left
}

async fn charge(rig: &Rig) {
    note(rig, NewEvent::new(EventKind::PinCharged)).await;
}

async fn note(rig: &Rig, event: NewEvent) {
    let loaded = rig.ledger().load(&app(), rig.accounts[0]).await.unwrap();
    let noting = |_: &mut Account, _: Moment, journal: &mut Journal| {
        journal.note(event);
        Ok::<_, LedgerError>(())
    };
    rig.ledger().commit(loaded.unwrap(), noting).await.unwrap();
}

#[tokio::test]
async fn strict_mode_tells_the_token_of_every_batch() {
    let mut rig = Rig::new().await;
    let [a, _] = rig.accounts;
    for _ in 0..3 {
        let before = told(&rig);
        rig.one(a).await.unwrap();
        assert_ne!(told(&rig), before);
    }
}

#[tokio::test]
async fn the_token_is_told_before_an_account_has_two_charges_it_does_not_know() {
    let mut rig = bounded().await;
    let [a, b] = rig.accounts;
    let before = told(&rig);
    // The first charge after an anchor raises the dirty flag, and is told by it.
    rig.one(a).await.unwrap();
    let flagged = told(&rig);
    assert_ne!(flagged, before);
    // One of each account is not told.
    rig.one(a).await.unwrap();
    rig.one(b).await.unwrap();
    assert_eq!(told(&rig), flagged);
    rig.one(a).await.unwrap();
    let again = told(&rig);
    assert_ne!(again, flagged);
    rig.one(b).await.unwrap();
    assert_eq!(told(&rig), again);
    // Two of one account in one batch are two as well.
    rig.burst(&[b, b]).await;
    assert_ne!(told(&rig), again);
}

#[tokio::test]
async fn the_token_is_told_at_once_of_what_is_taken_away_or_used_up() {
    let rig = bounded().await;
    note(&rig, NewEvent::new(EventKind::PinCharged)).await;
    let harmless = [
        NewEvent::new(EventKind::SecretReleased),
        NewEvent::new(EventKind::SessionStarted).by(Factor::Passkey),
    ];
    for event in harmless {
        let before = told(&rig);
        note(&rig, event.clone()).await;
        assert_eq!(told(&rig), before, "{event:?}");
    }
    let grave = [
        NewEvent::new(EventKind::DeviceRemoved),
        NewEvent::new(EventKind::SessionsEnded),
        NewEvent::new(EventKind::PinSet),
        NewEvent::new(EventKind::SessionStarted).by(Factor::Totp),
        NewEvent::new(EventKind::RecoveryCodeCharged),
    ];
    for event in grave {
        let before = told(&rig);
        note(&rig, event.clone()).await;
        assert_ne!(told(&rig), before, "{event:?}");
    }
}

#[tokio::test]
async fn a_killed_process_forgets_nothing_and_costs_nothing() {
    let mut rig = bounded().await;
    let [a, b] = rig.accounts;
    for id in [a, a, b] {
        rig.one(id).await.unwrap();
    }
    let epoch = rig.ledger().era().boot_epoch;
    rig.crash().await;
    rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(rig.ledger().era().boot_epoch, epoch);
    assert_eq!(rig.durable(a).await, 2);
    assert_eq!(left(&rig).await, 10);
    rig.check().await;
}

#[tokio::test]
async fn after_a_kill_the_warm_anchor_refuses_an_older_database() {
    let mut rig = bounded().await;
    let [a, b] = rig.accounts;
    rig.one(a).await.unwrap();
    rig.crash().await;
    let older = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    rig.one(b).await.unwrap();
    rig.one(a).await.unwrap();
    rig.crash().await;
    let newest = rig.database();
    rig.put_database(&older);
    let refused = rig.try_serve(Script::default()).await;
    assert!(
        matches!(&refused, Err(LedgerError::Tampered(what)) if what.contains("rolled back")),
        "{refused:?}"
    );
    // Control: nothing else was wrong.
    rig.put_database(&newest);
    rig.try_serve(Script::default()).await.unwrap();
}

#[tokio::test]
async fn a_loss_of_power_costs_every_account_the_guess_that_may_be_forgotten() {
    let mut rig = bounded().await;
    let [a, _] = rig.accounts;
    // Told to the token, with the dirty flag.
    rig.one(a).await.unwrap();
    let (anchored, token) = (rig.database(), told(&rig));
    // Not told: a start after a kill would know of it by the warm anchor.
    assert_eq!(rig.one(a).await.unwrap(), 2);
    assert_eq!(told(&rig), token);
    rig.crash().await;
    // The power fails, and the administrator puts the last anchored state back.
    rig.lose_power();
    rig.put_database(&anchored);
    rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(rig.durable(a).await, 1, "the guess is forgotten");
    assert_eq!(left(&rig).await, 9, "and paid for");
    // It is charged once, and for good.
    charge(&rig).await;
    rig.crash().await;
    rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(left(&rig).await, 9);
    // A new account owes nothing.
    let new = custodyd_hsm::AccountId([9; 16]);
    let made = rig
        .ledger()
        .create(super::rig::account(new), &[], |_, _, _| {
            Ok::<_, LedgerError>(())
        });
    let (_, loaded) = made.await.unwrap();
    assert_eq!(loaded.account.boot_epoch, rig.ledger().era().boot_epoch);
}

#[tokio::test]
async fn a_clean_stop_costs_nothing_and_fixes_the_database() {
    let mut rig = bounded().await;
    let [a, b] = rig.accounts;
    for id in [a, a, b] {
        rig.one(id).await.unwrap();
    }
    rig.crash().await;
    let behind = rig.database();
    rig.try_serve(Script::default()).await.unwrap();
    rig.one(b).await.unwrap();
    rig.stop().await;
    rig.lose_power();
    let clean = rig.database();
    rig.put_database(&behind);
    let refused = rig.try_serve(Script::default()).await;
    assert!(
        matches!(refused, Err(LedgerError::Tampered(_))),
        "{refused:?}"
    );
    rig.put_database(&clean);
    rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(left(&rig).await, 10);
    // The start has taken the clean flag back: a kill leaves a database that starts.
    rig.crash().await;
    rig.try_serve(Script::default()).await.unwrap();
    rig.check().await;
}

#[tokio::test]
async fn a_batch_that_got_its_warm_anchor_late_is_not_signed_for() {
    let mut rig = bounded().await;
    let [a, b] = rig.accounts;
    rig.one(a).await.unwrap();
    let signed_for = |rig: &Rig| rig.ledger().reader.memory().in_token().0.state.seq;
    let known = signed_for(&rig);
    let told_then = told(&rig);
    rig.warm(false);
    let loaded = rig.ledger().load(&app(), b).await.unwrap().unwrap();
    let refused = rig.ledger().commit(loaded, super::rig::charge).await;
    assert!(
        matches!(refused, Err(LedgerError::Refused(_))),
        "{refused:?}"
    );
    rig.warm(true);
    // Nobody writes: it is anchored by itself, and readers get to see it.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while rig.ledger().reader.memory().pending().is_some() {
        assert!(std::time::Instant::now() < until, "it stays pending");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(rig.durable(b).await, 1);
    assert_eq!(told(&rig), told_then);
    assert_eq!(signed_for(&rig), known);
}

#[tokio::test]
async fn a_token_that_is_away_is_not_asked_without_a_pause() {
    let mut rig = Rig::new().await;
    rig.bounded = true;
    rig.interval = std::time::Duration::from_millis(50);
    rig.restart().await;
    let [a, _] = rig.accounts;
    rig.one(a).await.unwrap();
    rig.anchoring(&[Anchor::Lost; 1000]);
    let begun = std::time::Instant::now();
    let pauses = || begun.elapsed().as_millis() / AGAIN.as_millis();
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    while rig.anchoring_left() == 1000 {
        assert!(pauses() < 100, "it is not asked at all");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let asked = 1000 - rig.anchoring_left() as u128;
    // However slow the machine is: once more than there were pauses, at the most, and twice each time.
    let most = 2 * (1 + pauses());
    assert!(asked <= most, "{asked} times in {:?}", begun.elapsed());
    rig.anchoring(&[]);
}

#[tokio::test]
async fn what_only_the_interval_wants_waits_for_a_token_that_may_not_be_written() {
    let mut rig = Rig::new().await;
    rig.bounded = true;
    rig.interval = std::time::Duration::from_millis(1);
    rig.restart().await;
    let before = told(&rig);
    rig.anchoring(&[Anchor::Worn; 1000]);
    tokio::time::sleep(rig.interval * 5).await;
    // It is answered, by the warm anchor alone.
    note(&rig, NewEvent::new(EventKind::SecretReleased)).await;
    assert_eq!(told(&rig), before);
    // As soon as it may be, it is told.
    rig.anchoring(&[]);
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while told(&rig) == before {
        assert!(std::time::Instant::now() < give_up);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The start after a clean stop takes the flag back in the token first. One that is cut off behind that leaves it in
/// the warm anchor, which says less than the token does.
#[tokio::test]
async fn a_start_that_is_cut_off_behind_the_clean_flag_leaves_one_that_serves() {
    let mut rig = bounded().await;
    let [a, _] = rig.accounts;
    rig.one(a).await.unwrap();
    rig.stop().await;
    rig.anchoring(&[Anchor::AnswerLost]);
    let cut = rig.try_serve(Script::default()).await;
    assert!(matches!(cut, Err(LedgerError::Token(_))), "{cut:?}");
    // This one writes its batch, and gets no further.
    rig.anchoring(&[Anchor::Lost]);
    let cut = rig.try_serve(Script::default()).await;
    assert!(cut.is_err(), "{cut:?}");
    rig.anchoring(&[]);
    rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(rig.durable(a).await, 1);
}
