//! Sealing: records under a key that the token derives for exactly one record
//! and generation, and short-lived tokens under a key on the host.
//!
//! Called by the daemon inside a token job ([`seal`], [`open`]) or anywhere
//! ([`seal_local`], [`open_local`]). FORMAT.md fixes every byte.
//!
//! The adversary chooses every byte that reaches [`open`]. They can hand us
//! another account's record, an old one of the same account, or rubbish. All
//! that names the record is in the key derivation, so only the bytes that were
//! sealed for this very context open; whether they are the newest is the
//! ledger's question.

mod aead;
mod local;

use aws_lc_rs::{digest as sha, rand};

use self::aead::{TAG, framed, unframed};
pub(crate) use self::aead::{open as open_once, seal as seal_once};
#[cfg(test)]
pub(crate) use self::local::seal_local_with_salt;
pub use self::local::{LocalKey, MAX_LOCAL, Pad, open_local, seal_local};
use crate::{
    custody::Custody,
    encoding::Fields,
    error::{Error, Result},
    id::{AppId, KeyId, KeyPurpose, RealmName, RecordId, RecordKind},
    mac::check_app,
    secret::SecretBytes,
};

const MAGIC: &[u8; 3] = b"CDS";
const VERSION: u8 = 1;
const LABEL: &[u8] = b"custodyd/record/v1";
const DIGEST_DOMAIN: &[u8] = b"custodyd/sealed/v1";
const SALT: usize = 16;
/// Magic, version, BE16 key version, salt.
const HEADER: usize = 4 + 2 + SALT;
const SMALLEST_CLASS: usize = 1024;
const LARGEST_CLASS: usize = 256 * 1024;
const WHAT: &str = "sealed record";

/// The longest sealed record, in bytes.
pub const MAX_SEALED: usize = HEADER + LARGEST_CLASS + TAG;
/// The longest plaintext of a record, in bytes.
pub const MAX_PLAINTEXT: usize = LARGEST_CLASS - aead::LENGTH;

/// What a sealed record is bound to. Opening with any other context fails.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub realm: &'a RealmName,
    /// [`AppId::REALM`] for the realm's own record, and only for that.
    pub app: &'a AppId,
    pub kind: RecordKind,
    pub record: &'a RecordId,
    /// Counts the versions of this record.
    pub generation: u64,
}

impl Context<'_> {
    /// The bytes whose digest goes into the derivation.
    fn encode(&self, header: &Header) -> Vec<u8> {
        Fields::new(&[MAGIC.as_slice(), &[VERSION]].concat())
            .be16(header.key_version)
            .text(self.realm.as_str())
            .text(self.app.as_str())
            .byte(self.kind as u8)
            .bytes(&self.record.0)
            .be64(self.generation)
            .bytes(&header.salt)
            .finish()
    }
}

struct Header {
    key_version: u16,
    salt: [u8; SALT],
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key_version.to_be_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes
    }

    /// Splits stored bytes into header and body. The length is checked first:
    /// only the exact lengths of the size classes exist, so neither a missing
    /// nor a trailing byte gets any further.
    fn parse(sealed: &[u8]) -> Result<(Self, &[u8])> {
        let tampered = Error::Tampered { what: WHAT };
        let Some((magic, rest)) = sealed.split_first_chunk::<3>() else {
            return Err(tampered);
        };
        let Some(([version], rest)) = rest.split_first_chunk::<1>() else {
            return Err(tampered);
        };
        if magic != MAGIC {
            return Err(tampered);
        }
        if *version != VERSION {
            return Err(Error::UnsupportedVersion {
                what: WHAT,
                found: *version,
            });
        }
        let Some((key_version, rest)) = rest.split_first_chunk::<2>() else {
            return Err(tampered);
        };
        let Some((salt, body)) = rest.split_first_chunk::<SALT>() else {
            return Err(tampered);
        };
        let class = body.len().saturating_sub(TAG);
        if !is_class(class) {
            return Err(tampered);
        }
        let header = Self {
            key_version: u16::from_be_bytes(*key_version),
            salt: *salt,
        };
        Ok((header, body))
    }
}

