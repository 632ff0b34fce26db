//! Warm anchors: the same statement for a file in the runtime directory, which
//! lives as long as the kernel does.
//!
//! Called by the ledger, which reads and writes the file. A warm anchor has a
//! domain of its own, so a file can never be planted in the token, nor an
//! object of the token in the file.

use super::{Anchor, format, format::Parsed};
use crate::{
    custody::Custody,
    encoding,
    error::{Error, Result},
    id::RealmName,
    mac,
};

/// The bytes of a warm anchor, by the MAC keys that its head is tagged by. `boot_id` is the kernel's
/// (`/proc/sys/kernel/random/boot_id` on Linux): what lives in memory does not
/// outlive it.
///
/// # Errors
/// [`Error::Invalid`] for a boot id that is empty, longer than 64 bytes or not
/// visible ASCII, and for an anchor that cannot be; else the token's.
pub fn seal_warm(
    custody: &mut dyn Custody,
    realm: &RealmName,
    boot_id: &str,
    (anchor, keys): (&Anchor, &[u16]),
) -> Result<Vec<u8>> {
    let mut bytes = format::warm(realm, anchor, boot_id, keys)?;
    let tag = custody.tag(keys, &encoding::warm_anchor(&bytes))?;
    bytes.extend_from_slice(tag.expose());
    Ok(bytes)
}

/// The anchor in the bytes of a file; none where it is of another boot of the
/// kernel, and so says nothing about this one.
///
/// # Errors
/// [`Error::Tampered`] for anything but a warm anchor of this realm,
/// [`Error::UnsupportedVersion`]; else the token's.
pub fn open_warm(
    custody: &mut dyn Custody,
    realm: &RealmName,
    boot_id: &str,
    bytes: &[u8],
) -> Result<Option<Anchor>> {
    let refused = Error::Tampered {
        what: "warm anchor",
    };
    let parsed = Parsed::warm(bytes)?;
    let statement = encoding::warm_anchor(parsed.body);
    if !mac::tag_fits(custody, &parsed.keys, &statement, parsed.tag)? {
        return Err(refused);
    }
    if parsed.realm != *realm {
        return Err(refused);
    }
    Ok((parsed.boot_id == boot_id).then_some(parsed.anchor))
}
