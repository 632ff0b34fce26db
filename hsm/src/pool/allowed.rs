//! A custody that knows the key versions in use, and uses no other.
//!
//! Put around each worker's custody for the length of one job. What a token holds is no reason to
//! use it: whoever can write into the token's object store could add a newer key that they know.
//! The head of the ledger says which versions there are; before one was believed, the token's own
//! answer stands.

use std::sync::Arc;

use crate::{
    custody::{AnchorObject, Custody},
    ed25519::Ed25519Key,
    error::{Error, Result},
    evidence::Evidence,
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::{Secret, SecretBytes},
    versions::KeyVersions,
};

pub(super) struct Allowed<'a> {
    inner: &'a mut dyn Custody,
    /// The same during the whole job, whatever is rotated meanwhile.
    versions: Option<Arc<KeyVersions>>,
    /// What anchors are believed by, where that is all that the head decides here.
    believed: Option<Arc<KeyVersions>>,
    /// A key that this job has made or taken up, and has to prove before any head can name it.
    made: Option<KeyId>,
}

impl<'a> Allowed<'a> {
    pub(super) fn new(inner: &'a mut dyn Custody, versions: Option<Arc<KeyVersions>>) -> Self {
        Self {
            inner,
            versions,
            believed: None,
            made: None,
        }
    }

    pub(super) fn believing(self, believed: Option<Arc<KeyVersions>>) -> Self {
        Self { believed, ..self }
    }

    fn accepts(&self, key: KeyId) -> bool {
        self.versions.as_ref().is_none_or(|v| v.accepts(key))
    }

    /// Whoever asks `holds` first, as `seal` does, never sees this refusal.
    fn refuse_unnamed(&self, key: KeyId) -> Result<()> {
        match self.accepts(key) || self.made == Some(key) {
            true => Ok(()),
            false => Err(Error::Misconfigured(format!(
                "{key} is not used: the realm's head does not name it"
            ))),
        }
    }
}