fn is_class(length: usize) -> bool {
    length.is_power_of_two() && (SMALLEST_CLASS..=LARGEST_CLASS).contains(&length)
}

/// Seals one version of a record: one derivation in the token, fresh salt.
///
/// # Errors
/// [`Error::Invalid`] for a plaintext above [`MAX_PLAINTEXT`] or an impossible
/// context; else the token's.
pub fn seal(custody: &mut dyn Custody, context: &Context, plaintext: &[u8]) -> Result<Vec<u8>> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt).map_err(|_| Error::unavailable("seal", "the host has no randomness"))?;
    seal_with_salt(custody, context, salt, plaintext)
}

/// As [`seal`], with the salt given. Private to this crate: a salt used twice
/// for one context would repeat an AES-GCM key and nonce.
pub(crate) fn seal_with_salt(
    custody: &mut dyn Custody,
    context: &Context,
    salt: [u8; SALT],
    plaintext: &[u8],
) -> Result<Vec<u8>> {
    check_app(context.kind, context.app)?;
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(Error::invalid(
            "plaintext",
            format!("more than {MAX_PLAINTEXT} bytes for one record"),
        ));
    }
    let key_id = custody.current(KeyPurpose::Wrap)?;
    let header = Header {
        key_version: key_id.version,
        salt,
    };
    let encoded = context.encode(&header);
    let key = custody.derive(key_id, LABEL, &sha256(&[&encoded]))?;
    let class = (plaintext.len() + aead::LENGTH)
        .next_power_of_two()
        .max(SMALLEST_CLASS);
    let head = header.encode();
    let aad = [head.as_slice(), &encoded].concat();
    let body = aead::seal(&key, &aad, framed(plaintext, class))?;
    Ok([head, body].concat())
}

/// Opens a sealed record for exactly this context.
///
/// # Errors
/// [`Error::Tampered`] when the bytes were not sealed for this context,
/// [`Error::UnsupportedVersion`] for another format version, else the token's.
pub fn open(custody: &mut dyn Custody, context: &Context, sealed: &[u8]) -> Result<SecretBytes> {
    check_app(context.kind, context.app)?;
    let (header, body) = Header::parse(sealed)?;
    // The version is the adversary's to choose. It selects among keys that the
    // token holds for this one purpose, and it is in the derivation.
    let key_id = KeyId::new(KeyPurpose::Wrap, header.key_version);
    if !custody.holds(key_id)? {
        return Err(Error::Tampered { what: WHAT });
    }
    let encoded = context.encode(&header);
    let key = custody.derive(key_id, LABEL, &sha256(&[&encoded]))?;
    let aad = [header.encode(), encoded].concat();
    let frame = aead::open(&key, &aad, body, WHAT)?;
    let plaintext = unframed(&frame, WHAT)?;
    // The class is a function of the length: one plaintext, one possible size.
    let class = (plaintext.len() + aead::LENGTH)
        .next_power_of_two()
        .max(SMALLEST_CLASS);
    if class != frame.len() {
        return Err(Error::Tampered { what: WHAT });
    }
    Ok(plaintext)
}

/// The version of the wrap key that a sealed record says it is under; `None` for what is no sealed
/// record. Believe it of bytes whose digest was verified, and of no others.
#[must_use]
pub fn key_version(sealed: &[u8]) -> Option<u16> {
    Header::parse(sealed)
        .ok()
        .map(|(header, _)| header.key_version)
}

/// The digest of a sealed record, by which the ledger refers to it.
#[must_use]
pub fn digest(sealed: &[u8]) -> [u8; 32] {
    sha256(&[DIGEST_DOMAIN, sealed])
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = sha::Context::new(&sha::SHA256);
    for part in parts {
        hash.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests;
