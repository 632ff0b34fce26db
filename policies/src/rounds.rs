//! Rounds: how many guesses a policy grants, and how long each further round of them has to wait.
//!
//! Called by the policy parser, which makes them, and by [`Budget`](crate::attempts::Budget), which counts
//! against them. Must never hold what an account has used: that is the budget's.

use std::time::Duration;

/// The most guesses all rounds of a policy may grant together.
///
/// A four-digit PIN falls to a hundred guesses with one chance in a hundred: more would be no budget. It also
/// bounds the list of charges in flight that an envelope carries.
pub const MAX_ATTEMPTS: u32 = 100;

/// One round of guesses.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Guesses in this round, at least one.
    pub attempts: u32,
    /// How long this round waits, counted from the last charge before it. Zero for the first round.
    pub wait: Duration,
}

/// Checked rounds, in the order in which they are used up. After the last one the budget is exhausted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounds(Vec<Round>);

/// Why a list of rounds is refused. Positions count from zero.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoundsError {
    /// No round at all: nobody could ever log in.
    #[error("expected at least one round")]
    Empty,
    /// A round that grants nothing.
    #[error("round {0} grants no attempt, expected at least 1")]
    NoAttempts(usize),
    /// More than [`MAX_ATTEMPTS`] in all.
    #[error("the rounds grant {0} attempts together, expected at most {MAX_ATTEMPTS}")]
    TooMany(u64),
    /// There is no charge from which the first wait could count.
    #[error("the first round has a wait, expected none: a wait counts from the last attempt")]
    FirstWaits,
}

/// Where a number of spent attempts stands in the rounds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Attempts left in the round that the next charge belongs to, at least one.
    pub(crate) left: u32,
    /// Wait before that charge, counted from the last one. Zero unless the charge opens the round.
    pub(crate) wait: Duration,
}

impl Rounds {
    /// Checks and takes a list of rounds.
    ///
    /// # Errors
    /// [`RoundsError`] says which rule the list breaks.
    pub fn new(rounds: Vec<Round>) -> Result<Self, RoundsError> {
        let first = rounds.first().ok_or(RoundsError::Empty)?;
        if !first.wait.is_zero() {
            return Err(RoundsError::FirstWaits);
        }
        if let Some(empty) = rounds.iter().position(|round| round.attempts == 0) {
            return Err(RoundsError::NoAttempts(empty));
        }
        // Summed in 64 bits: a sum that wrapped around would let a huge budget pass as a small one.
        let total: u64 = rounds.iter().map(|round| u64::from(round.attempts)).sum();
        if total > u64::from(MAX_ATTEMPTS) {
            return Err(RoundsError::TooMany(total));
        }
        Ok(Self(rounds))
    }

    /// For the built-in default alone, which a test puts through [`Rounds::new`].
    pub(crate) fn of_checked(rounds: Vec<Round>) -> Self {
        Self(rounds)
    }

    /// All attempts of all rounds: 1 to [`MAX_ATTEMPTS`].
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().map(|round| round.attempts).sum()
    }

    /// The rounds in order, at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[Round] {
        &self.0
    }

    /// The place of the next charge after `spent` attempts; `None` once everything is spent. A policy reload
    /// may have shrunk the rounds below `spent`: that is exhausted too.
    pub(crate) fn place(&self, spent: u32) -> Option<Place> {
        let mut end = 0;
        for round in &self.0 {
            let start = end;
            end += round.attempts;
            if spent < end {
                let opens = spent == start;
                return Some(Place {
                    left: end - spent,
                    wait: if opens { round.wait } else { Duration::ZERO },
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(attempts: u32, seconds: u64) -> Round {
        Round {
            attempts,
            wait: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn each_rule_is_refused_by_its_own_error() {
        let refused = |rounds| Rounds::new(rounds).err();
        assert_eq!(refused(vec![]), Some(RoundsError::Empty));
        assert_eq!(
            refused(vec![round(3, 0), round(0, 9)]),
            Some(RoundsError::NoAttempts(1))
        );
        assert_eq!(
            refused(vec![round(100, 0), round(1, 9)]),
            Some(RoundsError::TooMany(101))
        );
        assert_eq!(
            refused(vec![round(u32::MAX, 0), round(u32::MAX, 9), round(3, 9)]),
            Some(RoundsError::TooMany(2 * u64::from(u32::MAX) + 3))
        );
        assert_eq!(refused(vec![round(3, 1)]), Some(RoundsError::FirstWaits));
    }

    #[test]
    fn a_hundred_is_still_allowed() {
        assert_eq!(
            Rounds::new(vec![round(99, 0), round(1, 0)]).map(|rounds| rounds.total()),
            Ok(100)
        );
    }

    #[test]
    fn the_default_obeys_its_own_rules() {
        let default = Rounds::default();
        assert_eq!(Rounds::new(default.as_slice().to_vec()), Ok(default));
    }

    #[test]
    fn only_the_charge_that_opens_a_round_waits() -> Result<(), RoundsError> {
        let rounds = Rounds::new(vec![round(2, 0), round(3, 60)])?;
        let places: Vec<_> = (0..6)
            .map(|spent| rounds.place(spent).map(|p| (p.left, p.wait.as_secs())))
            .collect();
        let expected = [
            Some((2, 0)),
            Some((1, 0)),
            Some((3, 60)),
            Some((2, 0)),
            Some((1, 0)),
            None,
        ];
        assert_eq!(places, expected);
        Ok(())
    }
}
