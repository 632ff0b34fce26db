//! Orders: batches about no account, made by the ledger itself.
//!
//! Called by the committer's loop between two batches of changes. Each is durable and anchored before
//! its giver is answered, like every other batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use custodyd_hsm::anchor::Anchor;
use custodyd_hsm::{KeyPurpose, Member};
use tokio::sync::oneshot;

use super::publishing::boot_leaf;
use super::{Committer, Failure, Lists};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::{Demand, Lost};
use crate::ledger::log::KeyChange;
use crate::ledger::members::MemberList;
use crate::ledger::realm;
use crate::ledger::rewrap::{Resealed, bucket_of};
use crate::store::Batch;

pub(super) type Answer<T> = oneshot::Sender<Result<T, Arc<LedgerError>>>;

pub(crate) enum Order {
    /// Other key versions from now on.
    Keys {
        change: Box<KeyChange>,
        reply: Answer<()>,
    },
    /// Nothing new: what was begun before is to have its outcome.
    Settle { reply: Answer<()> },
    /// Nothing at all: to see whether it is written.
    Probe,
    /// Records that say the same under the newest wrap key.
    Rewrap {
        records: Arc<Vec<Resealed>>,
        reply: Answer<Rewritten>,
    },
    /// A token is in the set from now on, whose anchor was found to be of this history.
    Readmit {
        member: Arc<Member>,
        found: Option<Anchor>,
        reply: Answer<()>,
    },
    /// An operator takes a token out.
    Expel { lost: Lost, reply: Answer<()> },
    /// What is served is not the newest: a token says so that is outside of the set.
    End { why: LedgerError, reply: Answer<()> },
}

/// What became of an order to put records back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) moved: u64,
}

impl Committer {
    pub(super) async fn carry_out(&mut self, order: Order) -> Result<(), LedgerError> {
        let done = self.do_as_told(order).await;
        self.end_turn().await;
        done
    }

    async fn do_as_told(&mut self, order: Order) -> Result<(), LedgerError> {
        match order {
            Order::Keys { change, reply } => answer(reply, self.change_keys(*change).await),
            Order::Settle { reply } => answer(reply, self.turn().await.map_err(Failure::from)),
            Order::Probe => self.probe().await,
            Order::Rewrap { records, reply } => answer(reply, self.rewrap(&records).await),
            Order::Readmit {
                member,
                found,
                reply,
            } => answer(reply, self.readmit(member, found).await),
            Order::Expel { lost, reply } => answer(reply, self.take_out(lost).await),
            Order::End { why, reply } => answer(
                reply,
                Err(Failure {
                    fatal: true,
                    ..Failure::from(why)
                }),
            ),
        }
    }

    /// One batch with an entry that names both, anchored in the token at once.
    async fn change_keys(&mut self, change: KeyChange) -> Result<(), Failure> {
        self.turn().await?;
        let memory = self.reader.memory();
        let (head, size) = {
            let believed = memory.read();
            (believed.head.clone(), believed.end.size())
        };
        if head.state.keys != change.before {
            return Err(LedgerError::Stale.into());
        }
        let mut batch = Batch::after(head.state.seq);
        let after = change.after.clone();
        // By a key that may be the one that goes.
        let realm_record = realm::record(&self.reader).await?;
        let on_the_way = change.before.on_the_way_to(&after);
        let leaf = boot_leaf(
            &head,
            memory.configuration(),
            Vec::new(),
            (Some(change), None),
        )?;
        batch.entries.push((size, leaf));
        self.demand = Demand {
            at_once: true,
            ..Demand::default()
        };
        // Its head and its anchor are tagged by the keys that it names.
        let pool = self.reader.pool().clone();
        pool.use_versions(on_the_way);
        if let Err(failure) = self
            .commit(batch, (Some((after, realm_record)), None), self.clock.now())
            .await
        {
            // Where a server has seen it, it may be true: the next start, or the head that is found there, says so.
            pool.use_versions(head.state.keys);
            return Err(failure);
        }
        self.settled().await
    }

    async fn take_out(&mut self, lost: Lost) -> Result<(), Failure> {
        self.settled().await?;
        self.expel(vec![lost]).await
    }

    /// One batch that changes nothing but the key that records are under. A record that is not the
    /// one that was read is left alone: whoever has changed it has sealed it under the newest key.
    async fn rewrap(&mut self, records: &[Resealed]) -> Result<Rewritten, Failure> {
        self.turn().await?;
        let newest = self.reader.memory().head().state.keys;
        let newest = newest.current(KeyPurpose::Wrap).version;
        let mut lists = self.lists_of(records).await;
        let (mut batch, ..) = self.begin()?;
        let mut touched = BTreeSet::new();
        for record in records {
            let bucket = bucket_of(&record.before.id);
            let Some(Ok(list)) = lists.get_mut(&bucket) else {
                continue;
            };
            if record.version == newest && list.get(&record.before.id) == Some(&record.before) {
                list.put(record.after);
                touched.insert(bucket);
                let (id, generation) = (record.after.id, record.after.generation);
                batch.records.push((id, generation, record.sealed.clone()));
            }
        }
        let moved = batch.records.len() as u64;
        if moved == 0 {
            return Ok(Rewritten { moved });
        }
        for bucket in touched {
            if let Some(Ok(list)) = lists.get(&bucket) {
                batch.members.push((bucket, list.encode()));
            }
        }
        self.demand = Demand::default();
        let batch = self.commit(batch, (None, None), self.clock.now()).await?;
        // Not kept in memory: what is used there is worth more than what a pass came by.
        self.reader.cache().forget(&batch);
        self.settled().await?;
        Ok(Rewritten { moved })
    }

    /// The lists that these records stand in. Those that came with them are held against memory again, and
    /// where somebody has changed one since, it is read.
    async fn lists_of(&self, records: &[Resealed]) -> Lists {
        let (memory, realm) = (self.reader.memory(), self.reader.realm());
        let (mut lists, mut changed) = (Lists::new(), Vec::new());
        for record in records {
            let bucket = bucket_of(&record.before.id);
            if lists.contains_key(&bucket) {
                continue;
            }
            let newest = |list: &&Arc<MemberList>| memory.is_newest(realm, bucket, list);
            #[cfg(test)]
            let newest =
                |list: &&Arc<MemberList>| self.reader.store().weakness().any_list || newest(list);
            match record.list.as_ref().filter(newest) {
                Some(list) => drop(lists.insert(bucket, Ok(MemberList::clone(list)))),
                None => changed.push(bucket),
            }
        }
        lists.extend(self.member_lists(changed).await);
        lists
    }

    /// Nothing is written upon a batch that is not anchored.
    pub(super) async fn settled(&mut self) -> Result<(), Failure> {
        self.anchor_pending().await.map_err(Failure::from)
    }
}

/// Tells the giver; an outcome that nobody knows ends the committer.
pub(super) fn answer<T>(reply: Answer<T>, done: Result<T, Failure>) -> Result<(), LedgerError> {
    match done {
        Ok(done) => {
            let _ = reply.send(Ok(done));
            Ok(())
        }
        Err(Failure { error, fatal, .. }) => {
            tracing::error!(%error, "an order of the ledger was not committed");
            let _ = reply.send(Err(Arc::new(error)));
            match fatal {
                true => Err(LedgerError::Stopped),
                false => Ok(()),
            }
        }
    }
}
