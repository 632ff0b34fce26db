//! Events of an account: what happened, numbered without gaps, readable by their owner.
//!
//! An event's log entry is a commitment only: SHA-256 over a fresh 32-byte salt and the sealed
//! body, which stand in a row of their own and can be erased without breaking the log. The
//! body is sealed under the key in the account's envelope, so an administrator sees that
//! something happened, never what. Each body names its number and the entry before it.

use aws_lc_rs::digest;
use custodyd_hsm::seal::{LocalKey, Pad, open_local, seal_local};
use custodyd_hsm::{RecordId, Secret};
use custodyd_policies::{Factor, Timestamp};
use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::log::LEAF_EVENT;
use crate::account::{Account, Mark, Trail};
use crate::store::{BodyRow, EventRow};

const COMMITMENT: &[u8] = b"custodyd/event/v1";
const BODY_DOMAIN: &str = "custodyd/event-body/v1";
/// Bodies are padded, so that their sizes do not tell kinds apart.
const BODY_SIZE: usize = 512;

/// What happened. Stable names: they stand in the log for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    AccountCreated,
    DeviceBound,
    DeviceRemoved,
    PinSet,
    PinRemoved,
    /// A PIN attempt was charged; its outcome is the next event about it.
    PinCharged,
    PinRefused,
    PasskeyAdded,
    PasskeyRemoved,
    PasskeyConfirmed,
    PasskeyRefused,
    SessionStarted,
    SessionEnded,
    SessionsEnded,
    SecretStored,
    SecretReleased,
    SecretDeleted,
    /// Slots of a secret went with the factor that they were for.
    SlotsDropped,
    /// An address was named; it is worth nothing before a code to it has come back.
    ContactClaimed,
    ContactConfirmed,
    ContactRemoved,
    AliasClaimed,
    AliasConfirmed,
    AliasRemoved,
    /// A bound device asked for a code.
    CodeSent,
    /// An attempt at a delivered code was charged; its outcome is the next event about it.
    CodeCharged,
    CodeRefused,
    /// A secret for an authenticator app was shown; it is not in use yet.
    TotpEnrolled,
    TotpAdded,
    TotpRemoved,
    TotpCharged,
    TotpRefused,
    RecoveryCodesSet,
    RecoveryCodesRemoved,
    RecoveryCodeCharged,
    RecoveryCodeRefused,
    RecoveryCodeSpent,
    /// A factor that is too weak by itself asked for a change, which waits.
    RecoverRequested,
    RecoverCancelled,
    /// It made the change, which is the next event.
    RecoverUsed,
    /// Everything held about the owner was handed out in one document.
    AccountExported,
    AppKeyAdded,
    AppKeyRemoved,
    /// A device reports wrong PINs that were typed where only its own copy heard them.
    OfflinePinsRefused,
}

impl EventKind {
    /// Whether an account holds more after it, for good. Such a change must leave room for those
    /// that do not: signing in, being charged, removing something.
    #[must_use]
    pub fn keeps_something(self) -> bool {
        match self {
            Self::AccountCreated
            | Self::DeviceBound
            | Self::PinSet
            | Self::PasskeyAdded
            | Self::SecretStored
            | Self::ContactClaimed
            | Self::ContactConfirmed
            | Self::AliasClaimed
            | Self::AliasConfirmed
            | Self::TotpEnrolled
            | Self::TotpAdded
            | Self::RecoveryCodesSet
            | Self::AppKeyAdded => true,
            Self::DeviceRemoved
            | Self::PinRemoved
            | Self::PinCharged
            | Self::PinRefused
            | Self::PasskeyRemoved
            | Self::PasskeyConfirmed
            | Self::PasskeyRefused
            | Self::SessionStarted
            | Self::SessionEnded
            | Self::SessionsEnded
            | Self::SecretReleased
            | Self::SecretDeleted
            | Self::SlotsDropped
            | Self::ContactRemoved
            | Self::AliasRemoved
            | Self::CodeSent
            | Self::CodeCharged
            | Self::CodeRefused
            | Self::TotpRemoved
            | Self::TotpCharged
            | Self::TotpRefused
            | Self::RecoveryCodesRemoved
            | Self::RecoveryCodeCharged
            | Self::RecoveryCodeRefused
            | Self::RecoveryCodeSpent
            | Self::RecoverRequested
            | Self::RecoverCancelled
            | Self::RecoverUsed
            | Self::AccountExported
            | Self::AppKeyRemoved
            | Self::OfflinePinsRefused => false,
        }
    }
}

/// How soon the token must know of an event, where it is not told of each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// Something is taken away, replaced, or used up for good: before anybody is told.
    AtOnce,
    /// A guess: one of each account may be forgotten, and is paid for.
    Charged,
    /// A ceremony or a delivered code: both are void once anything may have been forgotten.
    UsesUp,
    None,
}

/// An event as a change declares it; the ledger gives it its number and place.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub kind: EventKind,
    pub factor: Option<Factor>,
    /// Device identifier of the device or credential concerned.
    pub device_id: Option<String>,
    /// What else the owner should see: the secret's name, the passkey's name.
    pub detail: Option<String>,
}

