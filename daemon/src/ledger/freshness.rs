//! Whether what is believed is the newest: by the token's word, where the database's is all there is besides.
//!
//! A file is this process's alone, the operating system says so. Who else writes to a server, the server says, and
//! whoever administers it can say what they like: let a second daemon in, and leave the first one with a copy. What is
//! written shows that, because an anchor comes before every answer. What is only read would not: so nothing is read
//! for anybody unless the token was found, a second ago at the most, to remember what this process anchored last.
//!
//! Asked by `record` before it reads, on demand, so that an idle daemon leaves the token alone; answered by the
//! committer, who alone knows that no anchor of its own is under way. A frozen process must not take an old answer for
//! a new one: the clock is one that goes on while the host sleeps, and the answer's time is from before the question.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::LedgerError;
use crate::clock::Clock;

/// How long the token's word holds.
const HOLDS: Duration = Duration::from_secs(1);
/// How long a reader waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Since the host was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    confirmed: Option<Instant>,
    /// Counts the times that the token did not say so.
    failures: u64,
    ended: bool,
}

impl Told {
    fn holds(&self, now: Instant) -> bool {
        let confirmed = self.confirmed;
        confirmed.is_some_and(|at| now.0.saturating_sub(at.0) < HOLDS)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Freshness {
    needed: bool,
    asked: Arc<Notify>,
    told: watch::Sender<Told>,
    clock: Arc<Clock>,
}

impl Freshness {
    pub(super) fn new(needed: bool, clock: Arc<Clock>) -> Self {
        Self {
            needed,
            clock,
            asked: Arc::default(),
            told: watch::Sender::new(Told::default()),
        }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.clock.since_boot())
    }

    /// Whether it holds, without asking anybody.
    pub(super) fn holds(&self) -> bool {
        !self.needed || self.told.borrow().holds(self.now())
    }

    /// Returns once it holds.
    ///
    /// # Errors
    /// `Unconfirmed` where the token does not say so, or not in time; `Stopped` where nobody asks it any more.
    pub(super) async fn confirmed(&self) -> Result<(), LedgerError> {
        let mut told = self.told.subscribe();
        if self.holds() {
            return Ok(());
        }
        // An answer from after the question is good, however long it was on its way.
        let question = self.now();
        let good = |told: &Told| told.confirmed >= Some(question) || told.holds(self.now());
        let failures = told.borrow_and_update().failures;
        let answered = told.wait_for(|told| {
            let settled = told.ended || told.failures != failures || good(told);
            // Also where a word came that does not hold any more by now: nobody else would ask again.
            if !settled {
                self.asked.notify_one();
            }
            settled
        });
        let answered = tokio::time::timeout(PATIENCE, answered);
        let _ = answered.await.map(drop);
        if told.borrow().ended {
            return Err(LedgerError::Stopped);
        }
        if good(&told.borrow()) {
            return Ok(());
        }
        metrics::counter!("custodyd_reads_unconfirmed_total").increment(1);
        Err(LedgerError::Unconfirmed)
    }

    /// For the committer: returns when somebody wants to know.
    pub(super) async fn asked(&self) {
        match self.needed {
            true => self.asked.notified().await,
            false => std::future::pending().await,
        }
    }

    /// The token remembers what this process anchored last, or did at this moment at the earliest.
    pub(super) fn confirm(&self, at: Instant) {
        self.told
            .send_modify(|told| told.confirmed = told.confirmed.max(Some(at)));
    }

    /// The token says something else, or nothing.
    pub(super) fn fails(&self) {
        self.told
            .send_modify(|told| told.failures = told.failures.wrapping_add(1));
    }

    /// A reader has seen something newer, or something that was altered: whatever was confirmed, the next one asks.
    pub(super) fn doubt(&self) {
        self.told.send_modify(|told| told.confirmed = None);
        self.asked.notify_one();
    }

    /// Nobody asks the token from now on.
    pub(super) fn ends(&self) {
        self.told.send_modify(|told| told.ended = true);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_asked_nothing_and_a_server_needs_the_tokens_word_each_second() {
        assert!(
            Freshness::new(false, Arc::default())
                .confirmed()
                .await
                .is_ok()
        );
        let fresh = Freshness::new(true, Arc::default());
        assert!(!fresh.holds());
        let asker = {
            let fresh = fresh.clone();
            tokio::spawn(async move { fresh.confirmed().await })
        };
        fresh.asked().await;
        fresh.confirm(fresh.now());
        asker.await.unwrap().unwrap();
        assert!(fresh.holds());
        // An answer from before the question's second is none.
        let old = Freshness::new(true, Arc::default());
        old.confirm(Instant(old.now().0.saturating_sub(HOLDS)));
        assert!(!old.holds());
        let asker = {
            let old = old.clone();
            tokio::spawn(async move { old.confirmed().await })
        };
        old.asked().await;
        old.fails();
        let told = asker.await.unwrap();
        assert!(matches!(told, Err(LedgerError::Unconfirmed)), "{told:?}");
    }

    #[tokio::test]
    async fn a_word_that_is_too_old_when_it_comes_is_asked_for_again() {
        let fresh = Freshness::new(true, Arc::default());
        let asker = {
            let fresh = fresh.clone();
            tokio::spawn(async move { fresh.confirmed().await })
        };
        fresh.asked().await;
        fresh.confirm(Instant(fresh.now().0.saturating_sub(HOLDS)));
        let again = tokio::time::timeout(Duration::from_secs(2), fresh.asked());
        again.await.unwrap();
        fresh.confirm(fresh.now());
        asker.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_word_that_does_not_come_is_a_refusal_and_an_end_is_told_at_once() {
        let fresh = Freshness::new(true, Arc::default());
        let asker = {
            let fresh = fresh.clone();
            tokio::spawn(async move { fresh.confirmed().await })
        };
        fresh.asked().await;
        fresh.ends();
        let told = asker.await.unwrap();
        assert!(matches!(told, Err(LedgerError::Stopped)), "{told:?}");
        tokio::time::pause();
        let told = Freshness::new(true, Arc::default()).confirmed().await;
        assert!(matches!(told, Err(LedgerError::Unconfirmed)), "{told:?}");
    }
}
