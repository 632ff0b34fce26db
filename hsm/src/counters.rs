//! Counts token operations and their time, for metrics.
//!
//! The pool wraps each worker's custody in `Counted`; the daemon reads the
//! totals. Only totals per kind are kept: nothing about who or what.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::{
    custody::{AnchorObject, Custody},
    ed25519::Ed25519Key,
    error::Result,
    evidence::Evidence,
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::{Secret, SecretBytes},
};

/// A kind of token operation.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Hmac,
    Derive,
    Mac,
    Sign,
    PublicKey,
    Random,
    Inventory,
    Probe,
    Anchors,
    CreateAnchor,
    DestroyAnchor,
}

const NAMES: [&str; 11] = [
    "hmac",
    "derive",
    "mac",
    "sign",
    "public_key",
    "random",
    "inventory",
    "probe",
    "anchors",
    "create_anchor",
    "destroy_anchor",
];

#[derive(Debug, Default)]
struct Total {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// Totals since the start of the pool, failed operations included.
#[derive(Debug, Default)]
pub struct Counters([Total; NAMES.len()]);

impl Counters {
    fn record(&self, kind: Kind, started: Instant) {
        if let Some(total) = self.0.get(kind as usize) {
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            total.count.fetch_add(1, Ordering::Relaxed);
            total.nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Name, count and nanoseconds of each kind.
    #[must_use]
    pub fn totals(&self) -> Vec<(&'static str, u64, u64)> {
        NAMES
            .into_iter()
            .zip(&self.0)
            .map(|(name, total)| {
                (
                    name,
                    total.count.load(Ordering::Relaxed),
                    total.nanos.load(Ordering::Relaxed),
                )
            })
            .collect()
    }
}

/// A custody that counts what passes through it.
pub(crate) struct Counted<'a> {
    pub(crate) inner: &'a mut dyn Custody,
    pub(crate) counters: &'a Counters,
}

impl Counted<'_> {
    fn timed<T>(&mut self, kind: Kind, call: impl FnOnce(&mut dyn Custody) -> T) -> T {
        let started = Instant::now();
        let answer = call(self.inner);
        self.counters.record(kind, started);
        answer
    }
}

#[deny(
    clippy::missing_trait_methods,
    reason = "a method that is not handed on would hide the token's own"
)]
impl Custody for Counted<'_> {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        self.inner.current(purpose)
    }

    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        self.inner.newest(purpose)
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        self.inner.holds(key)
    }

    fn versions(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        self.inner.versions(purpose)
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.make_key(key)
    }

    fn make_key_for_owner(&mut self, key: KeyId, password: &SecretBytes) -> Result<()> {
        self.inner.make_key_for_owner(key, password)
    }

    fn take_up_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.take_up_key(key)
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.destroy_key(key)
    }

    fn destroy_key_for_owner(&mut self, key: KeyId, password: &SecretBytes) -> Result<()> {
        self.inner.destroy_key_for_owner(key, password)
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.timed(Kind::Hmac, |c| c.hmac(key, message))
    }

    fn derive(&mut self, key: KeyId, label: &[u8], context_hash: &[u8; 32]) -> Result<Secret<32>> {
        self.timed(Kind::Derive, |c| c.derive(key, label, context_hash))
    }

    fn accepted(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        self.inner.accepted(purpose)
    }

    fn believes(&self, key: KeyId) -> Result<bool> {
        self.inner.believes(key)
    }

    fn tag(&mut self, versions: &[u16], statement: &[u8]) -> Result<Secret<32>> {
        self.timed(Kind::Mac, |c| c.tag(versions, statement))
    }

    fn mac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.timed(Kind::Mac, |c| c.mac(key, message))
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.timed(Kind::Sign, |c| c.sign(key, digest))
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.timed(Kind::PublicKey, |c| c.public_key(key))
    }

    fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> Result<[u8; 64]> {
        self.timed(Kind::Sign, |c| c.sign_ed25519(key, message))
    }

    fn ed25519_key(&mut self, key: KeyId) -> Result<Ed25519Key> {
        self.timed(Kind::PublicKey, |c| c.ed25519_key(key))
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.timed(Kind::Random, |c| c.random(out))
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        self.timed(Kind::Inventory, |c| c.inventory())
    }

    fn probe(&mut self) -> Result<()> {
        self.timed(Kind::Probe, |c| c.probe())
    }

    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.timed(Kind::Anchors, |c| c.anchors())
    }

    fn certify_anchors(&mut self, nonce: &[u8]) -> Result<Evidence> {
        self.timed(Kind::Anchors, |c| c.certify_anchors(nonce))
    }

    fn anchor_stands(&mut self, content: &[u8]) -> Result<bool> {
        self.timed(Kind::Anchors, |c| c.anchor_stands(content))
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        self.timed(Kind::CreateAnchor, |c| c.create_anchor(content))
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        self.timed(Kind::DestroyAnchor, |c| c.destroy_anchor(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::SoftCustody;

    #[test]
    fn each_call_counts_once_under_its_own_name() {
        let counters = Counters::default();
        let mut custody = SoftCustody::new();
        let mut counted = Counted {
            inner: &mut custody,
            counters: &counters,
        };
        let mac = KeyId::new(KeyPurpose::Mac, 1);
        counted.mac(mac, b"x").unwrap();
        counted.mac(mac, b"y").unwrap();
        counted.probe().unwrap();
        let count = |wanted| {
            let totals = counters.totals();
            totals.iter().find(|(name, ..)| *name == wanted).unwrap().1
        };
        assert_eq!(count("mac"), 2);
        assert_eq!(count("probe"), 1);
        assert_eq!(count("hmac"), 0);
        assert_eq!(NAMES[Kind::Probe as usize], "probe");
        counted.create_anchor(b"x").unwrap();
        let object = counted.anchors().unwrap().remove(0);
        counted.destroy_anchor(&object).unwrap();
        for kind in [Kind::Anchors, Kind::CreateAnchor, Kind::DestroyAnchor] {
            assert_eq!(count(NAMES[kind as usize]), 1);
        }
        assert_eq!(NAMES[Kind::DestroyAnchor as usize], "destroy_anchor");
    }
}
