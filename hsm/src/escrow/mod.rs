//! Escrow: root keys that k of n custodians can bring back into another token.
//!
//! Called by `custodyd escrow`. The keys are sealed under a secret that is drawn for one ceremony; the
//! secret is split after Shamir (`split`), each share is encrypted to its custodian's age recipient
//! (`share`), and everything that may be public stands in one document, the manifest. Whoever has the
//! manifest and fewer than k shares has nothing; whoever has k shares and the manifest has the keys.
//!
//! The manifest is under a MAC whose key is made from the secret, names each share by a commitment, and
//! each share names the manifest by its hash: shares of two ceremonies, and an edited
//! manifest, are known before anything is opened. Bytes stand in FORMAT.md, section 11.
//!
//! A later ceremony adds versions (`chain`): it has a secret, custodians and a manifest of its own, so that nobody has
//! to bring shares of an earlier one for it, and whoever has k of its shares has no other key.

mod chain;
mod manifest;
mod share;
mod split;
#[cfg(test)]
mod tests;
mod unfinished;

pub use self::{
    chain::{MAX_MANIFESTS, Manifests},
    manifest::{Custodian, MAX_MANIFEST, Manifest},
    share::{Identity, MAX_SHARE_FILE, Recipient, Share},
    unfinished::{MAX_UNFINISHED, keep, take_up},
};

use aws_lc_rs::{digest, hmac, rand};

use crate::{
    encoding::Fields,
    id::RealmName,
    root_keys::{RootKey, RootKeys},
    seal::{open_once, seal_once},
    secret::{Secret, SecretBytes},
};

/// The fewest shares that may open an escrow: with one, each custodian would have the keys alone.
pub const LEAST_NEEDED: usize = 2;
/// The most custodians.
pub const MOST_CUSTODIANS: usize = 16;

/// Why an escrow was not made or not opened, with what to do. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum EscrowError {
    #[error("{0}")]
    Plan(String),
    #[error("this is no manifest of an escrow that this program knows: {0}")]
    NotAManifest(String),
    #[error(
        "the escrow is of the realm {found}, the configuration of {expected}: take the manifest and the shares of \
         {expected}"
    )]
    OtherRealm {
        found: RealmName,
        expected: RealmName,
    },
    #[error("{0}")]
    Identity(String),
    #[error(
        "the file opens with none of the identities: it was encrypted to another recipient, was altered, or is no \
         age file"
    )]
    Closed,
    #[error("what the file holds is no share of an escrow that this program knows")]
    NotAShare,
    #[error(
        "a share is of ceremony {found}, the manifest of {expected}: shares of two ceremonies open nothing; take the \
         share that belongs to this manifest, or the manifest that belongs to the shares"
    )]
    OtherCeremony { found: String, expected: String },
    #[error(
        "the manifest was edited after the ceremony, or a share belongs to another version of it: take the manifest \
         as `escrow create` wrote it; every custodian was given a copy"
    )]
    Edited,
    #[error(
        "a share of this ceremony is not as it was made: ask its custodian for the original file"
    )]
    OtherShare,
    #[error("the share of {0} was given twice; {1} different ones are needed")]
    Twice(String, usize),
    #[error("{found} of {needed} shares: ask {missing} more of {others}")]
    TooFew {
        found: usize,
        needed: usize,
        missing: usize,
        others: String,
    },
    /// Of one of several ceremonies.
    #[error("of the ceremony {ceremony} ({keys}): {source}")]
    InCeremony {
        ceremony: String,
        keys: String,
        source: Box<EscrowError>,
    },
    #[error("the host gives no random bytes")]
    Random,
    #[error("the escrow does not open again: nothing was imported; run the ceremony anew")]
    Unsound,
    #[error("{0}")]
    Hsm(#[from] crate::error::Error),
}

/// What a ceremony is to make.
#[derive(Debug)]
pub struct Plan<'a> {
    pub realm: &'a RealmName,
    /// The ceremonies before, where versions are added to a realm.
    pub after: Option<&'a Manifests>,
    /// How many custodians it takes.
    pub needed: usize,
    pub custodians: &'a [(String, Recipient)],
    /// In seconds since the Unix epoch.
    pub made: u64,
}

/// What a ceremony made: a document for everybody, and a file for each custodian, in their order.
#[derive(Debug)]
pub struct Escrow {
    pub manifest: Manifest,
    /// Armoured age files.
    pub files: Vec<String>,
}

/// The two keys that are made of a ceremony's secret.
struct Derived {
    seal: Secret<32>,
    mac: hmac::Key,
}

impl Derived {
    fn of(secret: &[u8], realm: &RealmName, ceremony: &[u8; 16]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = |domain: &[u8]| {
            let of = Fields::new(domain).text(realm.as_str()).bytes(ceremony);
            hmac::sign(&root, &of.finish())
        };
        let seal = tag(b"custodyd/escrow-seal/v1");
        let mac = tag(b"custodyd/escrow-manifest/v1");
        Self {
            seal: Secret::init(|place| copy(place, seal.as_ref())),
            mac: hmac::Key::new(hmac::HMAC_SHA256, mac.as_ref()),
        }
    }
}

fn copy(place: &mut [u8; 32], from: &[u8]) {
    for (to, from) in place.iter_mut().zip(from) {
        *to = *from;
    }
}

fn sha256(statement: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    copy(
        &mut hash,
        digest::digest(&digest::SHA256, statement).as_ref(),
    );
    hash
}

fn random<const N: usize>() -> Result<Secret<N>, EscrowError> {
    Secret::try_init(|place: &mut [u8; N]| rand::fill(place)).map_err(|_| EscrowError::Random)
}

