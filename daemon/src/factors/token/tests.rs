//! Tokens over a security token in memory that counts what it is asked.
#![allow(clippy::unwrap_used)] // a test that cannot go on must stop

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use custodyd_hsm::{
    AnchorObject, Backend, Custody, KeyId, KeyPurpose, KeyReport, KeyVersions, PoolOptions,
    ProvisionReport, PublicKey, Result, Secret, TokenDescription,
};
use proptest::prelude::*;

use super::super::ceremony::{Ceremony, Purpose, tests::ceremony};
use super::super::session::{Scope, Session, tests::session};
use super::*;

/// HMAC under a fixed key, and nothing else. It fails while `away`, and says nothing while `silent`.
#[derive(Clone, Default)]
struct Fake(Arc<State>);

#[derive(Default)]
struct State {
    /// Those that it answered with a key.
    calls: AtomicUsize,
    /// All of them.
    asked: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
    silent: std::sync::atomic::AtomicBool,
}

fn not_used<T>() -> Result<T> {
    Err(Error::Misconfigured("not part of this test".into()))
}

impl Backend for Fake {
    fn open(&self) -> Result<Box<dyn Custody>> {
        Ok(Box::new(self.clone()))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }
    fn inspect(&self) -> Result<Vec<KeyReport>> {
        not_used()
    }
    fn provision(&self, _: bool) -> Result<ProvisionReport> {
        not_used()
    }
}

impl Custody for Fake {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        Ok(KeyId::new(purpose, 1))
    }
    fn holds(&self, _: KeyId) -> Result<bool> {
        Ok(true)
    }
    fn hmac(&mut self, _: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        while self.0.silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Error::Unavailable {
                operation: "hmac",
                reason: "away".into(),
            });
        }
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[5; 32]), message);
        Ok(Secret::init(|out| out.copy_from_slice(tag.as_ref())))
    }
    fn sign(&mut self, _: KeyId, _: &[u8; 32]) -> Result<[u8; 64]> {
        not_used()
    }
    fn public_key(&mut self, _: KeyId) -> Result<PublicKey> {
        not_used()
    }
    fn random(&mut self, _: &mut [u8]) -> Result<()> {
        not_used()
    }
    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        not_used()
    }
    fn probe(&mut self) -> Result<()> {
        Ok(())
    }
    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        not_used()
    }
    fn create_anchor(&mut self, _: &[u8]) -> Result<()> {
        not_used()
    }
    fn destroy_anchor(&mut self, _: &AnchorObject) -> Result<()> {
        not_used()
    }
}

impl Fake {
    fn keys(&self, realm: &str) -> EpochKeys {
        self.keys_in(realm, Era::default())
    }

    fn keys_in(&self, realm: &str, era: Era) -> EpochKeys {
        let options = PoolOptions {
            threads: 1,
            queue: 64,
            deadline: Duration::from_secs(10),
        };
        let pool = Pool::start(Arc::new(self.clone()), options).unwrap();
        EpochKeys::new(pool, RealmName::parse(realm).unwrap(), era)
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }
}

const NOW: Timestamp = Timestamp(20_000 * DAY + 100);

fn later(days: u64) -> Timestamp {
    Timestamp(NOW.0 + days * DAY)
}

fn sample() -> Session {
    session(Scope::Full, NOW.0)
}

#[tokio::test]
async fn a_restore_ends_every_token_and_a_forgetful_start_every_ceremony() {
    let fake = Fake::default();
    let era = |log_epoch, boot_epoch| Era {
        log_epoch,
        boot_epoch,
    };
    let first = fake.keys_in("realm.example", era(1, 0));
    let restarted = fake.keys_in("realm.example", era(1, 0));
    let forgetful = fake.keys_in("realm.example", era(1, 1));
    let restored = fake.keys_in("realm.example", era(2, 0));
    for (use_, opens) in [
        (EpochUse::Session, [true, true, false]),
        (EpochUse::Ceremony, [true, false, false]),
    ] {
        let token = first.seal(use_, NOW, &sample()).await.unwrap();
        for (keys, opens) in [&restarted, &forgetful, &restored].iter().zip(opens) {
            let opened = keys.open::<Session>(use_, NOW, &token).await;
            assert_eq!(opened.is_ok(), opens, "{use_:?} in {:?}", keys.era);
        }
    }
}

