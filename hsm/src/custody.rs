//! The custody trait: what every token must be able to do, and nothing that
//! only some can.
//!
//! Implemented by the backends, called from the worker threads of [`crate::pool`].
//! The trait is synchronous because tokens are. Two symmetric primitives are
//! built here from one, HMAC-SHA-256, because it behaves alike everywhere.

use std::time::Duration;

use crate::{
    ed25519::Ed25519Key,
    encoding,
    error::{Error, Result},
    evidence::Evidence,
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::{Imported, KeyReport, ProvisionReport, TokenDescription},
    root_keys::RootKeys,
    secret::{Secret, SecretBytes},
};

/// The longest message that is given to a token for one HMAC, in bytes.
pub const MAX_MESSAGE: usize = 4096;

/// The longest anchor, in bytes. Longer objects are listed without their content.
pub const MAX_ANCHOR: usize = 512;

/// Names an object of the token's store within one session epoch. Opaque: only
/// the backend that gave it out can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorHandle {
    pub epoch: u64,
    pub object: u64,
}

/// An object that stands where anchors are kept. Nothing in it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorObject {
    pub handle: AnchorHandle,
    /// In bytes, as the token tells it; 0 for what a crash left behind,
    /// `u64::MAX` where the token does not tell.
    pub size: u64,
    /// Empty where there are more than [`MAX_ANCHOR`] bytes.
    pub content: Vec<u8>,
}

/// One worker's way to the token: a session and what it needs. Not shared
/// between threads.
pub trait Custody: Send {
    /// The newest key of a purpose.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the token is away.
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId>;

