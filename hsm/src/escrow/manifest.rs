//! The manifest: what everybody may know of an escrow, in one form that everybody can keep.
//!
//! Made by `create`, read by whoever restores or drills. Until its MAC was checked with k shares it is
//! what somebody wrote; that each share names it by its hash tells an edited one before that.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::{EscrowError, LEAST_NEEDED, MOST_CUSTODIANS, Plan, Recipient, Share, sha256};
use crate::{
    encoding::Fields,
    id::RealmName,
    root_keys::{KeyCheck, RootKeys},
    secret::SecretBytes,
};

const PURPOSE: &str = "custodyd escrow, version 1: the keys of a realm, sealed; `needed` of the custodians' shares \
                       open them";
const FURTHER: &str = "custodyd escrow, version 1: further keys of a realm, sealed; `needed` of the custodians' shares \
                       open them, and the manifests before it hold the others";
/// No manifest is longer.
pub const MAX_MANIFEST: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    purpose: String,
    pub realm: RealmName,
    /// Drawn for each ceremony.
    #[serde(with = "hex::serde")]
    ceremony: [u8; 16],
    /// The hash of the manifest before, where the ceremony has added versions to a realm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Hash>,
    /// In seconds since the Unix epoch.
    pub made: u64,
    /// So many custodians open it.
    pub needed: usize,
    pub custodians: Vec<Custodian>,
    /// The keys that are in it, each with what shows that a token has it.
    pub keys: Vec<KeyCheck>,
    #[serde(with = "hex::serde")]
    sealed: Vec<u8>,
    #[serde(with = "hex::serde")]
    mac: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    pub name: String,
    pub recipient: Recipient,
    /// Hash of the share: it is as long as a key, so nobody finds it by trying.
    #[serde(with = "hex::serde")]
    commitment: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Hash(#[serde(with = "hex::serde")] [u8; 32]);

pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    };
    (1..=32).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed)
}

fn purpose(further: bool) -> &'static str {
    match further {
        true => FURTHER,
        false => PURPOSE,
    }
}

fn commitment(ceremony: &[u8; 16], value: &SecretBytes) -> [u8; 32] {
    let of = Fields::new(b"custodyd/escrow-share/v1").bytes(ceremony);
    let statement = zeroize::Zeroizing::new(of.bytes(value.expose()).finish());
    sha256(&statement)
}

impl Manifest {
    pub(super) fn begin(
        plan: &Plan<'_>,
        ceremony: [u8; 16],
        values: &[SecretBytes],
        keys: &RootKeys,
    ) -> Result<Self, EscrowError> {
        let after = plan.after.map(|after| after.newest().hash()).transpose()?;
        let named = plan.custodians.iter().zip(values);
        let custodians = named.map(|((name, recipient), value)| Custodian {
            name: name.clone(),
            recipient: recipient.clone(),
            commitment: commitment(&ceremony, value),
        });
        Ok(Self {
            purpose: purpose(after.is_some()).to_owned(),
            realm: plan.realm.clone(),
            ceremony,
            after: after.map(Hash),
            made: plan.made,
            needed: plan.needed,
            custodians: custodians.collect(),
            keys: keys.checks(),
            sealed: Vec::new(),
            mac: [0; 32],
        })
    }

    /// Whether it adds versions to a realm.
    pub(super) fn is_further(&self) -> bool {
        self.after.is_some()
    }

    /// Whether it was made upon this one.
    pub(super) fn follows(&self, before: &Self) -> Result<bool, EscrowError> {
        let hash = Hash(before.hash()?);
        Ok(self.after == Some(hash) && self.realm == before.realm)
    }

    /// The keys that are in it, for people.
    #[must_use]
    pub fn key_names(&self) -> String {
        let names: Vec<String> = self.keys.iter().map(|of| of.key.to_string()).collect();
        names.join(", ")
    }

    /// Its custodians, for people.
    #[must_use]
    pub fn custodian_names(&self) -> String {
        let names: Vec<&str> = self.custodians.iter().map(|of| of.name.as_str()).collect();
        names.join(", ")
    }

    pub(super) fn seal(&mut self, sealed: Vec<u8>) {
        self.sealed = sealed;
    }

    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    pub(super) fn ceremony(&self) -> &[u8; 16] {
        &self.ceremony
    }

    /// The ceremony, as people name it.
    #[must_use]
    pub fn ceremony_name(&self) -> String {
        hex::encode(self.ceremony)
    }

    /// What two people compare who must have the same manifest: another one has another, whatever it says.
    ///
    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub fn fingerprint(&self) -> Result<String, EscrowError> {
        Ok(hex::encode(self.hash()?))
    }

