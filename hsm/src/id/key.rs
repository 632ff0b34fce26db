//! Which key of the token: its purpose and its version, and the label that says so.
//!
//! Used by custody and the backends. A label is the only tie between a key here
//! and an object there, so it has exactly one spelling.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a key in the token is for. Keys are never shared between purposes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeyPurpose {
    /// HMAC-SHA-256 root: the key of each sealed record is derived from it.
    Wrap,
    /// HMAC-SHA-256: identifiers, peppers, epoch keys, head MACs.
    Mac,
    /// P-256: signs bindings.
    Bind,
    /// P-256: signs log checkpoints.
    Checkpoint,
    /// P-256: signs outgoing webhook calls.
    Webhook,
    /// Ed25519: signs log checkpoints once more, for a public log. A realm need not have one.
    CheckpointEd25519,
}

impl KeyPurpose {
    /// Those that every token must have.
    pub const REQUIRED: [Self; 5] = [
        Self::Wrap,
        Self::Mac,
        Self::Bind,
        Self::Checkpoint,
        Self::Webhook,
    ];

    pub const ALL: [Self; 6] = [
        Self::Wrap,
        Self::Mac,
        Self::Bind,
        Self::Checkpoint,
        Self::Webhook,
        Self::CheckpointEd25519,
    ];

    /// The word in the label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wrap => "wrap",
            Self::Mac => "mac",
            Self::Bind => "bind",
            Self::Checkpoint => "checkpoint",
            Self::Webhook => "webhook",
            Self::CheckpointEd25519 => "checkpoint-ed25519",
        }
    }

    /// Whether the key is a 256-bit secret (true) or a pair (false).
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Wrap | Self::Mac)
    }

    /// Whether the pair is one of Ed25519, which a token may lack, and not of P-256.
    #[must_use]
    pub fn is_ed25519(self) -> bool {
        matches!(self, Self::CheckpointEd25519)
    }
}

/// One key in the token: its purpose and its version, which starts at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId {
    pub purpose: KeyPurpose,
    pub version: u16,
}

impl KeyId {
    #[must_use]
    pub fn new(purpose: KeyPurpose, version: u16) -> Self {
        Self { purpose, version }
    }

    /// The label of the objects in the token, such as `custodyd-wrap-v1`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("custodyd-{}-v{}", self.purpose.name(), self.version)
    }

    /// Reads a label back. Only the exact spelling that [`KeyId::label`] writes
    /// is a key of ours; anything else is somebody else's object.
    #[must_use]
    pub fn parse_label(label: &str) -> Option<Self> {
        let (name, version) = label.strip_prefix("custodyd-")?.rsplit_once("-v")?;
        let purpose = KeyPurpose::ALL.into_iter().find(|p| p.name() == name)?;
        let id = Self::new(purpose, version.parse().ok().filter(|v| *v > 0)?);
        (id.label() == label).then_some(id)
    }
}

impl From<KeyId> for String {
    fn from(key: KeyId) -> Self {
        key.label()
    }
}

impl TryFrom<String> for KeyId {
    type Error = Error;

    fn try_from(label: String) -> Result<Self> {
        let refused = || Error::invalid("key label", "expected one such as custodyd-wrap-v1");
        Self::parse_label(&label).ok_or_else(refused)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_one_spelling() {
        for purpose in KeyPurpose::ALL {
            let id = KeyId::new(purpose, 7);
            assert_eq!(KeyId::parse_label(&id.label()), Some(id));
        }
        for bad in [
            "custodyd-wrap-v0",
            "custodyd-wrap-v01",
            "custodyd-wrap-v+1",
            "custodyd-wrap-v65536",
            "custodyd-wrap-v",
            "custodyd-Wrap-v1",
            "custodyd-wrap-v1 ",
            "wrap-v1",
            "",
        ] {
            assert_eq!(KeyId::parse_label(bad), None, "{bad}");
        }
    }
}