    /// The same of a purpose that a token need not have a key for.
    ///
    /// # Errors
    /// As for [`Custody::current`].
    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        self.current(purpose).map(Some)
    }

    /// Whether the token holds this key: the allow-list for key versions that
    /// are read from stored bytes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the token is away.
    fn holds(&self, key: KeyId) -> Result<bool>;

    /// Every version of a purpose that the token holds, in rising order, whether in use or not.
    ///
    /// # Errors
    /// As for [`Custody::holds`].
    fn versions(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        let newest = self.newest(purpose)?.map_or(0, |key| key.version);
        let mut versions = Vec::new();
        for version in 1..=newest {
            if self.holds(KeyId::new(purpose, version))? {
                versions.push(version);
            }
        }
        Ok(versions)
    }

    /// HMAC-SHA-256 inside the token. Backends implement it; callers use
    /// [`Custody::derive`] and [`Custody::mac`], which keep the keys apart.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Misconfigured`] for a key that is not there.
    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>>;

    /// ECDSA P-256 over a SHA-256 digest that the host computed; r || s.
    ///
    /// # Errors
    /// As for [`Custody::hmac`]; [`Error::Invalid`] for a key that does not sign.
    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]>;

    /// The public half of a signing key.
    ///
    /// # Errors
    /// As for [`Custody::sign`].
    fn public_key(&mut self, key: KeyId) -> Result<PublicKey>;

    /// Ed25519 over a whole message (RFC 8032), by a key of a purpose that has such keys.
    ///
    /// # Errors
    /// As for [`Custody::sign`]; [`Error::Misconfigured`] where this kind of token has no such keys.
    fn sign_ed25519(&mut self, key: KeyId, _message: &[u8]) -> Result<[u8; 64]> {
        Err(no_ed25519(key))
    }

    /// The public half of an Ed25519 key.
    ///
    /// # Errors
    /// As for [`Custody::sign_ed25519`].
    fn ed25519_key(&mut self, key: KeyId) -> Result<Ed25519Key> {
        Err(no_ed25519(key))
    }

    /// Random bytes made by the token.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn random(&mut self, out: &mut [u8]) -> Result<()>;

    /// Every key of ours in the token, with its attributes judged.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn inventory(&mut self) -> Result<Vec<KeyReport>>;

    /// Health by known answer: each HMAC key repeats its first answer, and a
    /// signature verifies. No return code is believed.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Misconfigured`] when another token answers.
    fn probe(&mut self) -> Result<()>;

    /// Every object that stands where custodyd's anchors are kept, of any realm
    /// and of any content, empty leftovers included.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn anchors(&mut self) -> Result<Vec<AnchorObject>>;

    /// Adds an object to those that [`Custody::anchors`] lists. It is durable
    /// when this returns. After an error the outcome is unknown: list again.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Invalid`] for none or above [`MAX_ANCHOR`] bytes.
    fn create_anchor(&mut self, content: &[u8]) -> Result<()>;

    /// Whether an object with this content, which a list of before has shown, still stands in its place, looked at
    /// anew. `false` says nothing, not even that it has gone: a list tells. So answers a token that is as soon listed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn anchor_stands(&mut self, _content: &[u8]) -> Result<bool> {
        Ok(false)
    }

    /// Removes one listed object, if it still is what was listed; one that is
    /// gone already is no error. After an error the outcome is unknown.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()>;

    /// What the anchors are, signed by the token for somebody who does not believe this host, with a nonce
    /// of theirs.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] where this kind of token does not do that; [`Error::Invalid`] for a nonce
    /// of another length than [`crate::evidence::NONCE`]; else as for [`Custody::anchors`].
    fn certify_anchors(&mut self, _nonce: &[u8]) -> Result<Evidence> {
        Err(Error::Misconfigured(
            "only a TPM signs what it remembers; this kind of token has nothing that others could check".to_owned(),
        ))
    }

    /// Makes a key that is not there, judges and proves it like one that was found, and works with
    /// it from then on. After an error it may be there, half made: take another version.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is there already or the token has no place for it;
    /// [`Error::Misconfigured`] where the token's keys are not sound, or it makes none while it serves.
    fn make_key(&mut self, key: KeyId) -> Result<()> {
        Err(Error::Misconfigured(format!(
            "this kind of token makes no key while it is in use, so {key} was not made"
        )))
    }

    /// As [`Custody::make_key`], with the password that a TPM's owner hierarchy may have. It is used for this one key
    /// and not kept; a token without such a hierarchy has no use for it.
    ///
    /// # Errors
    /// As for [`Custody::make_key`]; [`Error::Misconfigured`] for another password than the owner's.
    fn make_key_for_owner(&mut self, key: KeyId, _password: &SecretBytes) -> Result<()> {
        self.make_key(key)
    }

    /// Finds a key that was brought into the token while this custody was in use, judges and proves it like one that
    /// was there, and works with it from then on. It says nothing of whose key it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is not there; else as for [`Custody::make_key`].
    fn take_up_key(&mut self, key: KeyId) -> Result<()> {
        match self.holds(key)? {
            true => Ok(()),
            false => Err(not_there(key)),
        }
    }

    /// Destroys a key for good. One that is gone already is no error.
    ///
    /// # Errors
    /// As for [`Custody::make_key`]; [`Error::Invalid`] for the only key of its purpose.
    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        Err(Error::Misconfigured(format!(
            "this kind of token destroys no key while it is in use, so {key} is still there"
        )))
    }

    /// As [`Custody::destroy_key`], with the password as for [`Custody::make_key_for_owner`].
    ///
    /// # Errors
    /// As for [`Custody::destroy_key`]; [`Error::Misconfigured`] for another password than the owner's.
    fn destroy_key_for_owner(&mut self, key: KeyId, _password: &SecretBytes) -> Result<()> {
        self.destroy_key(key)
    }

    /// SP 800-108r1 KDF in counter mode, PRF HMAC-SHA-256, one block of 256
    /// bits, from a wrap key. `context_hash` is SHA-256 over the context, so
    /// the input is short and of fixed shape whatever the context holds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is not a wrap key (a MAC key must
    /// never produce an encryption key) or a label with a zero byte, which
    /// would blur the end of the label; else as for [`Custody::hmac`].
    fn derive(&mut self, key: KeyId, label: &[u8], context_hash: &[u8; 32]) -> Result<Secret<32>> {
        require(key, KeyPurpose::Wrap)?;
        if label.is_empty() || label.len() > 64 || label.contains(&0) {
            return Err(Error::invalid(
                "derivation label",
                "expected 1 to 64 bytes, none zero",
            ));
        }
        self.hmac(key, &encoding::kdf_block(label, context_hash))
    }

    /// The versions of a purpose that are believed, the newest last. A custody that knows no head has its newest alone.
    ///
    /// # Errors
    /// As for [`Custody::current`].
    fn accepted(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        Ok(vec![self.current(purpose)?.version])
    }

    /// Whether what is tagged by this MAC key counts, where it says itself by which keys it is. A custody that knows no head
    /// believes every key that it holds.
    ///
    /// # Errors
    /// As for [`Custody::holds`].
    fn believes(&self, key: KeyId) -> Result<bool> {
        self.holds(key)
    }

    /// The tag that all of these MAC keys make together, each over what the one before has made. Of one key it is
    /// [`Custody::mac`]. Whoever knows some of them, or has put one into the token, can not make it.
    ///
    /// What is tagged says itself under which keys it is, and the head that brings a key into use is tagged before
    /// anybody has named that key: so this asks nobody whether they are in use. See [`crate::mac`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where none is named; else as for [`Custody::mac`].
    fn tag(&mut self, versions: &[u16], statement: &[u8]) -> Result<Secret<32>> {
        let mut tag: Option<Secret<32>> = None;
        for version in versions {
            let key = KeyId::new(KeyPurpose::Mac, *version);
            tag = Some(match &tag {
                None => self.mac(key, statement)?,
                Some(inner) => self.mac(key, &encoding::further_tag(statement, inner))?,
            });
        }
        tag.ok_or_else(|| Error::invalid("key version", "a tag is of one key at least"))
    }

    /// HMAC with a MAC key over a statement of [`crate::encoding`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key that is not a MAC key or a message above
    /// [`MAX_MESSAGE`]; else as for [`Custody::hmac`].
    fn mac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        require(key, KeyPurpose::Mac)?;
        check_message(message)?;
        self.hmac(key, message)
    }
}

