//! A custody in plain memory with fixed keys: for unit tests, here and (feature
//! `test-support`) in the daemon, and for golden vectors. Nothing that serves uses it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at once; no other build has this file"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::{
    digest::{self, Digest},
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};

use crate::{
    custody::{AnchorHandle, AnchorObject, Custody, MAX_ANCHOR, check_anchor, not_there},
    ed25519::Ed25519Key,
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::Secret,
};

/// HMAC root of a key: SHA-256 of its label, so that vectors can be computed by hand.
pub(crate) fn root(key: KeyId) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, key.label().as_bytes());
    hash.as_ref().try_into().unwrap()
}

/// The object store of a token in memory; clones share it. Whoever holds one
/// can do to it what an attacker of a token's object store could.
#[derive(Debug, Clone, Default)]
pub struct SoftAnchors(Arc<Store>);

#[derive(Debug, Default)]
struct Store {
    next: AtomicU64,
    objects: Mutex<Vec<(u64, Vec<u8>)>>,
    /// Symmetric keys that one of those who share it has made: the others find them when they look.
    made: Mutex<BTreeSet<KeyId>>,
}

impl SoftAnchors {
    fn locked(&self) -> MutexGuard<'_, Vec<(u64, Vec<u8>)>> {
        let objects = self.0.objects.lock();
        objects.unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, BTreeSet<KeyId>> {
        let made = self.0.made.lock();
        made.unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, in the order in which it came.
    #[must_use]
    pub fn contents(&self) -> Vec<Vec<u8>> {
        self.locked()
            .iter()
            .map(|(_, bytes)| bytes.clone())
            .collect()
    }

    /// Adds an object of any content and size.
    pub fn add(&self, content: &[u8]) {
        let number = self.0.next.fetch_add(1, Ordering::SeqCst);
        self.locked().push((number, content.to_vec()));
    }

    /// Removes every object of this content; says how many there were.
    pub fn remove(&self, content: &[u8]) -> usize {
        let mut objects = self.locked();
        let before = objects.len();
        objects.retain(|(_, bytes)| bytes != content);
        before - objects.len()
    }

    /// Puts the whole store back to what [`SoftAnchors::contents`] said once.
    pub fn put_back(&self, contents: &[Vec<u8>]) {
        self.locked().clear();
        contents.iter().for_each(|content| self.add(content));
    }
}

#[derive(Debug)]
pub struct SoftCustody {
    keys: BTreeMap<KeyPurpose, Vec<u16>>,
    pairs: BTreeMap<KeyId, Arc<EcdsaKeyPair>>,
    edwards: BTreeMap<KeyId, Arc<Ed25519KeyPair>>,
    /// HMAC operations so far.
    pub(crate) hmacs: usize,
    anchors: SoftAnchors,
}

impl SoftCustody {
    /// Version 1 of every key that a token must have.
    ///
    /// # Panics
    /// When the host has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let mut custody = Self {
            keys: BTreeMap::new(),
            pairs: BTreeMap::new(),
            edwards: BTreeMap::new(),
            hmacs: 0,
            anchors: SoftAnchors::default(),
        };
        for purpose in KeyPurpose::REQUIRED {
            custody.add_version(purpose, 1);
        }
        custody
    }

    /// The same with the object store of others.
    ///
    /// # Panics
    /// When the host has no randomness.
    #[must_use]
    pub fn with_anchors(anchors: SoftAnchors) -> Self {
        Self {
            anchors,
            ..Self::new()
        }
    }

    /// Another token with the same keys, and this object store.
    #[must_use]
    pub fn twin(&self, anchors: SoftAnchors) -> Self {
        Self {
            keys: self.keys.clone(),
            pairs: self.pairs.clone(),
            edwards: self.edwards.clone(),
            hmacs: 0,
            anchors,
        }
    }

    /// Adds a key as somebody would who writes into the token.
    ///
    /// # Panics
    /// When the host has no randomness.
    pub fn add_version(&mut self, purpose: KeyPurpose, version: u16) {
        self.keys.entry(purpose).or_default().push(version);
        if purpose.is_ed25519() {
            let pair = Ed25519KeyPair::generate().unwrap();
            self.edwards
                .insert(KeyId::new(purpose, version), Arc::new(pair));
        } else if !purpose.is_symmetric() {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            self.pairs
                .insert(KeyId::new(purpose, version), Arc::new(pair));
        }
    }

    pub(crate) fn remove_version(&mut self, purpose: KeyPurpose, version: u16) {
        if let Some(versions) = self.keys.get_mut(&purpose) {
            versions.retain(|v| *v != version);
        }
    }
}

