//! One worker thread of the pool: takes a job, runs it on its own custody.
//!
//! Started by the pool alone. It must outlive any job, whatever the job does.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{
    Shared,
    allowed::Allowed,
    queue::{Done, Job, Ran},
};
use crate::{counters::Counted, custody::Custody, error::Error};

/// What others may see of a worker: when its present job expires.
#[derive(Default)]
pub(super) struct Worker(Mutex<Option<Instant>>);

impl Worker {
    pub(super) fn begins(&self, expires: Instant) {
        *locked(&self.0) = Some(expires);
    }

    pub(super) fn ends(&self) {
        *locked(&self.0) = None;
    }

    pub(super) fn expiry(&self) -> Option<Instant> {
        *locked(&self.0)
    }
}

/// Locks, also after a panic elsewhere: everything guarded here is whole at
/// every moment.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn run(shared: &Shared, index: usize, custody: Box<dyn Custody>) {
    let Some(worker) = shared.workers.get(index) else {
        return;
    };
    let mut custody = Some(custody);
    while let Some(job) = shared.queue.pop() {
        worker.begins(job.expires);
        let reply;
        (custody, reply) = serve(shared, custody, job);
        worker.ends();
        reply();
    }
}

/// What is left of a worker's custody, and the answer to whoever waits.
type Served = (Option<Box<dyn Custody>>, Box<dyn FnOnce()>);

/// Runs one job. After a panic the custody is thrown away, because an operation
/// may be half done on its session; the next job opens a new one.
pub(super) fn serve(shared: &Shared, custody: Option<Box<dyn Custody>>, job: Job) -> Served {
    let operation = job.operation;
    let open = AssertUnwindSafe(|| shared.backend.open());
    let panicked = |_| Err(Error::Bug { operation });
    let opened = custody.map_or_else(|| catch_unwind(open).unwrap_or_else(panicked), Ok);
    let mut custody = match opened {
        Ok(custody) => custody,
        Err(error) => {
            *locked(&shared.last_error) = Some(error.to_string());
            return (None, job.run(Err(error)).reply);
        }
    };
    let mut counted = Counted {
        inner: custody.as_mut(),
        counters: &shared.counters,
    };
    let began = Instant::now();
    let mut allowed = Allowed::new(&mut counted, shared.versions()).believing(shared.believed());
    let Done { ran, reply } = job.run(Ok(&mut allowed));
    if let Some(observer) = shared.observer.get() {
        observer(operation, began.elapsed());
    }
    match ran {
        Ran::Well => *locked(&shared.last_error) = None,
        Ran::Refused => {}
        Ran::Sick(reason) => *locked(&shared.last_error) = Some(reason),
        Ran::Panicked => {
            tracing::error!(
                operation,
                "a token job panicked; its session is thrown away"
            );
            return (None, reply);
        }
    }
    (Some(custody), reply)
}
