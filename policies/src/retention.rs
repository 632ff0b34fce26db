//! When traces of a person have been kept for long enough.
//!
//! Called by the daemon's retention run, which erases; the times come from opened envelopes and the verified log. Must
//! never say yes for a time that lies in the future, as after a clock was set back.

use crate::app::Retention;
use crate::time::Timestamp;

/// Whether an account last used at `last_used` may be erased for want of use. Any session, also a read-only one, and
/// any renewal of one is a use.
#[must_use]
pub fn is_inactive(policy: &Retention, last_used: Timestamp, now: Timestamp) -> bool {
    policy
        .inactive
        .is_some_and(|span| now >= last_used.plus(span))
}

/// Whether the body of an event that was logged at `logged` has to go. Its leaf stays.
#[must_use]
pub fn event_ends(policy: &Retention, logged: Timestamp, now: Timestamp) -> bool {
    now >= logged.plus(policy.events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn policy(inactive: Option<u64>) -> Retention {
        Retention {
            inactive: inactive.map(Duration::from_secs),
            events: Duration::from_secs(50),
        }
    }

    #[test]
    fn an_account_is_inactive_at_the_end_of_the_span() {
        let at = |now| is_inactive(&policy(Some(100)), Timestamp(10), Timestamp(now));
        assert!(!at(5) && !at(109));
        assert!(at(110));
    }

    #[test]
    fn without_a_span_no_account_ever_is() {
        let end = Timestamp(u64::MAX);
        assert!(!is_inactive(&policy(None), Timestamp(0), end));
    }

    #[test]
    fn events_end_after_their_own_span() {
        let at = |now| event_ends(&policy(None), Timestamp(10), Timestamp(now));
        assert!(!at(5) && !at(59));
        assert!(at(60));
    }
}
