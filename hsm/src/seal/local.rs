//! Sealing on the host, without a token operation: session and ceremony tokens
//! and event bodies.
//!
//! Called by the daemon with an epoch key that the token made. What is sealed
//! here is as safe as this host's memory, never more; nothing that must
//! outlive the epoch belongs here.

use aws_lc_rs::{hmac, rand};

use super::{
    aead::{self, LENGTH, TAG, framed, unframed},
    sha256,
};
use crate::{
    encoding::{Fields, kdf_block},
    error::{Error, Result},
    secret::{Secret, SecretBytes},
};

const PREFIX: &[u8; 4] = b"CDL\x01";
const LABEL: &[u8] = b"custodyd/local/v1";
const SALT: usize = 16;
const OVERHEAD: usize = PREFIX.len() + SALT + TAG;
const WHAT: &str = "host-sealed bytes";

/// The longest host-sealed output, in bytes.
pub const MAX_LOCAL: usize = 64 * 1024;

/// A host-side key with the one domain it is for.
#[derive(Debug)]
pub struct LocalKey {
    secret: Secret<32>,
    domain: &'static str,
}

impl LocalKey {
    /// `domain` names the use, such as `custodyd/session-token/v1`: tokens of
    /// two domains do not open for each other even under one secret.
    #[must_use]
    pub fn new(secret: Secret<32>, domain: &'static str) -> Self {
        Self { secret, domain }
    }

    /// The key of one message: SP 800-108r1 on the host over domain, salt and context.
    fn message_key(&self, salt: &[u8; SALT], context: &[&[u8]]) -> Result<(Secret<32>, Vec<u8>)> {
        let fields = Fields::new(PREFIX).text(self.domain).bytes(salt);
        let encoded = context
            .iter()
            .fold(fields, |f, part| f.bytes(part))
            .finish();
        let root = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose());
        let input = kdf_block(LABEL, &sha256(&[&encoded]));
        let key = Secret::try_init(|out| {
            hmac::sign_to_buffer(&root, &input, out)
                .map(|_| ())
                .map_err(|_| Error::invalid("key", "HMAC-SHA-256 did not take it"))
        })?;
        Ok((key, encoded))
    }
}

/// How the length of a plaintext is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pad {
    /// Not at all.
    None,
    /// The frame grows to the next multiple of so many bytes (not zero).
    Multiple(usize),
}

impl Pad {
    fn frame_length(self, plaintext: usize) -> Result<usize> {
        let bare = plaintext.saturating_add(LENGTH);
        let length = match self {
            Self::None => Some(bare),
            Self::Multiple(0) => None,
            Self::Multiple(step) => bare.checked_next_multiple_of(step),
        };
        length
            .filter(|length| *length <= MAX_LOCAL - OVERHEAD)
            .ok_or_else(|| {
                Error::invalid(
                    "host-sealed plaintext",
                    format!("padding of zero, or more than {MAX_LOCAL} bytes once sealed"),
                )
            })
    }
}

/// Seals bytes under a key made for this one message. `context` and `header`
/// must be given again to open: `context` is what the message is about and goes
/// into its key; `header` is what the caller sends beside it in clear.
///
/// # Errors
/// [`Error::Invalid`] when the result would pass [`MAX_LOCAL`].
pub fn seal_local(
    key: &LocalKey,
    context: &[&[u8]],
    header: &[u8],
    pad: Pad,
    plaintext: &[u8],
) -> Result<Vec<u8>> {
    let mut salt = [0; SALT];
    rand::fill(&mut salt).map_err(|_| Error::unavailable("seal", "the host has no randomness"))?;
    seal_local_with_salt(key, context, header, pad, salt, plaintext)
}

pub(crate) fn seal_local_with_salt(
    key: &LocalKey,
    context: &[&[u8]],
    header: &[u8],
    pad: Pad,
    salt: [u8; SALT],
    plaintext: &[u8],
) -> Result<Vec<u8>> {
    let frame = framed(plaintext, pad.frame_length(plaintext.len())?);
    let (message_key, encoded) = key.message_key(&salt, context)?;
    let body = aead::seal(&message_key, &aad(&encoded, header), frame)?;
    Ok([PREFIX.as_slice(), &salt, &body].concat())
}

