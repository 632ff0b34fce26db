//! The exception to step-up: who may replace a forgotten PIN or bind the device at hand without being strong enough.
//!
//! Called by the daemon for these two changes only, with a verified session and the factors of the opened envelope.
//! The adversary has a weak factor, such as the owner's mailbox, and wants a hold on the account that lasts: they get
//! no more than the policy lists, after its delay, and the owner is told. Must never cover a third change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::AppPolicy;
use crate::factor::{Factor, Strength};
use crate::release::{DEVICE_WORTH, StepUp, step_up, weakest_with_all_stronger};
use crate::time::Timestamp;

/// All that the exception covers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    /// A new PIN in the place of one that the account has.
    ReplacePin,
    /// A binding for the device that the session belongs to.
    BindDevice,
}

/// The change may be made, at once or later.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RecoverGrant {
    /// How long it waits, pending and open to being cancelled. Zero: not at all.
    pub delay: Duration,
    /// The session was not strong enough by itself: the contacts get a notice.
    pub by_exception: bool,
}

/// Whether a session that began with `by` may make `change`. `held` and `fresh` are as for
/// [`step_up`], which is asked first: who passes it does not wait. The exception needs a
/// recent login too, with a factor that the account holds and the policy lists. A PIN that the account does
/// not have cannot be replaced: to add a first one is a change like any other.
///
/// # Errors
/// [`StepUp`] says what to log in with.
pub fn may_recover(
    policy: &AppPolicy,
    change: Recovery,
    held: &[Factor],
    by: Factor,
    fresh: bool,
) -> Result<RecoverGrant, StepUp> {
    let worth = match change {
        Recovery::ReplacePin => Factor::Pin,
        Recovery::BindDevice => DEVICE_WORTH,
    };
    let Err(refusal) = step_up(worth, held, by, fresh) else {
        return Ok(RecoverGrant {
            delay: Duration::ZERO,
            by_exception: false,
        });
    };
    let covered = match change {
        Recovery::ReplacePin => held.contains(&Factor::Pin),
        Recovery::BindDevice => true,
    };
    if !covered {
        return Err(refusal);
    }
    let excepted = |factor| {
        let listed = policy.recover.by.contains(&factor);
        listed && held.contains(&factor) && factor.strength() > Strength::DeviceKey
    };
    if fresh && excepted(by) {
        return Ok(RecoverGrant {
            delay: policy.recover.delay,
            by_exception: true,
        });
    }
    let does = |factor| excepted(factor) || step_up(worth, held, factor, true).is_ok();
    Err(StepUp {
        need_at_least: weakest_with_all_stronger(held, does).unwrap_or(refusal.need_at_least),
        ..refusal
    })
}

/// From when on a pending change may be made. `delay` is that of the request's own grant: a policy that is changed
/// meanwhile neither shortens nor lengthens what the notice promised.
#[must_use]
pub fn due_at(requested: Timestamp, delay: Duration) -> Timestamp {
    requested.plus(delay)
}

/// Whether `now` has reached [`due_at`].
#[must_use]
pub fn due(now: Timestamp, requested: Timestamp, delay: Duration) -> bool {
    now >= due_at(requested, delay)
}

#[cfg(test)]
mod tests;
