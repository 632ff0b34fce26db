//! What changes something in the TPM, in whichever epoch: an anchor, a key.
//!
//! A command that hangs may still arrive. An extension of the anchors' index that comes after another one makes all of them
//! unknown, and an epoch that found a key would go on with it after it was destroyed. So there is one change at a time, none
//! begins in an epoch that is over, and while one is under way no epoch begins and nothing works on the TPM alone.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use super::locked;
use crate::{
    backend::tpm::clock::Clock,
    error::{Error, Result},
};

/// How often somebody who waits looks.
const LOOKS: Duration = Duration::from_millis(5);

/// The change that is under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<Option<Change>>);

#[derive(Debug)]
struct Change {
    since: Instant,
    /// Of the connection that it goes through.
    clock: Clock,
}

impl Changes {
    /// Begins one through the connection of this clock. Whether its epoch `stands` is asked while no other can begin: whoever
    /// ended that epoch before sees none, and whoever ends it later sees this one.
    pub(super) fn begin(
        &self,
        clock: &Clock,
        stands: impl FnOnce() -> bool,
    ) -> Result<Changing<'_>> {
        let mut change = locked(&self.0);
        if change.is_some() {
            return Err(hangs());
        }
        if !stands() {
            let reason = "the token is being recovered";
            return Err(Error::unavailable("take a turn", reason));
        }
        *change = Some(Change {
            since: Instant::now(),
            clock: clock.clone(),
        });
        Ok(Changing(self))
    }

    pub(super) fn are_under_way(&self) -> bool {
        locked(&self.0).is_some()
    }

    pub(super) fn hang(&self) -> bool {
        let change = locked(&self.0);
        change
            .as_ref()
            .is_some_and(|change| change.clock.hangs(change.since))
    }

    /// Waits until none is under way, unless it hangs.
    pub(super) fn are_over(&self) -> Result<()> {
        while self.are_under_way() {
            if self.hang() {
                return Err(hangs());
            }
            thread::sleep(LOOKS);
        }
        Ok(())
    }
}

/// Something is being changed, until this goes, also by a panic.
#[derive(Debug)]
pub(super) struct Changing<'c>(&'c Changes);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        *locked(&self.0.0) = None;
    }
}

/// What is told while a command hangs that changes something in the TPM.
pub(super) fn hangs() -> Error {
    let reason =
        "a command that changes the TPM has not come back; nothing else is begun before it does";
    Error::unavailable("take a turn", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::tpm::clock::HANGS;

    #[test]
    fn one_at_a_time_and_none_in_an_epoch_that_is_over() {
        let (changes, clock) = (Changes::default(), Clock::new());
        assert!(changes.begin(&clock, || false).is_err());
        assert!(!changes.are_under_way());
        let one = changes.begin(&clock, || true).unwrap();
        assert!(changes.begin(&clock, || true).is_err());
        // The refused one has not ended it.
        assert!(changes.are_under_way() && !changes.hang());
        drop(one);
        changes.are_over().unwrap();
        changes.begin(&clock, || true).unwrap();
        assert!(!changes.are_under_way());
    }

    #[test]
    fn one_that_hangs_is_told_and_one_that_works_is_waited_for() {
        let (changes, clock) = (Changes::default(), Clock::new());
        let changing = changes.begin(&clock, || true).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Longer in all than one command may take.
                let began = Instant::now();
                while began.elapsed() < HANGS + HANGS / 3 {
                    clock.restart();
                    thread::sleep(HANGS / 50);
                }
                drop(changing);
            });
            changes.are_over().unwrap();
        });
        let _changing = changes.begin(&clock, || true).unwrap();
        assert!(changes.are_over().is_err());
        assert!(changes.hang());
    }
}
