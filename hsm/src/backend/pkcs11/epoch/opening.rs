//! The first epoch, and what is told while one is being begun.
//!
//! Asked by `open`, from whatever thread wants a custody. The work is a thread's of its own, because C_Login, or any
//! other call on the way, may hang: nobody waits for it for longer than `opens_within`. When the call comes back the thread goes
//! on, and the token serves; what is tried beside it meanwhile, `beginning` says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::Ordering,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Shared, locked};
use crate::{
    backend::patience::patiently,
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

    fn open_first(self: &Arc<Self>) -> Result<()> {
        let _turn = locked(&self.turn);
        if self.standing().is_some() {
            return Ok(());
        }
        let epoch = patiently(self.options.start_patience, || self.begin());
        let epoch = epoch.map_err(|error| self.remember(error))?;
        self.stands(epoch);
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
