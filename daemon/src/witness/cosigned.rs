//! What witnesses have cosigned: how long ago enough of them agreed, and on what.
//!
//! Written by `follow`, read by `service` for auditors. The newest checkpoint with enough
//! cosignatures is kept in a file beside the database, so that auditors get it while no witness can
//! be reached after a restart, and so that a restart does not begin the wait for a quorum anew. Whoever can write that
//! file can delete it or put an older one there, and gains no more than that wait: it is public, and every signature in
//! it is verified again when it is read.
//! After a crash: the file is the one before or the one after, whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use custodyd_hsm::PublicKey;

use super::disputes::Disputes;
use super::note::{Cosignature, Note, Statement};
use crate::config;
use crate::ledger::Checkpoint;

/// Checkpoints whose cosignatures are counted: a slow witness may be some behind the others.
const ROUNDS: usize = 8;
/// Of the file. More was not written here.
const MAX_FILE: u64 = 256 * 1024;

/// A checkpoint that enough witnesses have cosigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) size: u64,
    pub(crate) root: [u8; 32],
    /// With all of its signatures.
    pub(crate) note: String,
}

/// One that was read from the file.
struct Found {
    kept: Kept,
    /// Since when a quorum has cosigned it, by the witnesses' clocks: seconds since the Unix epoch.
    since: u64,
}

/// What is known of the cosignatures of this process's log.
#[derive(Debug)]
pub struct Cosigned {
    quorum: usize,
    alert_after: Duration,
    file: PathBuf,
    /// Whatever the file says of a quorum: the witnesses have so long to answer this process before they are missed.
    until_asked: Instant,
    pub(super) disputes: Disputes,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// When each witness has cosigned the checkpoint of a size.
    rounds: BTreeMap<u64, BTreeMap<String, Instant>>,
    newest: Option<Arc<Kept>>,
    /// When the last quorum was had; before the first one, when this began to wait.
    had: Instant,
    /// How long ago the last one of an earlier life was by then. None is of the wall clock once this process had one.
    before: Duration,
    missing: bool,
}

impl Cosigned {
    /// With what the file holds, as far as it verifies for this log by these keys.
    #[must_use]
    pub fn open(
        config: &config::Witnesses,
        file: PathBuf,
        origin: &str,
        log_keys: &[PublicKey],
    ) -> Self {
        let now = Instant::now();
        let found = match config.known.is_empty() {
            true => None,
            false => read(&file).and_then(|note| {
                let found = verified(&note, origin, log_keys, config);
                if found.is_none() {
                    tracing::warn!(
                        file = %file.display(),
                        "what is kept of witnesses' cosignatures does not verify for this log and its witnesses; it is not used"
                    );
                }
                found
            }),
        };
        // A host's clock that is behind the witnesses' makes this shorter, down to nothing: then it is as for a first
        // start. One that is ahead makes it longer, and the alert ends with the first quorum.
        let before = found.as_ref().map_or(Duration::ZERO, |found| {
            unix_now().saturating_sub(Duration::from_secs(found.since))
        });
        if let Some(found) = &found {
            metrics::gauge!("custodyd_witness_quorum_time_seconds").set(found.since as f64);
        }
        Self {
            quorum: config.quorum,
            alert_after: config.alert_after,
            disputes: Disputes::open(config, Disputes::file_of(&file)),
            file,
            until_asked: now + config.period.min(config.alert_after),
            inner: Mutex::new(Inner {
                rounds: BTreeMap::new(),
                newest: found.map(|found| Arc::new(found.kept)),
                had: now,
                before,
                missing: false,
            }),
        }
    }

    /// Where it is kept for a database: beside it, and never in its place.
    #[must_use]
    pub fn file_of(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push("-witnessed");
        name.into()
    }

