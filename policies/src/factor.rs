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
    /// A code of an authenticator app, on a device that is bound to the account.
    Totp,
    /// A one-time code sent to a contact of the account.
    DeliveredCode,
    /// A single-use code of at least 128 bits that the owner keeps on paper.
    RecoveryCode,
}

/// Strength, weakest first. Each step is named after the factor that gives it, the last one after the passkey.
///
/// The order is the rule for step-up: passkey and recovery code alike, then PIN, TOTP, delivered code, and the
/// device key. A factor that joins later takes its place in this list; nothing else has to know.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// Possession of a bound device. A thief of the device has it, so it never suffices for a change.
    DeviceKey,
    /// Access to a mailbox or a telephone number: others hold the keys to it as well.
    DeliveredCode,
    /// Possession of an authenticator app, whose secret the server knows.
    Totp,
    /// A short secret that the server's guess budget protects.
    Pin,
    /// A key in an authenticator that verified its user, or a code too long to be guessed.
    Passkey,
}

impl Factor {
    /// What a person can log in with, in the order in which policy files list it.
    pub const LOGINS: [Self; 5] = [
        Self::Pin,
        Self::Passkey,
        Self::RecoveryCode,
        Self::Totp,
        Self::DeliveredCode,
    ];

    /// Strength that does not depend on time. [`Factor::Creation`] proves the device key and no more: see
    /// [`effective`](Self::effective) for its first minutes.
    #[must_use]
    pub fn strength(self) -> Strength {
        match self {
            Self::Creation | Self::Device => Strength::DeviceKey,
            Self::DeliveredCode => Strength::DeliveredCode,
            Self::Totp => Strength::Totp,
            Self::Pin => Strength::Pin,
            Self::Passkey | Self::RecoveryCode => Strength::Passkey,
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
            Self::Totp => "totp",
            Self::DeliveredCode => "delivered-code",
            Self::RecoveryCode => "recovery-code",
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
    fn the_order_of_strength() {
        let ascending = [
            Factor::Device,
            Factor::DeliveredCode,
            Factor::Totp,
            Factor::Pin,
            Factor::Passkey,
        ];
        assert!(ascending.is_sorted_by(|weak, strong| weak.strength() < strong.strength()));
        assert_eq!(Factor::RecoveryCode.strength(), Factor::Passkey.strength());
    }

    #[test]
    fn creation_is_strongest_only_while_fresh() {
        assert_eq!(Factor::Creation.effective(true), Factor::Passkey.strength());
        assert_eq!(Factor::Creation.effective(false), Factor::Device.strength());
    }

    #[test]
    fn freshness_changes_no_other_factor() {
        for factor in Factor::LOGINS.into_iter().chain([Factor::Device]) {
            assert_eq!(factor.effective(true), factor.effective(false));
        }
    }

    #[test]
    fn the_name_is_what_serde_reads() -> Result<(), Error> {
        for factor in Factor::LOGINS
            .into_iter()
            .chain([Factor::Creation, Factor::Device])
        {
            let source: StrDeserializer<'_, Error> = factor.name().into_deserializer();
            assert_eq!(Factor::deserialize(source)?, factor);
        }
        Ok(())
    }
}
