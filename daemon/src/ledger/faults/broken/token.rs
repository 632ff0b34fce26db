//! A token that fails by a script, or takes its time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use custodyd_hsm::anchor::unverified;
use custodyd_hsm::software::{SoftAnchors, SoftCustody};
use custodyd_hsm::{
    AnchorObject, Backend, Custody, Ed25519Key, Error, KeyId, KeyPurpose, KeyReport,
    ProvisionReport, PublicKey, Result as TokenResult, Secret, TokenDescription,
};

/// How the making of an anchor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::faults) enum Anchor {
    Honest,
    Lost,
    AnswerLost,
    /// The token may not be written so often.
    Worn,
    /// It is made once nobody waits for it any more: when the test says so.
    Late,
}

/// A token that takes its time.
#[derive(Debug, Default)]
pub(in crate::ledger::faults) struct Sluggish {
    /// Milliseconds that a list of its anchors takes, unless others have anchored a few batches since the last one: so each
    /// list is a new one, however quick they are.
    pub(in crate::ledger::faults) lists: AtomicU64,
    seen: AtomicU64,
    /// Lists that it was asked for.
    pub(in crate::ledger::faults) asked: AtomicU64,
    /// Lists that it was slow at.
    pub(in crate::ledger::faults) listed: AtomicU64,
    /// And before it makes one.
    pub(in crate::ledger::faults) makes: AtomicU64,
    /// And for each HMAC.
    pub(in crate::ledger::faults) derives: AtomicU64,
    /// Those that it was asked to make.
    pub(in crate::ledger::faults) made: AtomicU64,
    /// Another node makes the same anchor as well.
    pub(in crate::ledger::faults) twice: AtomicBool,
    /// So many anchors more are destroyed without an answer.
    pub(in crate::ledger::faults) taken_back: AtomicUsize,
    /// Anchors that it has not made yet.
    late: Mutex<Vec<Vec<u8>>>,
}

