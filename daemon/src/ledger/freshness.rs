//! Whether what is believed is the newest: by the token's word, where the database's is all there is besides.
//!
//! A file is this process's alone, the operating system says so. Who else writes to a server, the server says, and
//! whoever administers it can say what they like: let a second daemon in, and leave the first one with a copy. What is
//! written shows that, because an anchor comes before every answer. What is only read would not: so nothing is read
//! for anybody unless the token was found, a second ago at the most, to remember what this process anchored last.
//!
//! A reader that was shown something newer by the server wants an answer that is newer than its *question*. What that
//! takes from nobody else is the word of before: the others read on by it, for its second. Whoever asks at once shares
//! one answer, and a batch that is believed by then, at whoever's wish, answers those to whom the server has shown no later one.
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

/// Why nobody knows whether this is the newest state.
#[derive(Clone, Debug)]
struct Why {
    text: Arc<str>,
    /// It is not, and never will be again: a custodyd of this age serves it no longer.
    outgrown: bool,
}

/// What a reader wants to know besides the word of before.
#[derive(Clone, Copy, Debug)]
struct Question {
    /// Answered by what the token was asked for after this.
    at: Instant,
    /// And by this batch, once it is believed: the server has shown its number, which may be a lie.
    batch: Option<u64>,
}

