//! Guesses that were charged and never finished, counted when their time is over.
//!
//! Called by the logins whose answer tells a client whether its PIN was right: whoever guessed wrong does not come
//! back, so silence is the failure. The count of the realm's failures, which trips the slow mode, would else not see
//! a spray of them. It decides nothing: what a guess costs stands in its account's envelope. In memory, one
//! number for each second that a login may still last; what a restart forgets is not counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use custodyd_policies::Timestamp;

use super::counted;
use super::guess::{Charged, Guess};

#[derive(Debug, Default)]
pub struct Unfinished(Mutex<BTreeMap<u64, u32>>);

impl Unfinished {
    pub(super) fn began(&self, charged: &Charged) {
        if counts(charged) {
            let mut open = self.locked();
            let at = open.entry(charged.expires.0).or_default();
            *at = at.saturating_add(1);
        }
    }

    /// Its end is recorded, right or wrong, and not before: whoever is cut off until then has not finished. Said
    /// once for each, by the commit that settles the charge.
    pub(super) fn ended(&self, charged: &Charged) {
        if counts(charged)
            && let Some(open) = self.locked().get_mut(&charged.expires.0)
        {
            *open = open.saturating_sub(1);
        }
    }

    /// How many have become failures until now, each told once.
    pub(super) fn take(&self, now: Timestamp) -> u32 {
        let mut open = self.locked();
        let later = open.split_off(&now.0.saturating_add(1));
        let over = std::mem::replace(&mut *open, later);
        drop(open);
        let failed = over.into_values().fold(0, u32::saturating_add);
        counted::unfinished(failed);
        failed
    }

    /// Whether none may still become one.
    pub(super) fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u32>> {
        // Numbers are whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stranger's is counted as it begins, whether it can be right or not: else the count would tell.
fn counts(charged: &Charged) -> bool {
    charged.guess() != Guess::StrangerPin
}
