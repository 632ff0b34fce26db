//! Names and numbers that identify a realm, an app, an account, a record and a
//! key. Parse, don't validate: a value of these types is well-formed.
//!
//! Used everywhere. These types never touch a token; how a record id is
//! computed stands in `mac`.

mod key;

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::key::{KeyId, KeyPurpose};
use crate::error::{Error, Result};

/// The name of a realm: 1 to 64 of `[a-z0-9.-]`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RealmName(String);

/// How the names of realms begin that only a proof of a token has, for a moment. No realm may be called so.
pub const SCRATCH_REALMS: &str = "custodyd-scratch-";

impl RealmName {
    /// # Errors
    /// [`Error::Invalid`] with the rule that was broken.
    pub fn parse(text: &str) -> Result<Self> {
        let well_formed = text.len() <= 64
            && text.starts_with(is_lower_alnum)
            && text
                .chars()
                .all(|c| is_lower_alnum(c) || c == '.' || c == '-');
        if !well_formed {
            return Err(Error::invalid(
                "realm name",
                "expected 1 to 64 of a-z, 0-9, '.' and '-', beginning with a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The identifier of an app: 1 to 32 of `[a-z0-9-]`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId(Cow<'static, str>);

impl AppId {
    /// The app of records that belong to the realm as a whole. It does not
    /// parse, so no policy file and no request can name it.
    pub const REALM: Self = Self(Cow::Borrowed("_realm"));

    /// # Errors
    /// [`Error::Invalid`] with the rule that was broken.
    pub fn parse(text: &str) -> Result<Self> {
        let well_formed = text.len() <= 32
            && text.starts_with(is_lower_alnum)
            && text.chars().all(|c| is_lower_alnum(c) || c == '-');
        if !well_formed {
            return Err(Error::invalid(
                "app identifier",
                "expected 1 to 32 of a-z, 0-9 and '-', beginning with a letter or digit",
            ));
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_lower_alnum(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// The identifier of an account: 16 bytes, written as a UUID (RFC 9562).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(pub [u8; 16]);

impl AccountId {
    /// Only the hyphenated lower-case form is accepted, so that one account
    /// has one spelling.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || Error::invalid("account identifier", "expected a lower-case UUID");
        let id = Self(Uuid::try_parse(text).map_err(|_| refused())?.into_bytes());
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(refused())
        }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(Uuid::from_bytes(self.0).as_hyphenated(), f)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountId({self})")
    }
}

macro_rules! text_form {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::parse(text)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
text_form!(RealmName, AppId, AccountId);

impl fmt::Display for RealmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of a record in the state tree: an HMAC made in the token, so nobody
/// without the token can choose or recognise one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 32]);

impl RecordId {
    /// The bucket of this record in a tree of `2^bits` buckets: the top `bits`
    /// bits (at most 32 are taken).
    #[must_use]
    pub fn bucket(&self, bits: u8) -> u32 {
        let [a, b, c, d, ..] = self.0;
        let top = u32::from_be_bytes([a, b, c, d]);
        match bits {
            0 => 0,
            1..=32 => top >> (32 - u32::from(bits)),
            _ => top,
        }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

/// What a record is. The number goes into its identifier and into its seal, so
/// a record of one kind can never stand in for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// One per realm: what the realm as a whole must remember.
    Realm = 0,
    /// The envelope of one account.
    Account = 1,
    /// A name that leads to an account.
    Alias = 2,
    /// What stays of an erased account.
    Tombstone = 3,
}

impl TryFrom<u8> for RecordKind {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Realm),
            1 => Ok(Self::Account),
            2 => Ok(Self::Alias),
            3 => Ok(Self::Tombstone),
            _ => Err(Error::invalid("record kind", "expected 0 to 3")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realm_names() {
        for good in ["a", "demo.example", "0-x.y", &"a".repeat(64)] {
            assert_eq!(RealmName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "A", "a_b", "ä", "a b", &"a".repeat(65)] {
            assert!(RealmName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn app_identifiers() {
        for good in ["a", "demo", "0-1", &"a".repeat(32)] {
            assert_eq!(AppId::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "-a", "a.b", "Demo", "_realm", &"a".repeat(33)] {
            assert!(AppId::parse(bad).is_err(), "{bad}");
        }
        assert!(AppId::parse(AppId::REALM.as_str()).is_err());
    }

    #[test]
    fn an_account_has_one_spelling() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(AccountId::parse(text).unwrap().to_string(), text);
        for bad in [
            "",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "{00112233-4455-6677-8899-aabbccddeeff}",
            "urn:uuid:00112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert!(AccountId::parse(bad).is_err(), "{bad}");
        }
        let json = serde_json::to_string(&AccountId::parse(text).unwrap()).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert!(serde_json::from_str::<AppId>("\"Bad\"").is_err());
    }

    #[test]
    fn buckets_are_the_top_bits() {
        let mut id = RecordId([0; 32]);
        id.0[0] = 0b1010_0000;
        id.0[3] = 1;
        assert_eq!(id.bucket(0), 0);
        assert_eq!(id.bucket(1), 1);
        assert_eq!(id.bucket(4), 0b1010);
        assert_eq!(id.bucket(16), 0xA000);
        assert_eq!(id.bucket(32), 0xA000_0001);
    }
}