    /// The newest checkpoint that enough have cosigned, with their lines.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.kept().map(|kept| kept.note.clone())
    }

    pub(super) fn kept(&self) -> Option<Arc<Kept>> {
        self.lock().newest.clone()
    }

    /// What was kept is not of this log: evidence, and nothing to show as its newest.
    pub(super) fn forget(&self, kept: &Arc<Kept>) {
        let newest = &mut self.lock().newest;
        if newest
            .as_ref()
            .is_some_and(|newest| Arc::ptr_eq(newest, kept))
        {
            *newest = None;
        }
    }

    /// A witness has cosigned a checkpoint. Returns what is to be written to the file now.
    pub(super) fn add(
        &self,
        witness: &str,
        checkpoint: &Checkpoint,
        cosignature: &Cosignature,
    ) -> Option<Arc<Kept>> {
        checkpoint.add_cosignature(witness, &cosignature.line);
        if !self.count(witness, checkpoint.size(), Instant::now()) {
            return None;
        }
        let note = checkpoint.cosigned_note();
        let statement = Statement::parse(checkpoint.text())?;
        let kept = Arc::new(Kept {
            size: statement.size,
            root: statement.root,
            note,
        });
        let mut inner = self.lock();
        let older = inner
            .newest
            .as_ref()
            .is_none_or(|known| known.size <= kept.size);
        older.then(|| {
            inner.newest = Some(Arc::clone(&kept));
            kept
        })
    }

    /// Counts a cosignature; whether the checkpoint of this size has enough now.
    fn count(&self, witness: &str, size: u64, now: Instant) -> bool {
        let mut inner = self.lock();
        let round = inner.rounds.entry(size).or_default();
        round.insert(witness.to_owned(), now);
        let mut times: Vec<Instant> = round.values().copied().collect();
        while inner.rounds.len() > ROUNDS {
            inner.rounds.pop_first();
        }
        // The oldest of the newest ones that make a quorum.
        times.sort_unstable_by(|a, b| b.cmp(a));
        let Some(had) = times.get(self.quorum.saturating_sub(1)) else {
            return false;
        };
        inner.had = inner.had.max(*had);
        inner.before = Duration::ZERO;
        metrics::gauge!("custodyd_witness_quorum_time_seconds").set(unix(inner.had.elapsed()));
        true
    }

    /// Whether the last quorum is too long ago; says so where that has changed.
    pub(super) fn look(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        let age = now
            .saturating_duration_since(inner.had)
            .saturating_add(inner.before);
        let missing = age > self.alert_after && now > self.until_asked;
        metrics::gauge!("custodyd_witness_quorum_missing").set(if missing { 1.0 } else { 0.0 });
        if missing && !inner.missing {
            tracing::warn!(
                quorum = self.quorum,
                seconds = age.as_secs(),
                "too few witnesses have cosigned the log for too long; it goes on, and nobody outside vouches for what follows"
            );
        }
        if !missing && inner.missing {
            tracing::info!(
                quorum = self.quorum,
                "enough witnesses cosign the log again"
            );
        }
        inner.missing = missing;
        missing
    }

    /// Writes it for the next life. What goes wrong is logged: nobody has to wait for a disk here.
    pub(super) async fn write(&self, kept: &Kept) {
        if let Err(error) = replace(&self.file, &kept.note).await {
            tracing::warn!(file = %self.file.display(), %error, "witnesses' cosignatures could not be kept");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time so long ago, since the Unix epoch.
fn unix(ago: Duration) -> f64 {
    unix_now().saturating_sub(ago).as_secs_f64()
}

fn unix_now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

pub(super) fn read(file: &Path) -> Option<String> {
    let length = std::fs::metadata(file).ok()?.len();
    (length <= MAX_FILE).then(|| std::fs::read_to_string(file).ok())?
}

pub(super) async fn replace(file: &Path, note: &str) -> std::io::Result<()> {
    let mut draft = file.as_os_str().to_owned();
    draft.push("-new");
    tokio::fs::write(&draft, note).await?;
    tokio::fs::rename(&draft, file).await
}

/// A kept note as what it says, if this log has signed it and enough witnesses too.
fn verified(
    note: &str,
    origin: &str,
    log_keys: &[PublicKey],
    config: &config::Witnesses,
) -> Option<Found> {
    let parsed = Note::parse(note)?;
    let statement = Statement::parse(parsed.text)?;
    let by = |one: &config::Witness| {
        let found = one.key.cosignature(parsed.text, &parsed.signatures);
        found.ok().flatten().map(|found| found.time)
    };
    let mut times: Vec<u64> = config.known.iter().filter_map(by).collect();
    // As while it is counted: the oldest of the newest ones that make a quorum. One whose clock is wrong changes
    // nothing where another makes it up.
    times.sort_unstable_by(|a, b| b.cmp(a));
    let since = *times.get(config.quorum.saturating_sub(1))?;
    let good = statement.origin == origin && parsed.is_signed_by(origin, log_keys);
    good.then(|| Found {
        kept: Kept {
            size: statement.size,
            root: statement.root,
            note: note.to_owned(),
        },
        since,
    })
}

#[cfg(test)]
mod tests;
