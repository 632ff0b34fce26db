//! The scrub: the whole database, held against what this daemon believes, while it serves.
//!
//! Called by the daemon's background task. It reads as slowly as its period allows, writes
//! nothing and takes no lock that anybody waits for. What it reads may be a batch ahead of
//! memory, or behind it: what does not agree is read again before it is called wrong. One corrupt
//! row stops nothing: the scrub names it, and the rest is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::bodies::{self, Uncovered};
use super::{Counts, Findings, Pace, Progress, Task};
use crate::ledger::log::{LEAF_ERASURE, LEAF_RETENTION, Prover};
use crate::ledger::record::Reader;
use crate::ledger::tree::BUCKETS;
use crate::ledger::{Head, Ledger, LedgerError, start};

/// Reads of something that a batch may have overtaken, and the pause between them.
const READS: u32 = 8;
const BETWEEN_READS: Duration = Duration::from_millis(50);
/// What is read at a time: a few milliseconds of work.
const ENTRIES: u64 = 512;
const BUCKETS_AT_ONCE: u32 = 64;
/// Entries that are not written within a read.
const FAR: u64 = 1 << 20;

/// A pass that went over everything.
#[derive(Debug)]
pub struct Scrubbed {
    pub counts: Counts,
    pub findings: Findings,
}

impl Ledger {
    /// Goes over the whole database once, in about `lasting`; `first` says with which of the
    /// buckets to begin. What it finds is logged and counted at once.
    ///
    /// # Errors
    /// Token or store unavailable: the pass ends there.
    pub async fn scrub(&self, first: u32, lasting: Duration) -> Result<Scrubbed, LedgerError> {
        let reader = &self.reader;
        reader.catches_up().await;
        let (head, edge) = {
            let believed = reader.memory().read();
            (believed.head.clone(), believed.end.clone())
        };
        let steps = head.size.div_ceil(ENTRIES) + u64::from(BUCKETS / BUCKETS_AT_ONCE);
        let pace = Pace {
            entries: ENTRIES,
            buckets: BUCKETS_AT_ONCE,
            rest: lasting / u32::try_from(steps).unwrap_or(u32::MAX),
        };
        let task = Task {
            store: Arc::clone(reader.store()),
            realm: reader.realm().clone(),
            progress: Arc::new(Progress::default()),
            beside: Some(Arc::clone(reader)),
        };
        let walked = task.entries(&head, Some(&edge), pace).await?;
        let mut findings = walked.findings;
        let uncovered = walked.bodies.uncovered();
        let judged = task.judge_uncovered(reader, head.size, uncovered, &mut findings);
        let judged = judged.await;
        findings.of("log_entries", judged)?;
        task.head_row(reader, &mut findings).await?;
        let compared = task.cached_digests(reader, &mut findings).await;
        findings.of("bucket_digests", compared)?;
        let looked = task.beyond_the_end(reader, &mut findings).await;
        findings.of("log_entries", looked)?;
        let slices = pace.slices();
        let from_first = (0..slices).map(|nth| first.wrapping_add(nth) % slices);
        let (counts, later) = task.buckets(None, from_first, None, pace).await?;
        findings.append(later);
        let counts = Counts {
            entries: walked.chain.size(),
            batches: walked.chain.batches(),
            bodies: walked.bodies.checked,
            deleted_bodies: walked.bodies.deleted(),
            ..counts
        };
        Ok(Scrubbed { counts, findings })
    }
}

