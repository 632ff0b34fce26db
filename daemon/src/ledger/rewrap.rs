//! Moving records to the newest wrap key while the realm serves, and the proof that none is left.
//!
//! Called by `service` for `custodyd key list|rewrap|retire`. What a record is sealed under says its
//! header, and that is believed of bytes alone whose digest the newest member list names: so the
//! counts come from verified state, and a database that lies about a row makes it damaged, never
//! moved. The old key opens a record and the new one seals it outside of the committer; that only
//! puts it in its place, if nobody has changed the record meanwhile. A pass keeps no state: after
//! a crash the next one finds what is left.

mod mac_keys;
mod resealing;

pub use self::mac_keys::MacCensus;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use custodyd_hsm::seal;
use custodyd_hsm::{AppId, KeyPurpose, RecordId};
use futures_util::stream::{self, Stream, TryStreamExt as _};

use super::cache::Committed;
use super::committer::Rewritten;
use super::members::{Member, MemberList};
use super::record::Reader;
use super::tree::BUCKETS;
use super::verify::{beyond, first_of};
use super::{BUCKET_BITS, Ledger, LedgerError, Order};

/// Buckets that are read at first, and at the most.
const FIRST_SLICE: u32 = 64;
const LARGEST_SLICE: u32 = 2048;
/// Records that are moved together, in one commit: where others are to be served meanwhile, and where a pass may
/// take everything. What a commit costs besides its rows, the anchor above all, is shared by them.
const BATCH: usize = 128;
const LARGE_BATCH: usize = 1024;
/// So many bytes of them are enough for a commit, however few they are.
const ENOUGH: usize = 4 << 20;
/// When less than that is put back all the same: a crash costs no more.
const AT_LEAST_EVERY: Duration = Duration::from_millis(250);
/// How long the token is taken at a time, and for how many records at the most: requests wait behind it.
const TURN: Duration = Duration::from_millis(50);
const LARGEST_TURN: usize = 128;
/// Tries of what fails because token or committer are busy or away, and the first pause.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Under which wrap keys the records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Records by key version.
    pub under: BTreeMap<u16, u64>,
    /// Lists and rows that do not verify: nobody knows what belongs there.
    pub damaged: u64,
}

/// How far a pass is; for whoever watches.
#[derive(Debug, Default)]
pub struct Moving {
    buckets: AtomicU64,
    moved: AtomicU64,
    unopened: AtomicU64,
    /// Apps that a record was of.
    opening: Mutex<BTreeSet<AppId>>,
    /// Microseconds until the last record was moved, the count after it left out.
    micros: AtomicU64,
    /// Records of one turn in the token, as it takes them.
    turn: AtomicUsize,
}

impl Moving {
    /// Buckets that were gone over, and how many there are.
    #[must_use]
    pub fn buckets(&self) -> (u64, u64) {
        (self.buckets.load(Ordering::Relaxed), u64::from(BUCKETS))
    }

    /// Records that were moved.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Records that none of the apps opens.
    #[must_use]
    pub fn unopened(&self) -> u64 {
        self.unopened.load(Ordering::Relaxed)
    }

    /// Whether a record was this app's that was to be moved.
    #[must_use]
    pub fn found(&self, app: &AppId) -> bool {
        self.opening().contains(app)
    }

    fn opening(&self) -> MutexGuard<'_, BTreeSet<AppId>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds that the move has taken; zero until it has ended.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Larger turns where the token is quick, smaller ones where it is slow.
    fn took(&self, turn: usize, time: Duration) {
        let next = match time {
            time if time > TURN => turn / 2,
            time if time < TURN / 4 => turn * 2,
            _ => turn,
        };
        self.turn
            .store(next.clamp(1, LARGEST_TURN), Ordering::Relaxed);
    }
}

/// What a pass may take: so many percent of the time, and with all of it several turns at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Default for Share {
    /// Requests and the move take the same time from each other.
    fn default() -> Self {
        Self(50)
    }
}

impl Share {
    /// `None` outside of 1 to 100.
    #[must_use]
    pub fn percent(share: u32) -> Option<Self> {
        (1..=100).contains(&share).then_some(Self(share))
    }

    #[must_use]
    pub fn as_percent(self) -> u32 {
        self.0
    }

