//! What an operator decides about codes: TOTP, delivered codes and recovery codes.
//!
//! Read by the daemon's factors and by the decisions in [`otp`](crate::otp) and [`pacing`](crate::pacing). Must
//! never let two kinds of code share a guess budget: guesses at one would lock out the other.

use std::time::Duration;

use super::minutes;
use crate::rounds::Rounds;

/// Codes of an authenticator app (RFC 6238, with HMAC-SHA-1 as all of these apps do).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totp {
    /// Whether accounts may have it.
    pub allowed: bool,
    /// Digits of one code.
    pub digits: usize,
    /// Time step (RFC 6238, parameter X), in whole seconds.
    pub period: Duration,
    /// Steps accepted before and after the current one.
    pub window: u8,
    /// The guess budget.
    pub rounds: Rounds,
}

/// One-time codes sent to a contact of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredCodes {
    /// Whether codes are sent. Contacts may exist all the same, for notices.
    pub allowed: bool,
    /// How long a code may be used.
    pub expiry: Duration,
    /// Digits of a code for a bound device. A stranger's code always has at least 64 bits.
    pub digits: usize,
    /// The guess budget.
    pub rounds: Rounds,
    /// Least time between two deliveries to one contact.
    pub interval: Duration,
    /// Most deliveries to one account within 24 hours.
    pub per_day: u32,
    /// Where a person who clicks lands. Absent: codes are pasted.
    pub link: Option<LinkTemplate>,
}

/// A URL on one of the app's origins with one place for a code. Made by the parser alone, so it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTemplate(String);

impl LinkTemplate {
    /// The place of the code in a template.
    pub const PLACE: &str = "{code}";

    pub(crate) fn of_checked(template: &str) -> Self {
        Self(template.to_owned())
    }

    /// The link for `code`, which must consist of characters that stand in a URL as they are.
    #[must_use]
    pub fn with(&self, code: &str) -> String {
        self.0.replace(Self::PLACE, code)
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Single-use codes that the owner keeps on paper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryCodes {
    /// Whether accounts may have them.
    pub allowed: bool,
    /// The guess budget.
    pub rounds: Rounds,
}

impl Default for Totp {
    fn default() -> Self {
        Self {
            allowed: true,
            digits: 6,
            period: Duration::from_secs(30),
            window: 1,
            rounds: Rounds::default(),
        }
    }
}

impl Default for DeliveredCodes {
    fn default() -> Self {
        Self {
            allowed: true,
            expiry: minutes(10),
            digits: 8,
            rounds: Rounds::default(),
            interval: minutes(1),
            per_day: 20,
            link: None,
        }
    }
}

impl Default for RecoveryCodes {
    fn default() -> Self {
        Self {
            allowed: true,
            rounds: Rounds::default(),
        }
    }
}
