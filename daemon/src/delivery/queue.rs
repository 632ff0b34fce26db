//! A bounded queue of errands and the task that runs them, a few at a time.
//!
//! Used by `Courier`, which has one for look-ups and one for each channel. Putting never
//! waits: whoever asks is a stranger's request, and a full queue is their answer. Apps take
//! turns, and none may fill the queue (`custodyd_hsm::turns`). An errand that panics ends alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custodyd_hsm::{Lane, Turns};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Work that somebody does not wait for.
pub type Errand = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The queue has no room: nothing was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many messages are waiting to be sent; try again later")]
pub struct Full;

#[derive(Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    /// Something was put, or the queue was closed.
    changed: Notify,
}

struct State {
    errands: Turns<Errand>,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The task behind a queue.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Queue {
    /// Starts the task. `capacity` errands may wait while `concurrency` run.
    pub(super) fn start(name: &'static str, capacity: usize, concurrency: usize) -> (Self, Worker) {
        let shared = Arc::new(Shared {
            name,
            state: Mutex::new(State {
                errands: Turns::new(capacity.max(1)),
                closed: false,
            }),
            changed: Notify::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(work(Arc::clone(&shared), concurrency.max(1), stopped));
        let queue = Self {
            shared: Arc::clone(&shared),
        };
        (queue, Worker { shared, stop, task })
    }

    /// In the lane of whoever puts it, where it also runs.
    ///
    /// # Errors
    /// [`Full`], also once the queue is closed.
    pub(super) fn put(&self, errand: Errand) -> Result<(), Full> {
        let lane = Lane::current();
        let errand: Errand = Box::pin(lane.during(errand));
        let mut state = self.shared.lock();
        let put = match state.closed {
            true => Err(Full),
            false => state.errands.push(lane, errand).map_err(|_| Full),
        };
        depth(self.shared.name, state.errands.len());
        drop(state);
        self.shared.changed.notify_one();
        put
    }

    /// Whether this lane could put one now. No promise: another may be faster.
    pub(super) fn has_room(&self) -> bool {
        let state = self.shared.lock();
        !state.closed && state.errands.has_room(Lane::current())
    }
}

/// Nobody can put anything any more.
impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    /// The state is whole at every moment, whatever panicked elsewhere.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// What is next, and whether nothing will come any more.
    fn next(&self) -> (Option<Errand>, bool) {
        let mut state = self.lock();
        let errand = state.errands.pop();
        if errand.is_some() {
            depth(self.name, state.errands.len());
        }
        (errand, state.closed)
    }
}

async fn work(shared: Arc<Shared>, concurrency: usize, mut stopped: oneshot::Receiver<()>) {
    let mut running = JoinSet::new();
    let mut stopping = false;
    loop {
        if running.len() < concurrency {
            match shared.next() {
                (Some(errand), _) => {
                    running.spawn(errand);
                    continue;
                }
                (None, true) => break,
                (None, false) => {}
            }
        }
        tokio::select! {
            // Also where nobody can stop it any more: then nobody waits for it either.
            _ = &mut stopped, if !stopping => {
                stopping = true;
                shared.close();
            }
            Some(ended) = running.join_next() => note(shared.name, &ended),
            () = shared.changed.notified(), if running.len() < concurrency => {}
        }
    }
    while let Some(ended) = running.join_next().await {
        note(shared.name, &ended);
    }
}

fn note(queue: &'static str, ended: &Result<(), tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        metrics::counter!("custodyd_panics_total").increment(1);
        tracing::error!(queue, "an errand was ended by a defect of this program");
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a queue is far shorter than 2^52"
)]
fn depth(queue: &'static str, waiting: usize) {
    metrics::gauge!("custodyd_delivery_queue", "queue" => queue).set(waiting as f64);
}

impl Worker {
    /// Accepts nothing more, finishes what was accepted, and cuts what is not done in time.
    /// Returns whether all of it was finished.
    pub(super) async fn drain(self, deadline: Instant) -> bool {
        let _ = self.stop.send(());
        let mut task = self.task;
        if timeout_at(deadline, &mut task).await.is_ok() {
            return true;
        }
        // Ending the task drops what runs; what waits goes here.
        task.abort();
        let _ = task.await;
        self.shared.close();
        let left = self.shared.lock().errands.take_all();
        drop(left);
        tracing::warn!(
            queue = self.shared.name,
            "what was not sent in the drain time is lost"
        );
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::time::sleep;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_and_so_is_what_runs() {
        let (queue, worker) = Queue::start("test", 3, 2);
        let gate = Arc::new(Semaphore::new(0));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let put = || {
            let (gate, now, most) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&most));
            queue.put(Box::pin(async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, SeqCst);
            }))
        };
        put().unwrap();
        put().unwrap();
        sleep(Duration::from_millis(1)).await;
        for _ in 0..3 {
            put().unwrap();
        }
        assert_eq!(put(), Err(Full));
        gate.add_permits(5);
        assert!(worker.drain(soon()).await);
        assert_eq!(most.load(SeqCst), 2);
        assert_eq!(put(), Err(Full), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn draining_finishes_what_it_can_and_cuts_the_rest() {
        let done = Arc::new(AtomicUsize::new(0));
        let lasting = |seconds| {
            let done = Arc::clone(&done);
            Box::pin(async move {
                sleep(Duration::from_secs(seconds)).await;
                done.fetch_add(1, SeqCst);
            })
        };
        let (queue, worker) = Queue::start("test", 8, 1);
        queue.put(lasting(2)).unwrap();
        queue.put(lasting(2)).unwrap();
        queue.put(lasting(2)).unwrap();
        assert!(!worker.drain(soon()).await);
        assert_eq!(done.load(SeqCst), 2);
        // What was cut is gone: nothing holds on to what it had.
        assert_eq!(Arc::strong_count(&done), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_apps_flood_leaves_room_and_turns_to_another() {
        let lane = |name| Lane::of(&custodyd_hsm::AppId::parse(name).unwrap());
        let (queue, worker) = Queue::start("test", 8, 1);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let put = async |name: &'static str| {
            let order = Arc::clone(&order);
            let errand = Box::pin(async move {
                sleep(Duration::from_millis(10)).await;
                order.lock().unwrap().push((name, Lane::current()));
            });
            lane(name).during(async { queue.put(errand) }).await
        };
        put("notes").await.unwrap();
        sleep(Duration::from_millis(1)).await;
        for _ in 0..4 {
            put("notes").await.unwrap();
        }
        assert_eq!(put("notes").await, Err(Full));
        put("wallet").await.unwrap();
        assert!(worker.drain(soon()).await);
        let order = order.lock().unwrap().clone();
        let names: Vec<_> = order.iter().map(|(name, _)| *name).collect();
        assert_eq!(names[..3], ["notes", "notes", "wallet"]);
        assert_eq!(order[2].1, lane("wallet"), "it runs in its own lane");
    }

    #[tokio::test]
    #[allow(clippy::panic)] // the panic is what is tested
    async fn a_panic_ends_one_errand_alone() {
        let (queue, worker) = Queue::start("test", 8, 1);
        let done = Arc::new(AtomicUsize::new(0));
        queue.put(Box::pin(async { panic!("a defect") })).unwrap();
        let counted = Arc::clone(&done);
        queue
            .put(Box::pin(async move {
                counted.fetch_add(1, SeqCst);
            }))
            .unwrap();
        assert!(worker.drain(soon()).await);
        assert_eq!(done.load(SeqCst), 1);
    }
}
