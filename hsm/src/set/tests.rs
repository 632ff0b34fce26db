//! The set over tokens in memory that go away, hang and lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::Standing;
use crate::{
    custody::{AnchorObject, Backend, Custody},
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    pool::{Pool, PoolOptions},
    public_key::PublicKey,
    report::{KeyReport, ProvisionReport, TokenDescription},
    root_keys,
    secret::Secret,
    software::{SoftAnchors, SoftCustody},
    versions::KeyVersions,
};

const PATIENCE: Duration = Duration::from_secs(4);
const WELL: u8 = 0;
const AWAY: u8 = 1;
const HANGS: u8 = 2;

/// A token whose state a test changes at will; clones are the same token.
#[derive(Clone)]
struct Faulty {
    serial: &'static str,
    keys: Arc<SoftCustody>,
    state: Arc<AtomicU8>,
    asked: Arc<AtomicUsize>,
}

impl Faulty {
    /// Two tokens with the same keys.
    fn pair() -> [Self; 2] {
        let keys = Arc::new(SoftCustody::new());
        ["A", "B"].map(|serial| Self {
            serial,
            keys: Arc::clone(&keys),
            state: Arc::default(),
            asked: Arc::default(),
        })
    }

    fn is(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Session {
    token: Faulty,
    inner: SoftCustody,
}

impl Session {
    fn inside(&mut self) -> Result<&mut SoftCustody> {
        self.token.asked.fetch_add(1, Ordering::SeqCst);
        while self.token.state.load(Ordering::SeqCst) == HANGS {
            thread::sleep(Duration::from_millis(1));
        }
        match self.token.state.load(Ordering::SeqCst) {
            AWAY => Err(Error::unavailable("test", "away")),
            _ => Ok(&mut self.inner),
        }
    }
}

impl Backend for Faulty {
    fn open(&self) -> Result<Box<dyn Custody>> {
        if self.state.load(Ordering::SeqCst) != WELL {
            return Err(Error::unavailable("open", "away"));
        }
        Ok(Box::new(Session {
            token: self.clone(),
            inner: self.keys.twin(SoftAnchors::default()),
        }))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription {
            serial: self.serial.to_owned(),
            ..TokenDescription::default()
        }
    }
    fn inspect(&self) -> Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }
    fn provision(&self, _: bool) -> Result<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}

impl Custody for Session {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        self.inner.current(purpose)
    }
    fn holds(&self, key: KeyId) -> Result<bool> {
        self.inner.holds(key)
    }
    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.inside()?.hmac(key, message)
    }
    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.inside()?.sign(key, digest)
    }
    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.inside()?.public_key(key)
    }
    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.inside()?.random(out)
    }
    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        self.inside()?.inventory()
    }
    fn probe(&mut self) -> Result<()> {
        self.inside()?.probe()
    }
    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.inside()?.anchors()
    }
    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        self.inside()?.create_anchor(content)
    }
    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        self.inside()?.destroy_anchor(object)
    }
}

fn pool(tokens: &[Faulty]) -> Result<Pool> {
    let named = tokens.iter().map(|token| {
        let backend: Arc<dyn Backend> = Arc::new(token.clone());
        (format!("token {}", token.serial), backend)
    });
    Pool::start_set(named.collect(), PoolOptions::default(), PATIENCE)
}

/// One HMAC through the front; that it is the right one whoever made it.
fn works(pool: &Pool) -> Result<()> {
    let wrap = KeyId::new(KeyPurpose::Wrap, 1);
    let answer = pool.blocking_call("test", move |custody| {
        let tag = custody.hmac(wrap, b"message")?;
        Ok(tag.expose().to_vec())
    })?;
    let expected = SoftCustody::new().hmac(wrap, b"message").unwrap();
    assert_eq!(answer, expected.expose());
    Ok(())
}

fn standing(pool: &Pool) -> Vec<Standing> {
    let members = pool.set().unwrap().members();
    members.iter().map(|member| member.standing()).collect()
}

