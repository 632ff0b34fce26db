//! Byte strings as they stand in JSON: unpadded base64url (RFC 4648, section 5).
//!
//! Used by the account envelope, by the REST messages and by sealed tokens. `Bytes` is for
//! what may be seen, `SharedSecret` for what may not: it is zeroized, redacted in Debug, and
//! cloned by sharing the one allocation, never by copying the bytes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use custodyd_hsm::SecretBytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Public bytes: ciphertexts, identifiers, salts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({} bytes)", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        decode(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Secret bytes of the envelope; a clone shares the allocation.
#[derive(Clone, Debug)]
pub struct SharedSecret(Arc<SecretBytes>);

impl SharedSecret {
    #[must_use]
    pub fn new(secret: SecretBytes) -> Self {
        Self(Arc::new(secret))
    }

    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// Compares in constant time.
    #[must_use]
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.expose().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for SharedSecret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // The text is a copy of the secret: it lives only for this call and is wiped after it.
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0.expose()));
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for SharedSecret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // base64url needs no JSON escapes, so serde_json lends the text from the input, which
        // its owner wipes; an escaped spelling would be copied into a buffer that nobody wipes.
        let text = <&str>::deserialize(from)?;
        decode(text)
            .map(|bytes| Self::new(SecretBytes::from(bytes)))
            .map_err(D::Error::custom)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "expected unpadded base64url (RFC 4648 section 5)")
}