/// Also one that somebody who knows the older key has made for today.
#[tokio::test]
async fn a_rotation_of_the_mac_key_ends_every_token() {
    let keys = Fake::default().keys("realm.example");
    let first = KeyVersions::first();
    let rotated = first.with_newer(KeyId::new(KeyPurpose::Mac, 2)).unwrap();
    keys.pool.use_versions(first.clone());
    let before = sealed(&keys).await;
    let of_today = keys
        .seal(EpochUse::Session, later(1), &sample())
        .await
        .unwrap();
    keys.pool.use_versions(rotated);
    for token in [&before, &of_today] {
        let opened = keys
            .open::<Session>(EpochUse::Session, later(1), token)
            .await;
        assert!(matches!(opened, Err(TokenError::Expired)), "{opened:?}");
    }
    let after = sealed(&keys).await;
    assert!(after.starts_with("cs1.20000k2."), "{after}");
    let opened = keys.open::<Session>(EpochUse::Session, NOW, &after).await;
    assert_eq!(opened.unwrap(), sample());
    // The control: before it, nothing but their day counted.
    keys.pool.use_versions(first);
    for token in [&before, &of_today] {
        let opened = keys
            .open::<Session>(EpochUse::Session, later(1), token)
            .await;
        assert_eq!(opened.unwrap(), sample());
    }
}

async fn sealed(keys: &EpochKeys) -> String {
    keys.seal(EpochUse::Session, NOW, &sample()).await.unwrap()
}

#[tokio::test]
async fn a_session_and_a_ceremony_come_back_as_they_were() {
    let keys = Fake::default().keys("realm.example");
    let token = sealed(&keys).await;
    assert!(token.starts_with("cs1.20000."));
    assert_eq!(
        keys.open::<Session>(EpochUse::Session, NOW, &token)
            .await
            .unwrap(),
        sample()
    );
    let begun = ceremony(Purpose::Authenticate, None);
    let token = keys.seal(EpochUse::Ceremony, NOW, &begun).await.unwrap();
    assert!(token.starts_with("cc1.20000."));
    let opened: Ceremony<u32> = keys.open(EpochUse::Ceremony, NOW, &token).await.unwrap();
    assert_eq!((opened.id, opened.state), (begun.id, begun.state));
}

#[tokio::test]
async fn two_seals_of_one_value_differ_and_have_one_length() {
    let keys = Fake::default().keys("realm.example");
    let (one, two) = (sealed(&keys).await, sealed(&keys).await);
    assert_ne!(one, two);
    let other = Session {
        scope: Scope::Read,
        device_epoch: None,
        began_epoch: 0,
        ..sample()
    };
    let other = keys.seal(EpochUse::Session, NOW, &other).await.unwrap();
    assert_eq!(one.len(), other.len());
}

#[tokio::test]
async fn another_realm_use_or_epoch_does_not_open() {
    let fake = Fake::default();
    let (keys, foreign) = (fake.keys("realm.example"), fake.keys("other.example"));
    let token = sealed(&keys).await;
    let foreign = foreign
        .open::<Session>(EpochUse::Session, NOW, &token)
        .await;
    assert!(matches!(foreign, Err(TokenError::Forged)));
    let ceremony = keys.open::<Session>(EpochUse::Ceremony, NOW, &token).await;
    assert!(matches!(ceremony, Err(TokenError::Malformed)));
    let renamed = token.replacen("cs1.", "cc1.", 1);
    let renamed = keys
        .open::<Session>(EpochUse::Ceremony, NOW, &renamed)
        .await;
    assert!(matches!(renamed, Err(TokenError::Forged)));
    let redated = token.replacen("20000", "19999", 1);
    let redated = keys.open::<Session>(EpochUse::Session, NOW, &redated).await;
    assert!(matches!(redated, Err(TokenError::Forged)));
}

