//! A custody in plain memory with fixed keys: for unit tests, here and (feature
//! `test-support`) in the daemon, and for golden vectors. Nothing that serves uses it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at once; no other build has this file"
)]

use std::collections::BTreeMap;

use aws_lc_rs::{
    digest::{self, Digest},
    hmac,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};

use crate::{
    custody::Custody,
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

#[derive(Debug)]
pub struct SoftCustody {
    keys: BTreeMap<KeyPurpose, Vec<u16>>,
    pairs: BTreeMap<KeyId, EcdsaKeyPair>,
    /// HMAC operations so far.
    pub(crate) hmacs: usize,
}

impl SoftCustody {
    /// Version 1 of every key.
    ///
    /// # Panics
    /// When the host has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let mut custody = Self {
            keys: BTreeMap::new(),
            pairs: BTreeMap::new(),
            hmacs: 0,
        };
        for purpose in KeyPurpose::ALL {
            custody.add_version(purpose, 1);
        }
        custody
    }

    pub(crate) fn add_version(&mut self, purpose: KeyPurpose, version: u16) {
        self.keys.entry(purpose).or_default().push(version);
        if !purpose.is_symmetric() {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            self.pairs.insert(KeyId::new(purpose, version), pair);
        }
    }

    #[cfg(test)]
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
        let versions = self.keys.get(&purpose).unwrap();
        let newest = versions.iter().max();
        Ok(KeyId::new(purpose, *newest.unwrap()))
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        Ok(self.keys.get(&key.purpose).unwrap().contains(&key.version))
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
}
