//! The bounded queue of token jobs.
//!
//! Used by the pool alone. It never grows past its capacity and never hands
//! out a job that nobody waits for any more. Apps take turns ([`Turns`]).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, PoisonError, Weak},
};

use tokio::time::Instant;

use super::worker::locked;
use crate::{
    custody::Custody,
    error::{Error, Result},
    lane::Lane,
    turns::Turns,
};

/// What a job tells the worker that ran it.
pub(super) enum Ran {
    /// The token did its work.
    Well,
    /// The job failed for a reason that says nothing about the token.
    Refused,
    /// The token failed.
    Sick(String),
    /// The closure panicked; its caller was told.
    Panicked,
}

type Body = Box<dyn FnOnce(Result<&mut dyn Custody>) -> Done + Send>;

/// A job that ran. Its caller has no answer yet.
pub(super) struct Done {
    pub(super) ran: Ran,
    /// Answers. After what the worker says of itself, so that whoever has the answer finds the pool done with it.
    pub(super) reply: Box<dyn FnOnce()>,
}

/// A call that waits for a worker.
pub(super) struct Job {
    pub(super) operation: &'static str,
    pub(super) expires: Instant,
    waiting: Weak<()>,
    body: Body,
}

impl Job {
    /// `waiting` is held by the caller: once its last strong reference is gone,
    /// nobody wants the answer.
    pub(super) fn new<T: 'static>(
        operation: &'static str,
        expires: Instant,
        waiting: Weak<()>,
        call: impl FnOnce(&mut dyn Custody) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) -> Self {
        let body = move |custody: Result<&mut dyn Custody>| {
            let attempt = AssertUnwindSafe(|| custody.and_then(call));
            let panicked = |_| Err(Error::Bug { operation });
            let answer = catch_unwind(attempt).unwrap_or_else(panicked);
            Done {
                ran: judge(&answer),
                reply: Box::new(move || reply(answer)),
            }
        };
        Self {
            operation,
            expires,
            waiting,
            body: Box::new(body),
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn is_stale(&self) -> bool {
        Instant::now() >= self.expires || self.waiting.strong_count() == 0
    }

    /// Runs the call on this custody, or answers it with the error that there is none.
    pub(super) fn run(self, custody: Result<&mut dyn Custody>) -> Done {
        (self.body)(custody)
    }
}

fn judge<T>(answer: &Result<T>) -> Ran {
    match answer {
        Ok(_) => Ran::Well,
        Err(Error::Bug { .. }) => Ran::Panicked,
        Err(error @ (Error::Misconfigured(_) | Error::PinRefused { .. })) => {
            Ran::Sick(error.to_string())
        }
        // It keeps to its budget, and is well.
        Err(Error::Worn { .. }) => Ran::Refused,
        Err(error) if error.is_retryable() => Ran::Sick(error.to_string()),
        Err(_) => Ran::Refused,
    }
}

struct State {
    jobs: Turns<Job>,
    closed: bool,
    /// Workers that sleep and that nobody has called yet. To call one is a system call, also where none sleeps.
    asleep: usize,
}

pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    /// The same for who has no thread to wait with.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) called: tokio::sync::Notify,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                jobs: Turns::new(capacity),
                closed: false,
                asleep: 0,
            }),
            arrived: Condvar::new(),
            #[cfg(any(test, feature = "test-support"))]
            called: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn push(&self, operation: &'static str, lane: Lane, job: Job) -> Result<()> {
        let mut state = locked(&self.state);
        if state.closed {
            return Err(Error::unavailable(operation, "shutting down"));
        }
        if !state.jobs.has_room(lane) {
            // Make room from those who left before turning anybody away.
            state.jobs.retain(|job| !job.is_stale());
        }
        if let Err(job) = state.jobs.push(lane, job) {
            drop(state);
            drop(job);
            return Err(Error::Busy { operation });
        }
        // Who is awake looks here before it sleeps; so does one that was called in vain, because another was quicker.
        let call = state.asleep > 0;
        state.asleep = state.asleep.saturating_sub(1);
        drop(state);
        if call {
            self.arrived.notify_one();
        }
        #[cfg(any(test, feature = "test-support"))]
        self.called.notify_one();
        Ok(())
    }

    /// The next job that somebody still waits for; none once closed.
    pub(super) fn pop(&self) -> Option<Job> {
        loop {
            let job = self.wait()?;
            // One that is stale goes here, beneath no lock: it may own the last handle to the pool, and close this queue.
            if !job.is_stale() {
                return Some(job);
            }
        }
    }

    fn wait(&self) -> Option<Job> {
        let mut state = locked(&self.state);
        loop {
            if state.closed {
                return None;
            }
            match state.jobs.pop() {
                Some(job) => return Some(job),
                None => {
                    // One that wakes of itself is counted once too often, and called once in vain.
                    state.asleep += 1;
                    state = self
                        .arrived
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The next job that somebody waits for, if there is one now.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn try_pop(&self) -> Option<Job> {
        loop {
            let job = locked(&self.state).jobs.pop()?;
            if !job.is_stale() {
                return Some(job);
            }
        }
    }

    /// Ends all waiting; jobs still queued are dropped, which tells their callers.
    pub(super) fn close(&self) {
        let mut state = locked(&self.state);
        state.closed = true;
        let left = state.jobs.take_all();
        drop(state);
        drop(left);
        self.arrived.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        locked(&self.state).closed
    }

    pub(super) fn len(&self) -> usize {
        locked(&self.state).jobs.len()
    }
}
