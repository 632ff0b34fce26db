//! Which factor may take which secret out, or put another in its place, and which factor may change an account.
//!
//! Called by the daemon after a session has been verified; the factor and the freshness come from the sealed
//! session, the held factors from the opened envelope. The adversary here is a thief with a session or a bound
//! device who wants to turn it into a lasting hold on the account. Must never say yes for want of a rule.

use crate::app::AppPolicy;
use crate::factor::{Factor, Strength};

/// In a policy's release rules: every secret that has no rule of its own.
pub const ANY_SECRET: &str = "*";

/// The least strength that any change needs: whatever is more than the key of a stolen device.
const WEAKEST: Strength = Strength::DeliveredCode;

/// What binding or removing a device is worth: as much as the PIN, which a bound device may try from then on.
pub const DEVICE_WORTH: Factor = Factor::Pin;

/// What adding, changing or removing a contact or an alias is worth: as much as the PIN, which a code sent to the
/// contact may replace where the policy's `recover` says so. So nobody who merely reads the mail can have it sent
/// elsewhere, unless the account holds nothing stronger.
pub const CONTACT_WORTH: Factor = Factor::Pin;

/// What a session lacks for a change.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this change needs a recent login with {need_at_least} or something stronger")]
pub struct StepUp {
    /// The weakest factor that would do. One that the account has, where it has one that does.
    pub need_at_least: Factor,
    /// The session's own authentication is too old: even where the factor would do, it has to be repeated.
    pub need_fresh: bool,
}

/// What a session lacks to put something else in the place of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is changed by who may read it")]
pub struct NotItsReader {
    /// As a threshold, where one says it: a list of `pin` keeps passkeys out.
    pub step_up: StepUp,
    /// The account's factors that would do, as the policy lists logins.
    pub one_of: Vec<Factor>,
}

/// Whether a session that began with `by` may read the secret `secret_name`.
///
/// A rule for exactly this name decides alone; otherwise the rule for `"*"` does; where there is neither, the
/// answer is no. A rule is a list and not a threshold: a list of `pin` keeps passkeys out.
/// [`Factor::Creation`] counts as the device key that it proved and, while `fresh`
/// ([`is_fresh`](crate::expiry::is_fresh)), as a passkey too; `fresh` matters to no other factor.
#[must_use]
pub fn may_release(policy: &AppPolicy, secret_name: &str, by: Factor, fresh: bool) -> bool {
    let counts_as: &[Factor] = match by {
        Factor::Creation if fresh => &[Factor::Device, Factor::Passkey],
        Factor::Creation => &[Factor::Device],
        ref other => std::slice::from_ref(other),
    };
    let rules = &policy.release.0;
    rules
        .get(secret_name)
        .or_else(|| rules.get(ANY_SECRET))
        .is_some_and(|rule| counts_as.iter().any(|factor| rule.contains(factor)))
}

/// Whether a session may put something else in the place of the secret `secret_name`, which is there, or delete it.
///
/// Who may not read it may not: a thief with a weaker login would else destroy what the release rules keep from them,
/// or have the owner's devices take up what they made. What is let through besides lets nobody in who was kept out. The
/// account's creation, while `fresh`, has made all that is there. Where the account has no factor that may read the
/// secret, its strongest one, shown just now, suffices: that may add any other. An account without a factor has nobody
/// to keep it for.
///
/// `held`, `by` and `fresh` are as for [`step_up`].
///
/// # Errors
/// [`NotItsReader`] says what to log in with.
pub fn may_replace(
    policy: &AppPolicy,
    secret_name: &str,
    held: &[Factor],
    by: Factor,
    fresh: bool,
) -> Result<(), NotItsReader> {
    let reads = |factor: Factor| may_release(policy, secret_name, factor, fresh);
    let Some(strongest) = usable(held).map(Factor::strength).max() else {
        return Ok(());
    };
    if reads(by) || (by == Factor::Creation && fresh) {
        return Ok(());
    }
    let readers = listed(held, reads);
    if !readers.is_empty() {
        let weakest = readers.iter().copied().min_by_key(|by| by.strength());
        let need_at_least = weakest_with_all_stronger(held, reads).or(weakest);
        return Err(NotItsReader {
            step_up: StepUp {
                need_at_least: need_at_least.unwrap_or(Factor::Passkey),
                need_fresh: false,
            },
            one_of: readers,
        });
    }
    step_up(Factor::Passkey, held, by, fresh).map_err(|step_up| NotItsReader {
        step_up,
        one_of: listed(held, |factor| factor.strength() == strongest),
    })
}

