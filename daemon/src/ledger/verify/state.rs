//! One pass over the state: each bucket's member list against the tree, each record against its
//! entry in the list, and no row that no list names.
//!
//! Member lists and records are read in two statements, so beside a daemon that writes they may
//! be a batch apart: whatever does not agree there is read again as a request reads it, in one
//! snapshot and against memory. Called by `verify` and by the scrub.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use custodyd_hsm::seal;
use custodyd_hsm::{AppId, RecordId, RecordKind};
use tokio::sync::mpsc;

use super::findings::Findings;
use super::{AHEAD, Counts, Pace, Task};
use crate::ledger::cache::Committed;
use crate::ledger::members::{Member, MemberList};
use crate::ledger::memory::Shown;
use crate::ledger::record::Reader;
use crate::ledger::tree::{BUCKETS, StateTree, bucket_digest};
use crate::ledger::{BUCKET_BITS, LedgerError, erasure};
use crate::store::{HashedRecord, Store, StoredRecord};

/// A record, with its content where somebody opens it.
type Row = (HashedRecord, Option<Vec<u8>>);

/// Records; `None` where there are no more.
type Part = Result<Option<Vec<Row>>, LedgerError>;

/// Lists that were judged; `None` where one is not the bucket's.
type Lists = BTreeMap<u32, Option<MemberList>>;

/// Opens records in the token, as those of the served apps.
#[derive(Debug)]
pub(super) struct Opener {
    pub(super) reader: Reader,
    pub(super) apps: Vec<AppId>,
}

/// The records of a bucket lie between these.
pub(in crate::ledger) fn first_of(bucket: u32) -> Vec<u8> {
    match u16::try_from(bucket) {
        Ok(bucket) => bucket.to_be_bytes().to_vec(),
        Err(_) => vec![0xff; 33],
    }
}

/// Where the rows go on after the last of some, if these are any; `from` is where they began.
pub(in crate::ledger) fn beyond(
    last: Option<RecordId>,
    from: &[u8],
) -> Result<Option<Vec<u8>>, LedgerError> {
    let Some(last) = last else {
        return Ok(None);
    };
    let mut beyond = last.as_bytes().to_vec();
    beyond.push(0);
    match beyond.as_slice() > from {
        true => Ok(Some(beyond)),
        false => Err(LedgerError::Tampered(
            "records come out of order: the database file is damaged".into(),
        )),
    }
}