#[test]
fn the_first_is_asked_and_the_second_where_it_fails() {
    let [a, b] = Faulty::pair();
    let pool = pool(&[a.clone(), b.clone()]).unwrap();
    works(&pool).unwrap();
    assert_eq!((a.asked(), b.asked()), (1, 0));
    a.is(AWAY);
    works(&pool).unwrap();
    assert_eq!(standing(&pool), [Standing::Sick, Standing::Well]);
    // From then on nobody waits for the first.
    let before = a.asked();
    works(&pool).unwrap();
    assert_eq!(a.asked(), before);
    // Without any other it is asked all the same, and its answer counts.
    b.is(AWAY);
    assert!(works(&pool).is_err());
    a.is(WELL);
    works(&pool).unwrap();
}

#[test]
fn one_that_hangs_costs_half_the_patience_and_nobody_an_answer() {
    let [a, b] = Faulty::pair();
    let pool = pool(&[a.clone(), b]).unwrap();
    a.is(HANGS);
    let begun = Instant::now();
    works(&pool).unwrap();
    assert!(begun.elapsed() >= PATIENCE / 2);
    // From then on nobody waits for it: it is not even asked.
    assert_eq!(standing(&pool), [Standing::Sick, Standing::Well]);
    works(&pool).unwrap();
    assert_eq!(a.asked(), 1);
    assert_eq!(pool.status().stuck, 1);
    a.is(WELL);
}

#[test]
fn one_outside_of_the_set_is_asked_nothing() {
    let [a, b] = Faulty::pair();
    let pool = pool(&[a.clone(), b.clone()]).unwrap();
    pool.set().unwrap().is_of(&["B".to_owned()]);
    works(&pool).unwrap();
    assert_eq!((a.asked(), b.asked()), (0, 1));
    // Not even where no other is left.
    b.is(AWAY);
    assert!(works(&pool).is_err());
    assert_eq!(a.asked(), 0);
    // Nor does an answer of before bring it back.
    let outside = pool.set().unwrap().of_id("A").unwrap();
    outside.is_well();
    outside.is_sick("test", &Error::Deadline { operation: "test" });
    assert_eq!(outside.standing(), Standing::Outside);
    outside.joins();
    works(&pool).unwrap();
    assert_eq!(a.asked(), 1);
}

#[test]
fn one_that_does_not_open_is_left_for_later() {
    let [a, b] = Faulty::pair();
    a.is(AWAY);
    let pool = pool(&[a.clone(), b.clone()]).unwrap();
    works(&pool).unwrap();
    let set = pool.set().unwrap();
    assert!(set.of_id("A").is_none(), "nobody knows yet which it is");
    let member = Arc::clone(set.called("token A").unwrap());
    assert!(set.reach(&member).is_err());
    a.is(WELL);
    set.reach(&member).unwrap();
    assert_eq!(member.id().unwrap(), "A");
    a.is(AWAY);
    b.is(AWAY);
    assert!(super::tests::pool(&[a, b]).is_err());
}

#[test]
fn two_names_for_one_token_and_one_without_a_number_are_refused() {
    let [a, _] = Faulty::pair();
    let twice = pool(&[a.clone(), a]).unwrap_err().to_string();
    assert!(twice.contains("are one token"), "{twice}");
    let [mut a, b] = Faulty::pair();
    a.serial = " ";
    let unnamed = pool(&[a, b]).unwrap_err().to_string();
    assert!(unnamed.contains("tells no serial number"), "{unnamed}");
}

#[test]
fn nothing_is_changed_in_one_of_several() {
    let [a, b] = Faulty::pair();
    let pool = pool(&[a.clone(), b.clone()]).unwrap();
    let key = KeyId::new(KeyPurpose::Wrap, 2);
    let refused = |error: Error| assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    refused(
        pool.blocking_call("test", move |custody| custody.make_key(key))
            .unwrap_err(),
    );
    refused(
        pool.blocking_call("test", move |custody| custody.destroy_key(key))
            .unwrap_err(),
    );
    refused(
        pool.blocking_call("test", |custody| custody.create_anchor(b"x"))
            .unwrap_err(),
    );
    assert_eq!((a.asked(), b.asked()), (0, 0));
}

