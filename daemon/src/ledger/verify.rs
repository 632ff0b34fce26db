//! Verifying a whole database: every row of it against the head that the token authenticates.
//!
//! Called by `custodyd ledger verify`, for a database that no daemon has open; `scrub` does the
//! same beside a daemon, against memory. Nothing is written. What is wrong with one row hides
//! nothing of the others, so the report holds all that is wrong, the first of it in words. Reads
//! in parts: what is kept of a log are three bits for each entry, of the state one digest for each
//! bucket.

mod bodies;
mod chain;
mod entries;
pub mod export;
mod findings;
mod scrub;
mod standing;
mod state;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use custodyd_hsm::{AppId, Pool, RealmName};
use custodyd_policies::Timestamp;

use self::entries::Walked;
pub use self::findings::{Finding, Findings};
pub use self::scrub::Scrubbed;
pub use self::standing::{Standing, standing};
use self::state::Opener;
pub(super) use self::state::{beyond, first_of};
pub use self::tail::{Entry, size, tail};
use super::log::LogEnd;
use super::memory::{Believed, Memory};
use super::record::Reader;
use super::tree::{BUCKETS, Digest, StateTree, bucket_digest};
use super::{Cache, Head, LedgerError, Mode, realm, start};
use crate::store::Store;

/// How far a verification is, for whoever waits for it.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    pub(super) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn advance(&self, by: u64) {
        self.done.fetch_add(by, Ordering::Relaxed);
    }

    /// Entries and buckets that are behind, and all of them.
    #[must_use]
    pub fn seen(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed))
    }
}

/// Parts that are read before the one at hand is gone over.
const AHEAD: usize = 2;

/// How much is read at a time, and the rest after each time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) entries: u64,
    pub(super) buckets: u32,
    pub(super) rest: Duration,
}

impl Pace {
    /// Nobody else wants the database.
    const FAST: Self = Self {
        entries: 1 << 15,
        buckets: 1 << 11,
        rest: Duration::ZERO,
    };

    /// So many slices make all buckets.
    fn slices(&self) -> u32 {
        BUCKETS.div_ceil(self.buckets.max(1))
    }

    /// Lets others at the database, and at this thread.
    async fn pause(&self) {
        if self.rest.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(self.rest).await;
        }
    }
}

/// What was gone over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub entries: u64,
    pub batches: u64,
    /// Bodies that are there and were compared with their leaves.
    pub bodies: u64,
    /// Bodies that an erasure or retention has rightly taken.
    pub deleted_bodies: u64,
    pub buckets: u64,
    /// Records that agree with their member lists.
    pub records: u64,
    /// Records of buckets whose lists do not verify.
    pub unjudged: u64,
    /// Records that were opened in the token, and those that no served app opens.
    pub opened: u64,
    pub unopened: u64,
}

/// The outcome for one database.
#[derive(Debug)]
pub struct Report {
    /// Batch and size of the head that everything was held against, if there is one.
    pub head: Option<(u64, u64)>,
    /// Why a daemon would not start on this database, if it would not.
    pub refused: Option<String>,
    pub counts: Counts,
    pub findings: Findings,
}

impl Report {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.refused.is_none() && self.findings.count() == 0
    }

    /// The first thing that is wrong, as exactly as it is known.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        let found = self.findings.first();
        found
            .map(|finding| finding.evidence.as_str())
            .or(self.refused.as_deref())
    }
}

/// One verification of one database.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) store: Arc<dyn Store>,
    pub(super) realm: RealmName,
    pub(super) progress: Arc<Progress>,
    /// Memory of the daemon that writes at the same time, if one does.
    pub(super) beside: Option<Arc<Reader>>,
}

impl Task {
    /// Where the findings of a pass go. Beside a daemon nobody waits for the end to be told.
    fn findings(&self) -> Findings {
        Findings::new(self.beside.is_some())
    }
}

