//! Untrusted storage: rows in, rows out.
//!
//! A store moves bytes. It never decides, never compares a generation with a meaning, and
//! returns everything it read as `Unverified`, which only the ledger can look into. Whoever
//! administers the database controls every byte that comes out of here.

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
pub(crate) mod admin;
#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod batches;
mod open;
pub(crate) mod postgres;
pub(crate) mod sqlite;
pub mod steps;

use std::collections::BTreeMap;

use async_trait::async_trait;
use custodyd_hsm::RecordId;

pub use self::open::{Held, look};
pub use self::postgres::{Postgres, Share};
pub use self::sqlite::{Exclusive, Sqlite};
use crate::config::Agreed;
pub use crate::ledger::TileRow;
use crate::ledger::Unverified;

/// Bounds that hold in SQL already, so that a hostile row can not fill our memory.
pub const MAX_SEALED: usize = custodyd_hsm::seal::MAX_SEALED;
pub const MAX_MEMBERS: usize = 4 << 20;
pub const MAX_BODY: usize = 64 << 10;
pub const MAX_LEAF: usize = 16 << 10;
pub const MAX_HEAD: usize = 16 << 10;
pub const MAX_TILE: usize = 256 * 32;
/// Tiles that one batch removes: more than it can fill, so that those of a database from before go as well.
pub const TILES_AT_ONCE: i64 = 16;
/// Whoever goes over a whole table gets about so many bytes of it at a time.
pub const MAX_PART: usize = 8 << 20;

tokio::task_local! {
    static ASKER: Asker;
}

/// Who reads. A store whose readers wait for one another keeps a way free for each but the first: a guess that is charged
/// and whose outcome waited behind the requests of others would count as a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Request,
    /// What a batch is decided upon.
    Committer,
    /// What ends a sign-in that was charged with its beginning.
    End,
    /// One look at the head for all who read.
    Look,
}

impl Asker {
    /// Everything that this work reads.
    pub(crate) async fn during<T>(self, work: impl Future<Output = T>) -> T {
        ASKER.scope(self, work).await
    }

    fn current() -> Self {
        ASKER.try_with(|asker| *asker).unwrap_or(Self::Request)
    }
}

/// What a node says that it has of a setting which nodes are to have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    pub setting: Agreed,
    /// It says nothing of the value but whether it is the same.
    pub value: [u8; 4],
    /// Whether others may have something else beside it.
    pub may_differ: bool,
}

/// Counts of rows at places that nothing names, by table, as one row of a statement has them; those that there are.
fn strays_of(
    count: impl Fn(&'static str) -> Result<u64, StoreError>,
) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
    let mut found = Vec::new();
    for table in [
        "log_entries",
        "log_bodies",
        "log_tiles",
        "bucket_members",
        "bucket_digests",
        "records",
    ] {
        let count = count(table)?;
        if count > 0 {
            found.push((table, count));
        }
    }
    Ok(Unverified::new(found))
}

/// What one snapshot says about one record.
#[derive(Debug, Default)]
pub struct RecordRow {
    /// The bucket's member list; absent if the bucket was never written.
    pub members: Option<Vec<u8>>,
    pub sealed: Option<SealedRow>,
}

#[derive(Debug)]
pub struct SealedRow {
    pub generation: u64,
    pub sealed: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRow {
    pub seq: u64,
    pub body: Vec<u8>,
    /// Made in the token over `body`.
    pub mac: Vec<u8>,
}

/// What a node that has fallen behind needs, of one snapshot: the head, and the cached digests of buckets.
#[derive(Debug, Default)]
pub struct Newer {
    pub head: Option<HeadRow>,
    pub digests: Vec<(u32, Vec<u8>)>,
}

#[derive(Debug)]
pub struct EventRow {
    pub leaf: Vec<u8>,
    pub body: Option<BodyRow>,
}

/// An entry of the log with its body, as somebody sees them who goes over all of them. What is
/// larger than its bound, or of another type, is `None`.
#[derive(Debug)]
pub struct StoredEntry {
    pub index: u64,
    pub leaf: Option<Vec<u8>>,
    /// Absent, not readable, or there.
    pub body: Option<Option<BodyRow>>,
}

/// A row of the records, as somebody sees it who goes over all of them. What is larger than its
/// bound, or of another type, is `None`: it harms its own record only.
#[derive(Debug)]
pub struct StoredRecord {
    pub id: RecordId,
    pub generation: Option<u64>,
    pub sealed: Option<Vec<u8>>,
}

/// The same row by what its content hashes to, for whoever compares it and reads it no further.
#[derive(Debug)]
pub struct HashedRecord {
    pub id: RecordId,
    pub generation: Option<u64>,
    /// `custodyd_hsm::seal::digest` of the content.
    pub digest: Option<[u8; 32]>,
}

#[derive(Debug, Clone)]
pub struct BodyRow {
    pub salt: Vec<u8>,
    pub body: Vec<u8>,
}

/// Everything that one transaction changes. Written whole or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    pub parent: u64,
    pub head: HeadRow,
    pub records: Vec<(RecordId, u64, Vec<u8>)>,
    pub members: Vec<(u32, Vec<u8>)>,
    pub entries: Vec<(u64, Vec<u8>)>,
    pub bodies: Vec<(u64, BodyRow)>,
    /// The member lists' digests, and tiles of the log: caches.
    pub digests: BTreeMap<u32, [u8; 32]>,
    pub tiles: Vec<TileRow>,
    /// Tiles of leaves before this place are not needed any more: the oldest of them go, [`TILES_AT_ONCE`] at the
    /// most.
    pub tiles_before: Option<u64>,
    /// Records whose rows go.
    pub removed: Vec<RecordId>,
    /// Log entries whose bodies go.
    pub erased: Vec<u64>,
}