impl Default for SoftCustody {
    fn default() -> Self {
        Self::new()
    }
}

impl Custody for SoftCustody {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        self.newest(purpose)?
            .ok_or_else(|| Error::Misconfigured(format!("no {} key", purpose.name())))
    }

    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        let newest = self.keys.get(&purpose).and_then(|all| all.iter().max());
        Ok(newest.map(|version| KeyId::new(purpose, *version)))
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        let held = self.keys.get(&key.purpose);
        Ok(held.is_some_and(|held| held.contains(&key.version)))
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.hmacs += 1;
        let root = hmac::Key::new(hmac::HMAC_SHA256, &root(key));
        let tag = hmac::sign(&root, message);
        Ok(Secret::init(|out| out.copy_from_slice(tag.as_ref())))
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        let pair = self.pairs.get(&key).ok_or(Error::Invalid {
            what: "key",
            reason: "does not sign".into(),
        })?;
        let digest = Digest::import_less_safe(digest, &digest::SHA256).unwrap();
        let signature = pair.sign_digest(&digest).unwrap();
        Ok(signature.as_ref().try_into().unwrap())
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        let pair = self.pairs.get(&key).unwrap();
        PublicKey::from_point(pair.public_key().as_ref())
    }

    fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> Result<[u8; 64]> {
        let pair = self.edwards.get(&key);
        let pair = pair.ok_or_else(|| Error::invalid("key", "does not sign"))?;
        Ok(pair.sign(message).as_ref().try_into().unwrap())
    }

    fn ed25519_key(&mut self, key: KeyId) -> Result<Ed25519Key> {
        let pair = self.edwards.get(&key);
        let pair = pair.ok_or_else(|| Error::invalid("key", "does not sign"))?;
        Ed25519Key::from_bytes(pair.public_key().as_ref())
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        if self.holds(key)? {
            return Err(Error::invalid("key version", "it is there already"));
        }
        self.add_version(key.purpose, key.version);
        if key.purpose.is_symmetric() {
            self.anchors.made().insert(key);
        }
        Ok(())
    }

    fn take_up_key(&mut self, key: KeyId) -> Result<()> {
        if !self.holds(key)? {
            if !self.anchors.made().contains(&key) {
                return Err(not_there(key));
            }
            self.add_version(key.purpose, key.version);
        }
        Ok(())
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        self.remove_version(key.purpose, key.version);
        self.anchors.made().remove(&key);
        Ok(())
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        aws_lc_rs::rand::fill(out).unwrap();
        Ok(())
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }

    fn probe(&mut self) -> Result<()> {
        Ok(())
    }

    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        let objects = self.anchors.locked();
        let listed = objects.iter().map(|(number, bytes)| AnchorObject {
            handle: AnchorHandle {
                epoch: 0,
                object: *number,
            },
            size: bytes.len() as u64,
            content: match bytes.len() {
                0..=MAX_ANCHOR => bytes.clone(),
                _ => Vec::new(),
            },
        });
        Ok(listed.collect())
    }

    fn anchor_stands(&mut self, content: &[u8]) -> Result<bool> {
        let objects = self.anchors.locked();
        Ok(objects.iter().any(|(_, bytes)| bytes == content))
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        check_anchor(content)?;
        self.anchors.add(content);
        Ok(())
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        let same = |(number, bytes): &(u64, Vec<u8>)| {
            *number == object.handle.object && *bytes == object.content
        };
        self.anchors.locked().retain(|found| !same(found));
        Ok(())
    }
}
