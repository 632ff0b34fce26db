//! Guess budgets in a policy file: the list of rounds, which has the same shape wherever something can be guessed.
//!
//! Called by the sections that hold one. Must never accept a list that [`Rounds`] refuses.

use std::time::Duration;

use super::section::Section;
use crate::bounds;
use crate::rounds::{Round, Rounds};

/// The rounds under `key`, where they are written and right. Only a section that is sound so far gives any.
pub(super) fn rounds(section: &mut Section<'_, '_>, key: &'static str) -> Option<Rounds> {
    let list = section.tables(key, |index, round| Round {
        attempts: attempts(round),
        wait: wait(index, round),
    })?;
    if !section.sound() {
        return None;
    }
    Rounds::new(list)
        .map_err(|error| section.flaw(key, error))
        .ok()
}

fn attempts(round: &mut Section<'_, '_>) -> u32 {
    if !round.written("attempts") {
        round.flaw(
            "attempts",
            "missing, expected how many guesses the round grants",
        );
    }
    round.number("attempts", 1, &bounds::ROUND_ATTEMPTS)
}

fn wait(index: usize, round: &mut Section<'_, '_>) -> Duration {
    if index == 0 {
        // Any length is read here, so that the refusal of the first wait can say why.
        return round.duration("wait", Duration::ZERO, &(Duration::ZERO..=Duration::MAX));
    }
    if !round.written("wait") {
        round.flaw(
            "wait",
            "missing, expected how long the round waits after the last attempt, such as \"5m\"",
        );
    }
    round.duration("wait", Duration::ZERO, &bounds::ROUND_WAIT)
}
