//! A worker's custody: a share in the one connection.
//!
//! Opened by the pool, one per thread. An operation that changes nothing in the TPM may be asked for
//! again by the caller; nothing is repeated here, because after a broken connection nobody knows
//! whether the first one was done, and the next epoch is the caller's next call.

use std::sync::Arc;

use super::{
    epoch::{Epoch, Shared},
    keys::{Scan, SecretKey},
    mechanism, provision,
};
use crate::{
    backend::attempt::Trouble,
    backend::origin,
    custody::{AnchorObject, Custody, check_anchor, check_message, no_ed25519},
    error::{Error, Result},
    evidence::{Evidence, NONCE},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::{Secret, SecretBytes},
};

pub(super) struct TpmCustody {
    shared: Arc<Shared>,
}

impl TpmCustody {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn make(&self, key: KeyId, owner: &SecretBytes) -> Result<()> {
        if key.purpose.is_ed25519() {
            return Err(no_ed25519(key));
        }
        let shared = &self.shared;
        origin::refuse_unescrowed(shared.options.origin, key)?;
        shared.settle("make a key", |epoch| {
            shared.change_keys(epoch, None, |connection| {
                provision::make_newer(connection, &shared.options, key, owner)
            })
        })
    }

    fn destroy(&self, key: KeyId, owner: &SecretBytes) -> Result<()> {
        let shared = &self.shared;
        shared.settle("destroy a key", |epoch| {
            if epoch.keys().but(key) == 0 {
                let only = format!("{key} is the only key of its purpose");
                return Err(Trouble::Final(Error::invalid("key version", only)));
            }
            // An anchor that it tags may be hidden only. After a kill it would be back, and nobody could believe it.
            if key.purpose == KeyPurpose::Mac {
                shared.with_anchors(epoch, |anchors| anchors.settle())?;
            }
            shared.change_keys(epoch, Some(key), |connection| {
                provision::destroy(connection, &shared.options, key, owner)
            })
        })
    }
}

impl Custody for TpmCustody {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        let newest = |epoch: &Epoch| Ok(epoch.keys().newest(purpose));
        self.shared.settle("current", newest)?.ok_or_else(|| {
            let name = purpose.name();
            Error::Misconfigured(format!("the token holds no {name} key"))
        })
    }

    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        self.shared
            .settle("newest", |epoch| Ok(epoch.keys().newest(purpose)))
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        self.shared
            .settle("holds", |epoch| Ok(epoch.keys().holds(key)))
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        check_message(message)?;
        self.shared
            .settle("hmac", |epoch| match epoch.keys().secret(key)? {
                SecretKey::Unsealed { root, .. } => {
                    epoch.be_fresh()?;
                    Ok(mechanism::hmac_on_host(root, message))
                }
                SecretKey::InTpm(key) => {
                    epoch.with(|connection| mechanism::hmac(connection, *key, message))
                }
            })
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.shared.settle("sign", |epoch| {
            let (key, _) = epoch.keys().pair(key)?;
            epoch.with(|connection| mechanism::ecdsa(connection, key, digest))
        })
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.shared
            .settle("public key", |epoch| Ok(epoch.keys().pair(key)?.1))
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        self.make(key, &self.shared.options.owner_password)
    }

    fn make_key_for_owner(&mut self, key: KeyId, password: &SecretBytes) -> Result<()> {
        self.make(key, password)
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        self.destroy(key, &self.shared.options.owner_password)
    }

    fn destroy_key_for_owner(&mut self, key: KeyId, password: &SecretBytes) -> Result<()> {
        self.destroy(key, password)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.shared.settle("random", |epoch| {
            epoch.with(|connection| mechanism::random(connection, out))
        })
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        let options = &self.shared.options;
        self.shared.settle("inventory", |epoch| {
            epoch.with(|connection| Ok(Scan::of(connection, options)?.reports()))
        })
    }

    fn probe(&mut self) -> Result<()> {
        self.shared.settle("probe", Epoch::probe)
    }

    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        let shared = &self.shared;
        shared.settle("list anchors", |epoch| {
            shared.with_anchors(epoch, |anchors| anchors.list())
        })
    }

    fn certify_anchors(&mut self, nonce: &[u8]) -> Result<Evidence> {
        if !NONCE.contains(&nonce.len()) {
            return Err(Error::invalid("nonce", "expected 16 to 32 bytes"));
        }
        let shared = &self.shared;
        shared.settle("certify the anchors", |epoch| {
            shared.with_anchors(epoch, |anchors| anchors.certify(&shared.options, nonce))
        })
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        check_anchor(content)?;
        let shared = &self.shared;
        shared.settle("create an anchor", |epoch| {
            shared.with_anchors(epoch, |anchors| anchors.create(content))
        })
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        const OPERATION: &str = "destroy an anchor";
        let shared = &self.shared;
        shared.settle(OPERATION, |epoch| {
            if object.handle.epoch != epoch.number {
                let reason = "it was listed before the token was recovered";
                return Err(Trouble::Final(Error::unavailable(OPERATION, reason)));
            }
            shared.with_anchors(epoch, |anchors| anchors.destroy(object))
        })
    }
}
