//! The keys of a further ceremony between their making and the last token that takes them.
//!
//! Called by `custodyd escrow add-version`, so that a ceremony which is stopped in between goes on with the keys that
//! its custodians have shares of. What lies on the host meanwhile is sealed under a key that is made of the realm's
//! MAC key in a token: whoever may use a token of the realm opens it, and nobody else. It is not made of a wrap key, for that
//! may be what is being replaced. It goes as soon as every token has its keys.

use super::{EscrowError, Manifest, framed, unframed};
use crate::{
    custody::Custody,
    encoding,
    id::{KeyId, KeyPurpose},
    root_keys::RootKeys,
    seal::{open_once, seal_once},
    secret::Secret,
};

const MAGIC: [u8; 4] = *b"CDU\x01";
/// No file of them is longer.
pub const MAX_UNFINISHED: usize = 4096;

/// One manifest has one key under each MAC key, and its keys are sealed once.
fn key(
    custody: &mut dyn Custody,
    under: KeyId,
    manifest: &Manifest,
) -> Result<Secret<32>, EscrowError> {
    let statement = encoding::escrow_unfinished(&manifest.realm, &manifest.hash()?);
    Ok(custody.mac(under, &statement)?)
}

/// What to keep until these keys are in every token.
///
/// # Errors
/// The token's.
pub fn keep(
    custody: &mut dyn Custody,
    manifest: &Manifest,
    keys: &RootKeys,
) -> Result<Vec<u8>, EscrowError> {
    let under = custody.current(KeyPurpose::Mac)?;
    let sealed = seal_once(&key(custody, under, manifest)?, &MAGIC, framed(keys))?;
    Ok([&MAGIC[..], &sealed].concat())
}

/// The keys of this manifest again.
///
/// # Errors
/// [`EscrowError::Edited`] where they are another's, or no token of this realm has sealed them; the token's.
pub fn take_up(
    custody: &mut dyn Custody,
    manifest: &Manifest,
    kept: &[u8],
) -> Result<RootKeys, EscrowError> {
    let sealed = kept.strip_prefix(&MAGIC).ok_or(EscrowError::Edited)?;
    // One of them may be a MAC key, and be in this token since.
    for version in custody.versions(KeyPurpose::Mac)? {
        let under = KeyId::new(KeyPurpose::Mac, version);
        let key = key(custody, under, manifest)?;
        if let Ok(frame) = open_once(&key, &MAGIC, sealed, "the keys of an unfinished ceremony") {
            return unframed(manifest, &frame);
        }
    }
    Err(EscrowError::Edited)
}
