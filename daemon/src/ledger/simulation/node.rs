//! A daemon: one life of it, from its start to its end, which may be between any two of its steps.
//!
//! Every task of a life is polled through here, of those that were woken at once the oldest first: some of tokio's
//! channels wake their waiters in an order that no seed says. Where the seed says so, a poll does not happen and no other
//! does any more: that is a kill. What a task had handed to a server goes on, and nothing else does. Several lives at once
//! are several of these upon one world.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use custodyd_hsm::{Pool, PoolOptions};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::store::Connection;
use super::token::{Token, work};
use super::world::World;
use crate::ledger::faults::rig::realm_name;
use crate::ledger::weakness::Weakness;
use crate::ledger::{Cache, Ledger, LedgerError, Mode, Settings, open};
use crate::store::Store;

/// How often bounded mode anchors in the token.
const INTERVAL: Duration = Duration::from_secs(3);

pub(super) struct Life {
    world: Arc<World>,
    pub(super) number: u64,
    dead: AtomicBool,
    /// Steps until it is killed, if it is.
    left: Option<AtomicUsize>,
    died: Notify,
    /// Tasks that were not polled yet.
    begun: Mutex<Vec<Task>>,
    /// Who polls them all.
    waker: Arc<Mutex<Option<Waker>>>,
    running: Mutex<Option<JoinHandle<()>>>,
}

/// A task that ends with its life.
struct Task {
    woken: Arc<Woken>,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

struct Woken {
    now: AtomicBool,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.now.store(true, Ordering::SeqCst);
        if let Some(waker) = &*self.waker.lock().unwrap() {
            waker.wake_by_ref();
        }
    }
}

/// All tasks of a life.
struct Running {
    life: Arc<Life>,
    tasks: Vec<Task>,
}

impl Future for Running {
    type Output = ();