#[deny(
    clippy::missing_trait_methods,
    reason = "a method that is not handed on would hide the token's own"
)]
impl Custody for Allowed<'_> {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        match &self.versions {
            Some(versions) if versions.has(purpose) => Ok(versions.current(purpose)),
            Some(_) => Err(Error::Misconfigured(format!(
                "the realm has no {} key",
                purpose.name()
            ))),
            None => self.inner.current(purpose),
        }
    }

    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        match &self.versions {
            Some(versions) => Ok(versions.has(purpose).then(|| versions.current(purpose))),
            None => self.inner.newest(purpose),
        }
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        Ok(self.accepts(key) && self.inner.holds(key)?)
    }

    fn versions(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        self.inner.versions(purpose)
    }

    fn accepted(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        match self.versions.as_ref().or(self.believed.as_ref()) {
            Some(versions) => Ok(versions.of(purpose).accepted().to_vec()),
            None => self.inner.accepted(purpose),
        }
    }

    fn believes(&self, key: KeyId) -> Result<bool> {
        let named = self.versions.as_ref().or(self.believed.as_ref());
        Ok(named.is_none_or(|versions| versions.accepts(key)) && self.inner.believes(key)?)
    }

    fn tag(&mut self, versions: &[u16], statement: &[u8]) -> Result<Secret<32>> {
        self.inner.tag(versions, statement)
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.refuse_unnamed(key)?;
        self.inner.hmac(key, message)
    }

    fn derive(&mut self, key: KeyId, label: &[u8], context_hash: &[u8; 32]) -> Result<Secret<32>> {
        self.refuse_unnamed(key)?;
        self.inner.derive(key, label, context_hash)
    }

    fn mac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.refuse_unnamed(key)?;
        self.inner.mac(key, message)
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.refuse_unnamed(key)?;
        self.inner.sign(key, digest)
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.inner.public_key(key)
    }

    fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> Result<[u8; 64]> {
        self.refuse_unnamed(key)?;
        self.inner.sign_ed25519(key, message)
    }

    fn ed25519_key(&mut self, key: KeyId) -> Result<Ed25519Key> {
        self.inner.ed25519_key(key)
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

    fn anchor_stands(&mut self, content: &[u8]) -> Result<bool> {
        self.inner.anchor_stands(content)
    }

    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        self.inner.create_anchor(content)
    }

    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        self.inner.destroy_anchor(object)
    }

    fn certify_anchors(&mut self, nonce: &[u8]) -> Result<Evidence> {
        self.inner.certify_anchors(nonce)
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.make_key(key)?;
        self.made = Some(key);
        Ok(())
    }

    fn make_key_for_owner(&mut self, key: KeyId, password: &SecretBytes) -> Result<()> {
        self.inner.make_key_for_owner(key, password)?;
        self.made = Some(key);
        Ok(())
    }

    fn take_up_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.take_up_key(key)?;
        self.made = Some(key);
        Ok(())
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        self.inner.destroy_key(key)
    }

    fn destroy_key_for_owner(&mut self, key: KeyId, password: &SecretBytes) -> Result<()> {
        self.inner.destroy_key_for_owner(key, password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
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
        let mut unruled = Allowed::new(&mut token, None);
        assert_eq!(unruled.current(KeyPurpose::Wrap).unwrap(), wrap(2));
        assert!(seal::open(&mut unruled, &context, &planted).is_ok());
        let mut ruled = Allowed::new(&mut token, Some(Arc::new(KeyVersions::first())));
        assert_eq!(ruled.current(KeyPurpose::Wrap).unwrap(), wrap(1));
        assert!(!ruled.holds(wrap(2)).unwrap() && ruled.holds(wrap(1)).unwrap());
        assert_eq!(ruled.versions(KeyPurpose::Wrap).unwrap(), [1, 2]);
        assert!(ruled.derive(wrap(2), b"label", &[0; 32]).is_err());
        assert!(ruled.hmac(wrap(2), b"message").is_err());
        assert!(ruled.derive(wrap(1), b"label", &[0; 32]).is_ok());
        assert!(matches!(
            seal::open(&mut ruled, &context, &planted),
            Err(Error::Tampered { .. })
        ));
        let ours = seal::seal(&mut ruled, &context, b"ours").unwrap();
        assert_eq!(seal::key_version(&ours), Some(1));
    }

    /// Only the job that has taken it up proves it, and nothing else in that job uses it.
    #[test]
    fn a_key_that_was_taken_up_can_be_proven_and_is_not_in_use() {
        let mut token = SoftCustody::new();
        let first = Some(Arc::new(KeyVersions::first()));
        let mut job = Allowed::new(&mut token, first.clone());
        assert!(job.take_up_key(wrap(2)).is_err());
        token.add_version(KeyPurpose::Wrap, 2);
        let mut job = Allowed::new(&mut token, first.clone());
        assert!(job.hmac(wrap(2), b"message").is_err());
        job.take_up_key(wrap(2)).unwrap();
        assert!(job.hmac(wrap(2), b"message").is_ok());
        assert!(!job.holds(wrap(2)).unwrap());
        assert_eq!(job.current(KeyPurpose::Wrap).unwrap(), wrap(1));
        let mut next = Allowed::new(&mut token, first);
        assert!(next.hmac(wrap(2), b"message").is_err());
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
            let mut ruled = Allowed::new(&mut token, Some(Arc::new(versions)));
            assert_eq!(seal::open(&mut ruled, &context, &old).is_ok(), opens);
        }
    }

    /// What several MAC keys have tagged is believed by whoever accepts one of them: who has not heard of the newest yet,
    /// and who has retired the older one. What the older one tags alone is nobody's then, whoever knows it.
    #[test]
    fn an_anchor_is_believed_by_a_key_that_is_accepted() {
        use crate::{
            anchor::{Anchor, advance, newest},
            error::AnchorFault,
            software::SoftAnchors,
        };
        let mac = |version| KeyId::new(KeyPurpose::Mac, version);
        let realm = RealmName::parse("realm").unwrap();
        let first = KeyVersions::first();
        let both = first.with_newer(mac(2)).unwrap();
        let second = both.without(mac(1)).unwrap();
        let anchor = Anchor {
            serial: 1,
            log_epoch: 1,
            seq: 1,
            head: [1; 32],
            boot_epoch: 1,
            clean: false,
            dirty: false,
        };
        for (tags, reads, believed) in [
            (&first, &first, true),
            (&first, &both, true),
            (&both, &first, true),
            (&both, &second, true),
            (&second, &both, true),
            (&first, &second, false),
            (&second, &first, false),
        ] {
            let mut token = SoftCustody::with_anchors(SoftAnchors::default());
            token.add_version(KeyPurpose::Mac, 2);
            let mut ruled = Allowed::new(&mut token, Some(Arc::new(tags.clone())));
            advance(&mut ruled, &realm, None, &anchor).unwrap();
            // One of several tokens has no other word for it than that of all of them.
            for alone in [true, false] {
                let by = Some(Arc::new(reads.clone()));
                let mut ruled = match alone {
                    true => Allowed::new(&mut token, by),
                    false => Allowed::new(&mut token, None).believing(by),
                };
                let found = newest(&mut ruled, &realm);
                match found {
                    Ok(found) => assert!(believed && found.as_ref() == Some(&anchor)),
                    Err(Error::Anchors { fault, .. }) => {
                        assert!(!believed && matches!(fault, AnchorFault::Forged));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        // The control: before a head was believed, any key of the token counts.
        let mut token = SoftCustody::with_anchors(SoftAnchors::default());
        advance(&mut token, &realm, None, &anchor).unwrap();
        assert!(newest(&mut token, &realm).unwrap().is_some());
    }
}
