//! Why a request was refused, in the words of the service; HTTP gives them a status.
//!
//! What a stranger may learn is decided where the refusal is made: an unknown account, an
//! unbound device and a wrong credential all become `AuthenticationFailed`.

use std::time::Duration;

use custodyd_policies::{
    Factor, KsfRefused, NotItsReader, Refused as BudgetRefused, StepUp, Timestamp,
};

use super::door::busy;
use super::guess::Guess;
use crate::factors::RandomFailed;
use crate::factors::ceremony::CeremonyError;
use crate::factors::dpop::ProofError;
use crate::factors::passkey::PasskeyError;
use crate::factors::pin_argon2::{Busy, PinError};
use crate::factors::pin_opaque::OpaqueError;
use crate::factors::ticket::TicketError;
use crate::factors::token::TokenError;
use crate::ledger::LedgerError;

/// A moment to come, and how far away it is by the clock that it was chosen by. The host's own may say something else, and so
/// may the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    pub at: Timestamp,
    pub seconds: u64,
}

impl Later {
    pub(super) fn than(now: Timestamp, at: Timestamp) -> Self {
        Self {
            at,
            seconds: at.0.saturating_sub(now.0).max(1),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("there is no app {0:?} here")]
    UnknownApp(String),
    #[error("the origin {0:?} is not one of this app's; the policy file lists them")]
    OriginNotAllowed(String),
    #[error(
        "this app takes no new accounts without a ticket: its policy says enrolment.open = false"
    )]
    EnrolmentClosed,
    #[error(
        "this app's hourly quota of new accounts is used up here; try again later, or bring a ticket"
    )]
    EnrolmentQuota { retry_after: Duration },
    #[error("{0}")]
    Ticket(#[from] TicketError),
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Proof(#[source] ProofError),

    #[error("send the session as `Authorization: DPoP <token>`")]
    SessionMissing,
    #[error("the session token is not one of this realm's, or was made for another device key")]
    SessionInvalid,
    #[error("the session has expired; start another")]
    SessionExpired,
    #[error("the session was ended; start another")]
    SessionEnded,
    #[error("this session may only read; start one with a PIN or a passkey")]
    ReadOnly,
    #[error("this session may only go on with the PIN; POST /v1/session/pin makes it a full one")]
    PinNext,
    #[error("this session is a full one already")]
    SessionComplete,
    #[error("this needs a stronger or fresher session")]
    StepUp(StepUp),

    #[error("the account, the device or the credential is not right")]
    AuthenticationFailed,
    #[error("the {} is wrong", guess.what())]
    Wrong {
        guess: Guess,
        left: u32,
        wait_until: Option<Timestamp>,
        exhausted: bool,
    },
    #[error("the next {} attempt may be made later", guess.what())]
    Wait { guess: Guess, until: Later },
    #[error(
        "no {what} attempt is left; use another factor, which makes the {what} usable again",
        what = .0.what()
    )]
    Exhausted(Guess),
    #[error(
        "the service was restored to an earlier state: sign in once by the strongest factor of the account (a passkey, where it has one), then this one serves again"
    )]
    ConfirmFirst,
    #[error("this account has no {}", .0.what())]
    NotSet(Guess),
    #[error("this change waits, in case its owner cancels it; ask again when it is due")]
    RecoveryWaits { due: Later },
    #[error("{0}")]
    PinWeak(String),
    #[error("{0}")]
    Ksf(#[from] KsfRefused),
    #[error("the PIN of this account is checked by {0}: sign in that way, or set it anew")]
    PinOtherWay(&'static str),
    #[error("this app's policy does not allow a {0}")]
    NotAllowed(&'static str),
    #[error("{0}")]
    Passkey(#[from] PasskeyError),
    #[error("this passkey has expired; confirm it from another session first")]
    PasskeyExpired,
    #[error("this passkey is registered already")]
    PasskeyKnown,
    #[error("{0}")]
    Ceremony(#[from] CeremonyError),
    #[error("the ceremony token is not one of this realm's")]
    CeremonyInvalid,
    #[error("this ceremony has been used")]
    CeremonyConsumed,
    #[error("at most {limit} {what} are kept for an account")]
    TooMany { what: &'static str, limit: usize },

    #[error("the account has this {0} already")]
    AddressKnown(&'static str),
    #[error("this daemon can not send anything by {0}; its operator has to set up [delivery]")]
    Unreachable(&'static str),
    #[error("another code can be sent later")]
    DeliveryWait { until: Later },

    #[error("the account is full; remove a secret, a device or a passkey first")]
    AccountFull,

    #[error("there is no {0} by this name")]
    NotFound(&'static str),
    #[error("the device that asks can not be removed; sign out or use another device")]
    OwnDevice,
    #[error("say which version is replaced: If-Match with its ETag, or If-None-Match: *")]
    PreconditionRequired,
    #[error("the secret has another version now")]
    PreconditionFailed { current: Option<u64> },
    #[error("a secret may have at most {limit} bytes, all its slots together")]
    SecretTooLarge { limit: usize },
    #[error("{0}")]
    SecretShape(&'static str),
    #[error("this app's policy forbids a server slot: seal the secret under key slots")]
    ServerSlotForbidden,
    #[error("a passkey's PRF must not be the only way to a secret: add another slot")]
    PrfOnlySlot,
    #[error(
        "a slot of the secret {name:?} is for a {what} that the account does not have: name one that it has, or that this request adds"
    )]
    SlotUnknown { name: String, what: &'static str },
    #[error(
        "without this the secret {name:?} could not be opened any more, or by a passkey's PRF alone: send its slots anew in `secrets` for other factors, or delete it first"
    )]
    LastSlot { name: String },
    #[error("a {by} session may not have the secret {name:?}: the policy's release rules say so")]
    ReleaseForbidden { name: String, by: &'static str },
    #[error(
        "a {by} session may not read the secret {name:?}, and so may not change or delete it: sign in with one of {}", list(&lacks.one_of)
    )]
    NotItsReader {
        name: String,
        by: &'static str,
        lacks: NotItsReader,
    },
    #[error("an account must keep an app key; add the next one before this one is removed")]
    LastAppKey,
    #[error("this app key was revoked, and a revoked key is never bound again; make a new one")]
    AppKeyRevoked,
    #[error(
        "send a credential of this app's backend as `Authorization: Bearer <credential>`; the policy lists its SHA-256"
    )]
    CredentialInvalid,
    #[error("this Idempotency-Key or ticket has made an account already")]
    AccountExists,

    #[error("another account has this alias")]
    AliasTaken,

    #[error("too many requests from here, to this app or for this account; try again later")]
    RateLimited { retry_after: Duration },
    #[error("too much work is waiting; try again later")]
    Busy { retry_after: Duration },
    #[error("the token is not available; try again later")]
    TokenUnavailable(custodyd_hsm::Error),
    #[error("the database is not available; try again later")]
    StoreUnavailable(LedgerError),
    #[error(
        "it is not certain at the moment that this daemon knows the newest state; try again later"
    )]
    Unconfirmed,
    #[error(
        "a newer version of the service has taken over, and this node is too old to serve beside it: another node does; try again"
    )]
    Outgrown(String),
    #[error("the stored account does not verify and is not used; its operator has to look")]
    Tampered(String),
    #[error("something went wrong inside")]
    Internal(&'static str),
    #[error(
        "send the credential of an auditor as `Authorization: Bearer <credential>`; [auditors] of the configuration lists its SHA-256"
    )]
    AuditorInvalid,
    #[error("the stored log does not verify and is not shown; its operator has to look")]
    LogTampered(String),
}

