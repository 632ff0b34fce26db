//! Who asks, as far as one request has shown it: nobody, a stranger, or a bound device.
//!
//! Begun by `http::strangers` around a request and asked by it afterwards; moved on by
//! `http::request`, when a proof has verified, and by this module's siblings, when the device
//! turns out to be bound to the account that was named. It travels beside the request's task
//! rather than through every signature, so that a new route is a stranger's until it says
//! otherwise: forgetting is slow, and never tells. Nothing may be *allowed* because of it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static ASKING: Arc<Asking>;
}

/// What a request has shown so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// No proof has verified, or no account was named: there is nothing to learn.
    Nobody,
    /// Somebody who is not known to be bound to the account they name.
    Stranger,
    /// A device that is bound to the account.
    Bound,
}

const NOBODY: u8 = 0;
const STRANGER: u8 = 1;
const BOUND: u8 = 2;

#[derive(Debug)]
pub struct Asking {
    address: Option<IpAddr>,
    standing: AtomicU8,
    arrived: OnceLock<Instant>,
    /// Nanoseconds that it would have waited until now, and that its answer still has to.
    owed: AtomicU64,
    /// Its guess is among the realm's failures already, or never will be: whatever it is answered.
    counted: AtomicBool,
}

impl Asking {
    #[must_use]
    pub fn from(address: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self {
            address,
            standing: AtomicU8::new(NOBODY),
            arrived: OnceLock::new(),
            owed: AtomicU64::new(0),
            counted: AtomicBool::new(false),
        })
    }

    /// Whether its answer says that a guess was wrong which nobody has counted.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.standing() != Standing::Nobody && !self.counted.load(Ordering::Acquire)
    }

    /// Runs the request's work with this beside it.
    pub async fn during<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        ASKING.scope(Arc::clone(self), work).await
    }

    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            STRANGER => Standing::Stranger,
            BOUND => Standing::Bound,
            _ => Standing::Nobody,
        }
    }

    /// When the last byte of the request was here.
    #[must_use]
    pub fn arrived(&self) -> Option<Instant> {
        self.arrived.get().copied()
    }

    /// How long its work has taken since then, with what it would have waited meanwhile.
    #[must_use]
    pub fn worked(&self) -> Option<Duration> {
        let owed = Duration::from_nanos(self.owed.load(Ordering::Acquire));
        let worked = self.arrived()?.elapsed();
        Some(worked.saturating_add(owed))
    }
}

/// What stands beside this task, for one that goes on with its request.
pub fn current() -> Option<Arc<Asking>> {
    ASKING.try_with(Arc::clone).ok()
}

fn tell(standing: u8) {
    let _ = ASKING.try_with(|asking| asking.standing.store(standing, Ordering::Release));
}

/// The request is whole. Time is measured from here and not from its first byte: whoever sends
/// the rest of a body slowly would otherwise choose how far from the deadline the work begins.
pub fn arrived() {
    let _ = ASKING.try_with(|asking| asking.arrived.get_or_init(Instant::now).to_owned());
}

/// A proof has verified: from here on an answer may tell something.
pub fn proven() {
    tell(STRANGER);
}

/// The device is bound to the account that it named.
pub(super) fn bound() {
    tell(BOUND);
}

/// No account was named, so that the answer tells nothing about one.
pub(super) fn names_nobody() {
    tell(NOBODY);
}

/// The request's guess is counted, and its answer is not to be. Says whether this is the first word of it; of a
/// request with a session it is none, for no answer of those is counted.
pub(super) fn is_counted() -> bool {
    let first = |asking: &Arc<Asking>| !asking.counted.swap(true, Ordering::AcqRel);
    ASKING.try_with(first).unwrap_or(false)
}

/// When the request was whole.
pub(super) fn arrived_at() -> Option<Instant> {
    ASKING.try_with(|asking| asking.arrived()).ok().flatten()
}

/// How long the request's work has taken, with what it would have waited.
pub(super) fn worked() -> Option<Duration> {
    ASKING.try_with(|asking| asking.worked()).ok().flatten()
}

/// The answer is to leave as if the request had waited so long here.
pub(super) fn owes(wait: Duration) {
    let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    let _ = ASKING.try_with(|asking| asking.owed.fetch_add(nanos, Ordering::AcqRel));
}

/// The address that the request came from.
pub(super) fn address() -> Option<IpAddr> {
    ASKING.try_with(|asking| asking.address).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_a_strangers_from_its_proof_until_its_device_is_known() {
        let asking = Asking::from(None);
        let seen = Arc::clone(&asking);
        asking
            .during(async move {
                assert_eq!(seen.standing(), Standing::Nobody);
                arrived();
                proven();
                assert_eq!(seen.standing(), Standing::Stranger);
                bound();
            })
            .await;
        assert_eq!(asking.standing(), Standing::Bound);
        assert!(asking.arrived().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_request_would_have_waited_counts_as_work() {
        let asking = Asking::from(None);
        asking
            .during(async move {
                owes(Duration::from_millis(40));
                assert_eq!(worked(), None, "not here yet");
                arrived();
                tokio::time::advance(Duration::from_millis(30)).await;
                owes(Duration::from_millis(30));
                assert_eq!(worked(), Some(Duration::from_millis(100)));
            })
            .await;
        assert!(asking.worked() >= Some(Duration::from_millis(100)));
    }

    #[tokio::test]
    async fn a_guess_is_counted_by_its_answer_unless_it_was_before() {
        let asking = Asking::from(None);
        assert!(!asking.counts());
        let seen = Arc::clone(&asking);
        asking
            .during(async move {
                proven();
                assert!(seen.counts());
                assert!(is_counted());
                assert!(!seen.counts() && !is_counted());
            })
            .await;
        // Beside a request with a session there is nothing to count.
        assert!(!is_counted());
    }

    #[test]
    fn outside_a_request_it_is_nothing() {
        proven();
        arrived();
        assert_eq!(address(), None);
    }
}
