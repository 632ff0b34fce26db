//! The one writer: every change of every account passes through here, in batches.
//!
//! Changes queue while a transaction is being written; the next batch takes all that wait.
//! Batching comes from load, there is no timer. For each batch: take the newest verified
//! state of each account concerned, let the waiting decisions run on it one after another,
//! seal the results, write ONE transaction, and only then answer. Two decisions about one
//! account in one batch see each other, so N parallel guesses cost exactly N.
//!
//! After a crash: before the commit is durable, no decision of the batch has happened and
//! nobody was told otherwise; after it, all have, and at worst nobody was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{RecordId, RecordKind};
use custodyd_policies::Timestamp;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::members::{Member, MemberList};
use super::record::{Loaded, Reader};
use super::{BUCKET_BITS, Base, Change, Head, Journal, LedgerError, Moment, NewEvent, journal};
use crate::account::Account;
use crate::clock::Clock;
use crate::store::{Batch, CommitError};

const MAX_BATCH: usize = 256;
/// Changes that may wait; past it callers are told `Busy` before anything is charged.
pub const QUEUE: usize = 2048;
const ATTEMPTS: u32 = 5;

#[derive(Debug)]
pub struct Committer {
    reader: Arc<Reader>,
    clock: Arc<Clock>,
    head: Head,
}

/// One account as it stands in the middle of a batch.
struct Working {
    account: Account,
    events: Vec<NewEvent>,
    /// Changes of the batch that this account's commit answers.
    answered: Vec<usize>,
    changed: bool,
}

type Reply = tokio::sync::oneshot::Sender<Result<Option<Loaded>, Arc<LedgerError>>>;

impl Committer {
    #[must_use]
    pub fn new(reader: Arc<Reader>, clock: Arc<Clock>, head: Head) -> Self {
        Self {
            reader,
            clock,
            head,
        }
    }