    /// Everything that was fixed before the keys were sealed.
    pub(super) fn aad(&self) -> Result<Vec<u8>, EscrowError> {
        let mut bare = self.clone();
        bare.sealed = Vec::new();
        bare.body()
    }

    /// Everything but the MAC.
    fn body(&self) -> Result<Vec<u8>, EscrowError> {
        let mut bare = self.clone();
        bare.mac = [0; 32];
        Ok(bare.encode()?.into_bytes())
    }

    pub(super) fn authenticate(&mut self, key: &hmac::Key) -> Result<(), EscrowError> {
        let tag = hmac::sign(key, &self.body()?);
        super::copy(&mut self.mac, tag.as_ref());
        Ok(())
    }

    pub(super) fn check_mac(&self, key: &hmac::Key) -> Result<(), EscrowError> {
        hmac::verify(key, &self.body()?, &self.mac).map_err(|_| EscrowError::Edited)
    }

    /// By it a share knows which manifest it belongs to.
    pub(super) fn hash(&self) -> Result<[u8; 32], EscrowError> {
        let of = Fields::new(b"custodyd/escrow-manifest-hash/v1").bytes(self.encode()?.as_bytes());
        Ok(sha256(&of.finish()))
    }

    /// The document.
    ///
    /// # Errors
    /// Never for these fields; the signature is serde's.
    pub fn encode(&self) -> Result<String, EscrowError> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|error| EscrowError::NotAManifest(error.to_string()))?;
        Ok(text + "\n")
    }

    /// # Errors
    /// [`EscrowError::NotAManifest`] with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, EscrowError> {
        let refused = |what: String| EscrowError::NotAManifest(what);
        if text.len() > MAX_MANIFEST {
            return Err(refused(format!("it has more than {MAX_MANIFEST} bytes")));
        }
        let manifest: Self =
            serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        if manifest.purpose != purpose(manifest.is_further()) {
            return Err(refused("its purpose is another one".into()));
        }
        let count = manifest.custodians.len();
        if !(LEAST_NEEDED..=MOST_CUSTODIANS).contains(&count)
            || !(LEAST_NEEDED..=count).contains(&manifest.needed)
        {
            return Err(refused(format!(
                "{} of {count} custodians cannot be",
                manifest.needed
            )));
        }
        if !manifest.custodians.iter().all(|one| is_name(&one.name)) {
            return Err(refused("a custodian has no proper name".into()));
        }
        // In one form only: nothing hides in it, and everybody hashes the same bytes.
        if manifest.encode()? != text {
            return Err(refused("it is not in the form that was written".into()));
        }
        Ok(manifest)
    }

    /// # Errors
    /// [`EscrowError::OtherRealm`].
    pub fn is_of(&self, realm: &RealmName) -> Result<(), EscrowError> {
        match self.realm == *realm {
            true => Ok(()),
            false => Err(EscrowError::OtherRealm {
                found: self.realm.clone(),
                expected: realm.clone(),
            }),
        }
    }

    /// Whose share it is, if it is one of this ceremony and as it was made.
    ///
    /// # Errors
    /// [`EscrowError::OtherCeremony`], [`EscrowError::Edited`], [`EscrowError::OtherShare`].
    pub fn owner(&self, share: &Share) -> Result<&Custodian, EscrowError> {
        if share.ceremony != self.ceremony {
            return Err(EscrowError::OtherCeremony {
                found: hex::encode(share.ceremony),
                expected: self.ceremony_name(),
            });
        }
        if share.manifest != self.hash()? {
            return Err(EscrowError::Edited);
        }
        let found = commitment(&self.ceremony, share.value());
        let mut same = self.custodians.iter().filter(|one| one.commitment == found);
        same.next().ok_or(EscrowError::OtherShare)
    }

    /// Whether these are enough, and none of them is there twice.
    pub(super) fn suffice(&self, shares: &[Share]) -> Result<(), EscrowError> {
        let mut given: Vec<&str> = Vec::new();
        for share in shares {
            let owner = self.owner(share)?.name.as_str();
            if given.contains(&owner) {
                return Err(EscrowError::Twice(owner.to_owned(), self.needed));
            }
            given.push(owner);
        }
        let missing = self.needed.saturating_sub(given.len());
        if missing == 0 {
            return Ok(());
        }
        let names = self.custodians.iter().map(|one| one.name.as_str());
        let others: Vec<&str> = names.filter(|name| !given.contains(name)).collect();
        Err(EscrowError::TooFew {
            found: given.len(),
            needed: self.needed,
            missing,
            others: others.join(", "),
        })
    }
}
