//! Beginning an epoch, by a thread that may hang inside the module.
//!
//! Called by whoever has the turn, for a start and in a recovery. One that takes longer than a third of `opens_within` is taken
//! to hang, and a second one begins beside it, in the module as it stands: the first to stand is the epoch, and what the other one
//! made is closed when it comes back. Never beside C_Login: the PIN would be presented twice at once, and a token that counts both as
//! wrong locks it. And never a third: where two hang, more would.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Instant,
};

use super::{Epoch, Phase, Shared, opening::Opens};
use crate::{
    backend::pkcs11::{
        mechanism::{Attempt, Trouble},
        pin::Ticket,
    },
    error::Error,
};

type Sender = mpsc::SyncSender<(Ticket, Attempt<Epoch>)>;

/// Threads of one backend that may be beginning an epoch.
const MOST: usize = 2;

impl Shared {
    /// One attempt at a whole epoch. On any failure nothing of it stays.
    pub(super) fn begin(self: &Arc<Self>) -> Attempt<Epoch> {
        let _opens = Opens::begin(&self.opening);
        let (sender, outcomes) = mpsc::sync_channel(MOST);
        let mut newest = self.pin.ticket();
        self.begin_beside(&sender, newest)?;
        let (began, patience) = (Instant::now(), self.options.opens_within / 3);
        loop {
            match outcomes.recv_timeout(patience) {
                // One that was given up comes back to nothing, while the other is at it.
                Ok((ticket, Err(_))) if ticket != newest => continue,
                Ok((_, outcome)) => return outcome,
                Err(_) => {}
            }
            // Where it is at C_Login, or was just now, or there are two, it is waited for.
            if self.beginning.load(Ordering::SeqCst) < MOST && self.pin.is_for_the_next(patience) {
                let lasts = began.elapsed().as_secs();
                tracing::warn!(
                    lasts,
                    "the token does not open; it is opened once more beside that"
                );
                newest = self.pin.ticket();
                self.begin_beside(&sender, newest)?;
            }
        }
    }

    fn begin_beside(self: &Arc<Self>, sender: &Sender, ticket: Ticket) -> Attempt<()> {
        if self.beginning.fetch_add(1, Ordering::SeqCst) >= MOST {
            self.beginning.fetch_sub(1, Ordering::SeqCst);
            let reason = "two attempts to open it have not come back from the module";
            return Err(Trouble::Sick(reason.to_owned()));
        }
        let (shared, sender) = (Arc::clone(self), sender.clone());
        let spawned = thread::Builder::new()
            .name("token-beginning".to_owned())
            .spawn(move || {
                let begun = catch_unwind(AssertUnwindSafe(|| shared.begin_now(ticket)));
                let panicked = |_| Err(Trouble::Final(Error::Bug { operation: "open" }));
                let begun = begun.unwrap_or_else(panicked);
                shared.beginning.fetch_sub(1, Ordering::SeqCst);
                // Before the answer: whoever has it may be the last one with this backend.
                drop(shared);
                let _ = sender.try_send((ticket, begun));
            });
        if let Err(error) = spawned {
            self.beginning.fetch_sub(1, Ordering::SeqCst);
            return Err(Trouble::Sick(error.to_string()));
        }
        Ok(())
    }

    /// Those that are at it although nobody waits for them: the epoch has begun beside them, or is being begun by another one.
    pub(in crate::backend::pkcs11) fn left_behind(&self) -> usize {
        let waited_for = usize::from(self.opening().is_some());
        let at_it = self.beginning.load(Ordering::SeqCst);
        at_it.saturating_sub(waited_for)
    }

    /// The epoch that stands from now on.
    pub(super) fn stands(&self, mut epoch: Epoch) -> u64 {
        epoch.number = self.epochs.fetch_add(1, Ordering::SeqCst) + 1;
        let number = epoch.number;
        self.now(Phase::Up(Arc::new(epoch)));
        number
    }
}
