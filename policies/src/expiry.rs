//! When sessions and passkeys end, and for how long an authentication counts as fresh.
//!
//! Called by the daemon on every use of a session token or a passkey; the times it passes in come from a token or an
//! envelope that was opened and verified before. Must never extend a lifetime: each answer depends on its
//! arguments alone. Everywhere here the end is exclusive: in the second named `until` the thing is over.

use std::time::Duration;

use crate::app::{Passkeys, Sessions};
use crate::factor::Factor;
use crate::time::Timestamp;

/// How long the session made by account creation counts as fresh, and as the strongest factor. Fixed: long
/// enough to add a first factor, too short to be worth stealing, and no operator should have to think of it.
pub const CREATION_FRESH: Duration = Duration::from_secs(10 * 60);

/// Whether a session may still be used.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// In use.
    Live {
        /// End without further use; never later than `absolute_until`.
        idle_until: Timestamp,
        /// End in any case.
        absolute_until: Timestamp,
    },
    /// Not used for too long.
    IdleExpired,
    /// Too old, however much it was used.
    AbsoluteExpired,
}

/// Whether a passkey may still be used.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PasskeyState {
    /// May log in.
    Live {
        /// End unless it is used or confirmed before.
        until: Timestamp,
    },
    /// May not log in until it is confirmed again.
    Expired {
        /// The second in which it ended.
        since: Timestamp,
        /// Which limit it reached first.
        because: ExpiryCause,
    },
}

/// The limit that a passkey reached.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ExpiryCause {
    /// Not confirmed for longer than `passkeys.max_age`.
    Age,
    /// Not used for longer than `passkeys.max_idle`.
    Idle,
}

/// State of a session with full scope. `started` is its authentication, `last_used` its last renewal.
#[must_use]
pub fn session(
    now: Timestamp,
    limits: &Sessions,
    started: Timestamp,
    last_used: Timestamp,
) -> SessionState {
    lifetime(now, limits.idle, limits.absolute, started, last_used)
}

/// State of a read-only session, which needs the device key alone and has limits of its own.
#[must_use]
pub fn read_only_session(
    now: Timestamp,
    limits: &Sessions,
    started: Timestamp,
    last_used: Timestamp,
) -> SessionState {
    let (idle, absolute) = (limits.read_only_idle, limits.read_only_absolute);
    lifetime(now, idle, absolute, started, last_used)
}

fn lifetime(
    now: Timestamp,
    idle: Duration,
    absolute: Duration,
    started: Timestamp,
    last_used: Timestamp,
) -> SessionState {
    let absolute_until = started.plus(absolute);
    let idle_until = last_used.max(started).plus(idle).min(absolute_until);
    if now >= absolute_until {
        SessionState::AbsoluteExpired
    } else if now >= idle_until {
        SessionState::IdleExpired
    } else {
        SessionState::Live {
            idle_until,
            absolute_until,
        }
    }
}

/// State of a passkey. `confirmed` is its registration or its last confirmation, `last_used` its last login.
/// A confirmation is a use: it starts both limits again. Where both were reached, the earlier one is told.
#[must_use]
pub fn passkey(
    now: Timestamp,
    limits: &Passkeys,
    confirmed: Timestamp,
    last_used: Timestamp,
) -> PasskeyState {
    let by_age = confirmed.plus(limits.max_age);
    let by_idle = last_used.max(confirmed).plus(limits.max_idle);
    let until = by_age.min(by_idle);
    if now < until {
        return PasskeyState::Live { until };
    }
    let because = if by_age <= by_idle {
        ExpiryCause::Age
    } else {
        ExpiryCause::Idle
    };
    PasskeyState::Expired {
        since: until,
        because,
    }
}

/// Until when an authentication by `factor` at `auth_time` allows a change of factors or devices.
///
/// The session of account creation has a limit of its own, [`CREATION_FRESH`]; the policy sets all others.
/// Renewing a session never moves `auth_time`.
#[must_use]
pub fn fresh_until(limits: &Sessions, auth_time: Timestamp, factor: Factor) -> Timestamp {
    auth_time.plus(match factor {
        Factor::Creation => CREATION_FRESH,
        Factor::Device
        | Factor::Pin
        | Factor::Passkey
        | Factor::Totp
        | Factor::DeliveredCode
        | Factor::RecoveryCode => limits.fresh,
    })
}