#[tokio::test]
async fn epochs_end_and_do_not_begin_early() {
    let keys = Fake::default().keys("realm.example");
    let token = sealed(&keys).await;
    let last = later(SESSION_EPOCH_DAYS - 1);
    assert!(
        keys.open::<Session>(EpochUse::Session, last, &token)
            .await
            .is_ok()
    );
    let after = keys
        .open::<Session>(EpochUse::Session, later(SESSION_EPOCH_DAYS), &token)
        .await;
    assert!(matches!(after, Err(TokenError::Expired)));
    let before = keys
        .open::<Session>(EpochUse::Session, Timestamp(NOW.0 - DAY), &token)
        .await;
    assert!(matches!(before, Err(TokenError::UnknownEpoch)));
    let token = keys.seal(EpochUse::Ceremony, NOW, &1u8).await.unwrap();
    assert!(
        keys.open::<u8>(EpochUse::Ceremony, later(2), &token)
            .await
            .is_ok()
    );
    let after = keys.open::<u8>(EpochUse::Ceremony, later(3), &token).await;
    assert!(matches!(after, Err(TokenError::Expired)));
}

#[tokio::test]
async fn made_up_epochs_cost_the_token_one_call_a_day_and_nothing_beyond() {
    let fake = Fake::default();
    let keys = fake.keys("realm.example");
    for round in 0..3 {
        for number in (19_000..21_000).chain([0, u64::MAX]) {
            let token = format!("cs1.{number}.{}", b64(&[round; 80]));
            assert!(
                keys.open::<Session>(EpochUse::Session, NOW, &token)
                    .await
                    .is_err()
            );
        }
    }
    assert_eq!(fake.calls() as u64, SESSION_EPOCH_DAYS);
    // The next day brings one new key, and lets the oldest go.
    assert!(
        keys.seal(EpochUse::Session, later(1), &sample())
            .await
            .is_ok()
    );
    assert_eq!(fake.calls() as u64, SESSION_EPOCH_DAYS + 1);
    assert_eq!(
        keys.cache(EpochUse::Session).locked().keys.len() as u64,
        SESSION_EPOCH_DAYS
    );
}

#[tokio::test]
async fn a_token_that_is_away_is_told_apart_from_a_bad_token() {
    let fake = Fake::default();
    let keys = fake.keys("realm.example");
    let token = sealed(&keys).await;
    fake.0.away.store(true, Ordering::SeqCst);
    let known = keys.open::<Session>(EpochUse::Session, NOW, &token).await;
    assert!(known.is_ok(), "today's key is on this host already");
    let other_day = token.replacen("20000", "19999", 1);
    let error = keys
        .open::<Session>(EpochUse::Session, NOW, &other_day)
        .await
        .unwrap_err();
    assert!(matches!(error, TokenError::Unavailable(_)));
    fake.0.away.store(false, Ordering::SeqCst);
    let error = keys
        .open::<Session>(EpochUse::Session, NOW, &other_day)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TokenError::Forged),
        "and asked again afterwards"
    );
}

/// Many who ask for the keys of three days before any of them is answered.
async fn all_at_once(
    fake: &Fake,
    keys: &EpochKeys,
) -> Vec<std::result::Result<Arc<LocalKey>, TokenError>> {
    fake.0.silent.store(true, Ordering::SeqCst);
    let mut asking = Vec::new();
    for asker in 0..60 {
        let epoch = Epoch {
            day: 20_000 - asker % 3,
            mac_key: 1,
        };
        let mut asked = Box::pin(keys.by_number(EpochUse::Session, NOW, epoch));
        assert!((&mut asked).now_or_never().is_none());
        asking.push(asked);
    }
    fake.0.silent.store(false, Ordering::SeqCst);
    futures_util::future::join_all(asking).await
}

