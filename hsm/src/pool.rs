//! The pool: a few threads of their own that hold the sessions of the token, a
//! bounded queue in front of them and a deadline per call.
//!
//! The daemon's only way to the token. A module can hang for minutes, so no
//! runtime thread ever enters it, no caller waits past its deadline, and a
//! caller that gave up is not served behind its back. A hung module is not
//! answered with more threads: those would hang as well. `stuck` shows it.

mod allowed;
#[cfg(any(test, feature = "test-support"))]
mod by_hand;
mod queue;
mod worker;

#[cfg(any(test, feature = "test-support"))]
pub use self::by_hand::{Hand, Taken};

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use self::{
    queue::{Job, Queue},
    worker::{Worker, locked},
};
use crate::{
    counters::Counters,
    custody::{Backend, Custody},
    error::{Error, Result},
    lane::Lane,
    set::{SetBackend, TokenSet},
    versions::KeyVersions,
};

/// How the pool is built.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Threads, each with a session of its own. Tokens rarely gain from more than a few.
    pub threads: usize,
    /// Calls that may wait; one more is answered with [`Error::Busy`]. Of several apps none may hold more than
    /// stays free (`turns`).
    pub queue: usize,
    /// For a whole call, waiting included.
    pub deadline: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            threads: 2,
            queue: 256,
            deadline: Duration::from_secs(5),
        }
    }
}

/// The pool's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    pub queued: usize,
    pub running: usize,
    /// Running calls past their deadline, and a login or another step of opening the token that takes longer: the
    /// module hangs. Only a restart helps where it never returns.
    pub stuck: usize,
    /// Threads that hang in opening the token, beside which it was opened anew. They hold no call, and are never missed.
    pub left_behind: usize,
    /// The newest failure of the token, until a later call succeeds.
    pub last_error: Option<String>,
    /// Counts the token's session epochs; it rises with each recovery.
    pub epoch: u64,
}

/// A handle to the pool; clones share it. The last one to go shuts it down.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    deadline: Duration,
    /// The tokens behind this one pool, where there are several.
    set: Option<Arc<TokenSet>>,
}

/// What the workers see.
struct Shared {
    backend: Arc<dyn Backend>,
    queue: Queue,
    counters: Counters,
    last_error: Mutex<Option<String>>,
    workers: Vec<Worker>,
    abandoned: AtomicU64,
    observer: OnceLock<Observer>,
    /// The key versions in use, once a head of the ledger has said so.
    versions: RwLock<Option<Arc<KeyVersions>>>,
    /// Of one of several tokens: those that its anchors are believed by.
    believed: RwLock<Option<Arc<KeyVersions>>>,
}