    /// One round: everybody who was woken before it. Who is woken in it comes in the next.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let life = Arc::clone(&self.life);
        *life.waker.lock().unwrap() = Some(context.waker().clone());
        self.tasks.append(&mut life.begun.lock().unwrap());
        let woken = |task: &Task| task.woken.now.swap(false, Ordering::SeqCst);
        let round: Vec<bool> = self.tasks.iter().map(woken).collect();
        let mut over = vec![false; round.len()];
        for at in (0..round.len()).filter(|at| round[*at]) {
            if !life.steps() {
                return Poll::Pending;
            }
            let task = &mut self.tasks[at];
            let waker = Waker::from(Arc::clone(&task.woken));
            let mut context = Context::from_waker(&waker);
            let polled = catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(&mut context)));
            if polled.is_err() {
                life.world
                    .violated(format!("life {}: a task panicked", life.number));
            }
            over[at] = !matches!(polled, Ok(Poll::Pending));
        }
        let mut over = over.into_iter();
        self.tasks.retain(|_| over.next() != Some(true));
        if round.contains(&true) {
            // Others have their turn before the next round.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// A daemon that serves.
pub(super) struct Serving {
    pub(super) ledger: Ledger,
    committer: oneshot::Receiver<Result<(), LedgerError>>,
}

impl Life {
    pub(super) fn begin(world: &Arc<World>, number: u64, steps: Option<usize>) -> Arc<Self> {
        let life = Arc::new(Self {
            world: Arc::clone(world),
            number,
            dead: AtomicBool::new(false),
            left: steps.map(AtomicUsize::new),
            died: Notify::new(),
            begun: Mutex::default(),
            waker: Arc::default(),
            running: Mutex::default(),
        });
        let running = tokio::spawn(Running {
            life: Arc::clone(&life),
            tasks: Vec::new(),
        });
        *life.running.lock().unwrap() = Some(running);
        life
    }

    /// Whether there is another step.
    fn steps(&self) -> bool {
        if self.dead.load(Ordering::SeqCst) {
            return false;
        }
        let Some(left) = &self.left else {
            return true;
        };
        if left.fetch_sub(1, Ordering::SeqCst) > 1 {
            return true;
        }
        self.dies();
        false
    }

    fn dies(&self) {
        self.world.note(format_args!("{} is killed", self.number));
        self.world.count("killed");
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let woken = Arc::new(Woken {
            now: AtomicBool::new(false),
            waker: Arc::clone(&self.waker),
        });
        self.begun.lock().unwrap().push(Task {
            woken: Arc::clone(&woken),
            future: Box::pin(task),
        });
        woken.wake();
    }

    /// Runs a part of the life; `None` where it is killed meanwhile.
    pub(super) async fn live<T: Send + 'static>(
        self: &Arc<Self>,
        part: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        if self.is_dead() {
            return None;
        }
        let (say, said) = oneshot::channel();
        self.spawn(async move { drop(say.send(part.await)) });
        tokio::select! {
            biased;
            said = said => said.ok(),
            () = self.died.notified() => None,
        }
    }

    /// As `live`, where nobody who waits needs it to be answered within this time: that is a violation.
    pub(super) async fn live_within<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        what: &str,
        part: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        match tokio::time::timeout(limit, self.live(part)).await {
            Ok(said) => said,
            Err(_) => {
                self.world
                    .violated(format!("life {}: no end of {what}", self.number));
                None
            }
        }
    }

    /// Everything of it goes, as a killed process does.
    pub(super) async fn end(&self) {
        self.dead.store(true, Ordering::SeqCst);
        let running = self.running.lock().unwrap().take();
        if let Some(running) = running {
            running.abort();
            let _ = running.await;
        }
        self.begun.lock().unwrap().clear();
    }

    /// This life's ways to the database and to the token.
    pub(super) fn connect(
        self: &Arc<Self>,
        weakness: Weakness,
    ) -> Result<(Arc<dyn Store>, Pool), LedgerError> {
        let options = PoolOptions {
            threads: 2,
            ..PoolOptions::default()
        };
        let token = Arc::new(Token(Arc::clone(&self.world)));
        let (pool, hands) = Pool::by_hand(token, &options)?;
        for hand in hands {
            self.spawn(work(Arc::clone(&self.world), self.number, hand));
        }
        let store = Arc::new(Connection {
            world: Arc::clone(&self.world),
            life: self.number,
            weakness,
        });
        Ok((store, pool))
    }

    /// A start, as `startup` makes it.
    pub(super) async fn start(
        self: &Arc<Self>,
        weakness: Weakness,
    ) -> Option<Result<Serving, LedgerError>> {
        let (store, pool) = match self.connect(weakness) {
            Ok(connected) => connected,
            Err(error) => return Some(Err(error)),
        };
        let world = Arc::clone(&self.world);
        let opening = async move {
            let clock = Arc::new(world.host.clock());
            let settings = Settings {
                cache: Cache::new(world.setup.cache),
                mode: match world.setup.bounded {
                    false => Mode::Strict,
                    true => Mode::InMemory {
                        shelf: &world.shelf,
                        interval: INTERVAL,
                    },
                },
                configuration: [7; 32],
                public_log: false,
                escrowed: false,
            };
            let opened = open(&store, &pool, &realm_name(), &clock, settings).await?;
            let (ledger, committing) = opened.serve(clock);
            // It is large, and goes through many hands on a test's small stack.
            Ok::<_, LedgerError>((ledger, Box::pin(committing)))
        };
        let limit = Duration::from_secs(900);
        let opened = self.live_within(limit, "the start", opening).await?;
        Some(opened.map(|(ledger, committing)| {
            let (say, committer) = oneshot::channel();
            self.spawn(async move { drop(say.send(committing.await)) });
            Serving { ledger, committer }
        }))
    }
}

impl Serving {
    /// Whether the committer has ended by itself: then the daemon does.
    pub(super) fn has_stopped(&mut self) -> bool {
        !matches!(
            self.committer.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        )
    }

    /// A clean stop.
    pub(super) async fn stop(self, life: &Arc<Life>) -> bool {
        let Self { ledger, committer } = self;
        drop(ledger);
        let limit = Duration::from_secs(600);
        let rested = life.live_within(limit, "the stop", committer).await;
        matches!(rested, Some(Ok(Ok(()))))
    }
}
