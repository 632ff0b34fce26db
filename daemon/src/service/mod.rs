//! The use cases, where the security argument reads from top to bottom.
//!
//! Every file here goes the same way: load and verify (ledger), decide (policies), charge
//! (ledger), evaluate (factors), record and release (ledger). HTTP and the command line call
//! these functions and nothing below them. A decision runs inside a commit, on the newest
//! state; whatever was read before it is checked again there.

mod app_keys;
mod apps;
mod auditors;
mod authenticate;
mod bindings;
mod callers;
mod code_sign_in;
mod contacts;
mod counted;
mod delivered_codes;
mod devices;
mod door;
mod ends;
mod enrol;
mod error;
mod guess;
mod named;
mod notices;
mod offline;
mod opaque_enrol;
mod opaque_sign_in;
mod operators;
mod overview;
mod passkeys;
mod pin;
mod privacy;
mod quarantine;
mod quota;
mod rates;
mod recipients;
mod recover;
mod recovery_codes;
mod rotation;
mod secrets;
mod server_slots;
mod sessions;
mod slots;
pub mod standing;
mod stranger_pin;
mod strangers;
pub mod tokens;
mod totp;
mod unfinished;

use std::sync::Arc;

use custodyd_hsm::{AccountId, RealmName};
use custodyd_policies::{Factor, PasskeyState, Timestamp, expiry, release};

pub use self::apps::{App, Apps, Changes, Served};
pub use self::auditors::{Auditors, LogPart};
pub use self::authenticate::PasskeyLogin;
pub use self::bindings::Bindings;
pub use self::callers::Callers;
pub use self::door::{AnswerPlace, Door, END as END_BODY, Kind, Way};
pub use self::ends::{End, Ending, Ends};
pub use self::error::Refused;
pub use self::guess::Guess;
pub use self::operators::{TrailEvent, TrailPage};
pub use self::quota::EnrolmentQuota;
pub(crate) use self::rates::network;
pub use self::recipients::Recipients;
pub(crate) use self::rotation::PublicKeys;
pub use self::rotation::{KeyError, Rotation};
pub use self::secrets::Precondition;
pub use self::standing::{Asking, Standing};
pub use self::strangers::Strangers;
pub use self::unfinished::Unfinished;
use crate::account::{Account, BoundPasskey};
use crate::delivery::Courier;
use crate::factors::dpop::{DeviceKey, Proofs};
use crate::factors::pin_argon2::PinHasher;
use crate::factors::pin_opaque::OpaqueServer;
use crate::factors::random;
use crate::factors::session::{Scope, Session};
use crate::factors::token::EpochKeys;
use crate::ledger::{Ledger, Loaded};
use crate::witness::Cosigned;

/// Bounds on what one account may hold, so that its envelope stays within a sealed record.
const MAX_NAME: usize = 64;

#[derive(Debug)]
pub struct Service {
    pub(crate) apps: Apps,
    pub(crate) ledger: Ledger,
    pub(crate) proofs: Proofs,
    pub(crate) keys: EpochKeys,
    pub(crate) hasher: PinHasher,
    pub(crate) opaque: OpaqueServer,
    pub(crate) unfinished: Unfinished,
    pub(crate) bindings: Bindings,
    pub(crate) auditors: Auditors,
    pub(crate) cosigned: Cosigned,
    pub(crate) strangers: Strangers,
    pub(crate) callers: Callers,
    pub(crate) door: Door,
    pub(crate) ends: Ends,
    pub(crate) enrolments: EnrolmentQuota,
    pub(crate) courier: Courier,
    pub(crate) recipients: Arc<Recipients>,
    pub(crate) rotation: Rotation,
}

/// Who calls without a session: the holder of a device key, proven by DPoP, and the app asked.
#[derive(Clone, Debug)]
pub struct Device {
    pub app: Arc<App>,
    pub key: DeviceKey,
}

/// The newest state of an account in which a session stands, whoever has sent it.
#[derive(Debug)]
pub struct StandingSession {
    pub(crate) app: Arc<App>,
    pub(crate) loaded: Loaded,
}

/// Who calls with a session: everything about it has been checked against the account.
#[derive(Clone, Debug)]
pub struct Caller {
    pub app: Arc<App>,
    pub key: DeviceKey,
    pub session: Session,
    pub loaded: Loaded,
}

impl Service {
    #[must_use]
    pub fn realm(&self) -> &RealmName {
        self.ledger.realm()
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.ledger.now()
    }