/// What is said of a key that somebody else was to bring in.
pub(crate) fn not_there(key: KeyId) -> Error {
    let reason = format!("{key} is not in the token, or its module shows it after a restart alone");
    Error::invalid("key version", reason)
}

/// What a kind of token says that has no Ed25519 keys.
pub(crate) fn no_ed25519(key: KeyId) -> Error {
    Error::Misconfigured(format!(
        "this kind of token has no Ed25519 keys, so there is no {key}: its log's checkpoints carry the ECDSA P-256 \
         line alone; leave ledger.public_log out, or take a PKCS#11 token with CKM_EDDSA"
    ))
}

fn require(key: KeyId, purpose: KeyPurpose) -> Result<()> {
    if key.purpose == purpose {
        return Ok(());
    }
    Err(Error::invalid(
        "key purpose",
        format!("{key} is not a {} key", purpose.name()),
    ))
}

/// Refuses a message that a token might refuse. Without this bound an outsider's
/// long input would look like a sick token and set off a recovery.
pub(crate) fn check_message(message: &[u8]) -> Result<()> {
    if message.len() > MAX_MESSAGE {
        return Err(Error::invalid(
            "message",
            format!("more than {MAX_MESSAGE} bytes for one HMAC"),
        ));
    }
    Ok(())
}

/// Refuses an anchor that [`Custody::anchors`] could not give back.
pub(crate) fn check_anchor(content: &[u8]) -> Result<()> {
    if content.is_empty() || content.len() > MAX_ANCHOR {
        return Err(Error::invalid(
            "anchor",
            format!("expected 1 to {MAX_ANCHOR} bytes"),
        ));
    }
    Ok(())
}