/// Opens what [`seal_local`] made with the same key, context and header.
///
/// # Errors
/// [`Error::Tampered`]; [`Error::UnsupportedVersion`] for another format version.
pub fn open_local(
    key: &LocalKey,
    context: &[&[u8]],
    header: &[u8],
    sealed: &[u8],
) -> Result<SecretBytes> {
    let tampered = || Error::Tampered { what: WHAT };
    if sealed.len() > MAX_LOCAL {
        return Err(tampered());
    }
    let (prefix, rest) = sealed.split_first_chunk::<4>().ok_or_else(tampered)?;
    if prefix != PREFIX {
        return Err(match prefix {
            [b'C', b'D', b'L', found] => Error::UnsupportedVersion {
                what: WHAT,
                found: *found,
            },
            _ => tampered(),
        });
    }
    let (salt, body) = rest.split_first_chunk::<SALT>().ok_or_else(tampered)?;
    if body.len() < LENGTH + TAG {
        return Err(tampered());
    }
    let (message_key, encoded) = key.message_key(salt, context)?;
    let frame = aead::open(&message_key, &aad(&encoded, header), body, WHAT)?;
    unframed(&frame, WHAT)
}

/// The encoded context begins with prefix, domain and salt, so the AAD covers
/// every clear byte of the message; the header is one more field.
fn aad(encoded: &[u8], header: &[u8]) -> Vec<u8> {
    let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
    [encoded, &length.to_be_bytes(), header].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(domain: &'static str) -> LocalKey {
        LocalKey::new(Secret::init(|bytes| bytes.fill(7)), domain)
    }

    #[test]
    fn round_trip_and_padding() {
        for (pad, length) in [(Pad::None, 4 + 5), (Pad::Multiple(64), 64)] {
            let sealed = seal_local(&key("d"), &[b"c"], b"h", pad, b"hello").unwrap();
            assert_eq!(sealed.len(), OVERHEAD + length);
            let opened = open_local(&key("d"), &[b"c"], b"h", &sealed).unwrap();
            assert_eq!(opened.expose(), b"hello");
        }
    }

    #[test]
    fn domain_context_and_header_are_bound() {
        let sealed = seal_local(&key("d"), &[b"ab", b"c"], b"h", Pad::None, b"x").unwrap();
        let refused = |k: &LocalKey, context: &[&[u8]], header: &[u8]| {
            matches!(
                open_local(k, context, header, &sealed),
                Err(Error::Tampered { .. })
            )
        };
        assert!(!refused(&key("d"), &[b"ab", b"c"], b"h"));
        assert!(refused(&key("e"), &[b"ab", b"c"], b"h"));
        assert!(refused(&key("d"), &[b"a", b"bc"], b"h"));
        assert!(refused(&key("d"), &[b"ab"], b"h"));
        assert!(refused(&key("d"), &[b"ab", b"c"], b"hh"));
        // A context field cannot be passed off as the header.
        assert!(refused(&key("d"), &[b"ab", b"c", b"h"], b""));
    }

    #[test]
    fn sizes_are_bounded() {
        let most = MAX_LOCAL - OVERHEAD - LENGTH;
        let full = seal_local(&key("d"), &[], b"", Pad::None, &vec![1; most]).unwrap();
        assert_eq!(full.len(), MAX_LOCAL);
        assert!(open_local(&key("d"), &[], b"", &full).is_ok());
        assert!(seal_local(&key("d"), &[], b"", Pad::None, &vec![1; most + 1]).is_err());
        assert!(seal_local(&key("d"), &[], b"", Pad::Multiple(0), b"").is_err());
        assert!(seal_local(&key("d"), &[], b"", Pad::Multiple(usize::MAX), b"").is_err());
        assert!(open_local(&key("d"), &[], b"", &vec![0; MAX_LOCAL + 1]).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut sealed = seal_local(&key("d"), &[], b"", Pad::None, b"x").unwrap();
        sealed[3] = 9;
        let error = open_local(&key("d"), &[], b"", &sealed).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 9, .. }));
    }
}