/// Told the name of each call that ran and how long it had the token.
type Observer = Box<dyn Fn(&'static str, Duration) + Send + Sync>;

impl Pool {
    /// Opens the token once per thread and starts the threads.
    ///
    /// # Errors
    /// The backend's, when the token cannot be opened now; [`Error::Invalid`]
    /// for options out of range.
    pub fn start(backend: Arc<dyn Backend>, options: PoolOptions) -> Result<Self> {
        Self::start_before(backend, options, None)
    }

    /// A pool in front of several tokens with the same keys, by the names that operators have for them. One
    /// that leaves everybody without an answer for as long as `patience` is not waited for any longer.
    ///
    /// # Errors
    /// As [`Pool::start`], where none of them opens; [`Error::Misconfigured`] where two are one token.
    pub fn start_set(
        tokens: Vec<(String, Arc<dyn Backend>)>,
        options: PoolOptions,
        patience: Duration,
    ) -> Result<Self> {
        check(&options)?;
        let set = TokenSet::open(tokens, &options, patience)?;
        let front = Arc::new(SetBackend(Arc::clone(&set)));
        Self::start_before(front, options, Some(set))
    }

    fn start_before(
        backend: Arc<dyn Backend>,
        options: PoolOptions,
        set: Option<Arc<TokenSet>>,
    ) -> Result<Self> {
        let (pool, custodies) = Self::prepare(backend, &options, set)?;
        for (index, custody) in custodies.into_iter().enumerate() {
            let shared = Arc::clone(&pool.0.shared);
            let thread = thread::Builder::new()
                .name(format!("token-{index}"))
                .spawn(move || worker::run(&shared, index, custody))
                .map_err(|error| Error::unavailable("start", error.to_string()))?;
            locked(&pool.0.threads).push(thread);
        }
        Ok(pool)
    }

    /// A pool in which nobody works yet, and what its workers will work with.
    fn prepare(
        backend: Arc<dyn Backend>,
        options: &PoolOptions,
        set: Option<Arc<TokenSet>>,
    ) -> Result<(Self, Vec<Box<dyn Custody>>)> {
        check(options)?;
        let mut custodies = Vec::with_capacity(options.threads);
        for _ in 0..options.threads {
            custodies.push(backend.open()?);
        }
        let shared = Arc::new(Shared {
            backend,
            queue: Queue::new(options.queue),
            counters: Counters::default(),
            last_error: Mutex::new(None),
            workers: custodies.iter().map(|_| Worker::default()).collect(),
            abandoned: AtomicU64::new(0),
            observer: OnceLock::new(),
            versions: RwLock::new(None),
            believed: RwLock::new(None),
        });
        let pool = Self(Arc::new(Inner {
            shared,
            threads: Mutex::new(Vec::new()),
            deadline: options.deadline,
            set,
        }));
        Ok((pool, custodies))
    }

    /// How long a call may take, the time that it waits for its turn included.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.0.deadline
    }

    /// Runs a job on the token. It may do several operations; they share the
    /// deadline. A job whose caller gave up before it began is not run.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Deadline`], [`Error::Bug`] after a panic,
    /// [`Error::Unavailable`] during shutdown; else the job's own.
    pub async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce(&mut dyn Custody) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call_within(self.0.deadline, operation, job).await
    }

    /// As [`Pool::call`], for what may take longer than anything that a request waits for, such as
    /// making a key.
    ///
    /// # Errors
    /// As for [`Pool::call`].
    pub async fn call_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        operation: &'static str,
        job: impl FnOnce(&mut dyn Custody) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let waiting = Arc::new(());
        let (sender, receiver) = oneshot::channel();
        let expires = self.submit(deadline, operation, &waiting, job, |answer| {
            let _ = sender.send(answer);
        })?;
        let outcome = tokio::time::timeout_at(expires, receiver).await;
        self.settle(operation, outcome.ok().and_then(std::result::Result::ok))
    }

    /// As [`Pool::call`], for callers without a runtime, such as the CLI.
    ///
    /// # Errors
    /// As for [`Pool::call`].
    pub fn blocking_call<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce(&mut dyn Custody) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let waiting = Arc::new(());
        let (sender, receiver) = mpsc::sync_channel(1);
        let deadline = self.0.deadline;
        let expires = self.submit(deadline, operation, &waiting, job, move |answer| {
            let _ = sender.try_send(answer);
        })?;
        let left = expires.saturating_duration_since(Instant::now());
        self.settle(operation, receiver.recv_timeout(left).ok())
    }

    /// Puts a job into the queue; gives the moment at which it expires.
    fn submit<T: Send + 'static>(
        &self,
        deadline: Duration,
        operation: &'static str,
        waiting: &Arc<()>,
        job: impl FnOnce(&mut dyn Custody) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Result<Instant> {
        let expires = Instant::now() + deadline;
        let job = Job::new(operation, expires, Arc::downgrade(waiting), job, reply);
        self.0.shared.queue.push(operation, Lane::current(), job)?;
        Ok(expires)
    }

    /// What the caller is told when no answer came: its job was dropped unrun or
    /// is still running past the deadline, or the pool was shut down.
    fn settle<T>(&self, operation: &'static str, answer: Option<Result<T>>) -> Result<T> {
        if let Some(answer) = answer {
            return answer;
        }
        if self.0.shared.queue.is_closed() {
            return Err(Error::unavailable(operation, "shutting down"));
        }
        self.0.shared.abandoned.fetch_add(1, Ordering::Relaxed);
        let error = Error::Deadline { operation };
        *locked(&self.0.shared.last_error) = Some(error.to_string());
        Err(error)
    }

    /// Has every call measured from now on, on each token of several as well. Only the first observer is kept;
    /// it runs on the worker between two calls, so it must be quick.
    pub fn observe(&self, observer: impl Fn(&'static str, Duration) + Send + Sync + 'static) {
        let observer = crate::set::Observer(Arc::new(observer));
        let members = self.0.set.iter().flat_map(|set| set.members());
        members.for_each(|member| member.observe(&observer));
        let crate::set::Observer(observer) = observer;
        let observe = move |operation, took| observer(operation, took);
        let _ = self.0.shared.observer.set(Box::new(observe));
    }

    /// From now on jobs use these key versions and no others, whatever the token holds; and what is anchored in each token
    /// of the set, where there are several, is believed by them alone.
    pub fn use_versions(&self, versions: KeyVersions) {
        let versions = Arc::new(versions);
        let members = self.0.set.iter().flat_map(|set| set.members());
        members.for_each(|member| member.is_held_to(&versions));
        let used = self.0.shared.versions.write();
        *used.unwrap_or_else(PoisonError::into_inner) = Some(versions);
    }

    /// Of one of several tokens, which the pool of all of them holds to the key versions in use: alone it is asked to
    /// anchor, and about keys that no head names yet. Its anchors are believed by what the head names all the same.
    pub(crate) fn believe_by(&self, versions: Option<Arc<KeyVersions>>) {
        let believed = self.0.shared.believed.write();
        *believed.unwrap_or_else(PoisonError::into_inner) = versions;
    }

    /// The key versions in use; `None` before `use_versions`.
    #[must_use]
    pub fn versions(&self) -> Option<Arc<KeyVersions>> {
        self.0.shared.versions()
    }

    /// The tokens behind this pool, where there are several.
    #[must_use]
    pub fn set(&self) -> Option<&Arc<TokenSet>> {
        self.0.set.as_ref()
    }

    /// What the token is known by among several: the serial number that it tells.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] where it tells none.
    pub fn identity(&self) -> Result<String> {
        let description = self.0.shared.backend.describe();
        crate::set::identity(&description.label, &description)
    }

    /// The state for readiness checks and metrics.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let shared = &self.0.shared;
        let now = Instant::now();
        let running: Vec<Instant> = shared.workers.iter().filter_map(Worker::expiry).collect();
        let behind = self.0.set.iter().flat_map(|set| set.members());
        let stuck_behind: usize = behind.map(|member| member.stuck()).sum();
        let stuck = running.iter().filter(|expires| **expires < now).count();
        let opening = shared.backend.opening();
        let opening = usize::from(opening.is_some_and(|lasts| lasts > self.0.deadline));
        PoolStatus {
            queued: shared.queue.len(),
            running: running.len(),
            stuck: stuck + opening + stuck_behind,
            left_behind: shared.backend.left_behind(),
            last_error: locked(&shared.last_error).clone(),
            epoch: shared.backend.epoch(),
        }
    }

    /// Name, count and nanoseconds of each kind of token operation, and how
    /// many calls were given up by their callers.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64, u64)> {
        let mut totals = self.0.shared.counters.totals();
        let abandoned = self.0.shared.abandoned.load(Ordering::Relaxed);
        totals.push(("abandoned", abandoned, 0));
        totals
    }

    /// Takes no more calls, lets the running ones finish (at most for one
    /// deadline), closes the sessions. Calls that wait are answered
    /// [`Error::Unavailable`]. Also done when the last handle goes.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }
}

impl Shared {
    fn believed(&self) -> Option<Arc<KeyVersions>> {
        let believed = self.believed.read().unwrap_or_else(PoisonError::into_inner);
        believed.clone()
    }

    fn versions(&self) -> Option<Arc<KeyVersions>> {
        let used = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        used.clone()
    }
}

impl Inner {
    fn shutdown(&self) {
        self.shared.queue.close();
        let give_up = Instant::now() + self.deadline;
        for thread in locked(&self.threads).drain(..) {
            // A job may own the last handle: a thread cannot wait for itself.
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            while !thread.is_finished() && Instant::now() < give_up {
                thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            } else {
                tracing::warn!("a token worker hangs inside the module; left behind at shutdown");
            }
        }
        if let Some(set) = &self.set {
            set.shutdown();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?})", self.status())
    }
}

fn check(options: &PoolOptions) -> Result<()> {
    let sound = (1..=64).contains(&options.threads)
        && (1..=65_536).contains(&options.queue)
        && !options.deadline.is_zero();
    if sound {
        return Ok(());
    }
    Err(Error::invalid(
        "token pool",
        "expected 1 to 64 threads, a queue of 1 to 65536 and a deadline above zero",
    ))
}

#[cfg(test)]
mod tests;
