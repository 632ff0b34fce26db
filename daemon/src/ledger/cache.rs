//! Sealed envelopes and member lists as this process last committed them, so that a read of a
//! busy account is one operation in the token and none in the database.
//!
//! Written by the committer alone, after a batch is durable and anchored, so it is never older than what
//! is believed and there is no race with a reader that was slow. It is believed for the reason that
//! the committer's head is: what this process committed last is what stands, until another node has
//! changed the bucket, and then it is forgotten before that node's head is believed. The envelopes
//! stay sealed: what is kept here is worth as much as a row. Beside them stands which record an account's is, once
//! the token has made its identifier: that never changes, nobody but the token can have said it, and whoever reads this
//! process's memory learns from it which rows are whose, as from every request.
//!
//! An account that was used lately is read faster than one that was not, and faster than one
//! that is proven absent. Strangers do not see that: their answers leave at a fixed deadline
//! (`http::strangers`). A bound device sees its own account's, whose use it knows anyway.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custodyd_hsm::{AccountId, AppId, RecordId, RecordKind};

use super::committer::Members;
use super::members::{Member, MemberList};
use super::{BUCKET_BITS, LedgerError};
use crate::generations::Generations;
use crate::store::Batch;

/// What stands beside each value in memory: keys, counts, the allocation.
const OVERHEAD: usize = 256;

#[derive(Debug)]
pub(super) struct Committed {
    pub(super) member: Member,
    pub(super) sealed: Vec<u8>,
}

#[derive(Debug)]
pub struct Cache {
    envelopes: Mutex<Generations<RecordId, Arc<Committed>>>,
    lists: Mutex<Generations<u32, MemberList>>,
    records: Mutex<Generations<(AppId, AccountId), RecordId>>,
}

impl Cache {
    /// `bytes` is all that it may hold; zero keeps nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        // A list names a record in 73 bytes, and an identifier takes less than it weighs here; an envelope takes some
        // thousands.
        let (lists, records) = (bytes / 8, bytes / 16);
        Self {
            envelopes: Mutex::new(Generations::new(bytes - lists - records)),
            lists: Mutex::new(Generations::new(lists)),
            records: Mutex::new(Generations::new(records)),
        }
    }

    /// The record of an account, if the token has said it.
    pub(super) fn record(&self, app: &AppId, account: AccountId) -> Option<RecordId> {
        locked(&self.records).get(&(app.clone(), account)).copied()
    }

    /// The token has said it, of an account that there is: others would push those out.
    pub(super) fn knows(&self, app: &AppId, account: AccountId, record: RecordId) {
        locked(&self.records).put((app.clone(), account), record, OVERHEAD);
    }

    pub(super) fn envelope(&self, record: &RecordId) -> Option<Arc<Committed>> {
        locked(&self.envelopes).get(record).cloned()
    }

    pub(super) fn list(&self, bucket: u32) -> Option<MemberList> {
        locked(&self.lists).get(&bucket).cloned()
    }

    /// Forgets what a batch replaces.
    pub(super) fn forget(&self, batch: &Batch) {
        let mut kept = locked(&self.lists);
        for (bucket, _) in &batch.members {
            kept.remove(bucket);
        }
        drop(kept);
        let mut kept = locked(&self.envelopes);
        let changed = batch.records.iter().map(|(id, ..)| id);
        for id in changed.chain(&batch.removed) {
            kept.remove(id);
        }
    }

    /// Forgets what another node has changed.
    pub(super) fn forget_buckets(&self, buckets: &BTreeSet<u32>) {
        locked(&self.lists).retain(|bucket| !buckets.contains(bucket));
        locked(&self.envelopes).retain(|id| !buckets.contains(&id.bucket(BUCKET_BITS)));
    }

    /// Takes over a batch that is durable and anchored. `members` are the entries of its records, and stand in
    /// `lists`. Accounts are kept; what stays of an erased one is read too seldom.
    pub(super) fn committed(
        &self,
        batch: Batch,
        members: &Members,
        lists: &HashMap<u32, Result<MemberList, Arc<LedgerError>>>,
    ) {
        let mut kept = locked(&self.lists);
        for (bucket, encoded) in &batch.members {
            if let Some(Ok(list)) = lists.get(bucket) {
                kept.put(*bucket, list.clone(), encoded.len() + OVERHEAD);
            }
        }
        drop(kept);
        let mut kept = locked(&self.envelopes);
        for (id, _, sealed) in batch.records {
            match members.get(&id) {
                Some(member) if member.kind == RecordKind::Account => {
                    let weight = sealed.len() + OVERHEAD;
                    let member = *member;
                    kept.put(id, Arc::new(Committed { member, sealed }), weight);
                }
                _ => kept.remove(&id),
            }
        }
        for id in &batch.removed {
            kept.remove(id);
        }
    }
}

/// A map is whole at every moment, whatever panicked elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
