//! All ceremonies of a realm in their order: the one that has made its keys, and each that has added versions.
//!
//! Read by everybody who reads the file that `token.escrow` names. Each manifest after the first names the one
//! before by its hash, so the fingerprint of the newest says which all of them are, and an older copy is known as such.
//! Nothing of an earlier ceremony authenticates a later one: its custodians would have to bring their shares for that.
//! What does is that the later one's custodians hold shares that name its manifest, and read its fingerprint out
//! before a key of it is used (docs/ESCROW.md).

use super::{Custodian, EscrowError, Manifest, Share, open};
use crate::{
    id::{KeyId, KeyPurpose, RealmName},
    root_keys::{KeyCheck, RootKeys},
};

/// No file of manifests is longer.
pub const MAX_MANIFESTS: usize = 1 << 20;
const MOST_CEREMONIES: usize = 64;
/// How each manifest ends, and nothing within one does.
const END: &str = "\n}\n";

/// The manifests of a realm: of its first ceremony, and of those that followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifests {
    first: Manifest,
    further: Vec<Manifest>,
}

fn refused<T>(what: impl Into<String>) -> Result<T, EscrowError> {
    Err(EscrowError::NotAManifest(what.into()))
}

impl Manifests {
    /// Of a realm's first ceremony.
    ///
    /// # Errors
    /// [`EscrowError::NotAManifest`] for one that follows another.
    pub fn begin(first: Manifest) -> Result<Self, EscrowError> {
        if first.is_further() {
            return refused(
                "the ceremonies before it are left out: take the whole file, as every custodian was given it",
            );
        }
        Ok(Self {
            first,
            further: Vec::new(),
        })
    }

    /// The same with one that was made upon the newest.
    ///
    /// # Errors
    /// [`EscrowError::NotAManifest`] where it was not, or its keys are not newer ones.
    pub fn with(mut self, next: Manifest) -> Result<Self, EscrowError> {
        if !next.follows(self.newest())? {
            return refused(format!(
                "the ceremony {} does not follow {}, which stands before it",
                next.ceremony_name(),
                self.newest().ceremony_name()
            ));
        }
        let known = |one: &Manifest| one.ceremony() == next.ceremony();
        if self.iter().any(known) || self.further.len() + 1 >= MOST_CEREMONIES {
            return refused(format!(
                "the ceremony {} is there twice, or there are more than {MOST_CEREMONIES}",
                next.ceremony_name()
            ));
        }
        let rises = next.keys.is_sorted_by(|one, other| one.key < other.key);
        let newer = |of: &KeyCheck| {
            self.newest_of(of.key.purpose)
                .is_none_or(|before| before.key < of.key)
        };
        if !rises || next.keys.is_empty() || !next.keys.iter().all(newer) {
            return refused(format!(
                "the ceremony {} adds {}, which are not newer versions of keys that can have some",
                next.ceremony_name(),
                next.key_names()
            ));
        }
        self.further.push(next);
        Ok(self)
    }

