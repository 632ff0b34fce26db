//! Tests of the pool on a custody in memory, some of whose calls sleep.

use std::sync::{
    atomic::{AtomicBool, AtomicUsize},
    mpsc::channel,
};

use super::*;
use crate::{
    id::{KeyId, KeyPurpose},
    report::{KeyReport, ProvisionReport, TokenDescription},
    software::SoftCustody,
};

#[derive(Default)]
pub(super) struct SoftBackend {
    opened: AtomicUsize,
    broken: AtomicBool,
    panics: AtomicBool,
}

impl Backend for SoftBackend {
    fn open(&self) -> Result<Box<dyn Custody>> {
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unavailable("open", "gone"));
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(SoftCustody::new()))
    }

    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }

    fn inspect(&self) -> Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }

    fn provision(&self, _dry_run: bool) -> Result<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}

fn pool(threads: usize, queue: usize, deadline_ms: u64) -> (Pool, Arc<SoftBackend>) {
    let backend = Arc::new(SoftBackend::default());
    let options = PoolOptions {
        threads,
        queue,
        deadline: Duration::from_millis(deadline_ms),
    };
    (Pool::start(backend.clone(), options).unwrap(), backend)
}

fn one_mac(custody: &mut dyn Custody) -> Result<()> {
    custody
        .mac(KeyId::new(KeyPurpose::Mac, 1), b"x")
        .map(|_| ())
}

#[tokio::test]
async fn a_job_runs_and_is_counted() {
    let (pool, _) = pool(2, 8, 5_000);
    pool.call("one", one_mac).await.unwrap();
    let total = pool
        .counters()
        .into_iter()
        .find(|(name, ..)| *name == "mac");
    assert_eq!(total.unwrap().1, 1);
}

#[test]
fn blocking_calls_need_no_runtime() {
    let (pool, _) = pool(1, 8, 5_000);
    pool.blocking_call("one", one_mac).unwrap();
    let error = pool.blocking_call::<()>("one", |_| Err(Error::Tampered { what: "x" }));
    assert_eq!(error, Err(Error::Tampered { what: "x" }));
    assert_eq!(pool.status().last_error, None);
}

/// Occupies the only worker until the returned sender is used.
fn occupy(pool: &Pool) -> mpsc::Sender<()> {
    let (go, wait) = channel::<()>();
    let (entered, is_in) = channel();
    let held = pool.clone();
    thread::spawn(move || {
        let _ = held.blocking_call("hang", move |_| {
            entered.send(()).unwrap();
            let _ = wait.recv();
            Ok(())
        });
    });
    is_in.recv().unwrap();
    go
}

#[tokio::test]
async fn a_hanging_call_meets_its_deadline_and_shows_as_stuck() {
    let (pool, _) = pool(1, 8, 2_000);
    let go = occupy(&pool);
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let late = pool.call("late", move |_| {
        seen.store(true, Ordering::SeqCst);
        Ok(())
    });
    assert_eq!(late.await, Err(Error::Deadline { operation: "late" }));
    assert_eq!(pool.status().stuck, 1);
    assert!(pool.status().last_error.is_some());
    go.send(()).unwrap();
    pool.call("next", one_mac).await.unwrap();
    // The worker took the late job off the queue before "next", and let it go unrun.
    assert!(!ran.load(Ordering::SeqCst));
    assert_eq!(pool.status().last_error, None);
}

#[tokio::test]
async fn a_caller_that_left_is_not_served() {
    let (pool, _) = pool(1, 8, 10_000);
    let go = occupy(&pool);
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let mut left = Box::pin(pool.call("left", move |_| {
        seen.store(true, Ordering::SeqCst);
        Ok(())
    }));
    assert!(poll_once(left.as_mut()).await);
    drop(left);
    go.send(()).unwrap();
    pool.call("next", one_mac).await.unwrap();
    assert!(!ran.load(Ordering::SeqCst));
}

/// Polls once, so that the call is queued; true while it is pending.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(future.as_mut().poll(context).is_pending())
    })
    .await
}

#[tokio::test]
async fn a_full_queue_is_busy_at_once() {
    let (pool, _) = pool(1, 2, 10_000);
    let go = occupy(&pool);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut call = Box::pin(pool.call("wait", one_mac));
        assert!(poll_once(call.as_mut()).await);
        waiting.push(call);
    }
    assert_eq!(pool.status().queued, 2);
    let refused = pool.call("more", one_mac).await;
    assert_eq!(refused, Err(Error::Busy { operation: "more" }));
    // Those who leave make room.
    waiting.pop();
    let mut call = Box::pin(pool.call("again", one_mac));
    assert!(poll_once(call.as_mut()).await);
    go.send(()).unwrap();
    call.await.unwrap();
}