    /// Runs until every `Ledger` handle is gone, or until the database's state is not known
    /// any more: then nothing may be written, and the daemon must be started again.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
    ) -> Result<(), LedgerError> {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        while changes.recv_many(&mut waiting, MAX_BATCH).await > 0 {
            metrics::histogram!("custodyd_commit_batch_changes").record(waiting.len() as f64);
            self.batch(std::mem::take(&mut waiting)).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, changes: Vec<Change>) -> Result<(), LedgerError> {
        let now = self.clock.now();
        let mut replies: Vec<Option<Reply>> = Vec::with_capacity(changes.len());
        let touched = changes
            .iter()
            .map(|change| record_of(&change.base).bucket(BUCKET_BITS))
            .collect();
        let mut lists = self.member_lists(touched).await;
        let mut working: BTreeMap<RecordId, Working> = BTreeMap::new();
        for (at, change) in changes.into_iter().enumerate() {
            let Change {
                base,
                decide,
                reply,
            } = change;
            let record = record_of(&base);
            if let Err(error) = self.take_up(&mut working, &lists, base).await {
                let _ = reply.send(Err(Arc::new(error)));
                replies.push(None);
                continue;
            }
            let Some(entry) = working.get_mut(&record) else {
                replies.push(None);
                continue;
            };
            let mut proposed = entry.account.clone();
            let mut noted = Journal::default();
            if decide(&mut proposed, Moment { now }, &mut noted) {
                entry.account = proposed;
                entry.events.append(&mut noted.0);
                entry.answered.push(at);
                entry.changed = true;
                replies.push(Some(reply));
            } else {
                let _ = reply.send(Ok(None));
                replies.push(None);
            }
        }
        working.retain(|_, entry| entry.changed);
        if working.is_empty() {
            return Ok(());
        }
        match self.write(working, &mut lists, now).await {
            Ok(done) => {
                for (loaded, answered) in done {
                    for at in answered {
                        if let Some(reply) = replies.get_mut(at).and_then(Option::take) {
                            let _ = reply.send(Ok(Some(loaded.clone())));
                        }
                    }
                }
                Ok(())
            }
            Err(failure) => {
                let error = Arc::new(failure.error);
                tracing::error!(error = %error, "a batch was not committed");
                for reply in replies.into_iter().flatten() {
                    let _ = reply.send(Err(Arc::clone(&error)));
                }
                if failure.fatal {
                    Err(LedgerError::Stopped)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// The member lists of every bucket that the batch may touch, each parsed or refused.
    async fn member_lists(
        &self,
        mut buckets: Vec<u32>,
    ) -> HashMap<u32, Result<MemberList, Arc<LedgerError>>> {
        buckets.sort_unstable();
        buckets.dedup();
        let mut lists: HashMap<u32, Result<MemberList, Arc<LedgerError>>> = buckets
            .iter()
            .map(|bucket| (*bucket, Ok(MemberList::default())))
            .collect();
        match self.reader.store().members(&buckets).await {
            Ok(rows) => {
                for (bucket, bytes) in rows.examine() {
                    let list = MemberList::parse(&bytes).map_err(|what| {
                        Arc::new(LedgerError::Tampered(format!("bucket {bucket}: {what}")))
                    });
                    lists.insert(bucket, list);
                }
            }
            Err(error) => {
                let error = Arc::new(LedgerError::from(error));
                for list in lists.values_mut() {
                    *list = Err(Arc::clone(&error));
                }
            }
        }
        lists
    }

    /// Puts the newest verified state of a change's account on the bench, if it is not there.
    async fn take_up(
        &self,
        working: &mut BTreeMap<RecordId, Working>,
        lists: &HashMap<u32, Result<MemberList, Arc<LedgerError>>>,
        base: Base,
    ) -> Result<(), LedgerError> {
        let record = record_of(&base);
        let list = match lists.get(&record.bucket(BUCKET_BITS)) {
            Some(Ok(list)) => list,
            Some(Err(error)) => return Err(super::shared(Arc::clone(error))),
            None => return Err(LedgerError::internal("find a member list")),
        };
        let known = list.get(&record);
        let account = match (base, known) {
            (Base::Absent(..), Some(_)) => return Err(LedgerError::Exists),
            // A second creation in the same batch: the first one's account stands already.
            (Base::Absent(..), None) if working.contains_key(&record) => {
                return Err(LedgerError::Exists);
            }
            (Base::Absent(_, account), None) => *account,
            (Base::Loaded(_), _) if working.contains_key(&record) => return Ok(()),
            (Base::Loaded(_), None) => {
                return Err(LedgerError::Tampered(
                    "a record that was read is gone".into(),
                ));
            }
            (Base::Loaded(loaded), Some(member)) if is_newest(&loaded, member) => {
                Account::clone(&loaded.account)
            }
            // Somebody else's change came first: decide on what stands now.
            (Base::Loaded(loaded), Some(member)) => {
                let newest = self
                    .reader
                    .open(&loaded.account.app, record)
                    .await?
                    .filter(|newest| is_newest(newest, member))
                    .ok_or_else(|| {
                        LedgerError::Tampered("a record changed without the committer".into())
                    })?;
                Account::clone(&newest.account)
            }
        };
        working.insert(
            record,
            Working {
                account,
                events: Vec::new(),
                answered: Vec::new(),
                changed: false,
            },
        );
        Ok(())
    }

    /// Seals, writes one transaction, and returns the new states with whom to tell.
    async fn write(
        &mut self,
        mut working: BTreeMap<RecordId, Working>,
        lists: &mut HashMap<u32, Result<MemberList, Arc<LedgerError>>>,
        now: Timestamp,
    ) -> Result<Vec<(Loaded, Vec<usize>)>, Failure> {
        let mut head = self.head.clone();
        head.seq += 1;
        head.time = now;
        let mut batch = Batch {
            parent: self.head.seq,
            head: head
                .row()
                .map_err(|_| Failure::internal("encode the head"))?,
            records: Vec::with_capacity(working.len()),
            members: Vec::new(),
            entries: Vec::new(),
            bodies: Vec::new(),
        };
        for (record, entry) in &mut working {
            entry.account.generation += 1;
            entry.account.forget_expired(now);
            for event in std::mem::take(&mut entry.events) {
                let made = journal::append(&mut entry.account, record, head.size, now, event)?;
                batch.entries.push((head.size, made.leaf));
                batch.bodies.push((head.size, made.body));
                head.size += 1;
            }
        }
        batch.head = head
            .row()
            .map_err(|_| Failure::internal("encode the head"))?;

        let sealed = self.seal_all(&working).await?;
        let mut done = Vec::with_capacity(working.len());
        let mut touched = Vec::new();
        for ((record, entry), sealed) in working.into_iter().zip(sealed) {
            let member = Member {
                kind: RecordKind::Account,
                id: record,
                generation: entry.account.generation,
                digest: seal::digest(&sealed),
            };
            let bucket = record.bucket(BUCKET_BITS);
            // The list that was verified is the list that is written: reading it again here
            // would let an administrator slip an old neighbour in between.
            if let Some(Ok(list)) = lists.get_mut(&bucket) {
                list.put(member);
                touched.push(bucket);
            }
            batch.records.push((record, member.generation, sealed));
            done.push((
                Loaded {
                    account: Arc::new(entry.account),
                    record,
                    digest: member.digest,
                },
                entry.answered,
            ));
        }
        touched.sort_unstable();
        touched.dedup();
        for bucket in touched {
            if let Some(Ok(list)) = lists.get(&bucket) {
                batch.members.push((bucket, list.encode()));
            }
        }
        self.make_durable(&batch).await?;
        self.head = head;
        self.clock.committed(now);
        Ok(done)
    }

    async fn seal_all(
        &self,
        working: &BTreeMap<RecordId, Working>,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let mut plaintexts = Vec::with_capacity(working.len());
        for (record, entry) in working {
            let plaintext: Zeroizing<Vec<u8>> = entry
                .account
                .encode()
                .map_err(|_| Failure::internal("encode an envelope"))?;
            plaintexts.push((
                *record,
                entry.account.app.clone(),
                entry.account.generation,
                plaintext,
            ));
        }
        let realm = self.reader.realm().clone();
        self.reader
            .pool()
            .call("seal-batch", move |custody| {
                plaintexts
                    .iter()
                    .map(|(record, app, generation, plaintext)| {
                        let context = Context {
                            realm: &realm,
                            app,
                            kind: RecordKind::Account,
                            record,
                            generation: *generation,
                        };
                        seal::seal(custody, &context, plaintext)
                    })
                    .collect()
            })
            .await
            .map_err(|e| Failure::from(LedgerError::Token(e)))
    }

    /// Writes the batch until its outcome is known. Where it stays unknown, the daemon stops:
    /// answering would be a guess.
    async fn make_durable(&self, batch: &Batch) -> Result<(), Failure> {
        let mut wait = Duration::from_millis(20);
        let mut last = CommitError::LostRace;
        for _ in 0..ATTEMPTS {
            match self.reader.store().commit(batch).await {
                Ok(()) => return Ok(()),
                Err(error @ CommitError::LostRace) if matches!(last, CommitError::Unknown(_)) => {
                    // The earlier try may have been ours: the head tells.
                    return match self.stored_head().await {
                        Some(row) if row == batch.head => Ok(()),
                        _ => Err(Failure::fatal(&error)),
                    };
                }
                Err(error @ CommitError::LostRace) => return Err(Failure::fatal(&error)),
                Err(CommitError::Unknown(error)) => {
                    if self.stored_head().await.as_ref() == Some(&batch.head) {
                        return Ok(());
                    }
                    last = CommitError::Unknown(error);
                }
                Err(error @ CommitError::NotWritten(_)) => last = error,
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        match last {
            CommitError::NotWritten(error) => Err(Failure::from(LedgerError::from(error))),
            unknown => Err(Failure::fatal(&unknown)),
        }
    }

    async fn stored_head(&self) -> Option<crate::store::HeadRow> {
        self.reader
            .store()
            .head()
            .await
            .ok()
            .and_then(|row| row.examine())
    }
}

/// Why a batch was not committed, and whether anything may be written after it.
struct Failure {
    error: LedgerError,
    fatal: bool,
}

impl Failure {
    fn internal(what: &'static str) -> Self {
        Self::from(LedgerError::internal(what))
    }

    fn fatal(error: &CommitError) -> Self {
        tracing::error!(%error, "the database's state is not known any more; stopping");
        Self {
            error: LedgerError::Stopped,
            fatal: true,
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self {
            error,
            fatal: false,
        }
    }
}

fn record_of(base: &Base) -> RecordId {
    match base {
        Base::Absent(record, _) => *record,
        Base::Loaded(loaded) => loaded.record,
    }
}

fn is_newest(loaded: &Loaded, member: &Member) -> bool {
    loaded.account.generation == member.generation && loaded.digest == member.digest
}
