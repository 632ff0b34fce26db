//! What a token says about itself and its keys, for people and for checks.
//!
//! Made by backends, shown by `token check`, `init` and `doctor`. Holds no secret.

use std::path::PathBuf;

use crate::id::KeyId;

/// One key as found in the token, each attribute with a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReport {
    pub id: KeyId,
    pub label: String,
    pub kind: KeyKind,
    /// Name, value as found, verdict.
    pub attributes: Vec<(&'static str, String, Verdict)>,
}

impl KeyReport {
    /// The first attribute that makes the key unusable.
    #[must_use]
    pub fn first_bad(&self) -> Option<(&'static str, &str)> {
        self.attributes.iter().find_map(|(name, _, verdict)| {
            if let Verdict::Bad(why) = verdict {
                Some((*name, why.as_str()))
            } else {
                None
            }
        })
    }
}

/// Which object of a key a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    Secret,
    Private,
    Public,
}

impl KeyKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret key",
            Self::Private => "private key",
            Self::Public => "public key",
        }
    }
}

/// What an attribute means for safety.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Usable, but an operator should know.
    Warning(String),
    /// The key is refused.
    Bad(String),
}

/// The token as it describes itself. Fields are empty while no token was reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenDescription {
    pub module: PathBuf,
    pub manufacturer: String,
    pub model: String,
    pub label: String,
    pub serial: String,
    /// A token made of files: it gives no protection against someone who
    /// copies them together with the PIN, and none against restoring old files.
    pub software_token: bool,
}

/// What an import did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    pub report: ProvisionReport,
    /// The name of a TPM's storage key, to configure; none in other tokens, and in a dry run that
    /// found none.
    pub storage_key: Option<String>,
}

/// What provisioning did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProvisionReport {
    /// Labels that were made (or, in a dry run, are missing).
    pub created: Vec<String>,
    /// Labels that were there and are sound.
    pub existing: Vec<String>,
    pub dry_run: bool,
}
