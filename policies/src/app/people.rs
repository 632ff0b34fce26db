//! What an operator decides about people and their traces: contacts, aliases, enrolment, retention, and who asks.
//!
//! Read by the daemon's service layer and by [`retention`](crate::retention). Must never hold a secret: keys here are
//! public ones, and a credential stands as its hash.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::days;

/// Contacts: where codes and notices go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contacts {
    /// The kinds that accounts may have. Empty: no contacts at all.
    pub channels: Vec<Channel>,
    /// Whether a confirmed contact can be used to look the account up.
    pub alias: bool,
    /// Most contacts of one account.
    pub max_per_account: usize,
}

/// A way to reach a person. Serialises as its [`name`](Channel::name).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// An e-mail address.
    Email,
    /// A telephone number that takes text messages.
    Sms,
}

impl Channel {
    /// The stable name: in policy files, envelopes and the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

/// Names under which an account is looked up, apart from its contacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aliases {
    /// Whether accounts may have one.
    pub allowed: bool,
    /// Most aliases of one account, contacts not counted.
    pub max_per_account: usize,
}

/// Creation of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Whether anybody may create an account. Existing ones are not concerned.
    pub open: bool,
    /// Most accounts that one node creates in an hour without a ticket.
    pub quota_per_hour: u32,
    /// Keys by which the app's backend signs enrolment tickets. A ticket enrols whatever `open` says.
    pub tickets: Vec<TicketKey>,
}

/// A public key on P-256 (RFC 7518, section 6.2.1). Syntax is checked here; that the point lies on the curve is
/// the daemon's to check, which knows cryptography.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKey {
    /// Names the key in a ticket's header (RFC 7515, section 4.1.4).
    pub kid: String,
    /// 32 bytes in base64url without padding.
    pub x: String,
    /// 32 bytes in base64url without padding.
    pub y: String,
}

/// The app's own backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// SHA-256 of each bearer credential with which bindings may be looked up.
    pub credentials: Vec<[u8; 32]>,
}

/// How long traces of people are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// An account not used for this long may be erased. Absent: never for that reason.
    pub inactive: Option<Duration>,
    /// How long the bodies of events are kept.
    pub events: Duration,
}

impl Default for Contacts {
    fn default() -> Self {
        Self {
            channels: vec![Channel::Email],
            alias: true,
            max_per_account: 2,
        }
    }
}

impl Default for Aliases {
    fn default() -> Self {
        Self {
            allowed: true,
            max_per_account: 2,
        }
    }
}

impl Default for Enrolment {
    fn default() -> Self {
        Self {
            open: true,
            quota_per_hour: 600,
            tickets: Vec::new(),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            inactive: None,
            events: days(400),
        }
    }
}