    /// # Errors
    /// [`EscrowError::NotAManifest`] with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, EscrowError> {
        if text.len() > MAX_MANIFESTS {
            return refused(format!("it has more than {MAX_MANIFESTS} bytes"));
        }
        let mut parts = text.split_inclusive(END).map(Manifest::parse);
        let first = match parts.next() {
            Some(first) => first?,
            None => return refused("it is empty"),
        };
        parts.try_fold(Self::begin(first)?, |all, next| all.with(next?))
    }

    /// The document.
    ///
    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub fn encode(&self) -> Result<String, EscrowError> {
        self.iter().map(Manifest::encode).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Manifest> {
        std::iter::once(&self.first).chain(&self.further)
    }

    /// Of the ceremony that has made the realm's keys.
    #[must_use]
    pub fn first(&self) -> &Manifest {
        &self.first
    }

    /// Of the last ceremony.
    #[must_use]
    pub fn newest(&self) -> &Manifest {
        self.further.last().unwrap_or(&self.first)
    }

    /// Those of ceremonies that have added versions.
    #[must_use]
    pub fn further(&self) -> &[Manifest] {
        &self.further
    }

    /// That of the newest, which names all before it. A custodian speaks for the ceremony of their share alone: another may
    /// have been added behind it.
    ///
    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub fn fingerprint(&self) -> Result<String, EscrowError> {
        self.newest().fingerprint()
    }

    /// # Errors
    /// [`EscrowError::OtherRealm`].
    pub fn is_of(&self, realm: &RealmName) -> Result<(), EscrowError> {
        self.first.is_of(realm)
    }

    /// Every key that is in one of them, with what shows that a token has it.
    pub fn keys(&self) -> impl Iterator<Item = &KeyCheck> {
        self.iter().flat_map(|one| &one.keys)
    }

    /// The newest version of a purpose.
    #[must_use]
    pub fn newest_of(&self, purpose: KeyPurpose) -> Option<&KeyCheck> {
        let of = self.keys().filter(|check| check.key.purpose == purpose);
        of.max_by_key(|check| check.key)
    }

    /// The ceremony that a key is of.
    #[must_use]
    pub fn ceremony_of(&self, key: KeyId) -> Option<&Manifest> {
        let mut all = self.iter();
        all.find(|one| one.keys.iter().any(|check| check.key == key))
    }

    /// Whether these are the earlier ones of the same realm, or all of them.
    #[must_use]
    pub fn begin_with(&self, earlier: &Self) -> bool {
        self.first == earlier.first && self.further.starts_with(&earlier.further)
    }

    /// Whose share it is, and of which ceremony.
    ///
    /// # Errors
    /// [`EscrowError::OtherCeremony`], [`EscrowError::Edited`], [`EscrowError::OtherShare`].
    pub fn owner(&self, share: &Share) -> Result<(&Manifest, &Custodian), EscrowError> {
        let mut of = self.iter().filter(|one| *one.ceremony() == share.ceremony);
        match of.next() {
            Some(manifest) => Ok((manifest, manifest.owner(share)?)),
            None => {
                let names: Vec<String> = self.iter().map(Manifest::ceremony_name).collect();
                Err(EscrowError::OtherCeremony {
                    found: hex::encode(share.ceremony),
                    expected: names.join(", "),
                })
            }
        }
    }

    /// The root keys of every ceremony but for these. Shares are needed of each that has a key which is neither of
    /// these nor `held` by the token already.
    ///
    /// # Errors
    /// Every [`EscrowError`] that says what does not belong together, or is missing.
    pub fn open(
        &self,
        shares: Vec<Share>,
        held: &[KeyId],
        without: &[KeyId],
    ) -> Result<RootKeys, EscrowError> {
        for share in &shares {
            self.owner(share)?;
        }
        let (mut opened, mut left) = (Vec::new(), shares);
        for manifest in self.iter() {
            let (of, others): (Vec<Share>, Vec<Share>) = left
                .into_iter()
                .partition(|share| share.ceremony == *manifest.ceremony());
            left = others;
            let mut keys = manifest.keys.iter().map(|check| check.key);
            let needed = keys.any(|key| !held.contains(&key) && !without.contains(&key));
            if needed || !of.is_empty() {
                let keys = open(manifest, of);
                opened.push(keys.map_err(|error| self.within(manifest, error))?);
            }
        }
        Ok(RootKeys::joined(opened, without)?)
    }

    /// Which ceremony a refusal is of, where there are several.
    fn within(&self, manifest: &Manifest, source: EscrowError) -> EscrowError {
        if self.further.is_empty() {
            return source;
        }
        EscrowError::InCeremony {
            ceremony: manifest.ceremony_name(),
            keys: manifest.key_names(),
            source: Box::new(source),
        }
    }
}
