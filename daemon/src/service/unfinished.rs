//! Guesses that were charged and never finished, counted when their time is over.
//!
//! Called by the logins whose answer tells a client whether its PIN was right: whoever guessed wrong does not come
//! back, so silence is the failure. The count of the realm's failures, which trips the slow mode, would else not see
//! a spray of them. It decides nothing: what a guess costs stands in its account's envelope. In memory, one
//! number for each second that a login may still last; what a restart forgets is not counted.
//!
//! Of several nodes each counts what began with it, and takes back what it began itself and no other node's: a login's
//! identifier, which travels in its token, says whose it is. One that ends at another node stays a failure here: a client sends both messages
//! over one connection, so that is only who has lost it between them. The other way about, with none of them counted, a
//! spray would be seen by no node.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use custodyd_policies::Timestamp;

use super::counted;
use super::guess::{Charged, Guess};
use crate::factors::{RandomFailed, random};

#[derive(Debug, Default)]
pub struct Unfinished {
    open: Mutex<BTreeMap<u64, u32>>,
    /// With a key of this process.
    hasher: RandomState,
}

/// Where a login began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Began {
    Here,
    /// At another node, or before this one's start.
    Elsewhere,
}

impl Unfinished {
    /// A fresh random identifier for a login that begins here: its second half is what this process makes of the first,
    /// and nothing to anybody else.
    pub(super) fn new_id(&self) -> Result<[u8; 16], RandomFailed> {
        Ok(self.marked(random::<8>()?))
    }

    pub(super) fn whose(&self, id: &[u8; 16]) -> Began {
        let ours = id.first_chunk().map(|drawn| self.marked(*drawn));
        match ours.as_ref() == Some(id) {
            true => Began::Here,
            false => Began::Elsewhere,
        }
    }

    fn marked(&self, drawn: [u8; 8]) -> [u8; 16] {
        let mark = self.hasher.hash_one(drawn).to_be_bytes();
        let mut id = [0; 16];
        let (first, second) = id.split_at_mut(8);
        first.copy_from_slice(&drawn);
        second.copy_from_slice(&mark);
        id
    }

    pub(super) fn began(&self, charged: &Charged) {
        if counts(charged) {
            let mut open = self.locked();
            let at = open.entry(charged.expires.0).or_default();
            *at = at.saturating_add(1);
        }
    }

    /// Its end is recorded, right or wrong, and not before: whoever is cut off until then has not finished. Said
    /// once for each, by the commit that settles the charge.
    pub(super) fn ended(&self, charged: &Charged, began: Began) {
        if counts(charged)
            && began == Began::Here
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

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, u32>> {
        // Numbers are whole at every moment.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stranger's is counted as it begins, whether it can be right or not: else the count would tell.
fn counts(charged: &Charged) -> bool {
    charged.guess() != Guess::StrangerPin
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_node_knows_the_logins_that_it_began_and_takes_back_no_others() {
        let (one, other) = (Unfinished::default(), Unfinished::default());
        let charged = Charged::at_a_pin(Timestamp(1_000));
        let (first, second) = (one.new_id().unwrap(), one.new_id().unwrap());
        assert_ne!(first, second);
        one.began(&charged);
        other.began(&charged);
        assert_eq!(other.whose(&first), Began::Elsewhere);
        // It ends at the other node, where one of the same second is pending.
        other.ended(&charged, other.whose(&first));
        assert_eq!(other.take(Timestamp(1_000)), 1);
        // The control: at its own it is taken back.
        assert_eq!(one.whose(&first), Began::Here);
        one.ended(&charged, one.whose(&first));
        assert_eq!(one.take(Timestamp(1_000)), 0);
    }
}
