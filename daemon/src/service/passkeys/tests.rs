//! A ceremony by hand: used once, within its time, whatever was forgotten meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use custodyd_hsm::{AccountId, AppId, RealmName, SecretBytes};

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);
const EXPIRES: Timestamp = Timestamp(1_000_300);

fn account() -> Account {
    let key = SecretBytes::from(vec![7; 32]);
    let realm = RealmName::parse("realm.example").unwrap();
    let app = AppId::parse("notes").unwrap();
    Account::new(realm, app, AccountId([1; 16]), NOW, key)
}

fn ceremony(id: u8) -> Consumed {
    Consumed {
        id: [id; 16],
        expires: EXPIRES,
    }
}

fn expired(result: &Result<(), Refused>) -> bool {
    matches!(result, Err(Refused::Ceremony(CeremonyError::Expired)))
}

#[test]
fn a_ceremony_is_used_once_and_others_beside_it() {
    let mut account = account();
    ceremony(1).once(&mut account, NOW).unwrap();
    let again = ceremony(1).once(&mut account, NOW);
    assert!(matches!(again, Err(Refused::CeremonyConsumed)), "{again:?}");
    ceremony(2).once(&mut account, NOW).unwrap();
}

#[test]
fn its_last_second_is_the_one_before_it_expires() {
    let last = Timestamp(EXPIRES.0 - 1);
    ceremony(1).once(&mut account(), last).unwrap();
    for late in [EXPIRES, Timestamp(EXPIRES.0 + 1)] {
        let mut account = account();
        let refused = ceremony(1).once(&mut account, late);
        assert!(expired(&refused), "{refused:?}");
        assert!(account.consumed.is_empty(), "and leaves no mark");
    }
}

/// The request whose commit came late: its ceremony was used, and the mark is forgotten by then.
#[test]
fn a_used_ceremony_is_not_taken_again_once_its_mark_is_forgotten() {
    let mut account = account();
    ceremony(1).once(&mut account, NOW).unwrap();
    let mut late = NOW;
    while !account.consumed.is_empty() {
        late = Timestamp(late.0 + 1);
        let refused = ceremony(1).once(&mut account, late);
        assert!(refused.is_err(), "{late:?}: taken twice");
        account.forget_expired(late);
    }
    assert!(late > EXPIRES, "{late:?}");
    assert!(expired(&ceremony(1).once(&mut account, late)));
}

#[test]
fn marks_are_bounded_and_make_room_when_they_expire() {
    let mut account = account();
    for id in 0..MAX_CONSUMED {
        ceremony(u8::try_from(id).unwrap())
            .once(&mut account, NOW)
            .unwrap();
    }
    let refused = ceremony(255).once(&mut account, NOW);
    let wait = match refused {
        Err(Refused::RateLimited { retry_after }) => Some(retry_after),
        _ => None,
    };
    let later = Consumed {
        id: [255; 16],
        expires: Timestamp(EXPIRES.0 + 300),
    };
    assert!(later.once(&mut account, NOW.plus(wait.unwrap())).is_err());
    // The answer's `Retry-After` counts a started second in full.
    let after = NOW.plus(wait.unwrap() + Duration::from_secs(1));
    later.once(&mut account, after).unwrap();
    assert_eq!(account.consumed.len(), 1);
}