    /// What time alone brings about: guesses that nobody finished have failed, and the slow mode may be over. Called
    /// every second or so, as long as it says that there is something to wait for.
    pub(crate) fn look(&self) -> bool {
        let now = self.now();
        for _ in 0..self.unfinished.take(now) {
            self.strangers.failed(now);
        }
        self.strangers.look(now);
        self.strangers.is_slow() || !self.unfinished.is_empty()
    }
}

impl Caller {
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.loaded.account
    }

    /// Whether the sign-in is complete. Half of one may do what the route that asks says, and
    /// nothing else: every route but those few asks here first.
    ///
    /// # Errors
    /// `PinNext`.
    pub fn is_signed_in(&self) -> Result<(), Refused> {
        match self.session.scope {
            Scope::PinOnly => Err(Refused::PinNext),
            Scope::Read | Scope::Full => Ok(()),
        }
    }

    /// The device that calls, without its session.
    fn device(&self) -> Device {
        Device {
            app: Arc::clone(&self.app),
            key: self.key.clone(),
        }
    }

    /// Whether the session still counts as fresh at `now`.
    fn fresh(&self, now: Timestamp) -> bool {
        expiry::is_fresh(
            now,
            &self.app.policy.sessions,
            self.session.authenticated,
            self.session.factor,
        )
    }

    /// The factors that the account can use, as this session counts them: one that began with
    /// the last recovery code goes on as such.
    fn held(&self, account: &Account, now: Timestamp) -> Vec<Factor> {
        let mut held = held(account, &self.app, now);
        let by = Factor::RecoveryCode;
        if self.session.factor == by && self.app.policy.allows(by) && !held.contains(&by) {
            held.push(by);
        }
        held
    }

    /// May this session write at all?
    fn writes(&self) -> Result<(), Refused> {
        match self.session.scope {
            Scope::Full => Ok(()),
            Scope::Read => Err(Refused::ReadOnly),
            Scope::PinOnly => Err(Refused::PinNext),
        }
    }

    /// May this session change something of the strength of `concerned`? Asked inside the
    /// commit, of the newest state: `account` is that state.
    fn step_up(&self, account: &Account, concerned: Factor, now: Timestamp) -> Result<(), Refused> {
        self.writes()?;
        release::step_up(
            concerned,
            &self.held(account, now),
            self.session.factor,
            self.fresh(now),
        )?;
        Ok(())
    }

    /// The session must still stand in the newest state: a sign-out or a removed device that
    /// was committed since the request began must win.
    fn still_stands(&self, account: &Account) -> Result<(), Refused> {
        sessions::stands(&self.session, account)
    }
}

/// The factors that an account can use. An expired passkey is none of them: else a lost one
/// would bar its owner from adding another. Nor is one that the policy does not allow any more.
fn held(account: &Account, app: &App, now: Timestamp) -> Vec<Factor> {
    let mut held = Vec::new();
    let pin = account.pin.as_ref();
    if pin.is_some_and(|pin| pin.way.is_allowed(&app.policy.pin)) {
        held.push(Factor::Pin);
    }
    let live = |bound: &BoundPasskey| {
        matches!(
            expiry::passkey(now, &app.policy.passkeys, bound.confirmed, bound.last_used),
            PasskeyState::Live { .. }
        )
    };
    if app.policy.passkeys.allowed && account.passkeys.iter().any(live) {
        held.push(Factor::Passkey);
    }
    if app.policy.delivered_codes.allowed && account.contacts.reachable().next().is_some() {
        held.push(Factor::DeliveredCode);
    }
    if account.totp.is_some() && app.policy.totp.allowed {
        held.push(Factor::Totp);
    }
    let codes = account.recovery_codes.as_ref();
    if app.policy.recovery_codes.allowed && codes.is_some_and(|set| set.codes.left() > 0) {
        held.push(Factor::RecoveryCode);
    }
    held
}

/// A name that an owner gave to something of theirs.
fn name(given: Option<String>) -> Result<Option<String>, Refused> {
    match given {
        Some(name)
            if name.is_empty()
                || name.chars().count() > MAX_NAME
                || name.chars().any(char::is_control) =>
        {
            Err(Refused::Malformed(format!(
                "a name has 1 to {MAX_NAME} characters and no control characters"
            )))
        }
        given => Ok(given),
    }
}

fn random_account() -> Result<AccountId, Refused> {
    let bytes = random::<16>()?;
    Ok(AccountId(
        *uuid::Builder::from_random_bytes(bytes).as_uuid().as_bytes(),
    ))
}
