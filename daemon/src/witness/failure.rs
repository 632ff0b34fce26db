//! Why a witness has not cosigned, and which of these reasons are evidence.
//!
//! Made by `follow`. A text never repeats what a witness has written, beyond sizes.

use crate::ledger::LedgerError;

/// Why there is no cosignature. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it can not be reached: {0}")]
    Away(String),
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("what it returned is not believed: {0}")]
    NotBelieved(&'static str),
    #[error(
        "it says that it has cosigned {theirs} entries of this log, which has {ours}: the database and the token were put back together, or somebody else signs with the realm's key, or it is wrong"
    )]
    Ahead { theirs: u64, ours: u64 },
    #[error(
        "it says that {size} entries of this log do not continue the {theirs} that it has cosigned: this log was forked, or it is wrong"
    )]
    Inconsistent { theirs: u64, size: u64 },
    #[error("the log could not be proven to it: {0}")]
    Own(#[from] LedgerError),
}

impl Failure {
    /// For the metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Refused(_) => "refused",
            Self::NotBelieved(_) => "not-believed",
            Self::Ahead { .. } => "ahead",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Own(_) => "own-failure",
        }
    }

    /// Whether it speaks of two logs where there must be one.
    pub(super) fn is_dispute(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Inconsistent { .. })
    }
}
