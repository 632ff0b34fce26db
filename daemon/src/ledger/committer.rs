//! The one writer: every change of every account passes through here, in batches.
//!
//! Changes queue while a transaction is being written; the next batch takes all that wait.
//! Batching comes from load, there is no timer. For each batch: take the newest verified
//! state of each account concerned, let the waiting decisions run on it one after another,
//! seal the results, write ONE transaction, and only then answer. Two decisions about one
//! account in one batch see each other, so N parallel guesses cost exactly N. What is written is
//! anchored in the token before anybody is answered.
//!
//! After a crash: before the commit is durable, no decision of the batch has happened and
//! nobody was told otherwise; after it, all have, and at worst nobody was told. Between commit and
//! anchor an administrator can still take the batch back, and nobody has seen anything of it.

mod durable;
mod following;
mod names;
mod newest;
mod orders;
mod outcomes;
mod pace;
mod pending;
mod probing;
mod publishing;
mod replaying;
mod sealing;
mod tokens;
mod working;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::Anchor;
use custodyd_hsm::{RecordId, RecordKind};
use custodyd_policies::Timestamp;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use self::durable::Unwritten;
pub(crate) use self::orders::{Order, Rewritten};
use self::outcomes::Outcomes;
pub(super) use self::outcomes::patience;
use self::pace::Pace;
use self::working::Working;
#[cfg(test)]
pub(super) use self::working::{HARD_LIMIT, MAX_EVENTS, SOFT_LIMIT};
use super::anchoring::{AGAIN, Anchoring, Demand};
use super::members::{Member, MemberList};
use super::memory::{Next, Shown};
use super::queue::Exit;
use super::record::{Loaded, Reader};
use super::rewrap::passes;
use super::{BUCKET_BITS, Base, Change, LedgerError, Request};
use crate::account::Account;
use crate::clock::Clock;
use crate::store::{Asker, Batch, CommitError};

const MAX_BATCH: usize = 256;
/// Changes that may wait; past it callers are told `Busy` before anything is charged.
pub const QUEUE: usize = 2048;
/// The pause after the first failed try of a commit; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// How long the newest state of an account takes to be read at most, while other nodes wait for their turn.
const OPENING: Duration = Duration::from_secs(1);

type Lists = HashMap<u32, Result<MemberList, Arc<LedgerError>>>;
/// The new entries of a batch's records.
pub(super) type Members = HashMap<RecordId, Member>;

#[derive(Debug)]
pub struct Committer {
    reader: Arc<Reader>,
    clock: Arc<Clock>,
    anchoring: Anchoring,
    /// Of the batch that is pending.
    demand: Demand,
    unwritten: Option<Unwritten>,
    /// A batch of ours whose number another node's has, and what it would have made of what is believed.
    beaten: Option<(Unwritten, Next)>,
    /// Another node's anchor of the pending batch's number, which it has been told of.
    rival: Option<Anchor>,
    /// The pending batch, where an anchor of it was asked for that may or may not have come about.
    tried: Option<[u8; 32]>,
    /// Since when the database lacks it.
    lacks: Option<tokio::time::Instant>,
    /// The last number that a head of this process was made for which somebody else has seen.
    spent: u64,
    /// The connection on which the last turn was taken, where there are others.
    connection: u64,
    /// What this node wrote last, where there are others, each with its weight.
    retained: VecDeque<(usize, Batch)>,
    /// What the next batch has to say of what was mended.
    repaired: Vec<String>,
    first_wait: Duration,
    pace: Pace,
}

impl Committer {
    pub(super) fn new(reader: Arc<Reader>, clock: Arc<Clock>, anchoring: Anchoring) -> Self {
        let pace = Pace::within(reader.pool().deadline());
        Self {
            reader,
            clock,
            anchoring,
            demand: Demand::default(),
            unwritten: None,
            beaten: None,
            rival: None,
            tried: None,
            lacks: None,
            spent: 0,
            connection: 0,
            retained: VecDeque::new(),
            repaired: Vec::new(),
            first_wait: FIRST_WAIT,
            pace,
        }
    }