    fn lanes(self) -> usize {
        if self.0 == 100 { 3 } else { 1 }
    }

    fn batch(self) -> usize {
        if self.0 == 100 { LARGE_BATCH } else { BATCH }
    }

    /// The rest after work that took so long.
    fn rest(self, took: Duration) -> Duration {
        took.saturating_mul(100 - self.0) / self.0
    }
}

/// A record as its bucket's list had it, and that list.
#[derive(Debug)]
struct Listed {
    record: Committed,
    list: Arc<MemberList>,
}

/// A record as it was read, and as it is to be.
#[derive(Debug)]
pub(crate) struct Resealed {
    pub(crate) before: Member,
    /// Its bucket's list as it was then, where it is at hand.
    pub(crate) list: Option<Arc<MemberList>>,
    pub(crate) after: Member,
    pub(crate) version: u16,
    pub(crate) sealed: Vec<u8>,
}

impl Ledger {
    /// Counts all records by the wrap key that they are under.
    ///
    /// # Errors
    /// Token or store unavailable.
    pub async fn census(&self) -> Result<Census, LedgerError> {
        let mut census = Census::default();
        let (mut from, mut slice) = (0, FIRST_SLICE);
        while from < BUCKETS {
            let upto = (from + slice).min(BUCKETS);
            let part = patiently(|| self.reader.verified(from, upto)).await?;
            slice = next_slice(slice, part.records.len(), weight(&part.records));
            census.damaged += part.damaged;
            for Listed { record, .. } in part.records {
                match seal::key_version(&record.sealed) {
                    Some(version) => *census.under.entry(version).or_default() += 1,
                    None => census.damaged += 1,
                }
            }
            from = part.upto;
        }
        Ok(census)
    }

    /// Goes over all records once, moves each to the newest wrap key that is under another one, and
    /// counts them again. `apps` are those whose records there may be.
    ///
    /// # Errors
    /// Token, store or committer unavailable for longer: what was moved stays moved.
    pub async fn rewrap(
        &self,
        apps: Vec<AppId>,
        share: Share,
        moving: &Moving,
    ) -> Result<Census, LedgerError> {
        moving.turn.store(4, Ordering::Relaxed);
        let began = Instant::now();
        let apps = Mutex::new(apps);
        // What comes next is read and verified while the batches before are in the token and on their way to the disk.
        let moves = self
            .stale(share, moving)
            .map_ok(|batch| self.move_some(batch, &apps, share, moving));
        moves
            .try_buffer_unordered(share.lanes())
            .try_for_each(|()| std::future::ready(Ok(())))
            .await?;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        moving.micros.store(micros, Ordering::Relaxed);
        self.census().await
    }

    /// All records that are not under the newest wrap key, in batches of one commit.
    fn stale(
        &self,
        share: Share,
        moving: &Moving,
    ) -> impl Stream<Item = Result<Vec<Arc<Listed>>, LedgerError>> + Send {
        let newest = self.keys().current(KeyPurpose::Wrap).version;
        let most = share.batch();
        let begin = (0, FIRST_SLICE, VecDeque::new());
        stream::try_unfold(
            begin,
            move |(mut from, mut slice, mut waiting): (u32, u32, VecDeque<_>)| async move {
                while waiting.len() < most && from < BUCKETS {
                    let upto = (from + slice).min(BUCKETS);
                    let part = patiently(|| self.reader.verified(from, upto)).await?;
                    slice = next_slice(slice, part.records.len(), weight(&part.records));
                    let stale = (part.records.into_iter())
                        .filter(|listed| seal::key_version(&listed.record.sealed) != Some(newest));
                    waiting.extend(stale.map(Arc::new));
                    from = part.upto;
                    moving.buckets.store(from.into(), Ordering::Relaxed);
                }
                let batch = next_batch(&mut waiting, most);
                Ok((!batch.is_empty()).then_some((batch, (from, slice, waiting))))
            },
        )
    }

