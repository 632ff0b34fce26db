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

/// Accepted versions of the MAC key at most: a name that nobody has is looked for under each, and each tags every head.
pub const MAX_MAC: usize = 4;

/// The versions of one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Stored")]
pub struct Versions {
    current: u16,
    /// In rising order. One behind the current one was announced, and is used for nothing new yet.
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
            && accepted.contains(&current);
        if sound {
            return Ok(Self { current, accepted });
        }
        Err(Error::invalid(
            "key versions",
            "expected rising versions from 1 on, and the current one among them",
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

    /// The versions that are believed, the newest last.
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
    /// Of a realm whose checkpoints carry the Ed25519 line, or may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint_ed25519: Option<Versions>,
}

/// Of a key that the realm does not have. Version 0 is no key's.
static NONE: Versions = Versions {
    current: 0,
    accepted: Vec::new(),
};

impl KeyVersions {
    /// Version 1 of every key that a realm must have, and nothing else.
    #[must_use]
    pub fn first() -> Self {
        Self {
            wrap: Versions::only(1),
            mac: Versions::only(ROOT_MAC.version),
            bind: Versions::only(1),
            checkpoint: Versions::only(1),
            webhook: Versions::only(1),
            checkpoint_ed25519: None,
        }
    }

    /// What a new realm begins with: the newest key of each purpose.
    ///
    /// # Errors
    /// The token's.
    pub fn newest_of(custody: &dyn Custody) -> Result<Self> {
        let mut versions = Self::first();
        for purpose in KeyPurpose::REQUIRED {
            *versions.of_mut(purpose) = Versions::only(custody.current(purpose)?.version);
        }
        let ed25519 = custody.newest(KeyPurpose::CheckpointEd25519)?;
        versions.checkpoint_ed25519 = ed25519.map(|key| Versions::only(key.version));
        Ok(versions)
    }

    /// Whether the realm has a key of this purpose: always, but for the Ed25519 key of a public log.
    #[must_use]
    pub fn has(&self, purpose: KeyPurpose) -> bool {
        !self.of(purpose).accepted.is_empty()
    }

    /// Of a purpose that the realm has no key for: version 0, which is no key's, and none accepted.
    #[must_use]
    pub fn of(&self, purpose: KeyPurpose) -> &Versions {
        match purpose {
            KeyPurpose::Wrap => &self.wrap,
            KeyPurpose::Mac => &self.mac,
            KeyPurpose::Bind => &self.bind,
            KeyPurpose::Checkpoint => &self.checkpoint,
            KeyPurpose::Webhook => &self.webhook,
            KeyPurpose::CheckpointEd25519 => self.checkpoint_ed25519.as_ref().unwrap_or(&NONE),
        }
    }

    fn of_mut(&mut self, purpose: KeyPurpose) -> &mut Versions {
        match purpose {
            KeyPurpose::Wrap => &mut self.wrap,
            KeyPurpose::Mac => &mut self.mac,
            KeyPurpose::Bind => &mut self.bind,
            KeyPurpose::Checkpoint => &mut self.checkpoint,
            KeyPurpose::Webhook => &mut self.webhook,
            KeyPurpose::CheckpointEd25519 => {
                self.checkpoint_ed25519.get_or_insert_with(|| NONE.clone())
            }
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

    /// The version that was announced, if one was.
    #[must_use]
    pub fn announced(&self, purpose: KeyPurpose) -> Option<KeyId> {
        let versions = self.of(purpose);
        let newest = *versions.accepted.last()?;
        (newest > versions.current).then(|| KeyId::new(purpose, newest))
    }

    /// The same with a newer key that is accepted and published, and used for nothing new yet.
    ///
    /// # Errors
    /// As for [`KeyVersions::with_newer`]; [`Error::Invalid`] where one is announced already.
    pub fn with_announced(&self, key: KeyId) -> Result<Self> {
        if !self.has(key.purpose) {
            return Err(Error::invalid(
                "key version",
                format!(
                    "{key} would be the first of its purpose: nothing else signs in its place, so there is \
                     nothing to announce it for"
                ),
            ));
        }
        let mut next = self.with_newer(key)?;
        next.of_mut(key.purpose).current = self.of(key.purpose).current;
        match self.announced(key.purpose) {
            None => Ok(next),
            Some(other) => Err(Error::invalid(
                "key version",
                format!("{other} is announced already; rotate to it first"),
            )),
        }
    }

    /// The same with a newer key that is used from now on; the older ones are still accepted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a version that is not newer, another one than was announced, or more than
    /// [`MAX_ACCEPTED`] versions, [`MAX_MAC`] of a MAC key.
    pub fn with_newer(&self, key: KeyId) -> Result<Self> {
        let refused = |reason: String| Err(Error::invalid("key version", reason));
        let mut next = self.clone();
        let versions = next.of_mut(key.purpose);
        if key.version <= versions.current {
            return refused(format!("{key} is not newer than v{}", versions.current));
        }
        if versions.accepted.last() == Some(&key.version) {
            versions.current = key.version;
            return Ok(next);
        }
        if let Some(announced) = self.announced(key.purpose) {
            return refused(format!("{announced} was announced, and is the next one"));
        }
        let most = match key.purpose {
            KeyPurpose::Mac => MAX_MAC,
            _ => MAX_ACCEPTED,
        };
        if versions.accepted.len() >= most {
            return refused(format!(
                "{most} {} keys are accepted already; retire one first",
                key.purpose.name()
            ));
        }
        versions.current = key.version;
        versions.accepted.push(key.version);
        Ok(next)
    }

    /// What jobs may use while a head is committed that brings a MAC key into use, or takes one out: the head and its
    /// anchor are tagged as it says, and nothing else is made under a newer key before it is true.
    #[must_use]
    pub fn on_the_way_to(&self, after: &Self) -> Self {
        let mut versions = self.clone();
        versions.mac.accepted.clone_from(&after.mac.accepted);
        if !versions.mac.accepted.contains(&versions.mac.current) {
            versions.mac.current = after.mac.current;
        }
        versions
    }

    /// The same where every MAC key that a token holds is believed besides: for who has another word for what is read by it.
    #[must_use]
    pub fn with_held(&self, held: impl IntoIterator<Item = u16>) -> Self {
        let mut versions = self.clone();
        let accepted = &mut versions.mac.accepted;
        accepted.extend(held);
        accepted.sort_unstable();
        accepted.dedup();
        versions
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
        let mac = |version| KeyId::new(KeyPurpose::Mac, version);
        let most = (2..=4).fold(first, |versions, next| {
            versions.with_newer(mac(next)).unwrap()
        });
        assert_eq!(most.of(KeyPurpose::Mac).accepted(), [1, 2, 3, 4]);
        assert!(most.with_newer(mac(5)).is_err());
        assert!(most.without(mac(1)).unwrap().with_newer(mac(5)).is_ok());
    }

    #[test]
    fn an_announced_key_is_accepted_and_used_once_it_is_rotated_to() {
        let bind = |version| KeyId::new(KeyPurpose::Bind, version);
        let first = KeyVersions::first();
        let announced = first.with_announced(bind(3)).unwrap();
        assert_eq!(announced.current(KeyPurpose::Bind), bind(1));
        assert!(announced.accepts(bind(3)));
        assert_eq!(announced.announced(KeyPurpose::Bind), Some(bind(3)));
        assert!(announced.with_announced(bind(4)).is_err());
        assert!(announced.with_newer(bind(2)).is_err() && announced.with_newer(bind(4)).is_err());
        let rotated = announced.with_newer(bind(3)).unwrap();
        assert_eq!(rotated, first.with_newer(bind(3)).unwrap());
        assert_eq!(rotated.announced(KeyPurpose::Bind), None);
    }

    /// What a head looked like before there was such a key is what it looks like without one.
    #[test]
    fn a_realm_without_an_ed25519_key_does_not_name_it() {
        let ed25519 = |version| KeyId::new(KeyPurpose::CheckpointEd25519, version);
        let first = KeyVersions::first();
        let text = serde_json::to_string(&first).unwrap();
        assert!(!text.contains("ed25519"), "{text}");
        assert!(!first.has(KeyPurpose::CheckpointEd25519) && !first.accepts(ed25519(0)));
        assert!(first.with_announced(ed25519(1)).is_err() && first.without(ed25519(0)).is_err());
        let with = first.with_newer(ed25519(1)).unwrap();
        assert_eq!(with.current(KeyPurpose::CheckpointEd25519), ed25519(1));
        let text = serde_json::to_string(&with).unwrap();
        assert_eq!(serde_json::from_str::<KeyVersions>(&text).unwrap(), with);
        let mut token = crate::software::SoftCustody::new();
        assert_eq!(KeyVersions::newest_of(&token).unwrap(), first);
        token.add_version(KeyPurpose::CheckpointEd25519, 1);
        assert_eq!(KeyVersions::newest_of(&token).unwrap(), with);
    }

    #[test]
    fn a_list_that_no_rotation_makes_is_refused() {
        let parse = |text: &str| serde_json::from_str::<Versions>(text);
        assert!(parse(r#"{"current":2,"accepted":[1,2]}"#).is_ok());
        assert!(parse(r#"{"current":1,"accepted":[1,2]}"#).is_ok());
        for bad in [
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
        fn every_history_has_one_encoding(steps in prop::collection::vec((0usize..6, 1u16..20, any::<bool>()), 0..60)) {
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
                let current = versions.current(key.purpose);
                prop_assert_eq!(versions.accepts(current), versions.has(key.purpose));
                prop_assert!(versions.has(KeyPurpose::Mac));
            }
            let text = serde_json::to_string(&versions).unwrap();
            prop_assert_eq!(serde_json::from_str::<KeyVersions>(&text).unwrap(), versions);
        }
    }
}
