//! What can go wrong with a token or with bytes that a token key protects.
//!
//! Used by the whole crate and matched by the daemon, which turns each kind
//! into one answer. No variant may ever carry a secret or a PIN.

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the operation that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token is away, recovering or shutting down. Nothing was decided; try later.
    #[error("{operation}: the token is not available: {reason}")]
    Unavailable {
        operation: &'static str,
        reason: String,
    },
    /// The call did not finish in time. Whether the token did the work is unknown.
    #[error("{operation}: the token did not answer within the deadline")]
    Deadline { operation: &'static str },
    /// The queue in front of the token is full. Nothing was started.
    #[error("{operation}: too many token operations are waiting")]
    Busy { operation: &'static str },
    /// The token may not be written so often. Nothing was done; try later.
    #[error("{operation}: the token's wear budget is spent ({reason})")]
    Worn {
        operation: &'static str,
        reason: String,
    },
    /// The token refused the PIN. Never tried again by this process: every
    /// further try brings the token nearer to locking itself.
    #[error(
        "the token {token} refused the PIN ({reason}); it is not tried again: correct the PIN and restart"
    )]
    PinRefused { token: String, reason: String },
    /// The token, its keys or the options are not as they must be: what, and what to do.
    #[error("{0}")]
    Misconfigured(String),
    /// Stored or received bytes are not what a token key protected.
    #[error("{what} does not verify: it was altered, moved, or made with another key")]
    Tampered { what: &'static str },
    /// The anchors in the token are not what custodyd left there. Nothing may be
    /// served on them; the detail names the objects.
    #[error("the anchors in the token are not as they were left: {detail}")]
    Anchors { fault: AnchorFault, detail: String },
    /// Bytes of a format version that this program does not know.
    #[error("{what} has format version {found}, which this program does not know")]
    UnsupportedVersion { what: &'static str, found: u8 },
    /// A value that was passed in is outside its bounds.
    #[error("{what}: {reason}")]
    Invalid { what: &'static str, reason: String },
    /// A defect of this program: a job on the token panicked. The worker lives on.
    #[error("{operation}: a defect of this program was caught (a panic in a token job)")]
    Bug { operation: &'static str },
}

/// What is wrong with the anchors of a realm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorFault {
    /// An object that custodyd's key did not make, or that was altered.
    Forged,
    /// Anchors that exclude each other: a fork.
    Ambiguous,
    /// None, where one was written.
    Missing,
    /// The newest is older than, or other than, what was written before.
    Behind,
    /// An anchor where the realm should be new.
    Exists,
    /// The token said that it made an object, and it is not there.
    NotKept,
}

impl Error {
    /// Whether the same call may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Deadline { .. }
                | Self::Busy { .. }
                | Self::Worn { .. }
        )
    }

    pub(crate) fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            reason: reason.into(),
        }
    }

    pub(crate) fn unavailable(operation: &'static str, reason: impl Into<String>) -> Self {
        Self::Unavailable {
            operation,
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passing_states_are_retryable() {
        assert!(Error::unavailable("sign", "recovering").is_retryable());
        assert!(Error::Deadline { operation: "sign" }.is_retryable());
        assert!(Error::Busy { operation: "sign" }.is_retryable());
        let refused = Error::PinRefused {
            token: "t".into(),
            reason: "incorrect".into(),
        };
        assert!(!refused.is_retryable());
        assert!(!Error::Tampered { what: "record" }.is_retryable());
        assert!(!Error::Misconfigured("x".into()).is_retryable());
        let gone = Error::Anchors {
            fault: AnchorFault::Missing,
            detail: "x".into(),
        };
        assert!(!gone.is_retryable());
        assert!(!Error::Bug { operation: "sign" }.is_retryable());
    }
}
