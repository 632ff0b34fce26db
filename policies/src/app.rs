//! The policy of one app, typed, with the defaults of everything an operator need not say.
//!
//! Made by [`parse`](fn@crate::parse::parse) from a policy file, read by all decisions here and by the daemon. What
//! came through the parser lies within [`bounds`](crate::bounds). Must never carry a secret: policies are shown
//! to operators and to apps.

mod one_time;
mod people;

use std::collections::BTreeMap;
use std::time::Duration;

pub use one_time::{DeliveredCodes, LinkTemplate, RecoveryCodes, Totp};
pub use people::{Aliases, Backend, Channel, Contacts, Enrolment, Retention, TicketKey};

use crate::factor::Factor;
use crate::rounds::{Round, Rounds};

/// Everything an operator decides about one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPolicy {
    /// The app's identifier in paths, keys and records: `[a-z0-9][a-z0-9-]{0,31}`. It never changes.
    pub app: String,
    /// Name for people. Default: `app`.
    pub display_name: String,
    /// Exact web origins that may use the app, 1 to 16, as browsers write them (RFC 6454, section 6.1).
    pub origins: Vec<String>,
    /// The WebAuthn relying party.
    pub relying_party: RelyingParty,
    /// Lifetimes of sessions.
    pub sessions: Sessions,
    /// PINs and their guess budget.
    pub pin: PinPolicy,
    /// Passkeys and when they expire.
    pub passkeys: Passkeys,
    /// Codes of an authenticator app.
    pub totp: Totp,
    /// Codes sent to a contact.
    pub delivered_codes: DeliveredCodes,
    /// Codes on paper.
    pub recovery_codes: RecoveryCodes,
    /// Where codes and notices go.
    pub contacts: Contacts,
    /// Names to look an account up by.
    pub aliases: Aliases,
    /// Devices of an account, and what lets another one in.
    pub devices: Devices,
    /// Which factors release which secret.
    pub release: Release,
    /// Who may replace a forgotten PIN or bind a device although too weak for it.
    pub recover: Recover,
    /// What may be stored.
    pub secrets: Secrets,
    /// Who may create accounts.
    pub enrolment: Enrolment,
    /// The app's own backend.
    pub backend: Backend,
    /// How long traces of people are kept.
    pub retention: Retention,
}

impl AppPolicy {
    /// Whether the app lets `factor` be set up and used. The device key and creation are in every account.
    #[must_use]
    pub fn allows(&self, factor: Factor) -> bool {
        match factor {
            Factor::Creation | Factor::Device => true,
            Factor::Pin => self.pin.allowed,
            Factor::Passkey => self.passkeys.allowed,
            Factor::Totp => self.totp.allowed,
            Factor::DeliveredCode => self.delivered_codes.allowed,
            Factor::RecoveryCode => self.recovery_codes.allowed,
        }
    }
}

/// The relying party (W3C Web Authentication, section 5.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelyingParty {
    /// A domain that is the host of each origin or a parent of it. Passkeys are lost when it changes.
    pub id: String,
    /// What authenticators show. Default: the display name of the app.
    pub name: String,
    /// Those of the app's origins that lie outside `id` and may use its passkeys all the same (related origin
    /// requests, W3C Web Authentication Level 3, section 5.11).
    pub related_origins: Vec<String>,
}

/// Lifetimes of sessions, in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Ends after this long without renewal.
    pub idle: Duration,
    /// Ends after this long in any case.
    pub absolute: Duration,
    /// How long an authentication allows changes of factors and devices.
    pub fresh: Duration,
    /// `idle` of a session made with the device key alone.
    pub read_only_idle: Duration,
    /// `absolute` of a session made with the device key alone.
    pub read_only_absolute: Duration,
}

/// PINs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPolicy {
    /// Whether accounts may have one.
    pub allowed: bool,
    /// Least number of Unicode scalar values.
    pub min_length: usize,
    /// Whether sequences, repetitions and the commonest PINs are refused.
    pub refuse_trivial: bool,
    /// Argon2id memory in KiB (RFC 9106, parameter m).
    pub memory_kib: u32,
    /// Argon2id passes (parameter t).
    pub passes: u32,
    /// Argon2id lanes (parameter p).
    pub lanes: u32,
    /// Whether the server may check PINs itself, by Argon2id: it sees the PIN then.
    pub argon2id: bool,
    /// Whether PINs may be checked by OPAQUE (RFC 9807), where they never leave the client.
    pub opaque: bool,
    /// What a client has to spend on each PIN with OPAQUE, at least; and what one is told that has no record.
    pub ksf: Ksf,
    /// How long a login or a registration by OPAQUE may take between its two calls.
    pub ceremony: Duration,
    /// The guess budget.
    pub rounds: Rounds,
}

