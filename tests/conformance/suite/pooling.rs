//! Cases about the pool in front of a real token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use custodyd_hsm::{Custody, Error, Pool, PoolOptions, Result};

use super::{MAC, pool};
use crate::{hanging::Hanging, rig::Rig};

fn one_mac(custody: &mut dyn Custody) -> Result<()> {
    custody.mac(MAC, b"x").map(|_| ())
}

/// A pool over a token whose calls can be made to hang.
fn hanging_pool(rig: &impl Rig, queue: usize, deadline: Duration) -> (Pool, Arc<AtomicBool>) {
    let hangs = Arc::new(AtomicBool::new(false));
    let backend = Hanging {
        inner: rig.backend(),
        hangs: Arc::clone(&hangs),
    };
    let options = PoolOptions {
        threads: 1,
        queue,
        deadline,
    };
    (Pool::start(Arc::new(backend), options).unwrap(), hangs)
}

pub(crate) fn a_hanging_call_meets_its_deadline(rig: &impl Rig) {
    let deadline = Duration::from_millis(300);
    let (pool, hangs) = hanging_pool(rig, 8, deadline);
    until(|| pool.blocking_call("control", one_mac).is_ok());
    hangs.store(true, Ordering::SeqCst);
    for operation in ["first", "behind it"] {
        // Without one it would not return: what hangs, hangs until it is told not to. One that the worker came to too late did
        // not begin.
        until(|| {
            let outcome = pool.blocking_call(operation, one_mac);
            assert_eq!(outcome, Err(Error::Deadline { operation }));
            pool.status().stuck == 1
        });
    }
    hangs.store(false, Ordering::SeqCst);
    until(|| pool.blocking_call("after", one_mac).is_ok());
    assert_eq!(pool.status().stuck, 0);
}

pub(crate) fn a_full_queue_is_busy(rig: &impl Rig) {
    let (pool, hangs) = hanging_pool(rig, 2, Duration::from_secs(60));
    hangs.store(true, Ordering::SeqCst);
    let caller = || {
        let pool = pool.clone();
        thread::spawn(move || pool.blocking_call("wait", one_mac))
    };
    let mut callers = vec![caller()];
    until(|| pool.status().running == 1);
    callers.extend([caller(), caller()]);
    until(|| pool.status().queued == 2);
    let started = Instant::now();
    let refused = pool.blocking_call("one more", one_mac);
    assert_eq!(
        refused,
        Err(Error::Busy {
            operation: "one more"
        })
    );
    assert!(started.elapsed() < Duration::from_secs(50));
    hangs.store(false, Ordering::SeqCst);
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
}

pub(crate) fn a_panic_in_a_job_costs_no_worker(rig: &impl Rig) {
    let backend = rig.backend();
    let pool = pool(&backend);
    for _ in 0..10 {
        let outcome = pool.blocking_call::<()>("boom", |custody| {
            custody.mac(MAC, b"x")?;
            panic!("on purpose")
        });
        assert_eq!(outcome, Err(Error::Bug { operation: "boom" }));
    }
    for _ in 0..10 {
        pool.blocking_call("after", one_mac).unwrap();
    }
    // The workers took new sessions; the epoch is the same.
    assert_eq!(pool.status().epoch, 1);
}

pub(crate) fn operations_are_counted(rig: &impl Rig) {
    let backend = rig.backend();
    let pool = pool(&backend);
    for _ in 0..5 {
        pool.blocking_call("mac", one_mac).unwrap();
    }
    let totals = pool.counters();
    let (_, count, nanos) = totals.iter().find(|(name, ..)| *name == "mac").unwrap();
    assert_eq!(*count, 5);
    assert!(*nanos > 0);
}

/// Waits for something that comes soon; a test that waits for ever says nothing.
pub(crate) fn until(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(
            Instant::now() < give_up,
            "it did not come about within a minute"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
