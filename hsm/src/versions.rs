//! Which versions of each key are in use: the one that new records take, and those that are
//! still accepted.
//!
//! Part of the head of the realm's ledger, so the token has authenticated it and nobody with the
//! database or with the token's object store alone can add a version. The pool holds every job
//! to it (`pool::allowed`). Must never be made from what a database says.

use serde::{Deserialize, Serialize};

use crate::{
    custody::Custody,
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    mac::ROOT_MAC,
};

/// Accepted versions of one purpose at most: what a head may grow by.
pub const MAX_ACCEPTED: usize = 32;

/// The versions of one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Stored")]
pub struct Versions {
    current: u16,
    /// In rising order; the current one is the last.
    accepted: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    current: u16,
    accepted: Vec<u16>,
}

impl TryFrom<Stored> for Versions {
    type Error = Error;

    fn try_from(stored: Stored) -> Result<Self> {
        let Stored { current, accepted } = stored;
        let rising = accepted.is_sorted_by(|one, next| one < next);
        let sound = rising
            && accepted.len() <= MAX_ACCEPTED
            && accepted.first().is_some_and(|first| *first > 0)
            && accepted.last() == Some(&current);
        if sound {
            return Ok(Self { current, accepted });
        }
        Err(Error::invalid(
            "key versions",
            "expected rising versions from 1 on, of which the last is the current one",
        ))
    }
}

impl Versions {
    fn only(version: u16) -> Self {
        Self {
            current: version,
            accepted: vec![version],
        }
    }

    /// The version that new records, statements and signatures take.
    #[must_use]
    pub fn current(&self) -> u16 {
        self.current
    }

    /// The versions that are believed, the current one last.
    #[must_use]
    pub fn accepted(&self) -> &[u16] {
        &self.accepted
    }
}

/// The versions of every purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyVersions {
    wrap: Versions,
    mac: Versions,
    bind: Versions,
    checkpoint: Versions,
    webhook: Versions,
}

impl KeyVersions {
    /// Version 1 of every key and nothing else.
    #[must_use]
    pub fn first() -> Self {
        Self {
            wrap: Versions::only(1),
            mac: Versions::only(ROOT_MAC.version),
            bind: Versions::only(1),
            checkpoint: Versions::only(1),
            webhook: Versions::only(1),
        }
    }

    /// What a new realm begins with: the newest key of each purpose, and of MAC keys the one that
    /// every realm is under.
    ///
    /// # Errors
    /// The token's.
    pub fn newest_of(custody: &dyn Custody) -> Result<Self> {
        let mut versions = Self::first();
        for purpose in KeyPurpose::ALL {
            if purpose != KeyPurpose::Mac {
                *versions.of_mut(purpose) = Versions::only(custody.current(purpose)?.version);
            }
        }
        Ok(versions)
    }

    #[must_use]
    pub fn of(&self, purpose: KeyPurpose) -> &Versions {
        match purpose {
            KeyPurpose::Wrap => &self.wrap,
            KeyPurpose::Mac => &self.mac,
            KeyPurpose::Bind => &self.bind,
            KeyPurpose::Checkpoint => &self.checkpoint,
            KeyPurpose::Webhook => &self.webhook,
        }
    }

    fn of_mut(&mut self, purpose: KeyPurpose) -> &mut Versions {
        match purpose {
            KeyPurpose::Wrap => &mut self.wrap,
            KeyPurpose::Mac => &mut self.mac,
            KeyPurpose::Bind => &mut self.bind,
            KeyPurpose::Checkpoint => &mut self.checkpoint,
            KeyPurpose::Webhook => &mut self.webhook,
        }
    }

    /// The key of a purpose that is used for what is new.
    #[must_use]
    pub fn current(&self, purpose: KeyPurpose) -> KeyId {
        KeyId::new(purpose, self.of(purpose).current)
    }

    /// Whether what was made under this key is believed.
    #[must_use]
    pub fn accepts(&self, key: KeyId) -> bool {
        self.of(key.purpose).accepted.contains(&key.version)
    }

    /// Every accepted key.
    pub fn accepted(&self) -> impl Iterator<Item = KeyId> {
        KeyPurpose::ALL.into_iter().flat_map(|purpose| {
            let versions = self.of(purpose).accepted.iter();
            versions.map(move |version| KeyId::new(purpose, *version))
        })
    }

