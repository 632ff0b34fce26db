//! What can be wrong with a passkey call, in words for the developer of a
//! client, and as stable codes.
//!
//! Made by `passkey` only. A message must never hold bytes of a credential, a
//! challenge or an extension result.

use webauthn_rs::prelude::WebauthnError;

/// Why a passkey call was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    /// The policy's relying party cannot be served.
    #[error("relying party of the policy: {0}")]
    Misconfigured(String),
    /// The body is not a credential as browsers give it.
    #[error("passkey: {0}")]
    Invalid(String),
    /// The body carries what only the client may have.
    #[error(
        "the body holds {0}: that secret belongs to the client and must never be sent. Delete it from clientExtensionResults before you send the credential; the passkey itself is unharmed"
    )]
    PrfResults(&'static str),
    /// The page's origin is not one of the app's.
    #[error("origin {found} is not an origin of this app; the policy lists {allowed}")]
    OriginNotAllowed {
        /// The origin in `clientDataJSON`, escaped and cut.
        found: String,
        /// The origins of the policy.
        allowed: String,
    },
    /// The call was made inside a frame of another origin.
    #[error("the credential was used in a cross-origin frame, which is not allowed")]
    CrossOrigin,
    /// The answer is to another challenge.
    #[error(
        "the credential answers another challenge than the one of this ceremony: ask for new options"
    )]
    Challenge,
    /// The authenticator did not verify its user, or nobody was present.
    #[error(
        "the authenticator did not verify its user: userVerification \"required\" must stay in the options"
    )]
    UserNotVerified,
    /// Another credential, or the credential of another account.
    #[error("the credential belongs to another account, or is not the one named")]
    OtherAccount,
    /// The signature counter did not grow: the credential may have been copied.
    #[error(
        "the signature counter of this passkey did not grow: it may have been copied. Remove it and register a new one"
    )]
    Counter,
    /// The backup flags contradict those of the registration.
    #[error(
        "the backup flags of this passkey contradict its registration. Remove it and register a new one"
    )]
    BackupFlags,
    /// The passkey would be found only by its id.
    #[error(
        "the authenticator made a passkey that is not discoverable: residentKey \"required\" must stay in the options, or another authenticator be used"
    )]
    NotDiscoverable,
    /// The credential is registered already, or uses an algorithm that was not offered.
    #[error("the credential is registered already, or uses an algorithm that was not offered")]
    NotOffered,
}

impl PasskeyError {
    /// The stable code of the problem document.
    pub fn code(&self) -> &'static str {
        match self {
            PasskeyError::Misconfigured(_) => "passkey-misconfigured",
            PasskeyError::Invalid(_) => "passkey-invalid",
            PasskeyError::PrfResults(_) => "prf-results-refused",
            PasskeyError::OriginNotAllowed { .. } => "origin-not-allowed",
            PasskeyError::CrossOrigin => "passkey-cross-origin",
            PasskeyError::Challenge => "passkey-challenge",
            PasskeyError::UserNotVerified => "passkey-user-not-verified",
            PasskeyError::OtherAccount => "passkey-other-account",
            PasskeyError::Counter => "passkey-counter",
            PasskeyError::BackupFlags => "passkey-backup-flags",
            PasskeyError::NotDiscoverable => "passkey-not-discoverable",
            PasskeyError::NotOffered => "passkey-not-offered",
        }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        PasskeyError::Invalid(what.into())
    }
}

/// The library's errors that a client can do something about get a name; the
/// rest keeps the library's sentence.
impl From<WebauthnError> for PasskeyError {
    fn from(error: WebauthnError) -> Self {
        use WebauthnError as W;
        match error {
            W::MismatchedChallenge => PasskeyError::Challenge,
            W::UserNotVerified | W::UserNotPresent => PasskeyError::UserNotVerified,
            W::CredentialPossibleCompromise => PasskeyError::Counter,
            W::CredentialBackupEligibilityInconsistent | W::CredentialMayNotBeHardwareBound => {
                PasskeyError::BackupFlags
            }
            W::CredentialNotFound => PasskeyError::OtherAccount,
            W::CredentialCrossOrigin => PasskeyError::CrossOrigin,
            W::CredentialAlteredAlgFromRequest | W::CredentialExcludedFromRequest => {
                PasskeyError::NotOffered
            }
            W::InvalidRPIDHash => {
                PasskeyError::invalid("the authenticator answered for another rp.id")
            }
            W::SignatureInvalid | W::AuthenticationFailure => {
                PasskeyError::invalid("the signature does not verify under the registered key")
            }
            other => PasskeyError::Invalid(other.to_string()),
        }
    }
}