/// Verifies a database that nobody writes to. With `apps`, each record is opened in the token as
/// one of theirs as well.
///
/// # Errors
/// Only where token or store do not answer; what is wrong with the database is in the report.
pub async fn verify(
    store: &Arc<dyn Store>,
    pool: &Pool,
    (name, mode): (&RealmName, Mode<'_>),
    apps: Option<Vec<AppId>>,
    progress: &Arc<Progress>,
) -> Result<Report, LedgerError> {
    let mut report = Report {
        head: None,
        refused: None,
        counts: Counts::default(),
        findings: Findings::default(),
    };
    // What a daemon would believe at its start is the first thing to be asked.
    let found = match start::believe(store, pool, name, mode).await {
        Ok(found) => Some(found),
        Err(error) => {
            report.refused = Some(evidence(error)?);
            None
        }
    };
    let (head, edge, tree) = match found {
        Some(Believed { head, tree, end }) => (head, Some(end), Some(tree)),
        // Maybe only a part of it is wrong: as long as a head is the token's, it says which.
        None => match Head::read(store, pool, name).await {
            Ok(head) => (head, None, None),
            Err(error) => {
                report.findings.note("head", evidence(error)?);
                return Ok(report);
            }
        },
    };
    report.head = Some((head.state.seq, head.size));
    progress.begin(head.size + u64::from(BUCKETS));
    let task = Task {
        store: Arc::clone(store),
        realm: name.clone(),
        progress: Arc::clone(progress),
        beside: None,
    };
    let reader = reader(store, pool, name, &head, tree.clone(), edge.clone());
    if tree.is_some()
        && let Err(error) = realm::check(&reader, None).await
    {
        report.refused = Some(evidence(error)?);
    }
    let opener = apps.map(|apps| Opener { reader, apps });
    let walking = tokio::spawn({
        let (task, head) = (task.clone(), head.clone());
        async move { task.entries(&head, edge.as_ref(), Pace::FAST).await }
    });
    let (tree, digests) = task.tree(&head, tree).await?;
    let state = task.all_buckets(tree, opener).await;
    let walked = walking
        .await
        .map_err(|_| LedgerError::internal("go over the log"))??;
    report.log(walked);
    report.findings.append(digests);
    let (counts, findings) = state?;
    report.findings.append(findings);
    report.counts = Counts {
        entries: report.counts.entries,
        batches: report.counts.batches,
        bodies: report.counts.bodies,
        deleted_bodies: report.counts.deleted_bodies,
        ..counts
    };
    let strays = task.strays(head.size, &mut report.findings).await;
    report.findings.of("log_entries", strays)?;
    Ok(report)
}

impl Report {
    fn log(&mut self, mut walked: Walked) {
        walked.bodies.uncovered().tell(&mut walked.findings);
        self.counts.entries = walked.chain.size();
        self.counts.batches = walked.chain.batches();
        self.counts.bodies = walked.bodies.checked;
        self.counts.deleted_bodies = walked.bodies.deleted();
        self.findings.append(walked.findings);
    }
}

/// What an error says is wrong with the database, unless it says nothing about it.
fn evidence(error: LedgerError) -> Result<String, LedgerError> {
    match error {
        LedgerError::Tampered(what) | LedgerError::Refused(what) => Ok(what),
        LedgerError::Token(error @ custodyd_hsm::Error::Anchors { .. }) => Ok(error.to_string()),
        error => Err(error),
    }
}

/// A reader that opens records; what it believes of the state is not asked unless it is known.
fn reader(
    store: &Arc<dyn Store>,
    pool: &Pool,
    name: &RealmName,
    head: &Head,
    tree: Option<StateTree>,
    end: Option<LogEnd>,
) -> Reader {
    let believed = match (tree, end) {
        (Some(tree), Some(end)) => Believed {
            head: head.clone(),
            tree,
            end,
        },
        _ => Believed::nothing(name, Timestamp(0)),
    };
    Reader::new(
        Arc::clone(store),
        pool.clone(),
        name.clone(),
        Cache::new(0),
        Memory::new(believed, 0),
        Arc::default(),
    )
}

impl Task {
    /// The state tree of the head, from whatever folds to its root, and what the cached digests
    /// say otherwise.
    async fn tree(
        &self,
        head: &Head,
        known: Option<StateTree>,
    ) -> Result<(Option<StateTree>, Findings), LedgerError> {
        let mut findings = Findings::default();
        let cached = findings.of("bucket_digests", self.digests().await)?;
        let fits = |tree: &StateTree| tree.root() == head.state.state_root;
        let tree = known.or_else(|| cached.as_ref().map(StateTree::fold).filter(fits));
        let (tree, listed) = match tree {
            Some(tree) => (Some(tree), None),
            None => {
                let listed = findings.of("bucket_members", self.list_digests().await)?;
                let tree = listed.as_ref().map(StateTree::fold).filter(fits);
                (tree, listed)
            }
        };
        match (&tree, listed) {
            (Some(tree), _) => {
                if let Some(cached) = &cached {
                    differing(tree, cached, &mut findings);
                }
            }
            (None, Some(listed)) => {
                let cached = cached.unwrap_or_default();
                let odd = (0..BUCKETS).find(|bucket| cached.get(bucket) != listed.get(bucket));
                let place = odd.map_or(String::new(), |bucket| {
                    format!("; bucket {bucket} is the first that differs from its cached digest")
                });
                findings.note(
                    "bucket_members",
                    format!(
                        "the member lists are not those that the head names, nor are the cached \
                         digests: records are only held against the lists{place}"
                    ),
                );
            }
            (None, None) => {}
        }
        Ok((tree, findings))
    }

    async fn digests(&self) -> Result<BTreeMap<u32, Digest>, LedgerError> {
        let rows = self.store.digests().await?.examine().into_iter();
        Ok(rows
            .filter_map(|(bucket, digest)| Some((bucket, digest.try_into().ok()?)))
            .collect())
    }

    async fn list_digests(&self) -> Result<BTreeMap<u32, Digest>, LedgerError> {
        let (mut digests, mut next) = (BTreeMap::new(), 0);
        while next < BUCKETS {
            let rows = self.store.lists(next, BUCKETS).await?.examine();
            let Some((last, _)) = rows.last() else { break };
            next = last.saturating_add(1);
            for (bucket, list) in rows {
                let list = list.unwrap_or_default();
                digests.insert(bucket, bucket_digest(&self.realm, bucket, &list));
            }
        }
        Ok(digests)
    }

    /// Rows where no row can be.
    async fn strays(&self, size: u64, findings: &mut Findings) -> Result<(), LedgerError> {
        let found = self.store.strays(size).await?.examine();
        note_strays(found, findings);
        Ok(())
    }
}

fn note_strays(found: Vec<(&'static str, u64)>, findings: &mut Findings) {
    for (table, count) in found {
        findings.note(
            table,
            format!("{count} rows of {table} are at places that nothing names"),
        );
    }
}

/// Names the cached digests that are not those of the tree.
fn differing(tree: &StateTree, cached: &BTreeMap<u32, Digest>, findings: &mut Findings) {
    for bucket in 0..BUCKETS {
        if cached.get(&bucket).copied().unwrap_or_default() != tree.bucket(bucket) {
            odd_digest(bucket, findings);
        }
    }
}

fn odd_digest(bucket: u32, findings: &mut Findings) {
    findings.note(
        "bucket_digests",
        format!(
            "bucket {bucket}: its cached digest is not that of its member list (a cache: nothing \
             is believed of it)"
        ),
    );
}