impl Task {
    /// Entries without a body: leaves that came since the pass began may cover them.
    async fn judge_uncovered(
        &self,
        reader: &Reader,
        mut from: u64,
        mut uncovered: Uncovered,
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        let mut settled = reader.memory().settled();
        for _ in 0..READS {
            if uncovered.is_empty() {
                return Ok(());
            }
            settled.mark_unchanged();
            let end = reader.memory().read().end.clone();
            let prover = Prover {
                store: &self.store,
                end: &end,
            };
            while from < end.size() {
                let count = ENTRIES.min(end.size() - from);
                for (index, leaf) in (from..).zip(start::leaves(&self.store, from, count).await?) {
                    if !matches!(leaf.first(), Some(&(LEAF_ERASURE | LEAF_RETENTION))) {
                        continue;
                    }
                    if let Err(LedgerError::Tampered(what)) = prover.inclusion(index, &leaf).await {
                        findings.note("log_entries", what);
                        continue;
                    }
                    let row = self.store.event(index).await?.examine();
                    let row = row.filter(|row| row.leaf == leaf);
                    if let Some(entries) = row.and_then(|row| bodies::covered(&row)) {
                        uncovered.cover(&entries);
                    }
                }
                from += count;
            }
            // The batch that took them may be durable and not anchored yet.
            let _ = tokio::time::timeout(BETWEEN_READS, settled.changed()).await;
        }
        uncovered.tell(findings);
        Ok(())
    }

    /// Rows at places that nothing names. Beyond the end of the log stands what a batch writes meanwhile, and what was
    /// planted there to make the next one fail: the first is gone over by a head that is shown afterwards.
    async fn beyond_the_end(
        &self,
        reader: &Reader,
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        for _ in 0..READS {
            reader.catches_up().await;
            let (seq, size) = {
                let believed = reader.memory().read();
                (believed.head.state.seq, believed.end.size())
            };
            let found = self.store.strays(size).await?.examine();
            if found.is_empty() {
                return Ok(());
            }
            // The rows of a batch come with its head, and were looked for before this.
            let shown = self.store.head().await.map(|row| row.examine());
            if matches!(shown, Ok(Some(row)) if row.seq == seq)
                && reader.memory().head().state.seq == seq
            {
                super::note_strays(found, findings);
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_READS).await;
        }
        // Writing never rests, so nothing is in its way: what is farther away than it comes within a read may be yet.
        let far = reader.memory().read().end.size().saturating_add(FAR);
        self.strays(far, findings).await
    }

    /// The head row is the one in memory, or a batch ahead of it.
    async fn head_row(&self, reader: &Reader, findings: &mut Findings) -> Result<(), LedgerError> {
        for nth in 0..READS {
            reader.catches_up().await;
            let before = reader.memory().head().state.seq;
            let row = match self.store.head().await {
                Ok(row) => row.examine(),
                Err(error) => match LedgerError::from(error) {
                    LedgerError::Tampered(what) => {
                        findings.note("head", what);
                        return Ok(());
                    }
                    error => return Err(error),
                },
            };
            let Some(row) = row else {
                findings.note("head", "the head row is missing".into());
                return Ok(());
            };
            let shown = match Head::parse(&row, &self.realm) {
                Ok(head) => head,
                Err(what) => {
                    findings.note("head", what);
                    return Ok(());
                }
            };
            let memory = reader.memory();
            if shown == memory.head() || memory.pending().as_ref() == Some(&shown) {
                let made = Head::authentic(reader.pool(), &self.realm, &row).await;
                if let Err(LedgerError::Tampered(what)) = made {
                    findings.note("head", what);
                    return Ok(());
                }
                return made;
            }
            let moved = memory.head().state.seq != before;
            if shown.state.seq < before || (nth + 1 == READS && !moved) {
                findings.note(
                    "head",
                    format!(
                        "the database shows batch {}, and the newest is batch {before}: it was put \
                         back, or another process writes",
                        shown.state.seq
                    ),
                );
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_READS).await;
        }
        Ok(())
    }

    /// Cached digests that stay wrong however often they are read.
    async fn cached_digests(
        &self,
        reader: &Reader,
        findings: &mut Findings,
    ) -> Result<(), LedgerError> {
        let mut odd: BTreeSet<u32> = (0..BUCKETS).collect();
        for _ in 0..READS {
            reader.catches_up().await;
            let cached: BTreeMap<_, _> = self.digests().await?;
            {
                let believed = reader.memory().read();
                odd.retain(|bucket| {
                    let digest = cached.get(bucket).copied().unwrap_or_default();
                    digest != believed.tree.bucket(*bucket)
                });
            }
            if odd.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_READS).await;
        }
        for bucket in odd {
            super::odd_digest(bucket, findings);
        }
        Ok(())
    }
}
