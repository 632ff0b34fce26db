//! One worker thread of the pool: takes a job, runs it on its own custody.
//!
//! Started by the pool alone. It must outlive any job, whatever the job does.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    Shared,
    allowed::Allowed,
    queue::{Job, Ran},
};
use crate::{counters::Counted, custody::Custody};

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
        custody = serve(shared, custody, job);
        worker.ends();
    }
}

/// Runs one job. After a panic the custody is thrown away, because an operation
/// may be half done on its session; the next job opens a new one.
pub(super) fn serve(
    shared: &Shared,
    custody: Option<Box<dyn Custody>>,
    job: Job,
) -> Option<Box<dyn Custody>> {
    let operation = job.operation;
    let mut custody = match custody.map_or_else(|| shared.backend.open(), Ok) {
        Ok(custody) => custody,
        Err(error) => {
            *locked(&shared.last_error) = Some(error.to_string());
            job.run(Err(error));
            return None;
        }
    };
    let mut counted = Counted {
        inner: custody.as_mut(),
        counters: &shared.counters,
    };
    let began = Instant::now();
    let mut allowed = Allowed::new(&mut counted, shared.versions()).believing(shared.believed());
    let ran = job.run(Ok(&mut allowed));
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
            return None;
        }
    }
    Some(custody)
}