impl Batch {
    /// An empty batch on top of a head.
    #[must_use]
    pub fn after(parent: u64) -> Self {
        Self {
            parent,
            head: HeadRow {
                seq: parent.saturating_add(1),
                body: Vec::new(),
                mac: Vec::new(),
            },
            records: Vec::new(),
            members: Vec::new(),
            entries: Vec::new(),
            bodies: Vec::new(),
            digests: BTreeMap::new(),
            tiles: Vec::new(),
            tiles_before: None,
            removed: Vec::new(),
            erased: Vec::new(),
        }
    }
}

/// Space of a database that holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spare {
    pub bytes: u64,
    /// There is so much of it that some should be given back now.
    pub much: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{operation}: the database did not answer: {source}")]
    Unavailable {
        operation: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("{operation}: the row is larger than {limit} bytes or not a byte string")]
    Oversized {
        operation: &'static str,
        limit: usize,
    },
    /// The rows are not of the kind that this store writes, or the file is damaged.
    #[error("{operation}: {problem}")]
    Malformed {
        operation: &'static str,
        problem: String,
    },
    /// Nothing is written, for what somebody else has put there: something in the schema, which might act in our
    /// transactions, or a row where one of ours belongs. No row of ours is wrong, and once it is taken away all goes on.
    #[error("{operation}: {problem}")]
    Altered {
        operation: &'static str,
        problem: String,
    },
    #[error("{operation}: {problem}")]
    Refused {
        operation: &'static str,
        problem: String,
    },
}

/// What `StoreError::Refused` names where another process holds the database.
const LOCKING: &str = "lock the database";

impl StoreError {
    /// Whether another process holds the database.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                operation: LOCKING,
                ..
            }
        )
    }
}

/// How a commit ended, as far as anybody can know.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of the batch is in the database.
    #[error("the batch was not written: {0}")]
    NotWritten(#[source] StoreError),
    /// Nothing is in the database, by its own word, and it has seen the head: a second one of this number would be one
    /// too many.
    #[error("the batch was not taken: {0}")]
    Declined(#[source] StoreError),
    /// The head was not the expected parent; nothing was written.
    #[error(
        "the database shows another head than the one that this batch follows: another custodyd has written, or an older \
         state was put in place. Nothing of this batch was written; `custodyd ledger anchor` says which head is the newest"
    )]
    LostRace,
    /// The commit was sent and its answer did not come: the batch may be durable or not.
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(#[source] StoreError),
}

impl CommitError {
    fn only_looking() -> Self {
        Self::NotWritten(StoreError::Refused {
            operation: "commit",
            problem: "the database was opened to look at".into(),
        })
    }
}

