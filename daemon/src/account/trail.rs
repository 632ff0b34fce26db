//! An account's events: how many there are, where the newest and the oldest kept one stand.
//!
//! Written by the ledger alone: appending moves the newest on, retention the oldest. The envelope
//! holds it, so whoever deletes a body that is newer than the mark is found out, and whoever
//! deletes an older one has only done what retention did before.

use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bytes::SharedSecret;

/// Where the account's events stand in the log, and the key that their bodies are sealed under.
///
/// The key lives only in the envelope: erasing the envelope makes every event body unreadable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trail {
    pub count: u64,
    pub last_index: Option<u64>,
    /// When the newest happened: the account was last used then, or not long after.
    pub last_at: Option<Timestamp>,
    /// The oldest event whose body is kept; none where no body is.
    pub oldest: Option<Mark>,
    /// A somewhat newer one, from which retention walks down as long as its own time has not
    /// come: the way from the newest event is long, and each step on it opens a body.
    pub halfway: Option<Mark>,
    pub key: SharedSecret,
}

/// One event: its number, its log entry, and when it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub number: u64,
    pub index: u64,
    pub at: Timestamp,
}

impl Trail {
    #[must_use]
    pub fn new(key: SharedSecret) -> Self {
        Self {
            count: 0,
            last_index: None,
            last_at: None,
            oldest: None,
            halfway: None,
            key,
        }
    }

    /// The number from which on the trail is complete: the bodies of earlier events are past
    /// their time. One more than there are events, where none has its body any more.
    #[must_use]
    pub fn complete_from(&self) -> u64 {
        match self.oldest {
            Some(oldest) => oldest.number,
            None => self.count.saturating_add(1),
        }
    }

    /// Whether the event of this number must still have its body.
    #[must_use]
    pub fn keeps(&self, number: u64) -> bool {
        number >= self.complete_from()
    }

    /// Whether a log entry of this account must still have its body.
    #[must_use]
    pub fn keeps_entry(&self, index: u64) -> bool {
        self.oldest.is_some_and(|oldest| index >= oldest.index)
    }

    /// Takes note of a new event.
    pub fn moved_on(&mut self, newest: Mark) {
        self.count = newest.number;
        self.last_index = Some(newest.index);
        self.last_at = Some(newest.at);
        if self.oldest.is_none() {
            self.oldest = Some(newest);
        }
    }
}
