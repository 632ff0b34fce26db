//! Cases about a token that goes away, is replaced, or refuses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use custodyd_hsm::{Backend, Error, KeyId, Pool, PoolOptions};

use super::{BIND, DEADLINE, MAC, WRAP, pool, until};
use crate::rig::{Labelled, Rig};

pub(crate) fn a_wrong_pin_is_presented_once(rig: &impl Rig) {
    let (backend, attempts) = rig.backend_with_wrong_pin();
    for _ in 0..5 {
        let error = backend.open().map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::PinRefused { .. }), "{error}");
        assert!(!error.is_retryable());
    }
    let refused = |outcome: Result<(), Error>| matches!(outcome, Err(Error::PinRefused { .. }));
    assert!(refused(backend.inspect().map(|_| ())));
    assert!(refused(backend.provision(false).map(|_| ())));
    assert!(refused(
        Pool::start(Arc::clone(&backend), PoolOptions::default()).map(|_| ())
    ));
    assert_eq!(attempts(), 1);
    drop((backend, attempts));
    // The control: the token itself is well, and takes the right one.
    rig.backend().open().unwrap().probe().unwrap();
}

pub(crate) fn a_wrong_label_names_what_is_there(rig: &impl Labelled) {
    let backend = rig.backend_with_wrong_label();
    let error = backend.open().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("custodyd-test"), "{error}");
    assert_eq!(backend.describe().label, "");
}

pub(crate) fn one_backend_per_process(rig: &impl Rig) {
    let first = rig.backend();
    let mut custody = first.open().unwrap();
    let second = rig.backend();
    let error = second.open().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    // The second did no harm to the first, and takes over when it is gone.
    custody.probe().unwrap();
    drop((custody, first));
    second.open().unwrap().probe().unwrap();
}

/// What load on the pool saw while the token was away.
#[derive(Default, Debug)]
struct Seen {
    answered: u64,
    unavailable: u64,
    slowest: Duration,
    /// Anything but an answer or "not available".
    others: Vec<String>,
}

/// Calls in a loop until told to stop; every answer must be the right one.
fn load(pool: &Pool, right: [u8; 32], stop: &Arc<AtomicBool>) -> thread::JoinHandle<Seen> {
    let (pool, stop) = (pool.clone(), Arc::clone(stop));
    thread::spawn(move || {
        let mut seen = Seen::default();
        while !stop.load(Ordering::SeqCst) {
            let started = Instant::now();
            let outcome = pool.blocking_call("load", |custody| {
                custody.sign(BIND, &[7; 32])?;
                Ok(*custody.mac(MAC, b"x")?.expose())
            });
            seen.slowest = seen.slowest.max(started.elapsed());
            match outcome {
                Ok(answer) if answer == right => seen.answered += 1,
                Ok(_) => seen.others.push("a wrong answer".to_owned()),
                Err(Error::Unavailable { .. }) => seen.unavailable += 1,
                Err(error) => seen.others.push(error.to_string()),
            }
            thread::sleep(Duration::from_millis(1));
        }
        seen
    })
}

pub(crate) fn a_token_that_goes_away_comes_back_without_a_restart(rig: &impl Rig) {
    let backend = rig.backend();
    let pool = pool(&backend);
    let call = || pool.blocking_call("mac", |custody| Ok(*custody.mac(MAC, b"x")?.expose()));
    let right = call().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let loaders: Vec<_> = (0..4).map(|_| load(&pool, right, &stop)).collect();
    for round in 0..3 {
        let before = pool.status().epoch;
        thread::sleep(Duration::from_millis(50));
        rig.take_away();
        until(|| matches!(call(), Err(Error::Unavailable { .. })));
        until(|| pool.status().last_error.is_some());
        // It stays away: recovery is tried, and every caller is told at once.
        thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        assert!(matches!(call(), Err(Error::Unavailable { .. })));
        // Not by its deadline.
        assert!(started.elapsed() < DEADLINE / 2, "round {round}");
        rig.bring_back();
        until(|| call() == Ok(right));
        assert!(pool.status().epoch > before, "round {round}");
    }
    stop.store(true, Ordering::SeqCst);
    for loader in loaders {
        let seen = loader.join().unwrap();
        assert!(seen.others.is_empty(), "{seen:?}");
        assert!(seen.answered > 0 && seen.unavailable > 0, "{seen:?}");
        assert!(seen.slowest < DEADLINE / 2, "{seen:?}");
    }
}

pub(crate) fn another_token_in_its_place_is_refused(rig: &impl Rig) {
    let backend = rig.backend();
    let pool = pool(&backend);
    let call = || pool.blocking_call("mac", |custody| Ok(*custody.mac(MAC, b"x")?.expose()));
    let right = call().unwrap();
    rig.take_away();
    until(|| call().is_err());
    rig.put_impostor();
    until(|| matches!(call(), Err(Error::Misconfigured(_))));
    let sentence = call().unwrap_err().to_string();
    assert!(sentence.contains("not the one"), "{sentence}");
    // It stays refused, and never once answers.
    for _ in 0..50 {
        assert!(call().is_err());
        thread::sleep(Duration::from_millis(10));
    }
    rig.remove_impostor();
    rig.bring_back();
    until(|| call() == Ok(right));
    // The control: on its own that token is a good one; a new process takes it.
    drop(pool);
    drop(backend);
    rig.take_away();
    rig.put_impostor();
    let other: Arc<dyn Backend> = rig.backend();
    let answer = *other.open().unwrap().mac(MAC, b"x").unwrap().expose();
    assert_ne!(answer, right);
}

/// By another program, while the token is in use.
fn missed(rig: &impl Rig, key: KeyId, asks: fn(&Pool) -> Result<(), Error>) {
    let backend = rig.backend();
    let pool = pool(&backend);
    asks(&pool).unwrap();
    rig.delete(key);
    // Work for another key does not hide it: SoftHSM2 answers from memory in between.
    let wrap = || pool.blocking_call("wrap", |custody| custody.hmac(WRAP, b"x").map(|_| ()));
    until(|| {
        let _ = wrap();
        asks(&pool).is_err()
    });
    // Whichever was found first: that the key does not answer, or that it is not there.
    until(|| matches!(asks(&pool), Err(Error::Misconfigured(_))));
    let sentence = asks(&pool).unwrap_err().to_string();
    assert!(
        sentence.contains("missing") && sentence.contains(&key.label()),
        "{sentence}"
    );
    // Nothing is served by what is left, and it stays so.
    for _ in 0..20 {
        assert!(matches!(wrap(), Err(Error::Misconfigured(_))));
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn a_signing_key_that_is_deleted_beneath_is_missed(rig: &impl Rig) {
    missed(rig, BIND, |pool| {
        pool.blocking_call("sign", |custody| custody.sign(BIND, &[7; 32]).map(|_| ()))
    });
}

pub(crate) fn a_secret_key_that_is_deleted_beneath_is_missed(rig: &impl Rig) {
    let mac = |pool: &Pool| pool.blocking_call("mac", |custody| custody.mac(MAC, b"x").map(|_| ()));
    if !rig.gives_secrets_out() {
        return missed(rig, MAC, mac);
    }
    // What was given out goes on as it was, and the next start misses the key.
    let backend = rig.backend();
    let pool = pool(&backend);
    rig.delete(MAC);
    for _ in 0..20 {
        mac(&pool).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    drop((pool, backend));
    let error = rig.backend().open().map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error}");
    assert!(error.to_string().contains(&MAC.label()), "{error}");
}
