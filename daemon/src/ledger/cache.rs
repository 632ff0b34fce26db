//! Sealed envelopes as this process last committed them, so that a read of a busy account is one
//! visit to the token and none to the database.
//!
//! Written by the committer alone, after a batch is durable, so it is never older than the
//! database and there is no race with a reader that was slow. It is believed for the reason that
//! the committer's head is: one process has the database to itself, and what it committed last
//! is what stands. The envelopes stay sealed: what is kept here is worth as much as a row.

use std::sync::{Arc, Mutex, PoisonError};

use custodyd_hsm::RecordId;

use super::members::Member;
use crate::generations::Generations;

/// What stands beside each envelope in memory: keys, counts, the allocation.
const OVERHEAD: usize = 256;

#[derive(Debug)]
pub(super) struct Committed {
    pub(super) member: Member,
    pub(super) sealed: Vec<u8>,
}

#[derive(Debug)]
pub struct Cache(Mutex<Generations<RecordId, Arc<Committed>>>);

impl Cache {
    /// `bytes` is all that it may hold; zero keeps nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Mutex::new(Generations::new(bytes)))
    }

    pub(super) fn get(&self, record: &RecordId) -> Option<Arc<Committed>> {
        self.lock().get(record).cloned()
    }

    pub(super) fn put(&self, committed: Committed) {
        let weight = committed.sealed.len() + OVERHEAD;
        let id = committed.member.id;
        self.lock().put(id, Arc::new(committed), weight);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<RecordId, Arc<Committed>>> {
        // A map of sealed bytes is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
