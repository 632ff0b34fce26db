//! Opening: the next connection, made by a thread of its own.
//!
//! Started by whoever finds that no epoch stands and the pause is over; all others are told meanwhile. What is between
//! us and a TPM may take a command and never answer, so this thread may hang, and nobody waits for it for longer than
//! `opens_within`. There is one at a time: beside one that hangs another would hang as well. Once it comes back it
//! goes on where it was, and nothing has to be restarted.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{Phase, Shared, locked};
use crate::{
    backend::{patience::patiently, tpm::clock::HANGS},
    error::{Error, Result},
};

impl Shared {
    /// Begins the next epoch where none stands and the pause is over.
    pub(super) fn begin_if_due(self: &Arc<Self>, operation: &'static str) -> Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        {
            let mut opening = locked(&self.opening);
            if let Some(since) = *opening {
                return Err(being_opened(operation, since.elapsed()));
            }
            // Somebody else may have done it since.
            if !self.is_due() {
                return Ok(());
            }
            *opening = Some(Instant::now());
        }
        let (sender, outcome) = mpsc::sync_channel(1);
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new()
            .name("tpm-opening".to_owned())
            .spawn(move || {
                let done = {
                    let _ends = Ends(&shared);
                    shared.open_now()
                };
                // Before the answer: whoever has it may be the last one with this backend.
                drop(shared);
                let _ = sender.try_send(done);
            });
        if let Err(error) = spawned {
            *locked(&self.opening) = None;
            return Err(Error::unavailable(operation, error.to_string()));
        }
        // A start is waited for; of a recovery callers are told before long, and it goes on without them.
        let longest = match &*self.read() {
            Phase::Down(..) => self.options.opens_within.min(HANGS),
            Phase::Idle | Phase::Up(_) => self.options.opens_within,
        };
        match outcome.recv_timeout(longest) {
            Ok(done) => done,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(being_opened(operation, longest)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::Bug { operation }),
        }
    }

    fn is_due(&self) -> bool {
        match &*self.read() {
            Phase::Up(_) => false,
            Phase::Idle => true,
            Phase::Down(_, until, _) => Instant::now() >= *until,
        }
    }

    fn open_now(&self) -> Result<()> {
        let _turn = locked(&self.turn);
        let pause = match &*self.read() {
            Phase::Up(_) => return Ok(()),
            Phase::Idle => None,
            Phase::Down(_, _, pause) => Some(*pause),
        };
        let begin = || match pause {
            // The first one is waited for.
            None => patiently(self.options.start_patience, || self.begin()),
            Some(_) => self
                .begin()
                .map_err(|trouble| trouble.into_error("recover")),
        };
        match self.changes.are_over().and_then(|()| begin()) {
            Ok(epoch) => {
                tracing::info!(epoch = epoch.number, "the TPM is there");
                self.now(Phase::Up(Arc::new(epoch)));
                Ok(())
            }
            Err(error) => {
                let error = self.remember(error);
                if let Some(pause) = pause {
                    tracing::warn!(%error, "the TPM is not back yet");
                    let next = pause.saturating_mul(2).min(self.options.recovery_pause);
                    self.now(Phase::Down(error.clone(), Instant::now() + next, next));
                }
                Err(error)
            }
        }
    }

    /// For how long it has been opened, where it is.
    pub(in crate::backend::tpm) fn opening(&self) -> Option<Duration> {
        locked(&self.opening).map(|since| since.elapsed())
    }
}

/// The opening is over, also by a panic.
struct Ends<'s>(&'s Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        *locked(&self.0.opening) = None;
    }
}

pub(super) fn being_opened(operation: &'static str, lasts: Duration) -> Error {
    let lasts = lasts.as_secs();
    let reason = match lasts {
        0 => "the token is being recovered".to_owned(),
        _ => format!("the TPM is being opened, and has not answered for {lasts} s"),
    };
    Error::unavailable(operation, reason)
}
