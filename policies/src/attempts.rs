//! Guess budgets: every guess is charged before it is evaluated, and a charge only ever comes back by a success
//! or by a reset.
//!
//! Called by the daemon's service layer, which keeps one [`Budget`] per guessable factor inside the sealed account
//! envelope: charge, commit, evaluate, record the outcome, commit, release. So the adversary cannot write a
//! budget; what they control is the order and the timing of requests, how many run at once, crashes in
//! between, and outcomes that are held back and handed in late. Each rule below is written against that.
//!
//! Must never evaluate anything, and must never give an attempt back because something went wrong: a crash, a
//! timeout and an unknown outcome all stay counted.

use serde::{Deserialize, Serialize};

pub use crate::rounds::{MAX_ATTEMPTS, Round, Rounds, RoundsError};
use crate::time::Timestamp;

/// Names one charge within one budget. Never given out twice, not even after a success or a reset.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChargeId(pub u64);

/// A charge whose outcome is not recorded yet.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Charge {
    id: u64,
    /// From this second on the charge is resolved, as a failure.
    expires: Timestamp,
}

/// Why a guess may not be made. Nothing was charged.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The next round has not begun.
    #[error("the next attempt is allowed at {} seconds after the Unix epoch", until.0)]
    Wait {
        /// The first second in which a charge is granted.
        until: Timestamp,
    },
    /// Every attempt is spent; only a reset by another factor helps.
    #[error("no attempt is left until another factor resets the count")]
    Exhausted,
}

/// The charge is not in flight: never made, already resolved, expired, or made for a secret since replaced.
/// The budget is as it was.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this attempt is not pending: it was already decided or has expired")]
pub struct UnknownCharge;

/// What an account may be told about its budget. Only for a device that is bound to it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Attempts that may be made right now: what is left of this round, zero while waiting.
    pub left: u32,
    /// Attempts left over all rounds.
    pub total_left: u32,
    /// When the next round begins, where it has not begun yet.
    pub wait_until: Option<Timestamp>,
    /// Nothing is left: another factor has to reset the count.
    pub exhausted: bool,
}

/// The count of one guessable factor of one account.
///
/// `spent = failures + in flight`. What expired stays in the list until something folds it, and counts as a
/// failure all the same. Serialises as an object; reading one back checks that it could have been made here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredBudget")]
pub struct Budget {
    failures: u32,
    in_flight: Vec<Charge>,
    last_charge: Timestamp,
    next_id: u64,
    /// Attempts that are left whatever the rounds say, until the next success or reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<u32>,
}