/// Those of the account's factors that do, in the order of policy files.
fn listed(held: &[Factor], does: impl Fn(Factor) -> bool) -> Vec<Factor> {
    let logins = Factor::LOGINS.into_iter();
    logins
        .filter(|factor| held.contains(factor) && does(*factor))
        .collect()
}

/// Whether `name` can be the name of a secret: 1 to 64 of `a-z`, `0-9`, `-`, the first one a letter or digit.
/// `recover` is kept for the rule of that name, which is about the account and not about a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let first = name.bytes().next();
    let starts = first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    starts && rest && name.len() <= 64 && name != "recover"
}

/// Whether a session may add, change or remove something of the kind `wanted` (a factor, or a device).
///
/// The session must have begun with a factor at least as strong as the one concerned, and recently. Where the
/// account has none that strong, its strongest one suffices: else an account with only a PIN could never add a
/// passkey. The device key alone never suffices, since a thief of the device has it.
///
/// `held` are the factors with which the account can log in now. The caller leaves expired passkeys out: a lost
/// passkey would otherwise bar its owner for ever. It must be what the account held before the change. A `by`
/// that the account no longer holds lends no strength, [`Factor::Creation`] excepted. Recovery codes count as
/// held while one is left, and in the session that began with the last one of the list.
///
/// # Errors
/// [`StepUp`] says what to log in with. An account without any factor, whose creation is no longer fresh, has
/// nothing that would do.
pub fn step_up(wanted: Factor, held: &[Factor], by: Factor, fresh: bool) -> Result<(), StepUp> {
    let need = needed(wanted, held);
    let counts = by == Factor::Creation || held.contains(&by);
    if fresh && counts && by.effective(fresh) >= need {
        return Ok(());
    }
    Err(StepUp {
        need_at_least: weakest_that_does(need, held),
        need_fresh: !fresh,
    })
}

fn needed(wanted: Factor, held: &[Factor]) -> Strength {
    // No caller concerns itself with creation; were one to, it would meet the strictest rule.
    let concerned = wanted.effective(true);
    let strongest_held = usable(held).map(Factor::strength).max();
    strongest_held
        .map_or(concerned, |held| held.min(concerned))
        .max(WEAKEST)
}

fn weakest_that_does(need: Strength, held: &[Factor]) -> Factor {
    let in_general = match need {
        Strength::DeviceKey | Strength::DeliveredCode => Factor::DeliveredCode,
        Strength::Totp => Factor::Totp,
        Strength::Pin => Factor::Pin,
        Strength::Passkey => Factor::Passkey,
    };
    weakest_with_all_stronger(held, |factor| factor.strength() >= need).unwrap_or(in_general)
}

/// The weakest of the account's factors for which "this one or a stronger one" is true: it does, and so do all that
/// are stronger.
pub(crate) fn weakest_with_all_stronger(
    held: &[Factor],
    does: impl Fn(Factor) -> bool,
) -> Option<Factor> {
    let mut strongest_first: Vec<Factor> = usable(held).collect();
    strongest_first.sort_by_key(|factor| std::cmp::Reverse(factor.strength()));
    strongest_first
        .into_iter()
        .take_while(|factor| does(*factor))
        .last()
}

/// The factors among `held` that can ever suffice for a change.
fn usable(held: &[Factor]) -> impl Iterator<Item = Factor> {
    held.iter()
        .copied()
        .filter(|factor| factor.strength() > Strength::DeviceKey)
}

#[cfg(test)]
mod tests;
