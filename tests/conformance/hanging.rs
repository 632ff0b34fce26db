//! A token that hangs: a backend around a real one whose calls sleep on demand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use custodyd_hsm::{
    AnchorObject, Backend, Custody, KeyId, KeyPurpose, KeyReport, ProvisionReport, PublicKey,
    Result, Secret, TokenDescription,
};

pub(crate) struct Hanging {
    pub(crate) inner: Arc<dyn Backend>,
    /// While true, calls into the token do not return.
    pub(crate) hangs: Arc<AtomicBool>,
}

struct HangingCustody {
    inner: Box<dyn Custody>,
    hangs: Arc<AtomicBool>,
}

impl Backend for Hanging {
    fn open(&self) -> Result<Box<dyn Custody>> {
        Ok(Box::new(HangingCustody {
            inner: self.inner.open()?,
            hangs: Arc::clone(&self.hangs),
        }))
    }

    fn describe(&self) -> TokenDescription {
        self.inner.describe()
    }

    fn inspect(&self) -> Result<Vec<KeyReport>> {
        self.inner.inspect()
    }

    fn provision(&self, dry_run: bool) -> Result<ProvisionReport> {
        self.inner.provision(dry_run)
    }
}

impl HangingCustody {
    fn inside(&mut self) -> &mut dyn Custody {
        while self.hangs.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        self.inner.as_mut()
    }
}

impl Custody for HangingCustody {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        self.inner.current(purpose)
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        self.inner.holds(key)
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.inside().hmac(key, message)
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.inside().sign(key, digest)
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.inside().public_key(key)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.inside().random(out)
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        self.inside().inventory()
    }

    fn probe(&mut self) -> Result<()> {
        self.inside().probe()
    }

    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.inside().anchors()
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        self.inside().create_anchor(content)
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        self.inside().destroy_anchor(object)
    }
}
