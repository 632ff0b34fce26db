//! Aliases: other names by which an account is found.
//!
//! An alias stands twice: in its account's envelope, as an `Alias`, and as a record of its own
//! that names the account. The committer makes, and removes, the record as the envelope's list
//! changes; a service changes the list and nothing else. A name is personal data: it has no
//! Display, its Debug says nothing, and it is never logged.

use std::fmt;

use custodyd_hsm::RecordId;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{first_mac_key, is_first_mac_key};
use crate::bytes::Bytes;
use crate::delivery::Address;

/// Aliases of one account.
pub const MAX_ALIASES: usize = 16;
const CHOSEN: std::ops::RangeInclusive<usize> = 3..=64;
/// The longest contact is an address of 254 bytes; a name's kind stands before it.
const MAX_NAME: usize = 300;

/// The normal form of a name: two spellings that mean the same are one. Its kind stands before
/// it, so that no name that somebody chooses can be taken for a confirmed contact.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(String);

/// Why a text can not be chosen as a name. Never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an alias has 3 to 64 letters (a-z), digits, dots, hyphens and underscores, and begins with a letter or digit"
)]
pub struct AliasError;

impl AliasName {
    /// The name that a contact is.
    #[must_use]
    pub fn of(contact: &Address) -> Self {
        let channel = contact.channel().name();
        Self(format!("{channel}:{}", contact.normal_form()))
    }

    /// A name that its owner makes up. Case does not matter.
    ///
    /// # Errors
    /// When the text is none of the accepted form.
    pub fn chosen(text: &str) -> Result<Self, AliasError> {
        let name = text.to_ascii_lowercase();
        let fits = CHOSEN.contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
            });
        if fits {
            Ok(Self(format!("name:{name}")))
        } else {
            Err(AliasError)
        }
    }

    /// For the token, for the owner and for the envelope; never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AliasName {
    type Error = AliasError;

    /// Only a form that is normal already, as it stands in an envelope.
    fn try_from(text: String) -> Result<Self, AliasError> {
        let known = match text.split_once(':') {
            Some(("name", chosen)) => Self::chosen(chosen).is_ok_and(|name| name.0 == text),
            Some(("email", address)) => {
                Address::email(address).is_ok_and(|address| Self::of(&address).0 == text)
            }
            Some(("sms", number)) => {
                Address::phone(number).is_ok_and(|number| Self::of(&number).0 == text)
            }
            _ => false,
        };
        if known && text.len() <= MAX_NAME {
            Ok(Self(text))
        } else {
            Err(AliasError)
        }
    }
}

impl From<AliasName> for String {
    fn from(name: AliasName) -> Self {
        name.0
    }
}

impl fmt::Debug for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AliasName(redacted)")
    }
}

/// An alias as its account's envelope lists it. Made by `Ledger::alias` only, which asks the
/// token for the record's identifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    pub name: AliasName,
    pub since: Timestamp,
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    record: RecordId,
    /// The version of the MAC key that the record's identifier comes from, where that is not the first.
    #[serde(default = "first_mac_key", skip_serializing_if = "is_first_mac_key")]
    mac_key: u16,
    /// Where another account's alias of this name could stand, under other keys. For the commit that lists it.
    #[serde(skip)]
    elsewhere: Vec<RecordId>,
}

impl Alias {
    pub(crate) fn new(name: AliasName, record: RecordId, since: Timestamp) -> Self {
        Self {
            name,
            since,
            record,
            mac_key: first_mac_key(),
            elsewhere: Vec::new(),
        }
    }

    /// The same under this key, and not elsewhere.
    pub(crate) fn under(self, mac_key: u16, elsewhere: Vec<RecordId>) -> Self {
        Self {
            mac_key,
            elsewhere,
            ..self
        }
    }

    #[must_use]
    pub fn record(&self) -> &RecordId {
        &self.record
    }

    #[must_use]
    pub fn mac_key(&self) -> u16 {
        self.mac_key
    }

    pub(crate) fn elsewhere(&self) -> &[RecordId] {
        &self.elsewhere
    }
}

fn write_id<S: Serializer>(id: &RecordId, to: S) -> Result<S::Ok, S::Error> {
    Bytes(id.as_bytes().to_vec()).serialize(to)
}

fn read_id<'de, D: Deserializer<'de>>(from: D) -> Result<RecordId, D::Error> {
    let bytes = Bytes::deserialize(from)?;
    <[u8; 32]>::try_from(bytes.0)
        .map(RecordId)
        .map_err(|_| serde::de::Error::custom("expected 32 bytes"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_that_mean_the_same_are_one_and_kinds_never_meet() {
        let mail = |text: &str| AliasName::of(&Address::email(text).unwrap());
        assert_eq!(mail("ann@EXAMPLE.com"), mail("ann@example.com"));
        assert_ne!(mail("Ann@example.com"), mail("ann@example.com"));
        assert_eq!(AliasName::chosen("Ann"), AliasName::chosen("ann"));
        assert!(AliasName::chosen("ann@example.com").is_err());
        assert!(AliasName::chosen("email:ann").is_err());
    }

    #[test]
    fn a_chosen_name_has_bounds() {
        for good in ["ann", "0.a-b_c", &"a".repeat(64)] {
            assert!(AliasName::chosen(good).is_ok(), "{good}");
        }
        for bad in ["", "an", ".ann", "a nn", "änn", "ann\n", &"a".repeat(65)] {
            assert!(AliasName::chosen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_alias_survives_its_encoding_and_shows_nothing() {
        for name in [
            AliasName::chosen("Ann").unwrap(),
            AliasName::of(&Address::email("ann@example.com").unwrap()),
            AliasName::of(&Address::phone("+4915112345678").unwrap()),
        ] {
            let alias = Alias::new(name, RecordId([7; 32]), Timestamp(5));
            let text = serde_json::to_string(&alias).unwrap();
            assert_eq!(serde_json::from_str::<Alias>(&text).unwrap(), alias);
            assert!(!format!("{alias:?}").contains("ann"));
        }
    }

    #[test]
    fn only_normal_forms_are_read_back() {
        for text in [
            "name:Ann",
            "email:ann@EXAMPLE.com",
            "ann",
            "fax:+4915112345678",
            "sms:1",
        ] {
            assert!(AliasName::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_has_one_spelling(text in ".{0,80}") {
            if let Ok(name) = AliasName::try_from(text.clone()) {
                prop_assert_eq!(name.expose(), text);
            }
        }
    }
}
