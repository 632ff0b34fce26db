//! What a session token carries, and the limits that it carries with it.
//!
//! Made by `service/` when a factor was accepted, sealed and opened by `token`.
//! A session is a statement about the past: this factor was shown by this
//! device then. It must never be read as "this account, device or passkey still
//! exists": its epochs and ids are compared with the envelope on every use, and
//! that is where sign-out and revocation live.

use std::time::Duration;

use custodyd_hsm::{AccountId, AppId, RealmName};
use custodyd_policies::{Factor, Sessions, Timestamp};
use serde::{Deserialize, Serialize};

use super::token::SESSION_EPOCH_DAYS;
use super::{RandomFailed, random};

/// What a session may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Reading: all that the device key alone gives.
    Read,
    /// Everything that the factor allows.
    Full,
    /// Trying the PIN next, coming back without it where the policy says so, and signing out:
    /// what a delivered code gives a device that is not bound.
    PinOnly,
}

/// The content of a session token. Sealed, so that its holder neither reads nor
/// changes it; bound to a device key, so that it is worthless without that key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Random; names the session in events and logs.
    #[serde(with = "super::text_bytes")]
    pub id: [u8; 16],
    /// The realm it was made in.
    pub realm: RealmName,
    /// The app it is good for.
    pub app: AppId,
    /// The account.
    pub account: AccountId,
    /// RFC 7638 thumbprint of the device key (`jkt`).
    pub device_thumbprint: String,
    /// The account's session epoch at its making: "sign out everywhere" raises it.
    pub account_epoch: u64,
    /// The device's session epoch, `None` for a device that is not bound.
    pub device_epoch: Option<u64>,
    /// The account's next device epoch at its making: tells whether it began before the
    /// removal of its device.
    pub began_epoch: u64,
    /// The factor that was shown.
    pub factor: Factor,
    /// The device id of the credential that was shown, where the factor has one: the session
    /// ends with it.
    pub factor_id: Option<String>,
    /// What it may be used for.
    pub scope: Scope,
    /// When it was made.
    pub started: Timestamp,
    /// When the factor was shown: what step-up measures freshness from.
    pub authenticated: Timestamp,
    /// Over from this second on, unless it is renewed before.
    pub idle_until: Timestamp,
    /// Over from this second on in any case.
    pub absolute_until: Timestamp,
}

/// Why a session is over. Both say the same to the client: sign in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnded {
    /// Not renewed in time.
    #[error("the session was not used for too long: sign in again")]
    Idle,
    /// As old as a session may get.
    #[error("the session has reached its greatest age: sign in again")]
    Absolute,
}

impl SessionEnded {
    /// The stable code of the problem document.
    pub fn code(self) -> &'static str {
        "session-expired"
    }
}

/// The two ends of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// End without renewal.
    pub idle_until: Timestamp,
    /// End in any case.
    pub absolute_until: Timestamp,
}

/// The ends of a session that starts at `started` and is used at `now`.
///
/// A policy may allow more idle days than epoch keys are kept for; then the
/// keys decide, one day early, so that a token ends by its own date and not by
/// a key that is gone.
pub fn limits(scope: Scope, policy: &Sessions, started: Timestamp, now: Timestamp) -> Limits {
    let (idle, absolute) = match scope {
        Scope::Read => (policy.read_only_idle, policy.read_only_absolute),
        Scope::Full => (policy.idle, policy.absolute),
        // As long as it takes to type a PIN; it can not be renewed.
        Scope::PinOnly => (policy.fresh, policy.fresh),
    };
    let absolute_until = started.plus(absolute);
    let idle_until = now.plus(idle.min(LONGEST_IDLE)).min(absolute_until);
    Limits {
        idle_until,
        absolute_until,
    }
}

/// See [`limits`].
const LONGEST_IDLE: Duration = Duration::from_secs((SESSION_EPOCH_DAYS - 1) * 86_400);

/// A fresh random identifier for a session.
pub fn new_id() -> Result<[u8; 16], RandomFailed> {
    random()
}

impl Session {
    /// Whether its own dates still allow its use. Nothing else is looked at.
    pub fn live(&self, now: Timestamp) -> Result<(), SessionEnded> {
        if now >= self.absolute_until {
            return Err(SessionEnded::Absolute);
        }
        if now >= self.idle_until {
            return Err(SessionEnded::Idle);
        }
        Ok(())
    }