/// The key stretching function of a client with OPAQUE (RFC 9807, section 2.3): Argon2id with these parameters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ksf {
    /// Memory in KiB (RFC 9106, parameter m).
    pub memory_kib: u32,
    /// Passes (parameter t).
    pub passes: u32,
    /// Lanes (parameter p).
    pub lanes: u32,
}

/// Passkeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkeys {
    /// Whether accounts may have one.
    pub allowed: bool,
    /// Ends this long after its registration or its last confirmation.
    pub max_age: Duration,
    /// Ends this long after its last use.
    pub max_idle: Duration,
    /// Most passkeys of one account.
    pub max_per_account: usize,
    /// How long a challenge may be answered.
    pub ceremony: Duration,
}

/// Devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// What a delivered code gives a device that is not bound to the account.
    pub code: UnknownDevice,
    /// The budget of PINs tried from such a device at once, without a code before. Absent: they are not
    /// evaluated.
    pub stranger_pin: Option<Rounds>,
    /// Most devices of one account.
    pub max_per_account: usize,
}

/// What a device that is not bound to the account gets for a right answer. See
/// [`unknown_device`](crate::devices::unknown_device).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownDevice {
    /// A limited session, which may only try the PIN next, or [`recover`](crate::recover).
    #[default]
    ThenPin,
    /// A session like that of a bound device.
    Full,
    /// The decoy answer: the factor is not even evaluated.
    Refused,
}

/// Rules by the name of a secret; `"*"` is for all that have none of their own. See
/// [`may_release`](crate::release::may_release).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release(pub BTreeMap<String, Vec<Factor>>);

/// The exception to step-up: see [`may_recover`](crate::recover::may_recover).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recover {
    /// The factors that may use it. Never the device key.
    pub by: Vec<Factor>,
    /// How long such a change waits, in which the owner can cancel it. Zero: not at all.
    pub delay: Duration,
}

/// Stored secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// Whether a secret may have a slot that the server can open.
    pub server_slot: ServerSlot,
    /// Most secrets of one account.
    pub max_count: usize,
    /// Most bytes of one secret, all its slots together.
    pub max_bytes: usize,
}

/// Whether a secret may have a slot that the server can open.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerSlot {
    /// It may. The secret can then be recovered by every factor that may release it.
    #[default]
    Allowed,
    /// No new one is taken. Those that are there are released until clients have moved what they open.
    Ending,
    /// It may not: only slots sealed end to end are taken, and one from before is not given out.
    Forbidden,
}

impl ServerSlot {
    /// As a policy writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Ending => "ending",
            Self::Forbidden => "forbidden",
        }
    }

    /// Whether a secret may get one.
    #[must_use]
    pub fn is_taken(self) -> bool {
        self == Self::Allowed
    }

    /// Whether one that is there opens its secret.
    #[must_use]
    pub fn is_released(self) -> bool {
        self != Self::Forbidden
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            idle: minutes(15),
            absolute: minutes(12 * 60),
            fresh: minutes(5),
            read_only_idle: days(7),
            read_only_absolute: days(90),
        }
    }
}

impl Default for PinPolicy {
    fn default() -> Self {
        Self {
            allowed: true,
            min_length: 6,
            refuse_trivial: true,
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
            argon2id: true,
            opaque: true,
            ksf: Ksf::default(),
            ceremony: minutes(2),
            rounds: Rounds::default(),
        }
    }
}

impl Default for Ksf {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
        }
    }
}

/// Five at once, three after five minutes, two after an hour: ten guesses in all.
impl Default for Rounds {
    fn default() -> Self {
        let round = |attempts, wait| Round { attempts, wait };
        Self::of_checked(vec![
            round(5, Duration::ZERO),
            round(3, minutes(5)),
            round(2, minutes(60)),
        ])
    }
}

impl Default for Passkeys {
    fn default() -> Self {
        Self {
            allowed: true,
            max_age: days(365),
            max_idle: days(90),
            max_per_account: 8,
            ceremony: minutes(5),
        }
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            code: UnknownDevice::default(),
            stranger_pin: None,
            max_per_account: 16,
        }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            server_slot: ServerSlot::default(),
            max_count: 8,
            max_bytes: 4096,
        }
    }
}

const fn minutes(number: u64) -> Duration {
    Duration::from_secs(number * 60)
}

const fn days(number: u64) -> Duration {
    minutes(number * 24 * 60)
}