    /// One commit's records. Most of them belong to one app: the one that opened the last is tried first.
    async fn move_some(
        &self,
        batch: Vec<Arc<Listed>>,
        apps: &Mutex<Vec<AppId>>,
        share: Share,
        moving: &Moving,
    ) -> Result<(), LedgerError> {
        let in_order = || apps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut resealed = Vec::with_capacity(batch.len());
        let mut rest = batch.as_slice();
        let mut since = Instant::now();
        while !rest.is_empty() {
            let turn = moving.turn.load(Ordering::Relaxed).clamp(1, rest.len());
            let (now, later) = rest.split_at(turn);
            let began = Instant::now();
            let of = in_order().clone();
            let turned = patiently(|| self.reader.reseal(now.to_vec(), of.clone())).await?;
            let took = began.elapsed();
            moving.took(turn, took);
            *in_order() = turned.apps;
            moving.opening().extend(turned.opening);
            moving
                .unopened
                .fetch_add(turned.unopened, Ordering::Relaxed);
            resealed.extend(turned.resealed);
            rest = later;
            tokio::time::sleep(share.rest(took)).await;
            if rest.is_empty() || since.elapsed() > AT_LEAST_EVERY {
                self.put_all_back(std::mem::take(&mut resealed), share, moving)
                    .await?;
                since = Instant::now();
            }
        }
        Ok(())
    }

    async fn put_all_back(
        &self,
        resealed: Vec<Resealed>,
        share: Share,
        moving: &Moving,
    ) -> Result<(), LedgerError> {
        let resealed = Arc::new(resealed);
        let began = Instant::now();
        let done = patiently(|| self.put_back(Arc::clone(&resealed))).await?;
        moving.moved.fetch_add(done.moved, Ordering::Relaxed);
        metrics::counter!("custodyd_rewrapped_records_total").increment(done.moved);
        tokio::time::sleep(share.rest(began.elapsed())).await;
        Ok(())
    }

    /// All records as a move would put them back now.
    #[cfg(test)]
    pub(super) async fn resealed(&self, apps: Vec<AppId>) -> Result<Vec<Resealed>, LedgerError> {
        let records = self.reader.verified(0, BUCKETS).await?.records;
        let records = records.into_iter().map(Arc::new).collect();
        Ok(self.reader.reseal(records, apps).await?.resealed)
    }

    pub(super) async fn put_back(
        &self,
        records: Arc<Vec<Resealed>>,
    ) -> Result<Rewritten, LedgerError> {
        if records.is_empty() {
            return Ok(Rewritten::default());
        }
        self.order(|reply| Order::Rewrap { records, reply }).await
    }
}

fn weight(records: &[Listed]) -> usize {
    let of = |listed: &Listed| listed.record.sealed.len();
    records.iter().map(of).sum()
}

/// Buckets that are read next, after so many with these records: some hundred of these at a time, in a small realm
/// as in a large one, and fewer where they are large.
fn next_slice(slice: u32, records: usize, bytes: usize) -> u32 {
    let next = match records {
        _ if bytes >= ENOUGH => slice / 2,
        0..256 => slice * 2,
        256..1024 => slice,
        _ => slice / 2,
    };
    next.clamp(1, LARGEST_SLICE)
}

/// The first of those that wait. A bucket's records stay together where they can: the commit of some changes the list
/// that came with the others.
fn next_batch(waiting: &mut VecDeque<Arc<Listed>>, most: usize) -> Vec<Arc<Listed>> {
    let (mut batch, mut bytes) = (Vec::with_capacity(most), 0);
    while let Some(next) = waiting.pop_front() {
        let bucket = |listed: &Arc<Listed>| bucket_of(&listed.record.member.id);
        let full = batch.len() >= most || bytes >= ENOUGH;
        if full && batch.last().map(bucket) != Some(bucket(&next)) {
            waiting.push_front(next);
            break;
        }
        bytes += next.record.sealed.len();
        batch.push(next);
    }
    batch
}

/// Repeats what fails in passing; requests come first, and the token may be away for a moment.
async fn patiently<T, F>(attempt: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if passes(&error) => {
                tracing::debug!(%error, "rewrapping waits");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
            settled => return settled,
        }
    }
    attempt().await
}

/// What is away for a moment, or busy.
pub(super) fn passes(error: &LedgerError) -> bool {
    match error {
        LedgerError::Busy
        | LedgerError::Overtaken
        | LedgerError::Late(_)
        | LedgerError::Unconfirmed
        | LedgerError::Store(_) => true,
        LedgerError::Token(error) => error.is_retryable(),
        _ => false,
    }
}