#[test]
fn what_is_said_of_bytes_is_an_answer_and_no_reason_to_ask_another() {
    let [a, b] = Faulty::pair();
    let pool = pool(&[a, b.clone()]).unwrap();
    let bind = KeyId::new(KeyPurpose::Mac, 1);
    let answer = pool.blocking_call("test", move |custody| custody.sign(bind, &[0; 32]));
    assert!(matches!(answer, Err(Error::Invalid { .. })));
    assert_eq!(b.asked(), 0);
    assert_eq!(standing(&pool), [Standing::Well, Standing::Well]);
}

#[test]
fn other_keys_show() {
    let [a, b] = Faulty::pair();
    let mut first = SoftCustody::twin(&a.keys, SoftAnchors::default());
    let mut same = SoftCustody::twin(&b.keys, SoftAnchors::default());
    // Its secret keys are the same, its pairs are not.
    let mut other = SoftCustody::new();
    let bind = KeyId::new(KeyPurpose::Bind, 1);
    let mut checks = Vec::new();
    for purpose in KeyPurpose::REQUIRED {
        checks.push(root_keys::check_of(&mut first, KeyId::new(purpose, 1)).unwrap());
    }
    assert_eq!(root_keys::differing(&mut same, &checks).unwrap(), None);
    let differing = root_keys::differing(&mut other, &checks).unwrap();
    assert!(differing.is_some());
    checks.retain(|check| check.key == bind);
    assert_eq!(
        root_keys::differing(&mut other, &checks).unwrap(),
        Some(bind)
    );
}

/// A token holds keys that were retired, or that somebody has put there. What these tag counts in no token of the set. One that
/// left remembers what was true then, by the keys of then.
#[test]
fn a_token_of_the_set_believes_the_keys_in_use_alone() {
    let pool = pool(&Faulty::pair()).unwrap();
    let mac = |version| KeyId::new(KeyPurpose::Mac, version);
    let members = pool.set().unwrap().members();
    let believe = || {
        let believes = members.iter().map(|member| {
            let alone = member.pool().unwrap();
            alone.blocking_call("test", move |token| token.believes(mac(1)))
        });
        believes.collect::<Result<Vec<bool>>>().unwrap()
    };
    // Before a head was believed.
    assert_eq!(believe(), [true, true]);
    let both = KeyVersions::first().with_newer(mac(2)).unwrap();
    pool.use_versions(both.clone());
    assert_eq!(believe(), [true, true]);
    pool.set().unwrap().is_of(&["A".to_owned()]);
    pool.use_versions(both.without(mac(1)).unwrap());
    assert_eq!(believe(), [false, true]);
    members[1].joins();
    assert_eq!(believe(), [false, false]);
    members[1].leaves();
    assert_eq!(believe(), [false, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever two tokens do, the set answers while one of those in it is well, and rightly; and it
    /// never asks one that is outside.
    #[test]
    fn while_one_is_well_the_set_answers(steps in prop::collection::vec((0usize..2, 0u8..4), 1..24)) {
        let tokens = Faulty::pair();
        let pool = pool(&tokens).unwrap();
        let set = pool.set().unwrap();
        let mut inside = [true; 2];
        let mut well = [true; 2];
        for (which, what) in steps {
            let member = &set.members()[which];
            match what {
                0 => { tokens[which].is(WELL); well[which] = true; }
                1 => { tokens[which].is(AWAY); well[which] = false; }
                2 => { member.joins(); inside[which] = true; }
                _ => { member.leaves(); inside[which] = false; }
            }
            let before = [0, 1].map(|of| tokens[of].asked());
            let answers = (0..2).any(|of| inside[of] && well[of]);
            prop_assert_eq!(works(&pool).is_ok(), answers);
            for of in 0..2 {
                prop_assert!(inside[of] || tokens[of].asked() == before[of]);
            }
        }
    }
}