#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// The record's row and its bucket's member list, of one snapshot.
    async fn record(&self, id: &RecordId, bucket: u32)
    -> Result<Unverified<RecordRow>, StoreError>;

    /// The member lists of some buckets; a bucket without a row is left out.
    async fn members(&self, buckets: &[u32])
    -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError>;

    async fn head(&self) -> Result<Unverified<Option<HeadRow>>, StoreError>;

    async fn event(&self, index: u64) -> Result<Unverified<Option<EventRow>>, StoreError>;

    /// The entries of the log from `from` on, `count` at the most, in order of their places.
    async fn leaves(
        &self,
        from: u64,
        count: u64,
    ) -> Result<Unverified<Vec<(u64, Vec<u8>)>>, StoreError>;

    /// Tiles of the log by level and place; those that are not there are left out, and of those that are larger than
    /// any there is nothing but the place.
    async fn tiles(&self, tiles: &[(u8, u64)]) -> Result<Unverified<Vec<TileRow>>, StoreError>;

    /// The cached digest of every bucket that has one.
    async fn digests(&self) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError>;

    /// For whoever goes over a whole table: the rows from a place on and before another, in order,
    /// as many as are good to hold, but one at least where there is one. They go on after the last.
    async fn entries(&self, from: u64, to: u64)
    -> Result<Unverified<Vec<StoredEntry>>, StoreError>;

    /// The same for member lists.
    async fn lists(
        &self,
        from: u32,
        to: u32,
    ) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError>;

    /// The same for records, by their identifiers as bytes.
    async fn records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Unverified<Vec<StoredRecord>>, StoreError>;

    /// The same records by their digests. A database inside this process hashes contents where they lie, and nothing of them
    /// is copied.
    async fn hashed_records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Unverified<Vec<HashedRecord>>, StoreError> {
        Ok(self.records(from, to).await?.hashed())
    }

    /// Tables that hold rows at places that a log of `size` entries and our identifiers do not
    /// have, each with the number of these rows.
    async fn strays(&self, size: u64) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError>;

    /// One transaction: durable when this returns `Ok`.
    async fn commit(&self, batch: &Batch) -> Result<(), CommitError>;

    /// Gives back to the file system a little of what deleted rows have left, where that is a good part of the
    /// file; how much there is to give back still. Takes some milliseconds, in which a commit waits. After a crash:
    /// the file is as before or as after, and holds the same rows.
    async fn give_back(&self) -> Result<Spare, StoreError> {
        Ok(Spare::default())
    }

    /// Whether it is another process, which may be away for a while and be back with everything that
    /// it had: then whoever must know what became of a commit goes on asking. Who else writes there is by its own
    /// word, which counts for nothing.
    fn comes_back(&self) -> bool {
        false
    }

    /// A head that was found there, whose commit nobody has answered, may be less durable than one that was
    /// acknowledged. Once this has returned it is not.
    async fn acknowledge(&self, _head: &HeadRow) -> Result<(), CommitError> {
        Ok(())
    }

    /// Whether other nodes write here as well, each in its turn.
    fn is_shared(&self) -> bool {
        false
    }

    /// Waits until no other node writes, and keeps it so until the next commit; shows the head of that moment. What the commit
    /// does not give back, `end_turn` does, which is owed after each. It is by the database's word: what keeps writers apart is the head's number, which each commit demands.
    async fn take_turn(&self) -> Result<Unverified<Option<HeadRow>>, StoreError> {
        self.head().await
    }

    /// Lets others write: nothing was written, or that is anchored, or never will be by whoever had the turn.
    async fn end_turn(&self) {}

    /// Counts the connections that have written, or may have. Behind another one may be another server: a standby that was
    /// promoted, and lacks what the last one had.
    fn connections(&self) -> u64 {
        0
    }

    /// The same of those that requests read by.
    fn readers(&self) -> u64 {
        0
    }

    /// The head, and the digests that have changed after this batch, as far as the database says so; all of them
    /// where none is named.
    async fn newer(&self, _after: Option<u64>) -> Result<Unverified<Newer>, StoreError> {
        Err(StoreError::Refused {
            operation: "catch up",
            problem: "this database is of one daemon".into(),
        })
    }

    /// What stands beside our tables and in them that this custodyd did not make, and that acts on nothing: a newer one
    /// may have. Whether it has, the head says.
    async fn further(&self) -> Result<Unverified<Vec<String>>, StoreError> {
        Ok(Unverified::new(Vec::new()))
    }

    /// Tells the other nodes of this one's settings, for as long as it is connected; what it told before is told no more.
    async fn declare(&self, _declared: Vec<Declared>) -> Result<(), StoreError> {
        Ok(())
    }

    /// What other nodes that are connected have declared otherwise than `ours`, by the database's word; it may differ where a
    /// node that has either value permits that.
    async fn differing(&self, _ours: &[Declared]) -> Result<Vec<Declared>, StoreError> {
        Ok(Vec::new())
    }

    /// Adds to the tables what this version knows and they have not, while older nodes serve from them (`steps`). The
    /// caller has found the head to be the token's own, and writes the first one that speaks of it.
    async fn extend(&self) -> Result<(), StoreError> {
        Err(StoreError::Refused {
            operation: "extend the tables",
            problem: "this version has no steps for this kind of database".into(),
        })
    }

    /// A round trip, for readiness.
    async fn ping(&self) -> Result<(), StoreError>;

    async fn close(&self);

    /// Defences of the ledger above it that a test has switched off.
    #[cfg(test)]
    fn weakness(&self) -> crate::ledger::weakness::Weakness {
        crate::ledger::weakness::Weakness::default()
    }
}