fn list(factors: &[Factor]) -> String {
    let names: Vec<&str> = factors.iter().map(|factor| factor.name()).collect();
    names.join(", ")
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Token(error) => error.into(),
            LedgerError::Tampered(evidence) => {
                // The evidence is for the operator; the client learns only that it happened.
                tracing::error!(%evidence, "stored bytes do not verify");
                metrics::counter!("custodyd_tampered_total").increment(1);
                Self::Tampered(evidence)
            }
            LedgerError::Busy => busy("commits", Duration::from_secs(1)),
            LedgerError::Exists => Self::AccountExists,
            LedgerError::TooLarge => Self::AccountFull,
            // Whoever is told had proven who they are while the account was there.
            LedgerError::Erased => Self::SessionEnded,
            LedgerError::AliasTaken => Self::AliasTaken,
            // No queue is full: there is nothing to make larger.
            LedgerError::Stale | LedgerError::Overtaken | LedgerError::Late(_) => Self::Busy {
                retry_after: Duration::from_secs(1),
            },
            LedgerError::TooManyEvents { limit } => Self::Malformed(format!(
                "a request may leave at most {limit} events; ask for less at once"
            )),
            LedgerError::Internal(what) => Self::Internal(what),
            LedgerError::Unconfirmed => Self::Unconfirmed,
            LedgerError::Outgrown(which) => Self::Outgrown(which),
            error @ (LedgerError::Store(_) | LedgerError::Refused(_) | LedgerError::Stopped) => {
                Self::StoreUnavailable(error)
            }
        }
    }
}

impl From<ProofError> for Refused {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::OtherKey => Self::SessionInvalid,
            error => Self::Proof(error),
        }
    }
}

impl From<custodyd_hsm::Error> for Refused {
    fn from(error: custodyd_hsm::Error) -> Self {
        match error {
            custodyd_hsm::Error::Busy { .. } => busy("token", Duration::from_secs(1)),
            error => Self::TokenUnavailable(error),
        }
    }
}

impl From<Busy> for Refused {
    fn from(full: Busy) -> Self {
        busy("pin", full.retry_after)
    }
}

impl From<RandomFailed> for Refused {
    fn from(_: RandomFailed) -> Self {
        Self::Internal("draw random bytes")
    }
}

impl From<PinError> for Refused {
    fn from(error: PinError) -> Self {
        tracing::error!(%error, "a PIN was not evaluated");
        Self::Internal("evaluate a PIN")
    }
}

impl From<OpaqueError> for Refused {
    fn from(error: OpaqueError) -> Self {
        match error {
            OpaqueError::Message { .. } => Self::Malformed(error.to_string()),
            error => {
                tracing::error!(%error, "a message of OPAQUE was not answered");
                Self::Internal("answer a message of OPAQUE")
            }
        }
    }
}

impl From<StepUp> for Refused {
    fn from(step_up: StepUp) -> Self {
        Self::StepUp(step_up)
    }
}

impl Refused {
    /// A guess that was not charged.
    pub(super) fn budget(guess: Guess, refused: BudgetRefused, now: Timestamp) -> Self {
        match refused {
            BudgetRefused::Wait { until } => Self::Wait {
                guess,
                until: Later::than(now, until),
            },
            BudgetRefused::Exhausted => Self::Exhausted(guess),
        }
    }

    /// A session token that does not open.
    pub(super) fn session(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable(error) => error.into(),
            TokenError::Expired => Self::SessionExpired,
            _ => Self::SessionInvalid,
        }
    }

    /// A ceremony token that does not open.
    pub(super) fn ceremony(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable(error) => error.into(),
            _ => Self::CeremonyInvalid,
        }
    }
}