#[tokio::test]
async fn a_panic_costs_one_session_and_no_worker() {
    let (pool, backend) = pool(1, 8, 5_000);
    for _ in 0..3 {
        let answer = pool.call::<()>("boom", |_| panic!("on purpose")).await;
        assert_eq!(answer, Err(Error::Bug { operation: "boom" }));
    }
    pool.call("next", one_mac).await.unwrap();
    assert_eq!(backend.opened.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_worker_without_a_session_tries_again_with_each_job() {
    let (pool, backend) = pool(1, 8, 5_000);
    backend.broken.store(true, Ordering::SeqCst);
    let _ = pool.call::<()>("boom", |_| panic!("on purpose")).await;
    let answer = pool.call("next", one_mac).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })));
    backend.broken.store(false, Ordering::SeqCst);
    pool.call("next", one_mac).await.unwrap();
}

#[tokio::test]
async fn an_opening_that_panics_costs_no_worker() {
    let (pool, backend) = pool(1, 8, 5_000);
    backend.panics.store(true, Ordering::SeqCst);
    let _ = pool.call::<()>("boom", |_| panic!("on purpose")).await;
    for _ in 0..3 {
        let answer = pool.call("next", one_mac).await;
        assert_eq!(answer, Err(Error::Bug { operation: "next" }));
    }
    backend.panics.store(false, Ordering::SeqCst);
    pool.call("next", one_mac).await.unwrap();
}

/// Whoever has an answer finds the pool done with it: nobody has to look twice.
#[test]
fn the_state_is_as_the_answer_says() {
    let (pool, _) = pool(1, 8, 5_000);
    for _ in 0..500 {
        pool.blocking_call("one", one_mac).unwrap();
        let status = pool.status();
        assert_eq!((status.running, status.last_error), (0, None));
        let gone = pool.blocking_call::<()>("one", |_| Err(Error::unavailable("one", "gone")));
        assert!(gone.is_err());
        let status = pool.status();
        assert_eq!((status.running, status.last_error.is_some()), (0, true));
    }
}

/// The worker that lets it go closes the queue itself.
#[test]
fn a_job_that_nobody_waits_for_may_own_the_last_handle() {
    let (pool, _) = pool(1, 8, 10_000);
    let shared = Arc::downgrade(&pool.0.shared);
    let deadline = Duration::from_secs(60);
    let (go, hung) = channel::<()>();
    let hang = move |_: &mut dyn Custody| {
        let _ = hung.recv();
        Ok(())
    };
    let (stays, leaves) = (Arc::new(()), Arc::new(()));
    let nobody = |_: Result<()>| {};
    pool.submit(deadline, "hang", &stays, hang, nobody).unwrap();
    let owned = pool.clone();
    let owns = move |_: &mut dyn Custody| {
        drop(owned);
        Ok(())
    };
    pool.submit(deadline, "left", &leaves, owns, nobody)
        .unwrap();
    drop((leaves, pool));
    go.send(()).unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while shared.strong_count() > 0 {
        assert!(Instant::now() < give_up, "the worker waits for itself");
        thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn shutdown_answers_those_who_wait() {
    let (pool, _) = pool(1, 8, 10_000);
    let go = occupy(&pool);
    let mut call = Box::pin(pool.call("wait", one_mac));
    assert!(poll_once(call.as_mut()).await);
    let closing = pool.clone();
    let closer = thread::spawn(move || closing.shutdown());
    assert!(matches!(call.await, Err(Error::Unavailable { .. })));
    go.send(()).unwrap();
    closer.join().unwrap();
    let after = pool.call("after", one_mac).await;
    assert!(matches!(after, Err(Error::Unavailable { .. })));
}

#[test]
fn options_are_bounded() {
    for (threads, queue, deadline) in [(0, 1, 1), (65, 1, 1), (1, 0, 1), (1, 1, 0)] {
        let options = PoolOptions {
            threads,
            queue,
            deadline: Duration::from_secs(deadline),
        };
        assert!(Pool::start(Arc::new(SoftBackend::default()), options).is_err());
    }
}

/// An app's flood waits for its own turn; the committer and the other app do not wait for it.
#[tokio::test]
async fn apps_take_turns_and_the_committer_goes_first() {
    let (pool, _) = pool(1, 8, 10_000);
    let lane = |name| Lane::of(&crate::id::AppId::parse(name).unwrap());
    let go = occupy(&pool);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (name, lane) in [
        ("notes 1", lane("notes")),
        ("notes 2", lane("notes")),
        ("notes 3", lane("notes")),
        ("wallet", lane("wallet")),
        ("committer", Lane::First),
    ] {
        let (pool, order) = (pool.clone(), Arc::clone(&order));
        let mut call = Box::pin(lane.during(async move {
            let ran = pool.call("wait", move |_| {
                locked(&order).push(name);
                Ok(())
            });
            ran.await
        }));
        assert!(poll_once(call.as_mut()).await);
        waiting.push(call);
    }
    // Three of eight wait for the one app and one for the other; it may have four.
    let mut fourth = Box::pin(lane("notes").during(pool.call("wait", one_mac)));
    assert!(poll_once(fourth.as_mut()).await);
    let fifth = lane("notes").during(pool.call("more", one_mac)).await;
    assert_eq!(fifth, Err(Error::Busy { operation: "more" }));
    go.send(()).unwrap();
    for call in waiting {
        call.await.unwrap();
    }
    let expected = ["committer", "notes 1", "wallet", "notes 2", "notes 3"];
    assert_eq!(*locked(&order), expected);
}