    /// The same session with its idle time started again. Its id, factor and
    /// time of authentication stay: renewal is not an authentication.
    ///
    /// A policy that became stricter applies at once; one that became laxer
    /// does not lengthen a session that is under way.
    pub fn renewed(&self, now: Timestamp, policy: &Sessions) -> Result<Session, SessionEnded> {
        self.live(now)?;
        let fresh = limits(self.scope, policy, self.started, now);
        let absolute_until = fresh.absolute_until.min(self.absolute_until);
        let renewed = Session {
            idle_until: fresh.idle_until.min(absolute_until),
            absolute_until,
            ..self.clone()
        };
        renewed.live(now)?;
        Ok(renewed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on must stop
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400;

    pub(crate) fn session(scope: Scope, started: u64) -> Session {
        let started = Timestamp(started);
        let Limits {
            idle_until,
            absolute_until,
        } = limits(scope, &Sessions::default(), started, started);
        Session {
            id: [7; 16],
            realm: RealmName::parse("realm.example").unwrap(),
            app: AppId::parse("demo").unwrap(),
            account: AccountId([1; 16]),
            device_thumbprint: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into(),
            account_epoch: 3,
            device_epoch: Some(0),
            began_epoch: 1,
            factor: Factor::Pin,
            factor_id: None,
            scope,
            started,
            authenticated: started,
            idle_until,
            absolute_until,
        }
    }

    #[test]
    fn ends_are_exclusive_and_told_apart() {
        let session = session(Scope::Full, 1000);
        assert_eq!(session.live(Timestamp(session.idle_until.0 - 1)), Ok(()));
        assert_eq!(session.live(session.idle_until), Err(SessionEnded::Idle));
        assert_eq!(
            session.live(session.absolute_until),
            Err(SessionEnded::Absolute)
        );
    }

    #[test]
    fn renewal_moves_the_idle_end_only() {
        let session = session(Scope::Full, 1000);
        let now = Timestamp(1100);
        let renewed = session.renewed(now, &Sessions::default()).unwrap();
        assert_eq!(renewed.idle_until, now.plus(Sessions::default().idle));
        assert_eq!(
            Session {
                idle_until: session.idle_until,
                ..renewed
            },
            session
        );
    }

    #[test]
    fn what_is_over_cannot_be_renewed() {
        let session = session(Scope::Full, 1000);
        let at = session.idle_until;
        assert_eq!(
            session.renewed(at, &Sessions::default()),
            Err(SessionEnded::Idle)
        );
    }

    #[test]
    fn a_stricter_policy_applies_at_once_and_a_laxer_one_does_not() {
        let session = session(Scope::Full, 1000);
        let now = Timestamp(1100);
        let strict = Sessions {
            absolute: Duration::from_secs(50),
            ..Sessions::default()
        };
        assert_eq!(session.renewed(now, &strict), Err(SessionEnded::Absolute));
        let lax = Sessions {
            absolute: Duration::from_secs(365 * DAY),
            ..Sessions::default()
        };
        assert_eq!(
            session.renewed(now, &lax).unwrap().absolute_until,
            session.absolute_until
        );
    }

    #[test]
    fn no_session_outlives_its_epoch_key_without_renewal() {
        let forever = Duration::from_secs(700 * DAY);
        let policy = Sessions {
            read_only_idle: forever,
            read_only_absolute: forever,
            ..Sessions::default()
        };
        let limits = limits(Scope::Read, &policy, Timestamp(0), Timestamp(0));
        assert_eq!(limits.idle_until, Timestamp((SESSION_EPOCH_DAYS - 1) * DAY));
        assert_eq!(limits.absolute_until, Timestamp(700 * DAY));
    }

    proptest! {
        #[test]
        fn renewals_never_reach_past_the_absolute_end(steps in proptest::collection::vec(0u64..2000, 1..60)) {
            let first = session(Scope::Full, 1000);
            let mut current = first.clone();
            let mut now = 1000;
            for step in steps {
                now += step;
                match current.renewed(Timestamp(now), &Sessions::default()) {
                    Ok(next) => {
                        prop_assert!(next.idle_until <= first.absolute_until);
                        prop_assert_eq!(next.authenticated, first.authenticated);
                        current = next;
                    }
                    Err(_) => prop_assert!(now >= current.idle_until.0),
                }
            }
        }
    }
}
