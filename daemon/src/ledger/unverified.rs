//! The one door between what the database says and what the daemon believes.
//!
//! A store can only make an `Unverified<T>`, and only the ledger can look inside one. So
//! "trusted the database" does not compile anywhere else.

use custodyd_hsm::seal;

use crate::store::{HashedRecord, StoredRecord};

/// Something read from the database: controlled by whoever administers it.
#[derive(Debug)]
pub struct Unverified<T>(T);

impl<T> Unverified<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// For the tests of a store, which have written what they read.
    #[cfg(test)]
    pub(crate) fn of_a_test(self) -> T {
        self.0
    }

    /// Hands the value to code of the ledger that is about to verify it.
    pub(super) fn examine(self) -> T {
        self.0
    }
}

impl Unverified<Vec<StoredRecord>> {
    /// The same records by their digests, believed as little.
    pub(crate) fn hashed(self) -> Unverified<Vec<HashedRecord>> {
        let hashed = |row: StoredRecord| HashedRecord {
            id: row.id,
            generation: row.generation,
            digest: row.sealed.as_deref().map(seal::digest),
        };
        Unverified(self.0.into_iter().map(hashed).collect())
    }
}
