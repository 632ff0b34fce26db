//! Whether changes are written: by how the last turns and commits ended, not by what a database says of itself.
//!
//! Told by the committer, asked by readiness. A database can answer every read and take nothing: its disk is full, somebody
//! holds a lock, the schema was touched, a row stands where the next one belongs. Nobody is sent to a node that is not ready, so
//! no change would come and find out that it is over: whoever asks while the last one failed has a batch about nothing
//! tried (`Order::Probe`), one at a time. Must never be what a change waits for, or is refused by.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::LedgerError;
use crate::store::StoreError;

/// Failures without a success between them.
const IN_A_ROW: u32 = 2;
/// For so long at least: a lost connection or another node's long turn are over by then.
const FOR: Duration = Duration::from_secs(3);
/// Nor does a turn or a commit take longer, whether it will end well or not. One that has failed after so long is enough.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Writes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when the committer is at a turn or a commit.
    under_way: Option<Instant>,
    failed: Option<Failed>,
    /// A probe is on its way to the committer.
    probing: bool,
}

/// What happened since a batch was written last.
#[derive(Debug)]
struct Failed {
    times: u32,
    /// When the first of them began.
    since: Instant,
    why: String,
}

/// What the committer is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Turn,
    Commit,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Commit => "commit",
        }
    }
}

impl Writes {
    pub(super) fn begin(&self) {
        self.lock().under_way = Some(Instant::now());
    }

    /// A turn that was had shows nothing yet: with one daemon there is nothing to be had.
    pub(super) fn end(&self, step: Step, failure: Option<&LedgerError>) {
        let mut state = self.lock();
        let began = state.under_way.take().unwrap_or_else(Instant::now);
        let Some(error) = failure else {
            if step == Step::Commit {
                state.failed = None;
            }
            return;
        };
        if let LedgerError::Store(StoreError::Altered { .. }) = error {
            tracing::error!(%error, "the database was tampered with, and takes no batch");
            metrics::counter!("custodyd_tampered_total").increment(1);
        }
        metrics::counter!("custodyd_write_failures_total", "step" => step.name(), "why" => why(error))
            .increment(1);
        let failed = state.failed.get_or_insert_with(|| Failed {
            times: 0,
            since: began,
            why: String::new(),
        });
        let counts = match began.elapsed() >= LONGEST {
            true => IN_A_ROW,
            false => 1,
        };
        failed.times = failed.times.saturating_add(counts);
        failed.why = error.to_string();
    }

    /// Why nothing is written, where that is so.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.lock();
        if let Some(failed) = &state.failed
            && failed.times >= IN_A_ROW
            && failed.since.elapsed() >= FOR
        {
            return Some(format!(
                "nothing was written for {} s: {}",
                failed.since.elapsed().as_secs(),
                failed.why
            ));
        }
        let under_way = state.under_way?.elapsed();
        (under_way >= LONGEST).then(|| {
            format!(
                "the committer has waited for the database for {} s",
                under_way.as_secs()
            )
        })
    }

    /// Whether the last one failed.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    /// Whether to send a probe now: it is taken for sent.
    pub(super) fn wants_probe(&self) -> bool {
        let mut state = self.lock();
        state.failed.is_some() && !std::mem::replace(&mut state.probing, true)
    }

    /// It has arrived, or never will.
    pub(super) fn is_probed(&self) {
        self.lock().probing = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For metrics: a few words, from a fixed list.
fn why(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Token(_) => "token",
        LedgerError::Tampered(_) | LedgerError::Store(StoreError::Altered { .. }) => "tampered",
        LedgerError::Store(_) => "database",
        LedgerError::Refused(_) | LedgerError::Outgrown(_) => "refused",
        LedgerError::Overtaken | LedgerError::Late(_) | LedgerError::Unconfirmed => "others",
        LedgerError::Stopped => "stopped",
        _ => "own",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_failures_in_a_row_are_trouble_once_they_last() {
        let writes = Writes::default();
        let fails = |step| writes.end(step, Some(&LedgerError::Late("to be tried")));
        let wait = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        fails(Step::Commit);
        wait(60).await;
        assert_eq!(writes.trouble(), None, "one may be anybody's");
        fails(Step::Turn);
        let trouble = writes.trouble().unwrap();
        assert!(trouble.contains("to be tried"), "{trouble}");
        // A turn alone writes nothing.
        writes.end(Step::Turn, None);
        assert!(writes.trouble().is_some());
        writes.end(Step::Commit, None);
        assert_eq!(writes.trouble(), None);
        for _ in 0..5 {
            fails(Step::Commit);
        }
        assert_eq!(writes.trouble(), None, "it may be over in a moment");
        wait(3).await;
        assert!(writes.trouble().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_trouble() {
        let writes = Writes::default();
        writes.begin();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(writes.trouble(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(writes.trouble().is_some());
        // Nor is it over once that has failed, while the next one is tried.
        writes.end(Step::Commit, Some(&LedgerError::Unconfirmed));
        writes.begin();
        assert!(writes.trouble().is_some());
        writes.end(Step::Commit, None);
        assert_eq!(writes.trouble(), None);
    }

    #[test]
    fn one_probe_at_a_time_and_none_where_nothing_failed() {
        let writes = Writes::default();
        assert!(!writes.wants_probe());
        writes.end(Step::Turn, Some(&LedgerError::Overtaken));
        assert!(writes.wants_probe() && !writes.wants_probe());
        writes.is_probed();
        assert!(writes.wants_probe());
    }
}
