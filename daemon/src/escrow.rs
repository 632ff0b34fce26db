//! The escrow of this realm, as the configuration names it: its manifests, and whether they are of the keys in use.
//!
//! Called by `init`, by the checks of the command line, by the ceremonies, and by a rotation. It reads a document that
//! anybody may know; it opens nothing. A daemon that serves needs it for a rotation alone: which kind of realm it
//! is stands in the realm's own record.

use std::path::Path;

use custodyd_hsm::escrow::{EscrowError, MAX_MANIFESTS, Manifest, Manifests};
use custodyd_hsm::{Backend, Custody, KeyId, RealmName, root_keys};
use serde::{Deserialize, Serialize};

/// What the realm's record keeps of its escrow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escrowed {
    pub ceremony: String,
    pub needed: usize,
    pub custodians: usize,
}

/// Why the manifest is not to be relied on, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(
        "{path}: {source}; token.escrow names the manifest that `custodyd escrow create` wrote, and every custodian has \
         a copy of it"
    )]
    Unread {
        path: String,
        source: std::io::Error,
    },
    #[error("{path}: {source}")]
    Refused { path: String, source: EscrowError },
    #[error(
        "the key {0} in the token is not the one of the escrow {1}: nobody could bring this token's keys back. Take the \
         manifest of these keys, or the token of this manifest"
    )]
    OtherKeys(String, String),
    #[error(
        "the token holds {0}, which is in no escrow: it would be lost with the token. Where a ceremony that adds it was \
         stopped, run its command again; if nobody has its shares: custodyd key retire {0} --destroy --yes"
    )]
    NotInIt(String),
    #[error(
        "the token lacks {0} of the escrow: `custodyd escrow restore` brings it in, from the shares of its ceremony"
    )]
    Lacks(String),
    #[error("{0}")]
    Token(#[from] custodyd_hsm::Error),
}

impl Escrowed {
    /// Of the ceremony that made the realm's keys: later ones follow it.
    pub fn of(manifests: &Manifests) -> Self {
        let first = manifests.first();
        Self {
            ceremony: first.ceremony_name(),
            needed: first.needed,
            custodians: first.custodians.len(),
        }
    }
}

/// Reads the manifests of the realm.
///
/// # Errors
/// Where there are none, or they are another realm's.
pub fn read(path: &Path, realm: &RealmName) -> Result<Manifests, ManifestError> {
    let manifests = read_any(path)?;
    manifests
        .is_of(realm)
        .map_err(|source| refused(path, source))?;
    Ok(manifests)
}

/// Reads the manifests of any realm: custodians have no configuration.
///
/// # Errors
/// Where there are none.
pub fn read_any(path: &Path) -> Result<Manifests, ManifestError> {
    let text = text(path).map_err(|source| ManifestError::Unread {
        path: path.display().to_string(),
        source,
    })?;
    Manifests::parse(&text).map_err(|source| refused(path, source))
}

fn refused(path: &Path, source: EscrowError) -> ManifestError {
    ManifestError::Refused {
        path: path.display().to_string(),
        source,
    }
}

fn text(path: &Path) -> std::io::Result<String> {
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    let most = MAX_MANIFESTS.saturating_add(1) as u64;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, most), &mut text)?;
    Ok(text)
}

/// Whether every key of a token is one of the escrow; and which of the escrow's it lacks. Those were destroyed, or
/// never brought in: what it must have says the realm's head.
///
/// # Errors
/// `OtherKeys` and `NotInIt` name the first that differs; `Token` where it does not answer.
pub fn holds(
    custody: &mut dyn Custody,
    manifests: &Manifests,
) -> Result<Vec<KeyId>, ManifestError> {
    let mut lacking = Vec::new();
    for check in manifests.keys() {
        if !custody.holds(check.key)? {
            lacking.push(check.key);
        } else if root_keys::check_of(custody, check.key)? != *check {
            let of = manifests.ceremony_of(check.key);
            return Err(ManifestError::OtherKeys(
                check.key.to_string(),
                of.map(Manifest::ceremony_name).unwrap_or_default(),
            ));
        }
    }
    let mut listed = custody.inventory()?.into_iter();
    let stranger = listed.find(|report| manifests.ceremony_of(report.id).is_none());
    match stranger {
        Some(report) => Err(ManifestError::NotInIt(report.label)),
        None => Ok(lacking),
    }
}

/// The same, where none may be missing.
///
/// # Errors
/// As `holds`; `Lacks` names those that are missing.
pub fn holds_all(custody: &mut dyn Custody, manifests: &Manifests) -> Result<(), ManifestError> {
    let lacking = holds(custody, manifests)?;
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(ManifestError::Lacks(names(&lacking))),
    }
}

/// As `holds`, of a token that nobody has opened yet.
///
/// # Errors
/// As `holds`.
pub fn holds_in(backend: &dyn Backend, manifests: &Manifests) -> Result<Vec<KeyId>, ManifestError> {
    let mut custody = backend.open()?;
    holds(custody.as_mut(), manifests)
}

/// Keys, for people.
pub fn names(keys: &[KeyId]) -> String {
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.join(", ")
}