impl Budget {
    /// Charges one attempt that will be decided before `expires`, the end of its ceremony.
    ///
    /// # Errors
    /// [`Refused`]; the budget is then unchanged.
    pub fn charge(
        &mut self,
        rounds: &Rounds,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<ChargeId, Refused> {
        let standing = self.standing(rounds, now);
        if standing.exhausted {
            return Err(Refused::Exhausted);
        }
        if let Some(until) = standing.wait_until {
            return Err(Refused::Wait { until });
        }
        self.fold_expired(now);
        let id = self.fresh_id();
        self.in_flight.push(Charge { id, expires });
        self.at_most = self.at_most.map(|left| left.saturating_sub(1));
        // Never back: a clock that was set back must not bring the next round closer.
        self.last_charge = self.last_charge.max(now);
        Ok(ChargeId(id))
    }

    /// Records that the guess was wrong: the attempt stays spent.
    ///
    /// # Errors
    /// [`UnknownCharge`], which is harmless: an expired charge already counts as a failure.
    pub fn fail(&mut self, id: ChargeId, now: Timestamp) -> Result<(), UnknownCharge> {
        self.take(id, now)?;
        self.failures = self.failures.saturating_add(1);
        self.fold_expired(now);
        Ok(())
    }

    /// Records that the guess was right: clears this charge and every resolved one. Charges in flight stay, so
    /// afterwards exactly they are spent.
    ///
    /// Only a charge that is in flight and not expired can succeed, and only once. Otherwise an attacker on
    /// the owner's device could keep the last message of a login that the owner completed, spend the budget on
    /// guesses, hand the message in to clear them, and do it again with the same or the next hoarded message.
    /// So each right entry of the secret clears at most once, and within the lifetime of its ceremony, which
    /// is no more than that entry would have cleared by itself.
    ///
    /// # Errors
    /// [`UnknownCharge`]: the login must be refused, whatever the evaluation said. The budget is unchanged.
    pub fn succeed(&mut self, id: ChargeId, now: Timestamp) -> Result<(), UnknownCharge> {
        self.take(id, now)?;
        self.clear_resolved(now);
        Ok(())
    }

    /// Another factor vouches for the owner: clears every resolved charge. Charges in flight stay, because
    /// their guesses are still to be evaluated.
    pub fn reset(&mut self, now: Timestamp) {
        self.clear_resolved(now);
    }

    /// The guessed secret was replaced (a new PIN): a reset after which no charge made before can succeed.
    ///
    /// A guess at the old secret must not clear failures at the new one. Charges in flight keep counting until
    /// they expire, but under numbers that were never given out.
    pub fn secret_replaced(&mut self, now: Timestamp) {
        self.clear_resolved(now);
        self.disown();
    }

    /// Attempts that may have been made and forgotten, by a machine that lost its power: they stay spent.
    pub fn forgotten(&mut self, attempts: u32, now: Timestamp) {
        self.failures = self.failures.saturating_add(attempts);
        self.at_most = self.at_most.map(|left| left.saturating_sub(attempts));
        self.last_charge = self.last_charge.max(now);
    }

    /// The account is an older one, put back by a restore: charges that were made since nobody knows. So from here
    /// to the next success or reset there are no more than `attempts`, and never more than before. No charge made
    /// before can succeed: it may have been decided.
    pub fn leave_at_most(&mut self, attempts: u32) {
        self.disown();
        self.at_most = Some(self.at_most.map_or(attempts, |left| left.min(attempts)));
    }

    /// Where the budget stands at `now`.
    #[must_use]
    pub fn standing(&self, rounds: &Rounds, now: Timestamp) -> Standing {
        let spent = self.spent();
        let at_most = self.at_most.unwrap_or(u32::MAX);
        let Some(place) = rounds.place(spent).filter(|_| at_most > 0) else {
            return Standing {
                left: 0,
                total_left: 0,
                wait_until: None,
                exhausted: true,
            };
        };
        let opens = self.last_charge.plus(place.wait);
        let waits = !place.wait.is_zero() && now < opens;
        Standing {
            left: if waits { 0 } else { place.left.min(at_most) },
            total_left: rounds.total().saturating_sub(spent).min(at_most),
            wait_until: waits.then_some(opens),
            exhausted: false,
        }
    }

    /// Whether this charge is neither decided nor expired.
    #[must_use]
    pub fn is_pending(&self, id: ChargeId, now: Timestamp) -> bool {
        let mut charges = self.in_flight.iter();
        charges.any(|charge| charge.id == id.0 && charge.expires > now)
    }

    /// Charges that are neither decided nor expired.
    #[must_use]
    pub fn in_flight(&self, now: Timestamp) -> u32 {
        count(self.in_flight.iter().filter(|c| c.expires > now).count())
    }

    fn spent(&self) -> u32 {
        self.failures.saturating_add(count(self.in_flight.len()))
    }

    /// Charges in flight go on counting, under numbers that were never given out.
    fn disown(&mut self) {
        for charge in &mut self.in_flight {
            charge.id = self.next_id;
            self.next_id = self.next_id.saturating_add(1);
        }
    }

    fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        id
    }

    /// Takes a live charge out of the list; leaves everything as it was where there is none.
    fn take(&mut self, id: ChargeId, now: Timestamp) -> Result<(), UnknownCharge> {
        let live = |c: &Charge| c.id == id.0 && c.expires > now;
        let at = self.in_flight.iter().position(live).ok_or(UnknownCharge)?;
        self.in_flight.remove(at);
        Ok(())
    }

    /// Turns expired charges into failures: the list stays short and a clock that was set back revives none.
    fn fold_expired(&mut self, now: Timestamp) {
        let before = self.spent();
        self.in_flight.retain(|charge| charge.expires > now);
        self.failures = before.saturating_sub(count(self.in_flight.len()));
    }

    fn clear_resolved(&mut self, now: Timestamp) {
        self.in_flight.retain(|charge| charge.expires > now);
        self.failures = 0;
        self.at_most = None;
    }
}

/// A list length as a count of attempts. A list too long for it is more than any budget grants.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A budget as it was stored, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBudget {
    failures: u32,
    in_flight: Vec<Charge>,
    last_charge: Timestamp,
    next_id: u64,
    at_most: Option<u32>,
}

/// Why stored bytes are no budget of ours.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum StoredBudgetError {
    #[error("more charges in flight than any policy grants")]
    TooMany,
    #[error("charges in flight that are doubled, out of order or never made")]
    Ids,
}

impl TryFrom<StoredBudget> for Budget {
    type Error = StoredBudgetError;

    fn try_from(stored: StoredBudget) -> Result<Self, Self::Error> {
        if count(stored.in_flight.len()) > MAX_ATTEMPTS {
            return Err(StoredBudgetError::TooMany);
        }
        // Charges are pushed and renumbered in order, so ids ascend and stay below the next one. Half the range
        // is kept free: whoever counts from there on never reaches its end.
        let ids = || stored.in_flight.iter().map(|charge| charge.id);
        let ascending = ids().zip(ids().skip(1)).all(|(one, next)| one < next);
        let made = ids().all(|id| id < stored.next_id);
        if !ascending || !made || stored.next_id > u64::MAX / 2 {
            return Err(StoredBudgetError::Ids);
        }
        Ok(Self {
            failures: stored.failures,
            in_flight: stored.in_flight,
            last_charge: stored.last_charge,
            next_id: stored.next_id,
            at_most: stored.at_most,
        })
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
