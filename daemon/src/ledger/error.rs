//! Why the ledger did not do what it was asked for.
//!
//! Called by everybody above it: `service` turns these into answers, the command line into sentences for an operator.

use std::sync::Arc;

use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("token: {0}")]
    Token(#[from] custodyd_hsm::Error),
    #[error("store: {0}")]
    Store(#[source] StoreError),
    /// Stored bytes are not what the daemon wrote. Names the evidence, for the log only.
    #[error("tampered: {0}")]
    Tampered(String),
    /// Nothing was altered, and yet it can not be served: says what an operator has to do.
    #[error("{0}")]
    Refused(String),
    #[error("the commit queue is full")]
    Busy,
    /// Other nodes, or other changes of the same account. Nothing of it was done; where what beat it is lost with a server before
    /// anybody was told of it, it may be yet (`committer/replaying.rs`).
    #[error("others were faster each time: try again")]
    Overtaken,
    #[error("it took too long {0}: try again")]
    Late(&'static str),
    #[error("the record exists already")]
    Exists,
    /// The account was erased, maybe while the change was on its way.
    #[error("the account is erased")]
    Erased,
    /// Another account has the alias.
    #[error("the alias is taken")]
    AliasTaken,
    /// A newer custodyd has taken the realm over, by a head of the token's making, and this one may not serve beside it.
    /// Says which may.
    #[error("{0}")]
    Outgrown(String),
    /// What the change was made from is not the newest any more.
    #[error("the record has changed meanwhile")]
    Stale,
    #[error("the account is full")]
    TooLarge,
    #[error("more than {limit} events in one change")]
    TooManyEvents { limit: usize },
    /// The token has not said lately that what this daemon anchored last is the newest.
    #[error(
        "the token has not confirmed within the last second that this daemon's state is the newest"
    )]
    Unconfirmed,
    /// The committer has stopped: nothing is written any more until a restart.
    #[error("the committer has stopped")]
    Stopped,
    #[error("internal: could not {0}")]
    Internal(&'static str),
}

impl From<StoreError> for LedgerError {
    /// Damage is not an outage: nobody should wait for it to pass.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Oversized { .. } | StoreError::Malformed { .. } => {
                Self::Tampered(error.to_string())
            }
            error => Self::Store(error),
        }
    }
}

impl LedgerError {
    pub(crate) fn internal(what: &'static str) -> Self {
        Self::Internal(what)
    }
}

/// One failure of a batch is told to every change in it.
pub(super) fn shared(error: Arc<LedgerError>) -> LedgerError {
    match Arc::try_unwrap(error) {
        Ok(error) => error,
        Err(error) => match &*error {
            LedgerError::Tampered(what) => LedgerError::Tampered(what.clone()),
            LedgerError::Refused(what) => LedgerError::Refused(what.clone()),
            LedgerError::Outgrown(what) => LedgerError::Outgrown(what.clone()),
            LedgerError::Busy => LedgerError::Busy,
            LedgerError::Overtaken => LedgerError::Overtaken,
            LedgerError::Late(what) => LedgerError::Late(what),
            LedgerError::Exists => LedgerError::Exists,
            LedgerError::Erased => LedgerError::Erased,
            LedgerError::AliasTaken => LedgerError::AliasTaken,
            LedgerError::Stale => LedgerError::Stale,
            LedgerError::TooLarge => LedgerError::TooLarge,
            LedgerError::TooManyEvents { limit } => LedgerError::TooManyEvents { limit: *limit },
            LedgerError::Unconfirmed => LedgerError::Unconfirmed,
            LedgerError::Stopped => LedgerError::Stopped,
            LedgerError::Internal(what) => LedgerError::Internal(what),
            LedgerError::Token(error) => LedgerError::Token(error.clone()),
            LedgerError::Store(_) => LedgerError::Store(StoreError::Refused {
                operation: "commit",
                problem: "the store failed for the whole batch".into(),
            }),
        },
    }
}
