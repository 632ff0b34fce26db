//! Tokens of a pair that go away, wear out and come back when a test says so. Each has the other's keys and
//! anchors of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use custodyd_hsm::software::{SoftAnchors, SoftCustody};
use custodyd_hsm::{
    AnchorObject, Backend, Custody, Error, KeyId, KeyPurpose, KeyReport, Pool, PoolOptions,
    ProvisionReport, PublicKey, Result as TokenResult, Secret, TokenDescription,
};

/// Each token is asked twice within it.
pub(in crate::ledger) const PATIENCE: Duration = Duration::from_millis(120);

/// A token of a pair: what it holds outlives every login.
#[derive(Clone)]
pub(in crate::ledger) struct Soft {
    pub(in crate::ledger) serial: &'static str,
    keys: Arc<SoftCustody>,
    pub(in crate::ledger) anchors: SoftAnchors,
    away: Arc<AtomicBool>,
    /// After so many anchors it goes away.
    anchors_left: Arc<AtomicUsize>,
    /// It may not be written any more today.
    pub(in crate::ledger) worn: Arc<AtomicBool>,
    /// Anchors that were made.
    pub(in crate::ledger) written: Arc<AtomicUsize>,
    /// No call comes back, while it does.
    pub(in crate::ledger) hangs: Arc<AtomicBool>,
    /// Anchors are not made before later, and nobody is told.
    pub(in crate::ledger) holds_back: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<Vec<u8>>>>,
}

struct Session {
    token: Soft,
    inner: SoftCustody,
}

impl Soft {
    pub(in crate::ledger) fn pair() -> [Self; 2] {
        let keys = Arc::new(SoftCustody::new());
        ["A", "B"].map(|serial| Self {
            serial,
            keys: Arc::clone(&keys),
            anchors: SoftAnchors::default(),
            away: Arc::default(),
            anchors_left: Arc::new(AtomicUsize::new(usize::MAX)),
            worn: Arc::default(),
            written: Arc::default(),
            hangs: Arc::default(),
            holds_back: Arc::default(),
            held: Arc::default(),
        })
    }

    /// A ceremony brings a symmetric key in, the same into each token: whoever logs in from now on has it.
    pub(in crate::ledger) fn takes_in(&mut self, purpose: KeyPurpose, version: u16) {
        let mut keys = self.keys.twin(SoftAnchors::default());
        keys.add_version(purpose, version);
        self.keys = Arc::new(keys);
    }

    pub(in crate::ledger) fn goes(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    pub(in crate::ledger) fn comes_back(&self) {
        self.anchors_left.store(usize::MAX, Ordering::SeqCst);
        self.away.store(false, Ordering::SeqCst);
    }

    pub(in crate::ledger) fn goes_after(&self, anchors: usize) {
        self.anchors_left.store(anchors, Ordering::SeqCst);
    }

    /// What was held back is made now.
    pub(in crate::ledger) fn makes_late(&self) {
        self.holds_back.store(false, Ordering::SeqCst);
        for content in self.held.lock().unwrap().drain(..) {
            self.anchors.add(&content);
        }
    }

    fn is_there(&self) -> TokenResult<()> {
        while self.hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        match self.away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(Error::Unavailable {
                operation: "test",
                reason: "away".into(),
            }),
        }
    }
}

impl Backend for Soft {
    fn open(&self) -> TokenResult<Box<dyn Custody>> {
        self.is_there()?;
        Ok(Box::new(Session {
            token: self.clone(),
            inner: self.keys.twin(self.anchors.clone()),
        }))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription {
            serial: self.serial.to_owned(),
            ..TokenDescription::default()
        }
    }
    fn inspect(&self) -> TokenResult<Vec<KeyReport>> {
        Ok(Vec::new())
    }
    fn provision(&self, _: bool) -> TokenResult<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}

impl Session {
    fn inside(&mut self) -> TokenResult<&mut SoftCustody> {
        self.token.is_there()?;
        Ok(&mut self.inner)
    }
}

impl Custody for Session {
    fn current(&self, purpose: KeyPurpose) -> TokenResult<KeyId> {
        self.inner.current(purpose)
    }
    fn newest(&self, purpose: KeyPurpose) -> TokenResult<Option<KeyId>> {
        self.inner.newest(purpose)
    }
    fn holds(&self, key: KeyId) -> TokenResult<bool> {
        self.inner.holds(key)
    }
    fn hmac(&mut self, key: KeyId, message: &[u8]) -> TokenResult<Secret<32>> {
        self.inside()?.hmac(key, message)
    }
    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> TokenResult<[u8; 64]> {
        self.inside()?.sign(key, digest)
    }
    fn public_key(&mut self, key: KeyId) -> TokenResult<PublicKey> {
        self.inside()?.public_key(key)
    }
    fn random(&mut self, out: &mut [u8]) -> TokenResult<()> {
        self.inside()?.random(out)
    }
    fn inventory(&mut self) -> TokenResult<Vec<KeyReport>> {
        self.inside()?.inventory()
    }
    fn probe(&mut self) -> TokenResult<()> {
        self.inside()?.probe()
    }
    fn anchors(&mut self) -> TokenResult<Vec<AnchorObject>> {
        self.inside()?.anchors()
    }
    fn anchor_stands(&mut self, content: &[u8]) -> TokenResult<bool> {
        self.inside()?.anchor_stands(content)
    }
    fn create_anchor(&mut self, content: &[u8]) -> TokenResult<()> {
        let left = &self.token.anchors_left;
        if left.load(Ordering::SeqCst) == 0 {
            self.token.goes();
        } else {
            left.fetch_sub(1, Ordering::SeqCst);
        }
        if self.token.worn.load(Ordering::SeqCst) {
            return Err(Error::Worn {
                operation: "test",
                reason: "test".into(),
            });
        }
        if self.token.holds_back.load(Ordering::SeqCst) {
            self.token.held.lock().unwrap().push(content.to_vec());
            return Err(Error::Unavailable {
                operation: "test",
                reason: "later".into(),
            });
        }
        self.inside()?.create_anchor(content)?;
        self.token.written.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn destroy_anchor(&mut self, object: &AnchorObject) -> TokenResult<()> {
        self.inside()?.destroy_anchor(object)
    }
}

/// A pool over these, which must be there.
pub(in crate::ledger) fn pool(tokens: &[&Soft]) -> Pool {
    let named = tokens.iter().map(|token| {
        let backend: Arc<dyn Backend> = Arc::new((*token).clone());
        (token.serial.to_lowercase(), backend)
    });
    Pool::start_set(named.collect(), PoolOptions::default(), PATIENCE).unwrap()
}
