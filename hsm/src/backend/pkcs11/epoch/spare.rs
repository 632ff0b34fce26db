//! The session for those who get none.
//!
//! A token has room for so many sessions, and others may take it: another program on the same token, or a node that
//! died without closing its own. A worker without a session shares this one then, one call at a time, and asks
//! for its own again with the next. Nothing that is open is closed for it: the token is well.

use std::{
    sync::{
        Mutex, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::session::Session;

use super::super::mechanism::{Attempt, Trouble};
use crate::error::Error;

/// How long one waits for it. A call that hangs on it must not take the others along.
const LONGEST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Spare {
    session: Mutex<Session>,
    /// Told once in an epoch, not with every call.
    told: AtomicBool,
}

impl Spare {
    /// The session that the epoch was begun with.
    pub(super) fn new(session: Session) -> Self {
        Self {
            session: Mutex::new(session),
            told: AtomicBool::new(false),
        }
    }

    /// `reason` is why no other session opened.
    pub(super) fn lend<T>(
        &self,
        reason: &str,
        work: impl FnOnce(&Session) -> Attempt<T>,
    ) -> Attempt<T> {
        let give_up = Instant::now() + LONGEST;
        let session = loop {
            match self.session.try_lock() {
                Ok(session) => break session,
                // An operation may be half done on it: then the next one fails, and the epoch ends.
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Trouble::Final(Error::unavailable(
                        "open a session",
                        format!("{reason}, and the session that workers share is in use"),
                    )));
                }
            }
        };
        let done = work(&session);
        if done.is_ok() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                reason,
                "the token opens no further session and is well otherwise; workers share one until it does"
            );
        }
        done
    }
}
