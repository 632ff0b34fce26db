//! The set as one token: what the workers of the front pool hold.
//!
//! Every operation here changes nothing in a token and may be repeated, so that another token can be
//! asked. What changes one (anchors, keys) is refused: done in one of several, it would be a difference.

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::TokenSet;
use crate::{
    custody::{AnchorObject, Backend, Custody},
    ed25519::Ed25519Key,
    error::{Error, Result},
    evidence::Evidence,
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::{Imported, KeyReport, ProvisionReport, TokenDescription},
    root_keys::RootKeys,
    secret::{Secret, SecretBytes},
};

#[derive(Debug)]
pub(crate) struct SetBackend(pub(crate) Arc<TokenSet>);

struct SetCustody(Arc<TokenSet>);

#[deny(
    clippy::missing_trait_methods,
    reason = "what a set does is decided here, for each method"
)]
impl Backend for SetBackend {
    fn open(&self) -> Result<Box<dyn Custody>> {
        Ok(Box::new(SetCustody(Arc::clone(&self.0))))
    }

    fn describe(&self) -> TokenDescription {
        let first = self.0.serving().next();
        first.map_or_else(TokenDescription::default, |member| member.describe())
    }

    fn inspect(&self) -> Result<Vec<KeyReport>> {
        Err(one_by_one("inspected"))
    }

    fn provision(&self, _dry_run: bool) -> Result<ProvisionReport> {
        Err(one_by_one("provisioned"))
    }

    fn provision_public_log(&self, _dry_run: bool) -> Result<ProvisionReport> {
        Err(one_by_one("provisioned"))
    }

    fn entropy(&self) -> Result<Secret<32>> {
        Err(one_by_one("asked for the bytes of new keys"))
    }

    fn import(&self, _keys: &RootKeys, _dry_run: bool) -> Result<Imported> {
        Err(one_by_one("given keys"))
    }

    fn import_missing(&self, _keys: &RootKeys, _dry_run: bool) -> Result<Imported> {
        Err(one_by_one("given keys"))
    }

    /// Recoveries of all of them.
    fn epoch(&self) -> u64 {
        self.0.members().iter().map(|member| member.epoch()).sum()
    }

    /// Each member tells of its own.
    fn opening(&self) -> Option<Duration> {
        None
    }

    fn left_behind(&self) -> usize {
        let members = self.0.members().iter();
        members.map(|member| member.left_behind()).sum()
    }
}

fn one_by_one(what: &str) -> Error {
    Error::Misconfigured(format!("tokens of a set are {what} one by one"))
}

fn every_token_alike(key: KeyId, done: &str) -> Error {
    Error::Misconfigured(format!(
        "{key} was not {done}: the realm has several tokens, and a key that one of them makes or destroys would \
         make it another token than the rest (docs/TOKENS.md, \"Several tokens\")"
    ))
}

#[deny(
    clippy::missing_trait_methods,
    reason = "what a set does is decided here, for each method"
)]
impl Custody for SetCustody {
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        self.0.ask("current", move |token| token.current(purpose))
    }

    fn newest(&self, purpose: KeyPurpose) -> Result<Option<KeyId>> {
        self.0.ask("newest", move |token| token.newest(purpose))
    }

    fn holds(&self, key: KeyId) -> Result<bool> {
        self.0.ask("holds", move |token| token.holds(key))
    }

    fn versions(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        self.0.ask("versions", move |token| token.versions(purpose))
    }

    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        // It may be what a PIN was made into.
        let message = Arc::new(Zeroizing::new(message.to_vec()));
        self.0.ask("hmac", move |token| token.hmac(key, &message))
    }

    fn derive(&mut self, key: KeyId, label: &[u8], context_hash: &[u8; 32]) -> Result<Secret<32>> {
        let (label, hash): (Arc<[u8]>, _) = (label.into(), *context_hash);
        self.0
            .ask("derive", move |token| token.derive(key, &label, &hash))
    }

    fn mac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        // As above.
        let message = Arc::new(Zeroizing::new(message.to_vec()));
        self.0.ask("mac", move |token| token.mac(key, &message))
    }

    fn accepted(&self, purpose: KeyPurpose) -> Result<Vec<u16>> {
        self.0.ask("accepted", move |token| token.accepted(purpose))
    }

    fn believes(&self, key: KeyId) -> Result<bool> {
        self.0.ask("believes", move |token| token.believes(key))
    }

    fn tag(&mut self, versions: &[u16], statement: &[u8]) -> Result<Secret<32>> {
        let (versions, statement): (Arc<[u16]>, Arc<[u8]>) = (versions.into(), statement.into());
        self.0
            .ask("tag", move |token| token.tag(&versions, &statement))
    }

    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        let digest = *digest;
        self.0.ask("sign", move |token| token.sign(key, &digest))
    }

    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.0.ask("public key", move |token| token.public_key(key))
    }

    fn sign_ed25519(&mut self, key: KeyId, message: &[u8]) -> Result<[u8; 64]> {
        let message: Arc<[u8]> = message.into();
        self.0
            .ask("sign", move |token| token.sign_ed25519(key, &message))
    }

    fn ed25519_key(&mut self, key: KeyId) -> Result<Ed25519Key> {
        self.0
            .ask("public key", move |token| token.ed25519_key(key))
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        let length = out.len();
        let bytes = self.0.ask("random", move |token| {
            let mut bytes = Zeroizing::new(vec![0; length]);
            token.random(&mut bytes)?;
            Ok(bytes)
        })?;
        out.copy_from_slice(&bytes);
        Ok(())
    }

    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        self.0.ask("inventory", |token| token.inventory())
    }

    /// The set is ready where one token of it is.
    fn probe(&mut self) -> Result<()> {
        self.0.ask("probe", |token| token.probe())
    }

    /// Of the first token: to look at, not to decide on.
    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.0.ask("list anchors", |token| token.anchors())
    }

    /// Each token has its own, and it is asked for those of one by its own name.
    fn anchor_stands(&mut self, _content: &[u8]) -> Result<bool> {
        Ok(false)
    }

    fn certify_anchors(&mut self, _nonce: &[u8]) -> Result<Evidence> {
        Err(one_by_one("asked for evidence"))
    }

    fn create_anchor(&mut self, _content: &[u8]) -> Result<()> {
        Err(one_by_one("anchored in"))
    }

    fn destroy_anchor(&mut self, _object: &AnchorObject) -> Result<()> {
        Err(one_by_one("anchored in"))
    }

    fn make_key(&mut self, key: KeyId) -> Result<()> {
        Err(every_token_alike(key, "made"))
    }

    fn make_key_for_owner(&mut self, key: KeyId, _password: &SecretBytes) -> Result<()> {
        Err(every_token_alike(key, "made"))
    }

    fn take_up_key(&mut self, _key: KeyId) -> Result<()> {
        Err(one_by_one("asked for new keys"))
    }

    fn destroy_key(&mut self, key: KeyId) -> Result<()> {
        Err(every_token_alike(key, "destroyed"))
    }
    fn destroy_key_for_owner(&mut self, key: KeyId, _password: &SecretBytes) -> Result<()> {
        Err(every_token_alike(key, "destroyed"))
    }
}
