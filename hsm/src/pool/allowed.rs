//! A custody that knows the key versions in use, and uses no other.
//!
//! Put around each worker's custody for the length of one job. What a token holds is no reason to
//! use it: whoever can write into the token's object store could add a newer key that they know.
//! The head of the ledger says which versions there are; before one was believed, the token's own
//! answer stands.

use std::sync::Arc;

use crate::{
    custody::{AnchorObject, Custody},
    error::Result,
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::Secret,
    versions::KeyVersions,
};

pub(super) struct Allowed<'a> {
    pub(super) inner: &'a mut dyn Custody,
    /// The same during the whole job, whatever is rotated meanwhile.
    pub(super) versions: Option<Arc<KeyVersions>>,
}

impl Custody for Allowed<'_> {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        match &self.versions {
            Some(versions) => Ok(versions.current(purpose)),
            None => self.inner.current(purpose),
        }
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        let allowed = self.versions.as_ref().is_none_or(|v| v.accepts(key));
        Ok(allowed && self.inner.holds(key)?)
    }

    fn versions(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        self.inner.versions(purpose)
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.inner.hmac(key, message)
    }

    fn derive(&mut self, key: KeyId, label: &[u8], context_hash: &[u8; 32]) -> Result<Secret<32>> {
        self.inner.derive(key, label, context_hash)
    }

    fn mac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.inner.mac(key, message)
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.inner.sign(key, digest)
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.inner.public_key(key)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.inner.random(out)
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        self.inner.inventory()
    }

    fn probe(&mut self) -> Result<()> {
        self.inner.probe()
    }

    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.inner.anchors()
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        self.inner.create_anchor(content)
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        self.inner.destroy_anchor(object)
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.make_key(key)
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.destroy_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Error,
        id::{AppId, RealmName, RecordId, RecordKind},
        seal::{self, Context},
        software::SoftCustody,
    };

    fn wrap(version: u16) -> KeyId {
        KeyId::new(KeyPurpose::Wrap, version)
    }

    /// Somebody who writes into the token adds a newer key: it is used for nothing, and what they
    /// sealed under it is tampering.
    #[test]
    fn a_key_that_the_head_does_not_name_is_not_used() {
        let (realm, app) = (
            RealmName::parse("realm").unwrap(),
            AppId::parse("app").unwrap(),
        );
        let record = RecordId([3; 32]);
        let context = Context {
            realm: &realm,
            app: &app,
            kind: RecordKind::Account,
            record: &record,
            generation: 1,
        };
        let mut token = SoftCustody::new();
        token.add_version(KeyPurpose::Wrap, 2);
        let planted = seal::seal(&mut token, &context, b"planted").unwrap();
        // The control: without a head the token's own answer stands.
        let mut unruled = Allowed {
            inner: &mut token,
            versions: None,
        };
        assert_eq!(unruled.current(KeyPurpose::Wrap).unwrap(), wrap(2));
        assert!(seal::open(&mut unruled, &context, &planted).is_ok());
        let mut ruled = Allowed {
            inner: &mut token,
            versions: Some(Arc::new(KeyVersions::first())),
        };
        assert_eq!(ruled.current(KeyPurpose::Wrap).unwrap(), wrap(1));
        assert!(!ruled.holds(wrap(2)).unwrap() && ruled.holds(wrap(1)).unwrap());
        assert_eq!(ruled.versions(KeyPurpose::Wrap).unwrap(), [1, 2]);
        assert!(matches!(
            seal::open(&mut ruled, &context, &planted),
            Err(Error::Tampered { .. })
        ));
        let ours = seal::seal(&mut ruled, &context, b"ours").unwrap();
        assert_eq!(seal::key_version(&ours), Some(1));
    }

    #[test]
    fn a_retired_key_opens_nothing_although_the_token_still_holds_it() {
        let (realm, app) = (
            RealmName::parse("realm").unwrap(),
            AppId::parse("app").unwrap(),
        );
        let record = RecordId([4; 32]);
        let context = Context {
            realm: &realm,
            app: &app,
            kind: RecordKind::Account,
            record: &record,
            generation: 1,
        };
        let mut token = SoftCustody::new();
        let old = seal::seal(&mut token, &context, b"old").unwrap();
        token.add_version(KeyPurpose::Wrap, 2);
        let both = KeyVersions::first().with_newer(wrap(2)).unwrap();
        for (versions, opens) in [
            (both.clone(), true),
            (both.without(wrap(1)).unwrap(), false),
        ] {
            let mut ruled = Allowed {
                inner: &mut token,
                versions: Some(Arc::new(versions)),
            };
            assert_eq!(seal::open(&mut ruled, &context, &old).is_ok(), opens);
        }
    }
}