#[tokio::test]
async fn many_who_lack_a_key_at_once_cost_the_token_one_call_a_day() {
    let fake = Fake::default();
    let keys = fake.keys("realm.example");
    let had = all_at_once(&fake, &keys).await;
    assert!(had.iter().all(std::result::Result::is_ok));
    assert_eq!(fake.0.asked.load(Ordering::SeqCst), 3);
    assert!(
        keys.cache(EpochUse::Session).locked().asked.is_empty(),
        "nothing is left of the questions"
    );
    // The control: another process knows none of it, and asks for itself.
    all_at_once(&fake, &fake.keys("realm.example")).await;
    assert_eq!(fake.0.asked.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_for_it_and_to_nobody_later() {
    let fake = Fake::default();
    let keys = fake.keys("realm.example");
    fake.0.away.store(true, Ordering::SeqCst);
    let had = all_at_once(&fake, &keys).await;
    let unavailable = |had: &_| matches!(had, Err(TokenError::Unavailable(_)));
    assert!(had.iter().all(unavailable));
    assert_eq!(fake.0.asked.load(Ordering::SeqCst), 3);
    fake.0.away.store(false, Ordering::SeqCst);
    let had = all_at_once(&fake, &keys).await;
    assert!(had.iter().all(std::result::Result::is_ok));
}

#[tokio::test]
async fn who_stops_waiting_takes_the_answer_from_nobody() {
    let fake = Fake::default();
    let keys = fake.keys("realm.example");
    fake.0.silent.store(true, Ordering::SeqCst);
    let mut first = Box::pin(keys.current(EpochUse::Session, NOW));
    let mut second = Box::pin(keys.current(EpochUse::Session, NOW));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    fake.0.silent.store(false, Ordering::SeqCst);
    let second = tokio::time::timeout(Duration::from_secs(5), second).await;
    assert!(second.unwrap().is_ok());
    assert_eq!(fake.0.asked.load(Ordering::SeqCst), 1);
    // Nobody waits for this one any more: it is as if it had not been asked.
    fake.0.silent.store(true, Ordering::SeqCst);
    let mut third = Box::pin(keys.current(EpochUse::Ceremony, NOW));
    assert!((&mut third).now_or_never().is_none());
    drop(third);
    fake.0.silent.store(false, Ordering::SeqCst);
    assert!(keys.current(EpochUse::Ceremony, NOW).await.is_ok());
}

#[tokio::test]
async fn one_token_has_one_text() {
    let keys = Fake::default().keys("realm.example");
    let token = sealed(&keys).await;
    for other in [
        token.replacen("20000", "020000", 1),
        token.replacen("20000", "+20000", 1),
        token.replacen("20000", "", 1),
        token.replacen("20000.", "20000..", 1),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        token.to_uppercase(),
        "cs1.".into(),
        String::new(),
        "x".repeat(MAX_TOKEN + 1),
    ] {
        let opened = keys.open::<Session>(EpochUse::Session, NOW, &other).await;
        assert!(matches!(opened, Err(TokenError::Malformed)), "{other}");
    }
}

#[test]
fn a_token_has_a_longest_text() {
    let header = "cs1.1.";
    // Four characters of base64url for each three bytes.
    let longest = (MAX_TOKEN - header.len()) / 4 * 3;
    let text = |bytes: usize| format!("{header}{}", b64(&vec![7; bytes]));
    assert!(parse(EpochUse::Session, &text(longest)).is_ok());
    for bytes in [longest + 3, longest + 300] {
        let text = text(bytes);
        let parsed = parse(EpochUse::Session, &text);
        assert!(matches!(parsed, Err(TokenError::Malformed)), "{bytes}");
    }
}

#[tokio::test]
async fn an_authentic_value_of_another_shape_is_no_session() {
    let keys = Fake::default().keys("realm.example");
    let token = keys
        .seal(EpochUse::Session, NOW, &"a string")
        .await
        .unwrap();
    let opened = keys.open::<Session>(EpochUse::Session, NOW, &token).await;
    assert!(matches!(opened, Err(TokenError::Malformed)));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #[test]
    fn the_parser_never_panics_and_is_strict(text in ".{0,120}", day: u64, mac_key: u16, bytes: Vec<u8>) {
        let _ = parse(EpochUse::Session, &text);
        let _ = parse(EpochUse::Ceremony, &format!("cc1.{text}"));
        let epoch = Epoch { day, mac_key };
        let token = format!("cs1.{epoch}.{}", b64(&bytes));
        let parts = parse(EpochUse::Session, &token).unwrap();
        prop_assert_eq!(parts.epoch, epoch);
        let twice = format!("cs1.{day}k1.{}", b64(&bytes));
        prop_assert!(parse(EpochUse::Session, &twice).is_err());
        prop_assert_eq!(&parts.sealed, &bytes);
        prop_assert_eq!(format!("{}.{}", parts.header, b64(&parts.sealed)), token);
    }

    #[test]
    fn arbitrary_tokens_never_open(text in "c[cs]1\\.[0-9]{1,6}\\.[A-Za-z0-9_-]{0,400}") {
        let keys = Fake::default().keys("realm.example");
        runtime().block_on(async {
            assert!(keys.open::<Session>(EpochUse::Session, NOW, &text).await.is_err());
            assert!(keys.open::<Session>(EpochUse::Ceremony, NOW, &text).await.is_err());
        });
    }

    #[test]
    fn mutated_tokens_never_open(position: usize, bit in 0u8..7, raw: bool) {
        let keys = Fake::default().keys("realm.example");
        runtime().block_on(async {
            let token = sealed(&keys).await;
            let mutated = mutate(&token, position, bit, raw);
            assert_ne!(mutated, token);
            assert!(keys.open::<Session>(EpochUse::Session, NOW, &mutated).await.is_err());
            // The control: what was mutated opens.
            assert!(keys.open::<Session>(EpochUse::Session, NOW, &token).await.is_ok());
        });
    }
}

fn mutate(token: &str, position: usize, bit: u8, raw: bool) -> String {
    if raw {
        let mut bytes = token.as_bytes().to_vec();
        let index = position % bytes.len();
        *bytes.get_mut(index).unwrap() ^= 1 << bit;
        return String::from_utf8(bytes).unwrap();
    }
    let (header, sealed) = token.rsplit_once('.').unwrap();
    let mut sealed = unb64(sealed).unwrap();
    let index = position % sealed.len();
    *sealed.get_mut(index).unwrap() ^= 1 << bit;
    format!("{header}.{}", b64(&sealed))
}

/// Nodes whose clocks differ by less than is told of serve each other's tokens across midnight.
#[tokio::test]
async fn a_token_of_the_next_day_opens_within_a_minute_of_midnight() {
    let fake = Fake::default();
    let (fast, slow) = (fake.keys("realm.example"), fake.keys("realm.example"));
    let midnight = 20_001 * DAY;
    let token = fast
        .seal(EpochUse::Session, Timestamp(midnight), &sample())
        .await
        .unwrap();
    let opened = async |now: u64| {
        let now = Timestamp(now);
        let opened = slow.open::<Session>(EpochUse::Session, now, &token);
        opened.await.map(drop)
    };
    let asked = fake.calls();
    let early = opened(midnight - APART - 1).await;
    assert!(matches!(early, Err(TokenError::UnknownEpoch)));
    assert_eq!(fake.calls(), asked, "and nobody is asked for its key");
    for now in [midnight - APART, midnight - 1, midnight] {
        opened(now).await.unwrap();
    }
    assert_eq!(fake.calls(), asked + 1);
    // The control: the day after it has not come to anybody.
    let later = fast
        .seal(EpochUse::Session, Timestamp(midnight + DAY), &sample())
        .await
        .unwrap();
    let refused = slow.open::<Session>(EpochUse::Session, Timestamp(midnight - 1), &later);
    assert!(matches!(refused.await, Err(TokenError::UnknownEpoch)));
}
