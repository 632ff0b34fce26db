//! For tests: a pool without threads, whose jobs somebody runs by hand, each when they like.
//!
//! Used by the daemon's simulation, in which everything happens in one thread, in an order that a seed says, and on
//! tokio's paused clock. Queue, deadlines and what a job tells its caller are the pool's own; only the loop that a
//! worker thread is in is the caller's. What is taken and run after its deadline is the call that was on its way into
//! a token that hung; what is taken and dropped is one that never arrived.

use std::sync::Arc;

use super::{Pool, PoolOptions, Shared, queue::Job, worker};
use crate::{
    custody::{Backend, Custody},
    error::Result,
};

/// One worker's place.
#[allow(
    missing_debug_implementations,
    reason = "a custody has nothing to show, and no other build has this file"
)]
pub struct Hand {
    shared: Arc<Shared>,
    index: usize,
    custody: Option<Box<dyn Custody>>,
}

/// A job that has begun: its caller may leave, and it runs all the same.
#[allow(
    missing_debug_implementations,
    reason = "a job is a closure, and no other build has this file"
)]
pub struct Taken(Job);

impl Taken {
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }
}

impl Pool {
    /// As [`Pool::start`], with a hand in the place of each thread.
    ///
    /// # Errors
    /// As for [`Pool::start`].
    pub fn by_hand(backend: Arc<dyn Backend>, options: &PoolOptions) -> Result<(Self, Vec<Hand>)> {
        let (pool, custodies) = Self::prepare(backend, options, None)?;
        let hands = custodies.into_iter().enumerate();
        let hands = hands.map(|(index, custody)| Hand {
            shared: Arc::clone(&pool.0.shared),
            index,
            custody: Some(custody),
        });
        let hands = hands.collect();
        Ok((pool, hands))
    }
}

impl Hand {
    /// The next job that somebody waits for.
    pub async fn take(&mut self) -> Taken {
        loop {
            if let Some(job) = self.shared.queue.try_pop() {
                if self.shared.queue.len() > 0 {
                    // One call wakes one hand, however many there were before it was heard.
                    self.shared.queue.called.notify_one();
                }
                if let Some(worker) = self.shared.workers.get(self.index) {
                    worker.begins(job.expires);
                }
                return Taken(job);
            }
            self.shared.queue.called.notified().await;
        }
    }

    /// Does the work, and answers whoever still waits.
    pub fn run(&mut self, taken: Taken) {
        let reply;
        (self.custody, reply) = worker::serve(&self.shared, self.custody.take(), taken.0);
        if let Some(worker) = self.shared.workers.get(self.index) {
            worker.ends();
        }
        reply();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::{
        error::Error,
        id::{KeyId, KeyPurpose},
        pool::tests::SoftBackend,
    };

    fn by_hand() -> (Pool, Hand) {
        let options = PoolOptions {
            threads: 1,
            deadline: Duration::from_secs(600),
            ..PoolOptions::default()
        };
        let backend = Arc::new(SoftBackend::default());
        let (pool, mut hands) = Pool::by_hand(backend, &options).unwrap();
        (pool, hands.remove(0))
    }

    async fn mac(pool: &Pool) -> Result<()> {
        let key = KeyId::new(KeyPurpose::Mac, 1);
        let job = move |custody: &mut dyn Custody| custody.mac(key, b"x").map(drop);
        pool.call("mac", job).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_runs_when_the_hand_says_so_and_deadlines_are_the_paused_clocks() {
        let (pool, mut hand) = by_hand();
        let asked = tokio::spawn({
            let pool = pool.clone();
            async move { mac(&pool).await }
        });
        let taken = hand.take().await;
        assert_eq!(taken.operation(), "mac");
        assert_eq!(pool.status().running, 1);
        hand.run(taken);
        asked.await.unwrap().unwrap();
        // Nobody runs it, and a deadline of minutes passes at once.
        let began = std::time::Instant::now();
        let answer = mac(&pool).await;
        assert_eq!(answer, Err(Error::Deadline { operation: "mac" }));
        assert!(began.elapsed() < Duration::from_secs(300));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_runs_although_its_caller_has_left_and_what_was_not_does_not() {
        let (pool, mut hand) = by_hand();
        let ran = Arc::new(AtomicUsize::new(0));
        for (begun, expected) in [(true, 1), (false, 1)] {
            let counter = Arc::clone(&ran);
            let job = move |_: &mut dyn Custody| {
                counter.fetch_add(1, Ordering::SeqCst);
                Ok(())
            };
            let caller = tokio::spawn({
                let pool = pool.clone();
                async move { pool.call("late", job).await }
            });
            tokio::task::yield_now().await;
            let taken = match begun {
                true => Some(hand.take().await),
                false => None,
            };
            caller.abort();
            let _ = caller.await;
            match taken {
                Some(taken) => hand.run(taken),
                None => {
                    let next = tokio::time::timeout(Duration::from_secs(1), hand.take()).await;
                    assert!(next.is_err(), "a job that nobody waits for was handed out");
                }
            }
            assert_eq!(ran.load(Ordering::SeqCst), expected);
        }
    }
}
