//! A bounded queue of errands and the task that runs them, a few at a time.
//!
//! Used by `Courier`, which has one for look-ups and one for each channel. Putting never
//! waits: whoever asks is a stranger's request, and a full queue is their answer. An errand
//! that panics ends alone.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot};
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
    name: &'static str,
    sender: mpsc::Sender<Errand>,
}

/// The task behind a queue.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Queue {
    /// Starts the task. `capacity` errands may wait while `concurrency` run.
    pub(super) fn start(name: &'static str, capacity: usize, concurrency: usize) -> (Self, Worker) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(work(name, receiver, concurrency.max(1), stopped));
        (Self { name, sender }, Worker { name, stop, task })
    }

    /// # Errors
    /// [`Full`], also once the queue is closed.
    pub(super) fn put(&self, errand: Errand) -> Result<(), Full> {
        let put = self.sender.try_send(errand).map_err(|_| Full);
        depth(
            self.name,
            self.sender.max_capacity() - self.sender.capacity(),
        );
        put
    }
}

async fn work(
    name: &'static str,
    mut queue: mpsc::Receiver<Errand>,
    concurrency: usize,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            // Also where nobody can stop it any more: then nobody waits for it either.
            _ = &mut stopped, if !queue.is_closed() => queue.close(),
            Some(ended) = running.join_next() => note(name, &ended),
            next = queue.recv(), if running.len() < concurrency => match next {
                Some(errand) => {
                    depth(name, queue.len());
                    running.spawn(errand);
                }
                None => break,
            },
        }
    }
    while let Some(ended) = running.join_next().await {
        note(name, &ended);
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
        // Ending the task drops its errands, running and waiting.
        task.abort();
        let _ = task.await;
        tracing::warn!(
            queue = self.name,
            "what was not sent in the drain time is lost"
        );
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
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