/// Whether `now` lies before [`fresh_until`].
#[must_use]
pub fn is_fresh(now: Timestamp, limits: &Sessions, auth_time: Timestamp, factor: Factor) -> bool {
    now < fresh_until(limits, auth_time, factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions {
            idle: Duration::from_secs(100),
            absolute: Duration::from_secs(1000),
            fresh: Duration::from_secs(50),
            read_only_idle: Duration::from_secs(200),
            read_only_absolute: Duration::from_secs(2000),
        }
    }

    fn passkeys() -> Passkeys {
        Passkeys {
            max_age: Duration::from_secs(1000),
            max_idle: Duration::from_secs(100),
            ..Passkeys::default()
        }
    }

    fn at(now: u64, started: u64, last_used: u64) -> SessionState {
        session(
            Timestamp(now),
            &sessions(),
            Timestamp(started),
            Timestamp(last_used),
        )
    }

    #[test]
    fn a_used_session_lives_until_it_is_idle() {
        let live = SessionState::Live {
            idle_until: Timestamp(120),
            absolute_until: Timestamp(1010),
        };
        assert_eq!(at(119, 10, 20), live);
        assert_eq!(at(120, 10, 20), SessionState::IdleExpired);
    }

    #[test]
    fn use_never_carries_a_session_past_its_absolute_end() {
        let live = SessionState::Live {
            idle_until: Timestamp(1010),
            absolute_until: Timestamp(1010),
        };
        assert_eq!(at(1009, 10, 1000), live);
        assert_eq!(at(1010, 10, 1009), SessionState::AbsoluteExpired);
    }

    #[test]
    fn a_session_that_is_both_idle_and_old_is_told_old() {
        assert_eq!(at(5000, 10, 20), SessionState::AbsoluteExpired);
    }

    #[test]
    fn read_only_sessions_have_their_own_limits() {
        let state = |now| {
            let start = Timestamp(0);
            read_only_session(Timestamp(now), &sessions(), start, start)
        };
        assert!(matches!(state(199), SessionState::Live { .. }));
        assert_eq!(state(200), SessionState::IdleExpired);
        assert_eq!(state(2000), SessionState::AbsoluteExpired);
    }

    fn key_at(now: u64, confirmed: u64, last_used: u64) -> PasskeyState {
        let (confirmed, last_used) = (Timestamp(confirmed), Timestamp(last_used));
        passkey(Timestamp(now), &passkeys(), confirmed, last_used)
    }

    #[test]
    fn a_passkey_ends_by_idle_time_or_by_age() {
        let until = |second| PasskeyState::Live {
            until: Timestamp(second),
        };
        let expired = |since, because| PasskeyState::Expired {
            since: Timestamp(since),
            because,
        };
        assert_eq!(key_at(99, 0, 0), until(100));
        assert_eq!(key_at(100, 0, 0), expired(100, ExpiryCause::Idle));
        assert_eq!(key_at(999, 0, 950), until(1000));
        assert_eq!(key_at(1000, 0, 950), expired(1000, ExpiryCause::Age));
    }

    #[test]
    fn a_confirmation_starts_both_limits_again() {
        let live = PasskeyState::Live {
            until: Timestamp(5100),
        };
        assert_eq!(key_at(5000, 5000, 3), live);
    }

    #[test]
    fn creation_is_fresh_for_ten_minutes_whatever_the_policy_says() {
        let fresh = |now, factor| is_fresh(Timestamp(now), &sessions(), Timestamp(0), factor);
        assert!(fresh(599, Factor::Creation));
        assert!(!fresh(600, Factor::Creation));
        for factor in Factor::LOGINS.into_iter().chain([Factor::Device]) {
            assert!(fresh(49, factor));
            assert!(!fresh(50, factor));
        }
    }

    #[test]
    fn absurd_times_do_not_overflow() {
        let end = Timestamp(u64::MAX);
        assert_eq!(
            session(end, &sessions(), end, end),
            SessionState::AbsoluteExpired
        );
        assert!(!is_fresh(end, &sessions(), end, Factor::Pin));
    }
}