    pub(super) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Tests fail often, and wait less.
    #[cfg(test)]
    pub(super) fn wait_at_first(&mut self, wait: Duration) {
        self.first_wait = wait;
    }

    /// Runs until every `Ledger` handle is gone, or until the database's state is not known
    /// any more: then nothing may be written, and the daemon must be started again.
    pub(crate) async fn run(self, queue: Exit<Request>) -> Result<(), LedgerError> {
        Asker::Committer
            .during(self.writes_until_the_end(queue))
            .await
    }

    async fn writes_until_the_end(mut self, mut queue: Exit<Request>) -> Result<(), LedgerError> {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        let mut outcomes = Outcomes::default();
        let reader = Arc::clone(&self.reader);
        loop {
            let most = self.pace.most();
            #[cfg(test)]
            let most = match self.reader.store().weakness().any_size {
                true => MAX_BATCH,
                false => most,
            };
            let received = queue.take(&mut waiting, outcomes.leave(most));
            // Who reads what waits for its anchor waits for us.
            let pending = self.reader.memory().pending().is_some();
            let again = pending.then(|| Instant::now() + AGAIN);
            let due = again.or_else(|| self.anchoring.due());
            let again_due = until(outcomes.due());
            let goes_on = tokio::select! {
                biased;
                received = received => received > 0,
                () = again_due => true,
                () = reader.freshness().asked() => {
                    self.confirm().await?;
                    continue;
                }
                () = until(due) => {
                    self.catch_up().await?;
                    continue;
                }
            };
            if !goes_on {
                break;
            }
            let (mut changes, mut orders) = (outcomes.take(most), Vec::new());
            for request in waiting.drain(..) {
                request.sort_into(&mut changes, &mut orders);
            }
            if !changes.is_empty() {
                let turn = self.turn().await;
                // Whoever came while another node had its turn is in the same batch, and needs none of its own.
                while turn.is_ok()
                    && changes.len() < most
                    && let Some(request) = queue.try_take()
                {
                    request.sort_into(&mut changes, &mut orders);
                }
                metrics::histogram!("custodyd_commit_batch_changes").record(changes.len() as f64);
                let lost = turn.is_err();
                self.batch(changes, turn, &mut outcomes).await?;
                // Who reads needs no turn: others that wait for one, or come meanwhile, must not be what they wait for.
                #[cfg(test)]
                let lost = lost && !reader.store().weakness().writers_first;
                if lost && reader.freshness().asked().now_or_never().is_some() {
                    self.confirm().await?;
                }
            }
            for order in orders {
                self.carry_out(order).await?;
            }
        }
        self.rest().await
    }

    async fn batch(
        &mut self,
        changes: Vec<Change>,
        turn: Result<(), LedgerError>,
        outcomes: &mut Outcomes,
    ) -> Result<(), LedgerError> {
        if let Err(error) = turn {
            let changes = match error {
                LedgerError::Stopped => changes,
                _ => outcomes.put_off(changes),
            };
            return match changes.is_empty() {
                true => Ok(()),
                false => refuse_all(changes, error),
            };
        }
        let done = self.decide_all(changes, outcomes).await;
        self.end_turn().await;
        done
    }