impl Task {
    /// Goes over all buckets as fast as the machine can: on all cores, or in one line where records are opened, for then
    /// everybody waits for the token.
    pub(super) async fn all_buckets(
        &self,
        tree: Option<StateTree>,
        opener: Option<Opener>,
    ) -> Result<(Counts, Findings), LedgerError> {
        let slices = Pace::FAST.slices();
        if opener.is_some() {
            let all = 0..slices;
            return self.buckets(tree.as_ref(), all, opener, Pace::FAST).await;
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let share = slices.div_ceil(u32::try_from(cores).unwrap_or(u32::MAX));
        let tree = Arc::new(tree);
        let lines: Vec<_> = (0..slices)
            .step_by(usize::try_from(share).unwrap_or(1))
            .map(|from| {
                let (task, tree) = (self.clone(), Arc::clone(&tree));
                let part = from..slices.min(from.saturating_add(share));
                let line = async move {
                    let tree = tree.as_ref().as_ref();
                    task.buckets(tree, part, None, Pace::FAST).await
                };
                tokio::spawn(line)
            })
            .collect();
        let (mut counts, mut findings) = (Counts::default(), self.findings());
        for line in lines {
            let gone = |_| LedgerError::internal("go over the state");
            let (more, later) = line.await.map_err(gone)??;
            counts.buckets += more.buckets;
            counts.records += more.records;
            counts.unjudged += more.unjudged;
            findings.append(later);
        }
        Ok((counts, findings))
    }

    /// Goes over these slices of the buckets. `tree` is what they must be, unless memory is asked.
    pub(super) async fn buckets(
        &self,
        tree: Option<&StateTree>,
        slices: impl IntoIterator<Item = u32, IntoIter: Send>,
        mut opener: Option<Opener>,
        pace: Pace,
    ) -> Result<(Counts, Findings), LedgerError> {
        let (mut counts, mut findings) = (Counts::default(), self.findings());
        for slice in slices {
            let start = slice * pace.buckets;
            let end = (start + pace.buckets).min(BUCKETS);
            let mut next = start;
            while next < end {
                let rows = self.store.lists(next, end).await.map_err(LedgerError::from);
                let Some(rows) = findings.of("bucket_members", rows)? else {
                    let what = format!("buckets {next} to {}: they can not be read", end - 1);
                    findings.note("bucket_members", what);
                    break;
                };
                let rows = rows.examine();
                let upto = rows.last().map_or(end, |(bucket, _)| bucket + 1);
                let upto = upto.clamp(next + 1, end);
                let mut rows: BTreeMap<u32, Option<Vec<u8>>> = rows.into_iter().collect();
                let mut lists = Lists::new();
                for bucket in next..upto {
                    let list = self
                        .list(bucket, rows.remove(&bucket), tree, &mut findings)
                        .await?;
                    lists.insert(bucket, list);
                }
                self.records(&lists, &mut opener, &mut counts, &mut findings)
                    .await?;
                next = upto;
            }
            counts.buckets += u64::from(end - start);
            self.progress.advance(u64::from(end - start));
            pace.pause().await;
        }
        Ok((counts, findings))
    }

    /// The bucket's list, if it is the one that is believed.
    async fn list(
        &self,
        bucket: u32,
        row: Option<Option<Vec<u8>>>,
        tree: Option<&StateTree>,
        findings: &mut Findings,
    ) -> Result<Option<MemberList>, LedgerError> {
        let shown = match &row {
            None => Some(MemberList::EMPTY),
            Some(bytes) => bytes.as_deref(),
        };
        if let Some(reader) = &self.beside {
            if let Some(shown) = shown
                && let Ok(Shown::Newest(list)) =
                    reader.memory().judge(&self.realm, bucket, Some(shown))
            {
                return Ok(Some(list));
            }
            let prefix = first_of(bucket);
            let mut any = [0; 32];
            if let Some(start) = any.get_mut(..prefix.len()) {
                start.copy_from_slice(&prefix);
            }
            return match reader.newest_row(&RecordId(any), bucket).await {
                Ok((list, _)) => Ok(Some(list)),
                Err(LedgerError::Tampered(what)) => {
                    findings.note("bucket_members", what);
                    Ok(None)
                }
                Err(error) => Err(error),
            };
        }
        let Some(shown) = shown else {
            findings.bucket(bucket, "its member list is larger than any");
            return Ok(None);
        };
        let is_right =
            |tree: &StateTree| tree.bucket(bucket) == bucket_digest(&self.realm, bucket, shown);
        if !tree.is_none_or(is_right) {
            findings.bucket(bucket, "its member list is not the newest one");
            return Ok(None);
        }
        match MemberList::parse(shown) {
            Ok(list) => Ok(Some(list)),
            Err(what) => {
                findings.bucket(bucket, what);
                Ok(None)
            }
        }
    }

    /// The records of neighbouring buckets, against their lists.
    async fn records(
        &self,
        lists: &Lists,
        opener: &mut Option<Opener>,
        counts: &mut Counts,
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        let (Some((first, _)), Some((last, _))) = (lists.first_key_value(), lists.last_key_value())
        else {
            return Ok(());
        };
        let between = (first_of(*first), first_of(last + 1));
        let mut reading = self.records_ahead(between, opener.is_some());
        let mut seen: HashSet<RecordId> = HashSet::new();
        loop {
            let part = reading.recv().await;
            let part = part.ok_or_else(|| LedgerError::internal("read the records"))?;
            let Some(part) = findings.of("records", part)? else {
                let what = format!("buckets {first} to {last}: not all of their rows can be read");
                findings.note("records", what);
                return Ok(());
            };
            let Some(rows) = part else { break };
            for (row, sealed) in rows {
                let Some(Some(list)) = lists.get(&row.id.bucket(BUCKET_BITS)) else {
                    counts.unjudged += 1;
                    continue;
                };
                let member = list.get(&row.id).copied();
                // Rows that no list names may be any number.
                if member.is_some() {
                    seen.insert(row.id);
                }
                let id = row.id;
                match wrong(member.as_ref(), &row) {
                    None => {
                        counts.records += 1;
                        if let (Some(opener), Some(member)) = (opener.as_mut(), member) {
                            let sealed = sealed.unwrap_or_default();
                            opener.open(member, sealed, counts, findings).await?;
                        }
                    }
                    Some(what) => self.doubt(&id, what, counts, findings).await?,
                }
            }
        }
        for list in lists.values().flatten() {
            for member in list.all() {
                if !seen.contains(&member.id) {
                    self.doubt(&member.id, "the row is missing", counts, findings)
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// The records between these places, part by part, and after the last one nothing. The next ones are on their
    /// way while some are compared.
    fn records_ahead(
        &self,
        (mut from, to): (Vec<u8>, Vec<u8>),
        opened: bool,
    ) -> mpsc::Receiver<Part> {
        let (parts, reading) = mpsc::channel(AHEAD);
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            loop {
                let part = rows(&store, (&from, &to), opened).await.and_then(|rows| {
                    let beyond = beyond(rows.last().map(|(row, _)| row.id), &from)?;
                    Ok(beyond.map(|beyond| (rows, beyond)))
                });
                let (part, goes_on) = match part {
                    Ok(Some((rows, beyond))) => {
                        from = beyond;
                        (Ok(Some(rows)), true)
                    }
                    Ok(None) => (Ok(None), false),
                    Err(error) => (Err(error), false),
                };
                if parts.send(part).await.is_err() || !goes_on {
                    return;
                }
            }
        });
        reading
    }

    /// A record that does not agree with its list, as it seems.
    async fn doubt(
        &self,
        record: &RecordId,
        what: &'static str,
        counts: &mut Counts,
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        let Some(reader) = &self.beside else {
            findings.record(record, what);
            return Ok(());
        };
        match reader.read(record).await {
            Ok(there) => counts.records += u64::from(there.is_some()),
            Err(LedgerError::Tampered(what)) => findings.note("records", what),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Some of the records between two places; their contents are asked for only where they are opened.
async fn rows(
    store: &Arc<dyn Store>,
    (from, to): (&[u8], &[u8]),
    opened: bool,
) -> Result<Vec<Row>, LedgerError> {
    if !opened {
        let rows = store.hashed_records(from, to).await?.examine();
        return Ok(rows.into_iter().map(|row| (row, None)).collect());
    }
    let rows = store.records(from, to).await?.examine();
    let hashed = |row: StoredRecord| {
        let digest = row.sealed.as_deref().map(seal::digest);
        let StoredRecord { id, generation, .. } = row;
        let hashed = HashedRecord {
            id,
            generation,
            digest,
        };
        (hashed, row.sealed)
    };
    Ok(rows.into_iter().map(hashed).collect())
}

/// What contradicts the entry of the member list.
fn wrong(member: Option<&Member>, row: &HashedRecord) -> Option<&'static str> {
    let Some(member) = member else {
        return Some("the bucket's member list does not name it");
    };
    let Some(digest) = row.digest else {
        return Some("it is larger than any, or no byte string");
    };
    if row.generation != Some(member.generation) {
        return Some("its generation differs from the member list");
    }
    (digest != member.digest).then_some("its content differs from the member list")
}

impl Opener {
    /// Opens a record whose row is the one that its list names.
    async fn open(
        &mut self,
        member: Member,
        sealed: Vec<u8>,
        counts: &mut Counts,
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        let known = Arc::new(Committed { member, sealed });
        if member.kind == RecordKind::Realm {
            match self.reader.unseal(&AppId::REALM, known).await {
                Ok(_) => counts.opened += 1,
                Err(LedgerError::Tampered(what)) => findings.note("records", what),
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        for at in 0..self.apps.len() {
            let Some(app) = self.apps.get(at) else { break };
            let plaintext = match self.reader.unseal(app, Arc::clone(&known)).await {
                Ok(plaintext) => plaintext,
                // Another app's. Damage looks alike: the row is the one that the list names.
                Err(LedgerError::Tampered(_)) => continue,
                Err(error) => return Err(error),
            };
            let checked = match member.kind {
                RecordKind::Account => self.reader.loaded(app, &member, &plaintext).map(drop),
                RecordKind::Tombstone => erasure::check(plaintext.expose())
                    .map_err(|what| crate::ledger::record::tampered(&member.id, what)),
                RecordKind::Realm | RecordKind::Alias => Ok(()),
            };
            match checked {
                Ok(()) => counts.opened += 1,
                Err(LedgerError::Tampered(what)) => findings.note("records", what),
                Err(error) => return Err(error),
            }
            // Most records belong to one app: it is tried first.
            self.apps.swap(0, at);
            return Ok(());
        }
        counts.unopened += 1;
        Ok(())
    }
}
