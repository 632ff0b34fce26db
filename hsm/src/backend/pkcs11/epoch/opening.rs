//! The first epoch, and what is told while one is being begun.
//!
//! Asked by `open`, from whatever thread wants a custody. The work is a thread's of its own, because C_Login, or any
//! other call on the way, may hang: nobody waits for it for longer than `opens_within`. There is one at a time. Beside one
//! that hangs nothing is tried: the PIN would be presented twice at once, and a module that counts both as wrong locks it. When the
//! call comes back the thread goes on, and the token serves.

use std::{
    sync::{
        Arc, Mutex,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{FIRST_PAUSE, Phase, Shared, locked};
use crate::{
    backend::pkcs11::mechanism::{Attempt, Trouble},
    error::{Error, Result},
};

/// From when on it is told that the token does not answer, instead of why it is opened.
const TOLD: Duration = Duration::from_secs(1);

impl Shared {
    /// Begins the first epoch, patient with errors that pass.
    pub(in crate::backend::pkcs11) fn ensure_up(self: &Arc<Self>) -> Result<()> {
        self.check_refused()?;
        let present = self.with_epoch("open", |_| ());
        if present.is_ok() {
            return present;
        }
        if self.recovering.swap(true, Ordering::SeqCst) {
            return self.while_another_opens();
        }
        let (sender, outcome) = mpsc::sync_channel(1);
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("token-opening".to_owned())
            .spawn(move || {
                let done = {
                    let _ends = Ends(&shared);
                    shared.open_first()
                };
                // Before the answer: whoever has it may be the last one with this backend.
                drop(shared);
                let _ = sender.try_send(done);
            });
        if let Err(error) = spawned {
            self.recovering.store(false, Ordering::SeqCst);
            return Err(Error::unavailable("open", error.to_string()));
        }
        match outcome.recv_timeout(self.options.opens_within) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout) => {
                let reason = self.hangs();
                let reason = reason.unwrap_or_else(|| "the token does not open".to_owned());
                Err(Error::unavailable("open", reason))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Bug { operation: "open" }),
        }
    }

    fn open_first(&self) -> Result<()> {
        let _turn = locked(&self.turn);
        if self.standing().is_some() {
            return Ok(());
        }
        let epoch = self.patiently(|| self.begin())?;
        self.now(Phase::Up(Arc::new(epoch)));
        Ok(())
    }

    /// A first opening is waited for, a recovery is not.
    fn while_another_opens(&self) -> Result<()> {
        let give_up = Instant::now() + self.options.opens_within;
        while self.recovering.load(Ordering::SeqCst) && Instant::now() < give_up && self.is_idle() {
            thread::sleep(Duration::from_millis(2));
        }
        self.with_epoch("open", |_| ())
    }

    /// Repeats what fails in passing. Two processes that start on one SoftHSM
    /// token disturb each other, and a network token may be a moment late.
    pub(super) fn patiently<T>(&self, attempt: impl Fn() -> Attempt<T>) -> Result<T> {
        let give_up = Instant::now() + self.options.start_patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Trouble::Sick(_)) if Instant::now() + pause < give_up => {
                    thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                Err(trouble) => return Err(self.remember(trouble.into_error("start"))),
            }
        }
    }

    /// For how long an epoch has been on its way, where one is.
    pub(in crate::backend::pkcs11) fn opening(&self) -> Option<Duration> {
        locked(&self.opening).map(|since| since.elapsed())
    }

    /// What is told while the way to the token hangs.
    pub(super) fn hangs(&self) -> Option<String> {
        let lasts = self.opening().filter(|lasts| *lasts >= TOLD)?.as_secs();
        Some(match self.pin.is_being_presented() {
            true => format!(
                "C_Login has not come back for {lasts} s; the PIN is not presented a second time beside it"
            ),
            false => format!("the token is being opened, and has not answered for {lasts} s"),
        })
    }
}

/// An epoch is being begun, until this goes.
pub(super) struct Opens<'o>(&'o Mutex<Option<Instant>>);

impl<'o> Opens<'o> {
    pub(super) fn begin(opening: &'o Mutex<Option<Instant>>) -> Self {
        *locked(opening) = Some(Instant::now());
        Self(opening)
    }
}

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        *locked(self.0) = None;
    }
}

/// The first opening is over, also by a panic.
struct Ends<'s>(&'s Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.recovering.store(false, Ordering::SeqCst);
    }
}
