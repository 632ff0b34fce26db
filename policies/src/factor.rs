//! The factors that can open a session, and how strong each one is.
//!
//! Called by the release and step-up rules, by the policy parser and by the daemon, which seals the factor into
//! every session. Must never rank two factors in any other way than by [`Strength`]: there is on purpose no
//! order on [`Factor`] itself.

use serde::{Deserialize, Serialize};

/// What a person or a device showed to get a session. Serialises as its [`name`](Factor::name).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Factor {
    /// The session that account creation itself returns. Never written in a policy file.
    Creation,
    /// The device key alone: read scope.
    Device,
    /// The PIN, on a device that is bound to the account.
    Pin,
    /// A passkey with user verification.
    Passkey,
}

/// Strength, weakest first. Each step is named after the factor that gives it.
///
/// The order is the rule for step-up: passkey, then PIN, then the device key. A factor that joins later takes
/// its place in this list; nothing else has to know.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// Possession of a bound device. A thief of the device has it, so it never suffices for a change.
    DeviceKey,
    /// A short secret that the server's guess budget protects.
    Pin,
    /// A key in an authenticator that verified its user.
    Passkey,
}

impl Factor {
    /// Strength that does not depend on time. [`Factor::Creation`] proves the device key and no more: see
    /// [`effective`](Self::effective) for its first minutes.
    #[must_use]
    pub fn strength(self) -> Strength {
        match self {
            Self::Creation | Self::Device => Strength::DeviceKey,
            Self::Pin => Strength::Pin,
            Self::Passkey => Strength::Passkey,
        }
    }

    /// Strength of an authentication of which [`is_fresh`](crate::expiry::is_fresh) said `fresh`.
    ///
    /// A fresh creation counts as the strongest factor: whoever has just made the account cannot take it from
    /// anybody, and without this no first factor could be added. Once stale it is worth the device key.
    #[must_use]
    pub fn effective(self, fresh: bool) -> Strength {
        match self {
            Self::Creation if fresh => Strength::Passkey,
            other => other.strength(),
        }
    }

    /// The stable name: in policy files, sessions, events and the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Device => "device",
            Self::Pin => "pin",
            Self::Passkey => "passkey",
        }
    }
}

impl std::fmt::Display for Factor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    #[test]
    fn passkey_beats_pin_beats_device() {
        assert!(Factor::Passkey.strength() > Factor::Pin.strength());
        assert!(Factor::Pin.strength() > Factor::Device.strength());
    }

    #[test]
    fn creation_is_strongest_only_while_fresh() {
        assert_eq!(Factor::Creation.effective(true), Factor::Passkey.strength());
        assert_eq!(Factor::Creation.effective(false), Factor::Device.strength());
    }

    #[test]
    fn freshness_changes_no_other_factor() {
        for factor in [Factor::Device, Factor::Pin, Factor::Passkey] {
            assert_eq!(factor.effective(true), factor.effective(false));
        }
    }

    #[test]
    fn the_name_is_what_serde_reads() -> Result<(), Error> {
        for factor in [
            Factor::Creation,
            Factor::Device,
            Factor::Pin,
            Factor::Passkey,
        ] {
            let source: StrDeserializer<'_, Error> = factor.name().into_deserializer();
            assert_eq!(Factor::deserialize(source)?, factor);
        }
        Ok(())
    }
}