impl Plan<'_> {
    fn check(&self) -> Result<(), EscrowError> {
        let refused = |what: String| Err(EscrowError::Plan(what));
        let count = self.custodians.len();
        if !(LEAST_NEEDED..=MOST_CUSTODIANS).contains(&count) {
            return refused(format!(
                "{count} custodians: expected {LEAST_NEEDED} to {MOST_CUSTODIANS}"
            ));
        }
        if !(LEAST_NEEDED..=count).contains(&self.needed) {
            return refused(format!(
                "{} shares needed: expected {LEAST_NEEDED} to {count}; with one, each custodian alone would have the \
                 realm's keys",
                self.needed
            ));
        }
        for (at, (name, recipient)) in self.custodians.iter().enumerate() {
            if !manifest::is_name(name) {
                return refused(format!(
                    "the custodian \"{name}\": expected 1 to 32 of a-z 0-9 . _ -"
                ));
            }
            let earlier = self.custodians.get(..at).unwrap_or_default();
            if earlier.iter().any(|(other, _)| other == name) {
                return refused(format!("the custodian {name} is named twice"));
            }
            if let Some((other, _)) = earlier.iter().find(|(_, same)| same == recipient) {
                return refused(format!(
                    "{other} and {name} have one recipient: whoever holds its key would have two shares"
                ));
            }
        }
        Ok(())
    }
}

/// Makes an escrow of these keys, and opens it again before it is believed.
///
/// # Errors
/// [`EscrowError::Plan`] says what cannot be; [`EscrowError::Random`].
pub fn create(plan: &Plan<'_>, keys: &RootKeys) -> Result<Escrow, EscrowError> {
    plan.check()?;
    let (secret, ceremony) = (random::<32>()?, *random::<16>()?.expose());
    let derived = Derived::of(secret.expose(), plan.realm, &ceremony);
    let values = split::split(secret.expose(), plan.needed, plan.custodians.len())?;
    if !every_choice_opens(&values, plan.needed, &secret)? {
        return Err(EscrowError::Unsound);
    }
    let mut manifest = Manifest::begin(plan, ceremony, &values, keys)?;
    manifest.seal(seal_once(&derived.seal, &manifest.aad()?, framed(keys))?);
    manifest.authenticate(&derived.mac)?;
    let hash = manifest.hash()?;
    let shares: Vec<Share> = values
        .into_iter()
        .map(|value| Share::new(ceremony, hash, value))
        .collect();
    let recipients = plan.custodians.iter().map(|(_, recipient)| recipient);
    let files = shares.iter().zip(recipients);
    let files = files.map(|(share, recipient)| share.encrypt(recipient));
    let files = files.collect::<Result<_, _>>()?;
    let last = shares.into_iter().rev().take(plan.needed).collect();
    let again = open(&manifest, last)?;
    if let Some(after) = plan.after {
        after.clone().with(manifest.clone())?;
    }
    match again.checks() == keys.checks() {
        true => Ok(Escrow { manifest, files }),
        false => Err(EscrowError::Unsound),
    }
}

/// Whether any custodians that are enough have the secret: each share takes part in this, and every choice is tried.
fn every_choice_opens(
    values: &[SecretBytes],
    needed: usize,
    secret: &Secret<32>,
) -> Result<bool, EscrowError> {
    let choices = 0..(1_u32 << values.len().min(MOST_CUSTODIANS));
    let enough = choices.filter(|choice| usize::try_from(choice.count_ones()) == Ok(needed));
    for choice in enough {
        let chosen = values.iter().enumerate();
        let chosen = chosen.filter(|(at, _)| (choice >> at) & 1 == 1);
        if !split::combine(chosen.map(|(_, value)| value))?.ct_eq(secret) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes of all keys, in their order.
fn framed(keys: &RootKeys) -> SecretBytes {
    SecretBytes::init(keys.iter().count() * 32, |frame| {
        for (place, key) in frame.chunks_mut(32).zip(keys.iter()) {
            place.copy_from_slice(key.expose());
        }
    })
}

/// What such bytes are the keys of, if they are those of this manifest.
fn unframed(manifest: &Manifest, frame: &SecretBytes) -> Result<RootKeys, EscrowError> {
    let values = frame.expose().as_chunks::<32>().0.iter();
    let keys = manifest.keys.iter().zip(values).map(|(check, bytes)| {
        RootKey::new(
            check.key,
            Secret::init(|place| place.copy_from_slice(bytes)),
        )
    });
    let keys = keys.collect::<Result<_, _>>()?;
    let keys = match manifest.is_further() {
        true => RootKeys::further(keys),
        false => RootKeys::new(keys),
    }?;
    match keys.checks() == manifest.keys {
        true => Ok(keys),
        false => Err(EscrowError::Edited),
    }
}

/// The root keys of one ceremony, if these shares are enough and everything belongs together.
///
/// # Errors
/// Every [`EscrowError`] that says what does not.
pub fn open(manifest: &Manifest, shares: Vec<Share>) -> Result<RootKeys, EscrowError> {
    manifest.suffice(&shares)?;
    let secret = split::combine(shares.iter().map(Share::value))?;
    let derived = Derived::of(secret.expose(), &manifest.realm, manifest.ceremony());
    manifest.check_mac(&derived.mac)?;
    let frame = open_once(
        &derived.seal,
        &manifest.aad()?,
        manifest.sealed(),
        "the escrow's sealed keys",
    )
    .map_err(|_| EscrowError::Edited)?;
    unframed(manifest, &frame)
}
