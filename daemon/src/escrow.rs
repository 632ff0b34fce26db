//! The escrow of this realm, as the configuration names it: its manifest, and whether it is of the keys in use.
//!
//! Called by `init`, by the checks of the command line, and by the ceremonies. It reads a document that
//! anybody may know; it opens nothing. A daemon that serves never needs it: which kind of realm it
//! is stands in the realm's own record.

use std::path::Path;

use custodyd_hsm::escrow::{EscrowError, MAX_MANIFEST, Manifest};
use custodyd_hsm::{Backend, Custody, RealmName, root_keys};
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
    #[error("the token holds {0}, which is in no escrow: it would be lost with the token")]
    NotInIt(String),
    #[error("{0}")]
    Token(#[from] custodyd_hsm::Error),
}

impl Escrowed {
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            ceremony: manifest.ceremony_name(),
            needed: manifest.needed,
            custodians: manifest.custodians.len(),
        }
    }
}

/// Reads a manifest of the realm.
///
/// # Errors
/// Where there is none, or it is another realm's.
pub fn read(path: &Path, realm: &RealmName) -> Result<Manifest, ManifestError> {
    let manifest = read_any(path)?;
    manifest
        .is_of(realm)
        .map_err(|source| refused(path, source))?;
    Ok(manifest)
}

/// Reads a manifest of any realm: custodians have no configuration.
///
/// # Errors
/// Where there is none.
pub fn read_any(path: &Path) -> Result<Manifest, ManifestError> {
    let text = text(path).map_err(|source| ManifestError::Unread {
        path: path.display().to_string(),
        source,
    })?;
    Manifest::parse(&text).map_err(|source| refused(path, source))
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
    let most = MAX_MANIFEST.saturating_add(1) as u64;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, most), &mut text)?;
    Ok(text)
}

/// Whether a token holds exactly the keys of the escrow.
///
/// # Errors
/// `OtherKeys` and `NotInIt` name the first that differs; `Token` where it does not answer.
pub fn holds(custody: &mut dyn Custody, manifest: &Manifest) -> Result<(), ManifestError> {
    if let Some(key) = root_keys::differing(custody, &manifest.keys)? {
        return Err(ManifestError::OtherKeys(
            key.to_string(),
            manifest.ceremony_name(),
        ));
    }
    let listed = custody.inventory()?;
    let mut others = listed
        .into_iter()
        .filter(|report| manifest.keys.iter().all(|check| check.key != report.id));
    match others.next() {
        Some(report) => Err(ManifestError::NotInIt(report.label)),
        None => Ok(()),
    }
}

/// The same, of a token that nobody has opened yet.
///
/// # Errors
/// As `holds`.
pub fn holds_in(backend: &dyn Backend, manifest: &Manifest) -> Result<(), ManifestError> {
    let mut custody = backend.open()?;
    holds(custody.as_mut(), manifest)
}