impl Sluggish {
    fn waits(&self, anchors: &SoftAnchors) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        // Looked at anew: whoever waits is let go when a test takes it back.
        let slow = || self.lists.load(Ordering::SeqCst);
        let newest = || {
            let contents = anchors.contents();
            let serials = contents.iter().filter_map(|bytes| unverified(bytes).ok());
            serials.map(|(_, anchor)| anchor.serial).max().unwrap_or(0)
        };
        let enough = self.seen.load(Ordering::SeqCst) + 4;
        while begun.elapsed() < Duration::from_millis(slow()) && newest() < enough {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.seen.store(newest(), Ordering::SeqCst);
        if slow() > 0 {
            self.listed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What it was asked for and has not made, it makes now.
    pub(in crate::ledger::faults) fn comes_to_it(&self, anchors: &SoftAnchors) {
        for content in self.late.lock().unwrap().drain(..) {
            anchors.add(&content);
        }
    }
}

/// A token in memory; one of its next derivations may be refused.
struct Token {
    inner: SoftCustody,
    refuse: Arc<AtomicUsize>,
    work: Arc<AtomicUsize>,
    anchoring: Arc<Mutex<VecDeque<Anchor>>>,
    sluggish: Arc<Sluggish>,
    anchors: SoftAnchors,
}

impl Custody for Token {
    fn current(&self, purpose: KeyPurpose) -> TokenResult<KeyId> {
        self.inner.current(purpose)
    }
    fn newest(&self, purpose: KeyPurpose) -> TokenResult<Option<KeyId>> {
        self.inner.newest(purpose)
    }
    fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> TokenResult<[u8; 64]> {
        self.inner.sign_ed25519(key, message)
    }
    fn ed25519_key(&mut self, key: KeyId) -> TokenResult<Ed25519Key> {
        self.inner.ed25519_key(key)
    }
    fn holds(&self, key: KeyId) -> TokenResult<bool> {
        self.inner.holds(key)
    }
    fn make_key(&mut self, key: KeyId) -> TokenResult<()> {
        self.inner.make_key(key)
    }
    fn take_up_key(&mut self, key: KeyId) -> TokenResult<()> {
        self.inner.take_up_key(key)
    }
    fn destroy_key(&mut self, key: KeyId) -> TokenResult<()> {
        self.inner.destroy_key(key)
    }
    fn hmac(&mut self, key: KeyId, message: &[u8]) -> TokenResult<Secret<32>> {
        self.work.fetch_add(1, Ordering::SeqCst);
        let millis = self.sluggish.derives.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(millis));
        let wrap = key.purpose == KeyPurpose::Wrap;
        if wrap && self.refuse.load(Ordering::SeqCst) > 0 {
            // Counts down to the one that fails.
            if self.refuse.fetch_sub(1, Ordering::SeqCst) == 1 {
                return Err(Error::Invalid {
                    what: "test",
                    reason: "this record".into(),
                });
            }
        }
        self.inner.hmac(key, message)
    }
    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> TokenResult<[u8; 64]> {
        self.inner.sign(key, digest)
    }
    fn public_key(&mut self, key: KeyId) -> TokenResult<PublicKey> {
        self.inner.public_key(key)
    }
    fn random(&mut self, out: &mut [u8]) -> TokenResult<()> {
        self.inner.random(out)
    }
    fn inventory(&mut self) -> TokenResult<Vec<KeyReport>> {
        self.inner.inventory()
    }
    fn probe(&mut self) -> TokenResult<()> {
        self.inner.probe()
    }
    fn anchors(&mut self) -> TokenResult<Vec<AnchorObject>> {
        self.sluggish.waits(&self.anchors);
        self.inner.anchors()
    }
    fn anchor_stands(&mut self, content: &[u8]) -> TokenResult<bool> {
        self.inner.anchor_stands(content)
    }
    fn create_anchor(&mut self, content: &[u8]) -> TokenResult<()> {
        self.sluggish.made.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        // Looked at anew: whoever waits is let go when a test takes it back.
        while begun.elapsed() < Duration::from_millis(self.sluggish.makes.load(Ordering::SeqCst)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        match self.anchoring.lock().unwrap().pop_front() {
            Some(Anchor::Lost) => Err(away()),
            Some(Anchor::Late) => {
                self.sluggish.late.lock().unwrap().push(content.to_vec());
                Err(away())
            }
            Some(Anchor::Worn) => Err(Error::Worn {
                operation: "test",
                reason: "for now".into(),
            }),
            Some(Anchor::AnswerLost) => {
                self.inner.create_anchor(content)?;
                Err(away())
            }
            Some(Anchor::Honest) | None => {
                if self.sluggish.twice.swap(false, Ordering::SeqCst) {
                    self.anchors.add(content);
                }
                self.inner.create_anchor(content)
            }
        }
    }
    fn destroy_anchor(&mut self, object: &AnchorObject) -> TokenResult<()> {
        self.inner.destroy_anchor(object)?;
        let lost = |left: usize| left.checked_sub(1);
        let left = &self.sluggish.taken_back;
        match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lost) {
            Ok(_) => Err(away()),
            Err(_) => Ok(()),
        }
    }
}

fn away() -> Error {
    Error::Invalid {
        what: "test",
        reason: "the token is away".into(),
    }
}

pub(in crate::ledger::faults) struct Tokens {
    pub(in crate::ledger::faults) refuse: Arc<AtomicUsize>,
    /// Counts HMACs: identifiers and keys of records.
    pub(in crate::ledger::faults) work: Arc<AtomicUsize>,
    /// The token's object store: it outlives every login.
    pub(in crate::ledger::faults) anchors: SoftAnchors,
    pub(in crate::ledger::faults) anchoring: Arc<Mutex<VecDeque<Anchor>>>,
    pub(in crate::ledger::faults) sluggish: Arc<Sluggish>,
}

impl Backend for Tokens {
    fn open(&self) -> TokenResult<Box<dyn Custody>> {
        Ok(Box::new(Token {
            inner: SoftCustody::with_anchors(self.anchors.clone()),
            anchoring: Arc::clone(&self.anchoring),
            sluggish: Arc::clone(&self.sluggish),
            anchors: self.anchors.clone(),
            refuse: Arc::clone(&self.refuse),
            work: Arc::clone(&self.work),
        }))
    }
    fn describe(&self) -> TokenDescription {
        TokenDescription::default()
    }
    fn inspect(&self) -> TokenResult<Vec<KeyReport>> {
        Ok(Vec::new())
    }
    fn provision(&self, _dry_run: bool) -> TokenResult<ProvisionReport> {
        Ok(ProvisionReport::default())
    }
}
