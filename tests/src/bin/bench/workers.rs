//! Clients of any server, each with a connection and accounts of its own, that ask again as soon as they are answered.
//!
//! The peers and the concurrency are measured with these, so that every server has the very same clients. There are as
//! many threads as clients up to `THREADS`; above that a thread carries several, since threads would cost the two cores
//! more than the servers do.

use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};

const THREADS: usize = 16;

/// One client: what it uses in turn, and which comes next.
#[derive(Debug)]
struct Client<M> {
    members: Vec<M>,
    next: usize,
}

#[derive(Debug)]
struct Worker<M> {
    runtime: Runtime,
    clients: Vec<Client<M>>,
}

#[derive(Debug)]
pub(crate) struct Workers<M>(Vec<Worker<M>>);

/// What has a connection: its client, and what to ask for that everybody is answered.
pub(crate) trait Connected {
    fn connection(&self) -> (reqwest::Client, String);
}

impl<M: Send + Connected> Workers<M> {
    /// Opens connections off the clock: a server closes those that nobody has used for a while.
    pub(crate) fn wake(&mut self) {
        self.repeat(Duration::ZERO, async |member| {
            let (http, url) = member.connection();
            if http.get(&url).send().await.is_err() {
                http.get(&url).send().await.unwrap();
            }
            Duration::ZERO
        });
    }
}

impl<M: Send> Workers<M> {
    /// So many clients. `enrol` makes one's members: they share its connection.
    pub(crate) fn enrolled(clients: usize, enrol: impl AsyncFn() -> Vec<M> + Sync) -> Self {
        let threads = clients.min(THREADS);
        Self(thread::scope(|scope| {
            let enrol = &enrol;
            let made: Vec<_> = (0..threads)
                .map(|thread| {
                    let share = (thread..clients).step_by(threads).count();
                    scope.spawn(move || Worker::enrolled(share, enrol))
                })
                .collect();
            made.into_iter().map(|one| one.join().unwrap()).collect()
        }))
    }

    /// Each client at least once, and until the time is over; milliseconds of each.
    pub(crate) fn repeat(
        &mut self,
        lasting: Duration,
        ask: impl AsyncFn(&mut M) -> Duration + Sync,
    ) -> Vec<f64> {
        let end = Instant::now() + lasting;
        thread::scope(|scope| {
            let ask = &ask;
            let running: Vec<_> = (self.0.iter_mut())
                .map(|worker| scope.spawn(move || worker.repeat(end, ask)))
                .collect();
            let took = running.into_iter().flat_map(|one| one.join().unwrap());
            took.collect()
        })
    }
}

impl<M> Worker<M> {
    fn enrolled(clients: usize, enrol: &impl AsyncFn() -> Vec<M>) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // One after the other: an enrolment may be slow, and this is off the clock.
        let clients = (0..clients)
            .map(|_| Client {
                members: runtime.block_on(enrol()),
                next: 0,
            })
            .collect();
        Self { runtime, clients }
    }

    fn repeat(&mut self, end: Instant, ask: &impl AsyncFn(&mut M) -> Duration) -> Vec<f64> {
        let all = self
            .clients
            .iter_mut()
            .map(|client| client.repeat(end, ask));
        self.runtime.block_on(join_all(all)).concat()
    }
}

impl<M> Client<M> {
    async fn repeat(&mut self, end: Instant, ask: &impl AsyncFn(&mut M) -> Duration) -> Vec<f64> {
        let mut latencies = Vec::new();
        while latencies.is_empty() || Instant::now() < end {
            let all = self.members.len();
            let member = &mut self.members[self.next % all];
            self.next += 1;
            latencies.push(ask(member).await.as_secs_f64() * 1e3);
        }
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_asks_and_its_members_take_turns() {
        let mut workers = Workers::enrolled(40, async || vec![0_u32, 0]);
        let took = workers.repeat(Duration::from_millis(50), async |member| {
            *member += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            Duration::from_millis(1)
        });
        let clients: Vec<_> = workers.0.iter().flat_map(|one| &one.clients).collect();
        assert_eq!(clients.len(), 40);
        let asked: u32 = clients.iter().flat_map(|client| &client.members).sum();
        assert_eq!(asked as usize, took.len());
        for client in clients {
            assert!(client.members[0] > 0);
            assert!(client.members[0].abs_diff(client.members[1]) <= 1);
        }
    }
}