    /// The same with a newer key that is used from now on; the older ones are still accepted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a version that is not newer, a MAC key, or more than
    /// [`MAX_ACCEPTED`] versions.
    pub fn with_newer(&self, key: KeyId) -> Result<Self> {
        let refused = |reason: String| Err(Error::invalid("key version", reason));
        if key.purpose == KeyPurpose::Mac {
            return refused("record identifiers come from the MAC key: it stays".to_owned());
        }
        let mut next = self.clone();
        let versions = next.of_mut(key.purpose);
        if key.version <= versions.current {
            return refused(format!("{key} is not newer than v{}", versions.current));
        }
        if versions.accepted.len() >= MAX_ACCEPTED {
            return refused(format!(
                "{MAX_ACCEPTED} {} keys are accepted already; retire one first",
                key.purpose.name()
            ));
        }
        versions.current = key.version;
        versions.accepted.push(key.version);
        Ok(next)
    }

    /// The same without a key that is not the current one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the current key, or one that is not accepted.
    pub fn without(&self, key: KeyId) -> Result<Self> {
        let mut next = self.clone();
        let versions = next.of_mut(key.purpose);
        if key.version == versions.current || !versions.accepted.contains(&key.version) {
            return Err(Error::invalid(
                "key version",
                format!("{key} is in use for what is new, or is not accepted anyway"),
            ));
        }
        versions.accepted.retain(|version| *version != key.version);
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrap(version: u16) -> KeyId {
        KeyId::new(KeyPurpose::Wrap, version)
    }

    #[test]
    fn a_newer_key_is_used_and_the_older_is_accepted_until_it_is_taken_out() {
        let first = KeyVersions::first();
        let second = first.with_newer(wrap(3)).unwrap();
        assert_eq!(second.current(KeyPurpose::Wrap), wrap(3));
        assert!(second.accepts(wrap(1)) && second.accepts(wrap(3)) && !second.accepts(wrap(2)));
        assert!(second.with_newer(wrap(3)).is_err() && second.with_newer(wrap(2)).is_err());
        assert!(second.without(wrap(3)).is_err() && second.without(wrap(2)).is_err());
        let third = second.without(wrap(1)).unwrap();
        assert!(!third.accepts(wrap(1)) && third.accepts(wrap(3)));
        assert_eq!(third.of(KeyPurpose::Bind), first.of(KeyPurpose::Bind));
        assert!(first.with_newer(KeyId::new(KeyPurpose::Mac, 2)).is_err());
    }

    #[test]
    fn a_list_that_no_rotation_makes_is_refused() {
        let parse = |text: &str| serde_json::from_str::<Versions>(text);
        assert!(parse(r#"{"current":2,"accepted":[1,2]}"#).is_ok());
        for bad in [
            r#"{"current":1,"accepted":[1,2]}"#,
            r#"{"current":2,"accepted":[2,1]}"#,
            r#"{"current":2,"accepted":[2,2]}"#,
            r#"{"current":0,"accepted":[0]}"#,
            r#"{"current":1,"accepted":[]}"#,
            r#"{"current":1,"accepted":[1],"more":1}"#,
            r#"{"current":65536,"accepted":[65536]}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the order of rotations and retirements, what results is written and read back.
        #[test]
        fn every_history_has_one_encoding(steps in prop::collection::vec((0usize..5, 1u16..20, any::<bool>()), 0..60)) {
            let mut versions = KeyVersions::first();
            for (purpose, version, newer) in steps {
                let key = KeyId::new(KeyPurpose::ALL[purpose], version);
                let next = match newer {
                    true => versions.with_newer(key),
                    false => versions.without(key),
                };
                if let Ok(next) = next {
                    prop_assert_eq!(next.accepts(key), newer);
                    prop_assert_ne!(&next, &versions);
                    versions = next;
                }
                prop_assert!(versions.accepts(versions.current(key.purpose)));
                prop_assert!(versions.accepts(ROOT_MAC));
            }
            let text = serde_json::to_string(&versions).unwrap();
            prop_assert_eq!(serde_json::from_str::<KeyVersions>(&text).unwrap(), versions);
        }
    }
}