    async fn decide_all(
        &mut self,
        changes: Vec<Change>,
        outcomes: &mut Outcomes,
    ) -> Result<(), LedgerError> {
        let now = self.clock.now();
        #[cfg(test)]
        let now = match self.reader.store().weakness().host_time {
            true => self.clock.of_the_host(),
            false => now,
        };
        let touched = changes
            .iter()
            .flat_map(|change| records_of(&change.base))
            .map(|record| record.bucket(BUCKET_BITS))
            .collect();
        let mut lists = self.member_lists(touched).await;
        let mut working: BTreeMap<RecordId, Working> = BTreeMap::new();
        let mut later = Vec::new();
        for change in changes {
            // Whoever asked was told that it took too long: a guess that nobody will evaluate is not charged.
            if change.reply.is_closed() {
                continue;
            }
            let record = record_of(&change.base);
            if let Err(error) = self.take_up(&mut working, &lists, &change.base).await {
                match self.judged(error).await {
                    // It was not decided yet, and what it is about can be read in a moment.
                    error if passes(&error) && outcomes::can_wait(&change) => later.push(change),
                    error => refuse(&mut working, &record, change.reply, Some(error)),
                }
                continue;
            }
            let Change { decide, reply, .. } = change;
            let mut because_of = record;
            let decided = match working.get(&record).map(|entry| entry.decide(decide, now)) {
                Some(Ok(Some(proposal))) => {
                    let named = self.check_new(&working, &mut lists, &record, &proposal);
                    let named = named.await;
                    if named.is_err() {
                        because_of = names::claimant(&working, &record, &proposal);
                    }
                    named.map(|()| Some(proposal))
                }
                Some(refused) => refused,
                None => Err(LedgerError::internal("find an account on the bench")),
            };
            match (decided, working.get_mut(&record)) {
                (Ok(Some(proposal)), Some(entry)) => entry.accept(proposal, reply),
                (Err(error), _) => {
                    let error = self.judged(error).await;
                    refuse(&mut working, &because_of, reply, Some(error));
                }
                (Ok(_), _) => refuse(&mut working, &record, reply, None),
            }
        }
        if !later.is_empty() {
            let late = Arc::new(LedgerError::Late("to read what an outcome is about"));
            for change in outcomes.put_off(later) {
                let _ = change.reply.send(Err(Arc::clone(&late)));
            }
        }
        working.retain(|_, entry| entry.is_changed());
        match self.write(&mut working, &mut lists, now).await {
            Ok(members) => {
                for (record, entry) in working {
                    match members.get(&record) {
                        Some(member) => entry.answer(member),
                        None => entry.refuse(&Arc::new(LedgerError::internal("list a record"))),
                    }
                }
                Ok(())
            }
            Err(failure) => {
                let error = Arc::new(failure.error);
                tracing::error!(error = %error, "a batch was not committed");
                for entry in working.into_values() {
                    entry.refuse(&error);
                }
                if failure.fatal {
                    Err(LedgerError::Stopped)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// A bucket's list, if it is the one in memory. Nothing else writes, so it is that one or was
    /// altered; and what was altered is never written upon.
    fn newest_list(&self, bucket: u32, shown: Option<&[u8]>) -> Result<MemberList, LedgerError> {
        let memory = self.reader.memory();
        #[cfg(test)]
        if self.reader.store().weakness().any_list {
            return MemberList::parse(shown.unwrap_or(MemberList::EMPTY))
                .map_err(|what| LedgerError::Tampered(what.into()));
        }
        match memory.judge(self.reader.realm(), bucket, shown)? {
            Shown::Newest(list) => Ok(list),
            Shown::Pending | Shown::Odd => Err(LedgerError::Tampered(format!(
                "bucket {bucket}: its member list is not the newest one"
            ))),
        }
    }

    /// The member lists of these buckets, each verified or refused.
    async fn member_lists(&self, mut buckets: Vec<u32>) -> Lists {
        buckets.sort_unstable();
        buckets.dedup();
        let mut lists = Lists::with_capacity(buckets.len());
        // What this process wrote last needs no second look.
        buckets.retain(|bucket| match self.reader.cache().list(*bucket) {
            Some(list) => lists.insert(*bucket, Ok(list)).is_some(),
            None => true,
        });
        if buckets.is_empty() {
            return lists;
        }
        match self.reader.store().members(&buckets).await {
            Ok(rows) => {
                let rows: HashMap<u32, Vec<u8>> = rows.examine().into_iter().collect();
                for bucket in buckets {
                    let list = self.newest_list(bucket, rows.get(&bucket).map(Vec::as_slice));
                    lists.insert(bucket, list.map_err(Arc::new));
                }
            }
            Err(error) => {
                let error = Arc::new(LedgerError::from(error));
                for bucket in buckets {
                    lists.insert(bucket, Err(Arc::clone(&error)));
                }
            }
        }
        lists
    }

    /// Puts the newest verified state of a change's account on the bench, if it is not there.
    async fn take_up(
        &self,
        working: &mut BTreeMap<RecordId, Working>,
        lists: &Lists,
        base: &Base,
    ) -> Result<(), LedgerError> {
        let record = record_of(base);
        let known = list_of(lists, &record)?.get(&record);
        let (account, size) = match (base, known) {
            (Base::Absent(..), Some(_)) => return Err(LedgerError::Exists),
            // A second creation in the same batch: the first one's account stands already.
            (Base::Absent(..), None) if working.get(&record).is_some_and(Working::is_changed) => {
                return Err(LedgerError::Exists);
            }
            (Base::Absent(absent, account), None) => {
                let memory = self.reader.memory();
                // One account has one record, whichever MAC key made its identifier.
                for record in &absent.elsewhere {
                    let made = working.get(record).is_some_and(Working::is_changed);
                    let stands = list_of(lists, record)?.get(record).is_some();
                    #[cfg(test)]
                    let stands = stands && !self.reader.store().weakness().any_mac_key;
                    if made || stands {
                        return Err(LedgerError::Exists);
                    }
                }
                let mut account = Account::clone(account);
                account.boot_epoch = memory.boot_epoch();
                account.log_epoch = memory.history().log_epoch;
                (account, 0)
            }
            (Base::Loaded(_), Some(member)) if member.kind == RecordKind::Tombstone => {
                return Err(LedgerError::Erased);
            }
            (Base::Loaded(_), _) if working.get(&record).is_some_and(Working::is_erased) => {
                return Err(LedgerError::Erased);
            }
            (Base::Loaded(_), _) if working.contains_key(&record) => return Ok(()),
            (Base::Loaded(_), None) => {
                return Err(LedgerError::Tampered(
                    "a record that was read is gone".into(),
                ));
            }
            #[cfg(test)]
            (Base::Loaded(loaded), Some(_)) if self.reader.store().weakness().any_base => {
                (Account::clone(&loaded.account), loaded.size)
            }
            (Base::Loaded(loaded), Some(member)) if is_newest(loaded, member) => {
                (Account::clone(&loaded.account), loaded.size)
            }
            // Somebody else's change came first: decide on what stands now.
            (Base::Loaded(loaded), Some(member)) => {
                let opened = self.reader.open(&loaded.account.app, record);
                // What is odd makes a reader wait for us: in our turn it was altered, or the turn is lost.
                let opened = match self.reader.store().is_shared() {
                    true => tokio::time::timeout(OPENING, opened).await.map_err(|_| {
                        LedgerError::Late("to open the account in this node's turn")
                    })?,
                    false => opened.await,
                };
                let newest = opened?
                    .account()
                    .filter(|newest| is_newest(newest, member))
                    .ok_or_else(|| {
                        LedgerError::Tampered("a record changed without the committer".into())
                    })?;
                (Account::clone(&newest.account), newest.size)
            }
        };
        working.insert(record, Working::new(account, size));
        Ok(())
    }

    /// Numbers, seals, writes one transaction, and returns the new entry of each record. An
    /// account that can not be sealed is answered and taken out; the others are numbered anew.
    async fn write(
        &mut self,
        working: &mut BTreeMap<RecordId, Working>,
        lists: &mut Lists,
        now: Timestamp,
    ) -> Result<Members, Failure> {
        while !working.is_empty() {
            let (mut batch, mut size, seq) = self.begin()?;
            let mut unfit = Vec::new();
            for (record, entry) in working.iter_mut() {
                if let Err(error) = entry.number(record, &mut size, now, &mut batch) {
                    unfit.push((*record, error));
                }
            }
            let mut members = Members::new();
            if unfit.is_empty() {
                let rows = sealing::rows(working, seq, now)?;
                (members, unfit) =
                    sealing::seal_all(&self.reader, rows, &mut batch, &mut self.pace).await?;
            }
            if unfit.is_empty() {
                #[cfg(test)]
                super::weakness::reread(self.reader.store(), lists).await;
                sealing::list_members(working, &members, &mut batch, lists);
                let demand = working::demand(working);
                self.publish(batch, &members, lists, (now, demand)).await?;
                return Ok(members);
            }
            for (record, error) in unfit {
                tracing::error!(%error, "a change can not be written; its batch goes on without it");
                if let Some(entry) = working.remove(&record) {
                    entry.refuse(&Arc::new(error));
                }
            }
        }
        Ok(Members::new())
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Drop for Committer {
    /// Who waits for a batch to be anchored need not wait for that any more.
    fn drop(&mut self) {
        self.reader.freshness().ends();
        self.reader.memory().ends();
    }
}

/// Refuses a change, with an error or for its decision's own reason. What follows from another change of the batch is
/// told with that one: if the batch is lost, it never was so.
fn refuse(
    working: &mut BTreeMap<RecordId, Working>,
    because_of: &RecordId,
    reply: working::Reply,
    why: Option<LedgerError>,
) {
    match working.get_mut(because_of) {
        Some(entry) if entry.is_changed() => entry.refuse_with(reply, why),
        _ => drop(reply.send(why.map_or(Ok(None), |error| Err(Arc::new(error))))),
    }
}

/// Nothing is written upon a batch that is not anchored.
fn refuse_all(changes: Vec<Change>, error: LedgerError) -> Result<(), LedgerError> {
    tracing::error!(%error, "nobody can write now: the last batch is not anchored yet, or it is not this node's turn");
    let fatal = matches!(error, LedgerError::Stopped);
    let error = Arc::new(error);
    for change in changes {
        let _ = change.reply.send(Err(Arc::clone(&error)));
    }
    if fatal {
        Err(LedgerError::Stopped)
    } else {
        Ok(())
    }
}

/// Why a batch was not committed, and whether anything may be written after it.
struct Failure {
    error: LedgerError,
    fatal: bool,
    /// A server has seen the batch's head: the batch is the only one of its number.
    kept: bool,
    /// Another head stands in the database, maybe upon this batch.
    elsewhere: bool,
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
            kept: false,
            elsewhere: false,
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        Self {
            fatal: matches!(error, LedgerError::Stopped),
            error,
            kept: false,
            elsewhere: false,
        }
    }
}

fn record_of(base: &Base) -> RecordId {
    match base {
        Base::Absent(absent, _) => absent.record,
        Base::Loaded(loaded) => loaded.record,
    }
}

/// Every record that a change's beginning is about.
fn records_of(base: &Base) -> Vec<RecordId> {
    match base {
        Base::Absent(absent, _) => absent.all().copied().collect(),
        Base::Loaded(loaded) => vec![loaded.record],
    }
}

/// The verified list that a record stands in.
fn list_of<'a>(lists: &'a Lists, record: &RecordId) -> Result<&'a MemberList, LedgerError> {
    match lists.get(&record.bucket(BUCKET_BITS)) {
        Some(Ok(list)) => Ok(list),
        Some(Err(error)) => Err(super::error::shared(Arc::clone(error))),
        None => Err(LedgerError::internal("find a member list")),
    }
}

fn is_newest(loaded: &Loaded, member: &Member) -> bool {
    loaded.account.generation == member.generation && loaded.digest == member.digest
}