impl Question {
    /// Both: what answers it answers each.
    fn and(self, other: Self) -> Self {
        Self {
            at: self.at.max(other.at),
            batch: self
                .batch
                .zip(other.batch)
                .map(|(one, other)| one.max(other)),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Told {
    confirmed: Option<Instant>,
    /// When the word of before was last found to be of what may be there no more: one that was asked for earlier answers
    /// whoever had asked by then, and holds for nobody else.
    doubted: Option<Instant>,
    /// The newest batch that readers were said to have.
    believed: u64,
    /// All that was asked since everything was answered.
    question: Option<Question>,
    /// Counts the times that the token did not say so.
    failures: u64,
    /// Why it was so the last time, until it says it again.
    why: Option<Why>,
    ended: bool,
}

impl Told {
    fn holds(&self, now: Instant) -> bool {
        let confirmed = self.confirmed.filter(|at| Some(*at) >= self.doubted);
        confirmed.is_some_and(|at| now.0.saturating_sub(at.0) < HOLDS)
    }

    fn answers(&self, question: &Question) -> bool {
        let believed = question.batch.is_some_and(|batch| self.believed >= batch);
        believed || self.confirmed >= Some(question.at)
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

    /// The same, and nobody waits for a newer word: then the committer need not ask.
    pub(super) fn suffices(&self) -> bool {
        let answered = {
            let told = self.told.borrow();
            told.question.is_none_or(|question| told.answers(&question))
        };
        answered && self.holds()
    }

    /// Returns once it holds.
    ///
    /// # Errors
    /// `Unconfirmed` where the token does not say so, or not in time; `Outgrown` where it says that this custodyd is too old;
    /// `Stopped` where nobody asks it any more.
    pub(super) async fn confirmed(&self) -> Result<(), LedgerError> {
        if self.holds() {
            return Ok(());
        }
        // An answer from after the question is good, however long it was on its way.
        let question = self.now();
        let good = |told: &Told| told.confirmed >= Some(question) || told.holds(self.now());
        self.until(good, 1).await
    }

    /// Returns once the token was asked after this call, or this batch is believed, where one is named. A look that failed
    /// may have been on a connection that died with what was written elsewhere: it is one of two.
    ///
    /// # Errors
    /// As `confirmed`.
    pub(super) async fn answered(&self, batch: Option<u64>) -> Result<(), LedgerError> {
        let at = self.now();
        let question = Question { at, batch };
        self.told.send_if_modified(|told| {
            let open = told.question.filter(|open| !told.answers(open));
            told.question = Some(open.map_or(question, |open| open.and(question)));
            // Nobody's answer is another for it.
            false
        });
        self.until(|told| told.answers(&question), 2).await
    }

    /// Until it is good, or was not so often.
    async fn until(&self, good: impl Fn(&Told) -> bool, often: u64) -> Result<(), LedgerError> {
        let mut told = self.told.subscribe();
        let failures = told.borrow_and_update().failures;
        let answered = told.wait_for(|told| {
            let failed = told.failures.wrapping_sub(failures);
            let outgrown = told.why.as_ref().is_some_and(|why| why.outgrown);
            let refused = failed >= often || (failed > 0 && outgrown);
            let settled = told.ended || refused || good(told);
            // Also where a word came that is not good any more by now: nobody else would ask again.
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
        let told = told.borrow();
        Err(match &told.why {
            Some(why) if why.outgrown && told.failures != failures => {
                LedgerError::Outgrown(why.text.to_string())
            }
            _ => LedgerError::Unconfirmed,
        })
    }

    /// As `confirmed`, for an operator: a refusal says why.
    pub(super) async fn confirmed_or_why(&self) -> Result<(), LedgerError> {
        let confirmed = self.confirmed().await;
        let why = self.told.borrow().why.clone();
        match (confirmed, why) {
            (Err(LedgerError::Unconfirmed), Some(why)) => Err(LedgerError::Refused(format!(
                "{}: {}",
                LedgerError::Unconfirmed,
                why.text
            ))),
            (confirmed, _) => confirmed,
        }
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
        self.told.send_modify(|told| {
            told.confirmed = told.confirmed.max(Some(at));
            told.why = None;
        });
    }

    /// What is believed is this batch from now on, and no fork can take it back.
    pub(super) fn believes(&self, batch: u64) {
        self.told
            .send_modify(|told| told.believed = told.believed.max(batch));
    }

    /// The token says something else, or nothing.
    pub(super) fn fails(&self, error: &LedgerError) {
        let why = Why {
            text: error.to_string().into(),
            outgrown: matches!(error, LedgerError::Outgrown(_)),
        };
        self.told.send_modify(|told| {
            told.failures = told.failures.wrapping_add(1);
            told.why = Some(why);
        });
    }

    /// What the token said was of a database that may not be the one which is there now: whatever was confirmed, the next
    /// one asks.
    pub(super) fn doubt(&self) {
        let now = self.now();
        self.told
            .send_modify(|told| told.doubted = told.doubted.max(Some(now)));
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
        old.fails(&LedgerError::Overtaken);
        let told = asker.await.unwrap();
        assert!(matches!(told, Err(LedgerError::Unconfirmed)), "{told:?}");
    }

    #[tokio::test]
    async fn an_operator_is_told_why_and_everybody_where_this_custodyd_is_too_old() {
        let fresh = Freshness::new(true, Arc::default());
        let fails = async |error: LedgerError, of_an_operator: bool| {
            let asker = {
                let fresh = fresh.clone();
                tokio::spawn(async move {
                    match of_an_operator {
                        true => fresh.confirmed_or_why().await,
                        false => fresh.confirmed().await,
                    }
                })
            };
            fresh.asked().await;
            fresh.fails(&error);
            asker.await.unwrap().unwrap_err()
        };
        let old = || LedgerError::Outgrown("schema 9".into());
        let back = || LedgerError::Refused("rolled back".into());
        for of_an_operator in [false, true] {
            let told = fails(old(), of_an_operator).await;
            assert!(matches!(&told, LedgerError::Outgrown(why) if why == "schema 9"));
        }
        let told = fails(back(), true).await.to_string();
        assert!(told.ends_with("is the newest: rolled back"), "{told}");
        assert!(matches!(
            fails(back(), false).await,
            LedgerError::Unconfirmed
        ));
        // It was so then; nobody knows why it is not now.
        fresh.confirm(fresh.now());
        fresh.doubt();
        assert!(fresh.told.borrow().why.is_none());
    }

    #[test]
    fn a_word_that_was_asked_for_before_a_doubt_is_none() {
        let fresh = Freshness::new(true, Arc::default());
        let before = fresh.now();
        fresh.confirm(before);
        assert!(fresh.holds(), "the control");
        fresh.doubt();
        fresh.confirm(before);
        assert!(!fresh.holds());
        fresh.confirm(fresh.now());
        assert!(fresh.holds());
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

    /// Somebody who asks for more than the word that holds.
    fn asks(
        fresh: &Freshness,
        batch: Option<u64>,
    ) -> tokio::task::JoinHandle<Result<(), LedgerError>> {
        let fresh = fresh.clone();
        tokio::spawn(async move { fresh.answered(batch).await })
    }

    #[tokio::test]
    async fn who_wants_a_newer_word_takes_the_one_of_before_from_nobody() {
        let fresh = Freshness::new(true, Arc::default());
        let before = fresh.now();
        fresh.confirm(before);
        assert!(fresh.suffices());
        let askers = [
            asks(&fresh, None),
            asks(&fresh, Some(7)),
            asks(&fresh, Some(u64::MAX)),
        ];
        fresh.asked().await;
        for _ in 0..askers.len() {
            tokio::task::yield_now().await;
        }
        assert!(fresh.holds() && !fresh.suffices());
        // An answer that was under way already is none; one of after the questions is everybody's.
        fresh.confirm(before);
        tokio::task::yield_now().await;
        assert!(askers.iter().all(|asker| !asker.is_finished()));
        fresh.confirm(fresh.now());
        for asker in askers {
            asker.await.unwrap().unwrap();
        }
        assert!(fresh.suffices());
    }

    #[tokio::test]
    async fn a_batch_that_is_believed_answers_whom_the_server_has_shown_no_later_one() {
        let fresh = Freshness::new(true, Arc::default());
        fresh.confirm(fresh.now());
        let [seventh, eighth, lied_to] = [7, 8, u64::MAX].map(|batch| asks(&fresh, Some(batch)));
        fresh.asked().await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        fresh.believes(7);
        seventh.await.unwrap().unwrap();
        assert!(!eighth.is_finished() && !lied_to.is_finished());
        assert!(!fresh.suffices());
        // To a number that is never reached the token's word is the answer, and to it alone.
        fresh.believes(8);
        eighth.await.unwrap().unwrap();
        assert!(!lied_to.is_finished() && !fresh.suffices());
        fresh.confirm(fresh.now());
        lied_to.await.unwrap().unwrap();
        assert!(fresh.suffices());
        // What was a lie is none of the next question's.
        let next = asks(&fresh, Some(9));
        fresh.asked().await;
        fresh.believes(9);
        next.await.unwrap().unwrap();
        assert!(fresh.suffices());
    }
}
