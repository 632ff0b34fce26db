//! custodyd-policies: what an operator decided about an app, and the pure decisions that follow from it.
//!
//! Called by the daemon's service layer between opening a sealed account envelope and committing its next version,
//! and by its start-up and reload, which parse policy files. The folder `apps/` beside this crate's sources
//! holds policy files that explain themselves line by line.
//!
//! Must never read a clock, do I/O, or know of tokens, HTTP or SQL: state and time go in, an answer or a changed
//! state comes out. So every rule can be tested over all orders of events, and reads the same in the daemon, in
//! a test and in an audit.
//!
//! | module | decides |
//! |---|---|
//! | [`attempts`], [`rounds`] | whether one more guess may be made, and what an outcome does to the count |
//! | [`expiry`] | whether a session or a passkey has ended, whether an authentication is fresh |
//! | [`release`] | which factor takes which secret out, and which one may change the account |
//! | [`recover`] | which weaker factor may replace a forgotten PIN or bind a device all the same |
//! | [`devices`] | what a device gets that is not bound to the account |
//! | [`strangers`] | when a stranger's answer leaves, and when wrong guesses are too many |
//! | [`otp`], [`pacing`] | which codes may be accepted, and when the next one may be sent |
//! | [`retention`] | when an account or an event has been kept for long enough |
//! | [`pin`] | which PINs may be set |
//! | [`ksf`] | what a client with OPAQUE must have spent on one |
//! | [`app`], [`bounds`], [`mod@parse`] | what a policy is, what its values may be, and how a file becomes one |

pub mod app;
pub mod attempts;
pub mod bounds;
pub mod devices;
pub mod expiry;
pub mod factor;
pub mod ksf;
mod origin;
pub mod otp;
pub mod pacing;
pub mod parse;
pub mod pin;
pub mod recover;
pub mod release;
pub mod retention;
pub mod rounds;
pub mod strangers;
pub mod time;

#[cfg(test)]
mod properties;

pub use app::{
    Aliases, AppPolicy, Backend, Channel, Contacts, DeliveredCodes, Devices, Enrolment, Ksf,
    LinkTemplate, Passkeys, PinPolicy, Recover, RecoveryCodes, Release, RelyingParty, Retention,
    Secrets, ServerSlot, Sessions, TicketKey, Totp, UnknownDevice,
};
pub use attempts::{Budget, ChargeId, MAX_ATTEMPTS, Refused, Standing, UnknownCharge};
pub use devices::{recovery_incomplete, rounds_after_code, unknown_device};
pub use expiry::{CREATION_FRESH, ExpiryCause, PasskeyState, SessionState, fresh_until, is_fresh};
pub use factor::{Factor, Strength};
pub use ksf::KsfRefused;
pub use otp::accept_step;
pub use pacing::{Paced, good_for, may_deliver};
pub use parse::{PolicyError, parse};
pub use pin::{PinWeakness, acceptable};
pub use recover::{RecoverGrant, Recovery, due, may_recover};
pub use release::{
    CONTACT_WORTH, DEVICE_WORTH, NotItsReader, StepUp, is_secret_name, may_release, may_replace,
    step_up,
};
pub use retention::{event_ends, is_inactive};
pub use rounds::{Round, Rounds, RoundsError};
pub use strangers::{SlowMode, Turn, leaves_after};
pub use time::Timestamp;