/// Records as the newest member lists have them.
struct Part {
    records: Vec<Listed>,
    /// Lists and rows that do not verify.
    damaged: u64,
    /// The bucket after the last one.
    upto: u32,
}

impl Reader {
    /// All records of some buckets, or of the first of them: no more are read once there are `ENOUGH` bytes.
    async fn verified(&self, mut from: u32, to: u32) -> Result<Part, LedgerError> {
        let (mut records, mut damaged) = (Vec::new(), 0);
        while from < to && weight(&records) < ENOUGH {
            let newest = self.newest_lists(from, to).await?;
            let upto = newest.upto;
            damaged += newest.damaged;
            let named = newest.lists.into_iter();
            let lists = named
                .map(|(bucket, list)| (bucket, Arc::new(list)))
                .collect();
            damaged += self.rows_of(&lists, (from, upto), &mut records).await?;
            from = upto;
        }
        Ok(Part {
            records,
            damaged,
            upto: from,
        })
    }

    /// The rows of these lists' records.
    async fn rows_of(
        &self,
        lists: &BTreeMap<u32, Arc<MemberList>>,
        (from, to): (u32, u32),
        records: &mut Vec<Listed>,
    ) -> Result<u64, LedgerError> {
        let mut missing: BTreeMap<RecordId, Member> = lists
            .values()
            .flat_map(|list| list.all().iter().map(|member| (member.id, *member)))
            .collect();
        let listed = |record: Committed| {
            let list = lists.get(&bucket_of(&record.member.id)).map(Arc::clone);
            list.map(|list| Listed { record, list })
        };
        let (mut from, to) = (first_of(from), first_of(to));
        loop {
            let rows = self.store().records(&from, &to).await?.examine();
            let Some(beyond) = beyond(rows.last().map(|row| row.id), &from)? else {
                break;
            };
            from = beyond;
            for row in rows {
                let Some(member) = missing.get(&row.id).copied() else {
                    continue;
                };
                let Some(sealed) = row.sealed else { continue };
                if row.generation == Some(member.generation)
                    && seal::digest(&sealed) == member.digest
                {
                    missing.remove(&row.id);
                    records.extend(listed(Committed { member, sealed }));
                }
            }
        }
        let mut damaged = 0;
        // Rows that a batch has overtaken, that are gone, or that were altered.
        for record in missing.into_keys() {
            match self.read(&record).await {
                Ok(found) => records.extend(found.and_then(listed)),
                Err(LedgerError::Tampered(what)) => {
                    tracing::error!(what, "a record is left out");
                    damaged += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }
}

/// The bucket that a record stands in.
pub(super) fn bucket_of(record: &RecordId) -> u32 {
    record.bucket(BUCKET_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_leaves_the_rest_of_the_time_to_others() {
        let took = Duration::from_millis(30);
        let rest = |share| Share::percent(share).map(|share| share.rest(took));
        assert_eq!(rest(100), Some(Duration::ZERO));
        assert_eq!(rest(50), Some(took));
        assert_eq!(rest(25), Some(took * 3));
        assert_eq!((rest(0), rest(101)), (None, None));
    }

    #[test]
    fn slices_follow_the_realm() {
        for (slice, records, bytes, next) in [
            (64, 0, 0, 128),
            (64, 300, 1000, 64),
            (64, 5000, 1000, 32),
            (64, 100, ENOUGH, 32),
            (1, 5000, 1000, 1),
            (LARGEST_SLICE, 0, 0, LARGEST_SLICE),
        ] {
            assert_eq!(next_slice(slice, records, bytes), next);
        }
    }

    #[test]
    fn turns_follow_the_token() {
        let moving = Moving::default();
        for (turn, time, next) in [
            (8, 5, 16),
            (8, 30, 8),
            (8, 90, 4),
            (1, 90, 1),
            (LARGEST_TURN, 1, LARGEST_TURN),
        ] {
            moving.took(turn, Duration::from_millis(time));
            assert_eq!(moving.turn.load(Ordering::Relaxed), next);
        }
    }
}