/// A kind of token, as configured. Opens one [`Custody`] per worker.
pub trait Backend: Send + Sync + 'static {
    /// Opens a worker's custody; the first call starts the token session epoch
    /// and checks every key.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::PinRefused`] or [`Error::Misconfigured`].
    fn open(&self) -> Result<Box<dyn Custody>>;

    /// What the token says of itself; fields stay empty while it is not reachable.
    fn describe(&self) -> TokenDescription;

    /// Lists the keys with verdicts, also when they are not fit for use.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::PinRefused`] or [`Error::Misconfigured`].
    fn inspect(&self) -> Result<Vec<KeyReport>>;

    /// Makes the keys that are missing and nothing else. Not for a serving
    /// daemon: it starts a new epoch.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] when a key is double or wrong: nothing is made
    /// then, and nothing is ever deleted.
    fn provision(&self, dry_run: bool) -> Result<ProvisionReport>;

    /// Makes the first Ed25519 key for checkpoints where there is none, in a token whose other keys are there.
    /// Not for a serving daemon, either.
    ///
    /// # Errors
    /// As for [`Backend::provision`]; [`Error::Misconfigured`] where the token makes no such keys, or
    /// serves a realm already: that gets the key by a rotation, so that its head names it.
    fn provision_public_log(&self, _dry_run: bool) -> Result<ProvisionReport> {
        Err(no_ed25519(KeyId::new(KeyPurpose::CheckpointEd25519, 1)))
    }

    /// Random bytes of a token that may have no key yet. Not for a serving daemon.
    ///
    /// # Errors
    /// As for [`Backend::inspect`].
    fn entropy(&self) -> Result<Secret<32>> {
        Err(takes_no_keys())
    }

    /// Brings keys in that were made outside, into a token that holds none of ours; a kind of token that
    /// has more to be made makes it as for [`Backend::provision`]. Not for a serving daemon.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] where it is not configured for such keys, or holds keys already: nothing is
    /// made then, and nothing is ever deleted.
    fn import(&self, _keys: &RootKeys, _dry_run: bool) -> Result<Imported> {
        Err(takes_no_keys())
    }

    /// Brings those of the keys in that are missing, into a token that holds others of the same realm, or a part of
    /// these. One that is there already must be the very same. Not for a serving daemon; another process may serve.
    ///
    /// # Errors
    /// As for [`Backend::import`]; [`Error::Misconfigured`] where one that is there is another key.
    fn import_missing(&self, _keys: &RootKeys, _dry_run: bool) -> Result<Imported> {
        Err(takes_no_keys())
    }

    /// Counts the token session epochs of this process, from 1; 0 before the first.
    fn epoch(&self) -> u64 {
        0
    }

    /// For how long a thread of the backend's own has been opening the token, where one is: it may hang there.
    fn opening(&self) -> Option<Duration> {
        None
    }

    /// Threads of the backend's own that hang in opening the token, and that nobody waits for any more: it was opened beside them, or
    /// is being opened.
    fn left_behind(&self) -> usize {
        0
    }
}

fn takes_no_keys() -> Error {
    Error::Misconfigured("this kind of token takes no keys that were made outside".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::SoftCustody;

    #[test]
    fn keys_keep_to_their_purpose() {
        let mut custody = SoftCustody::new();
        let wrap = KeyId::new(KeyPurpose::Wrap, 1);
        let mac = KeyId::new(KeyPurpose::Mac, 1);
        assert!(custody.derive(wrap, b"label", &[0; 32]).is_ok());
        assert!(custody.mac(mac, b"message").is_ok());
        assert!(matches!(
            custody.derive(mac, b"label", &[0; 32]),
            Err(Error::Invalid { .. })
        ));
        assert!(matches!(
            custody.mac(wrap, b"m"),
            Err(Error::Invalid { .. })
        ));
        let bind = KeyId::new(KeyPurpose::Bind, 1);
        assert!(matches!(
            custody.mac(bind, b"m"),
            Err(Error::Invalid { .. })
        ));
    }

    #[test]
    fn bad_labels_and_long_messages_are_refused() {
        let mut custody = SoftCustody::new();
        let wrap = KeyId::new(KeyPurpose::Wrap, 1);
        for label in [&b""[..], b"a\0b", &[1; 65]] {
            assert!(custody.derive(wrap, label, &[0; 32]).is_err());
        }
        let mac = KeyId::new(KeyPurpose::Mac, 1);
        assert!(custody.mac(mac, &[0; MAX_MESSAGE]).is_ok());
        assert!(custody.mac(mac, &[0; MAX_MESSAGE + 1]).is_err());
    }
}