impl NewEvent {
    /// What is not known to be harmless is told at once.
    pub(super) fn haste(&self) -> Haste {
        match (self.kind, self.factor) {
            (EventKind::PinCharged | EventKind::CodeCharged, _) => Haste::Charged,
            // A step that was accepted, a code that was spent: neither dies with a boot epoch.
            (_, Some(Factor::Totp | Factor::RecoveryCode)) => Haste::AtOnce,
            (EventKind::SessionStarted | EventKind::PasskeyConfirmed, _) => Haste::UsesUp,
            (
                EventKind::AccountCreated
                | EventKind::PinRefused
                | EventKind::PasskeyRefused
                | EventKind::CodeRefused
                | EventKind::TotpRefused
                | EventKind::RecoveryCodeRefused
                | EventKind::CodeSent
                | EventKind::ContactClaimed
                | EventKind::AliasClaimed
                | EventKind::TotpEnrolled
                | EventKind::SecretStored
                | EventKind::SecretReleased
                | EventKind::AccountExported
                | EventKind::OfflinePinsRefused,
                _,
            ) => Haste::None,
            _ => Haste::AtOnce,
        }
    }

    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            factor: None,
            device_id: None,
            detail: None,
        }
    }

    #[must_use]
    pub fn by(mut self, factor: Factor) -> Self {
        self.factor = Some(factor);
        self
    }

    #[must_use]
    pub fn on(mut self, device_id: &str) -> Self {
        self.device_id = Some(device_id.to_owned());
        self
    }

    #[must_use]
    pub fn about(mut self, detail: &str) -> Self {
        self.detail = Some(detail.to_owned());
        self
    }
}

/// An event as it stands in the log and as its owner reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Counts the account's events from 1, without gaps.
    pub number: u64,
    /// Log entry of the event before this one.
    pub previous: Option<u64>,
    /// Seconds since the Unix epoch.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    pub kind: EventKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub factor: Option<Factor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A log entry and its erasable body, ready to be written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) leaf: Vec<u8>,
    pub(super) body: BodyRow,
}

/// Numbers an event, seals it and moves the account's trail forward to it.
pub(super) fn append(
    account: &mut Account,
    record: &RecordId,
    index: u64,
    at: Timestamp,
    new: NewEvent,
) -> Result<Entry, LedgerError> {
    let event = Event {
        number: account.trail.count + 1,
        previous: account.trail.last_index,
        at,
        kind: new.kind,
        factor: new.factor,
        device_id: new.device_id,
        detail: new.detail,
    };
    let plaintext =
        serde_json::to_vec(&event).map_err(|_| LedgerError::internal("encode an event"))?;
    let number = event.number.to_be_bytes();
    let body = seal_local(
        &body_key(&account.trail)?,
        &[record.as_bytes(), &number],
        &[],
        Pad::Multiple(BODY_SIZE),
        &plaintext,
    )?;
    let entry = Entry::new(LEAF_EVENT, COMMITMENT, body)?;
    account.trail.moved_on(Mark {
        number: event.number,
        index,
        at,
    });
    Ok(entry)
}

impl Entry {
    /// Commits to a body with a fresh salt.
    pub(super) fn new(kind: u8, domain: &[u8], body: Vec<u8>) -> Result<Self, LedgerError> {
        let mut salt = [0; 32];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| LedgerError::internal("draw a salt"))?;
        Ok(Self {
            leaf: leaf(kind, domain, &salt, &body),
            body: BodyRow {
                salt: salt.to_vec(),
                body,
            },
        })
    }
}

/// Verifies and opens the event that the trail says is number `number`.
pub(super) fn open(
    trail: &Trail,
    record: &RecordId,
    index: u64,
    number: u64,
    row: Option<EventRow>,
) -> Result<(Event, BodyRow), LedgerError> {
    let tampered = |what: &str| LedgerError::Tampered(format!("log entry {index}: {what}"));
    let row = row.ok_or_else(|| tampered("is missing"))?;
    let body = row.body.ok_or_else(|| tampered("has no body"))?;
    if row.leaf != event_leaf(&body.salt, &body.body) {
        return Err(tampered("its body does not match its commitment"));
    }
    let plaintext = open_local(
        &body_key(trail)?,
        &[record.as_bytes(), &number.to_be_bytes()],
        &[],
        &body.body,
    )
    .map_err(|_| tampered("its body does not open as this account's event"))?;
    let event: Event = serde_json::from_slice(plaintext.expose())
        .map_err(|_| tampered("its body does not parse"))?;
    if event.number == number {
        Ok((event, body))
    } else {
        Err(tampered("its number is wrong"))
    }
}

/// Whether a leaf is an event's, and commits to this body.
pub(super) fn commits(leaf: &[u8], body: &BodyRow) -> bool {
    leaf == self::leaf(LEAF_EVENT, COMMITMENT, &body.salt, &body.body)
}

fn body_key(trail: &Trail) -> Result<LocalKey, LedgerError> {
    let key = Secret::try_init(|out: &mut [u8; 32]| {
        if trail.key.len() == out.len() {
            out.copy_from_slice(trail.key.expose());
            Ok(())
        } else {
            Err(LedgerError::internal("take the trail's key"))
        }
    })?;
    Ok(LocalKey::new(key, BODY_DOMAIN))
}

/// The entry that commits to an event's sealed body.
pub(super) fn event_leaf(salt: &[u8], body: &[u8]) -> Vec<u8> {
    leaf(LEAF_EVENT, COMMITMENT, salt, body)
}

pub(super) fn leaf(kind: u8, domain: &[u8], salt: &[u8], body: &[u8]) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for field in [domain, salt, body] {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        hash.update(&length.to_be_bytes());
        hash.update(field);
    }
    let mut leaf = vec![kind];
    leaf.extend_from_slice(hash.finish().as_ref());
    leaf
}
