//! How an operation on a token can fail, as far as what follows from it differs.
//!
//! Used inside the backends. Their callers see [`Error`] alone.

use crate::error::Error;

/// Why an operation on a session did not succeed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The token or the session may be at fault: worth a fresh session.
    Sick(String),
    /// The answer stands whatever the session.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Trouble {
    /// For callers that do not try again.
    pub(super) fn into_error(self, operation: &'static str) -> Error {
        match self {
            Self::Sick(reason) => Error::Unavailable { operation, reason },
            Self::Final(error) => error,
        }
    }
}

pub(super) type Attempt<T> = std::result::Result<T, Trouble>;
