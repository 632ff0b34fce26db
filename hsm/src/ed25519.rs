//! The public half of an Ed25519 key, for the one purpose that has such keys.
//!
//! Made by backends from what the token says, used to verify checkpoints and to publish their key.
//! Verification runs on the host with aws-lc-rs (RFC 8032, pure Ed25519).

use std::fmt;

use aws_lc_rs::{
    digest,
    signature::{ED25519, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The length of a public key (RFC 8032, section 5.1.5).
pub const LENGTH: usize = 32;

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ed25519Key([u8; LENGTH]);

impl Ed25519Key {
    /// Whether the bytes are a point, the library looks at when it verifies: under those that are none nothing
    /// does. So a backend takes no key before a signature of its own has verified.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.try_into();
        bytes
            .map(Self)
            .map_err(|_| Error::invalid("public key", "not an Ed25519 key of 32 bytes"))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The key as a JWK (RFC 8037, section 2) with `kid` and `alg`.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.0);
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.thumbprint(), "alg": "EdDSA" })
    }

    /// The JWK thumbprint with SHA-256 (RFC 7638; RFC 8037, appendix A.3), base64url without padding.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0);
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        URL_SAFE_NO_PAD.encode(hash.as_ref())
    }

    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Key({})", self.thumbprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, tests 1 to 3: public key, message, signature.
    const RFC_8032: [(&str, &str, &str); 3] = [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];

    #[test]
    fn the_signatures_of_the_rfc() {
        for (key, message, signature) in RFC_8032 {
            let key = Ed25519Key::from_bytes(&hex::decode(key).unwrap()).unwrap();
            let message = hex::decode(message).unwrap();
            let signature: [u8; 64] = hex::decode(signature).unwrap().try_into().unwrap();
            assert!(key.verifies(&message, &signature));
            assert!(!key.verifies(b"another", &signature));
            for at in [0, 31, 32, 63] {
                let mut altered = signature;
                altered[at] ^= 1;
                assert!(!key.verifies(&message, &altered), "{at}");
            }
        }
    }

    // RFC 8037, appendix A.2 and A.3: the key of test 1 as a JWK, and its thumbprint.
    #[test]
    fn the_jwk_of_the_rfc() {
        let key = Ed25519Key::from_bytes(&hex::decode(RFC_8032[0].0).unwrap()).unwrap();
        assert_eq!(
            key.jwk()["x"],
            "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        );
        assert_eq!(
            key.thumbprint(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn under_what_is_no_point_nothing_verifies() {
        // y = 2 is on no point of the curve.
        let mut none = [0; 32];
        none[0] = 2;
        let none = Ed25519Key::from_bytes(&none).unwrap();
        for (_, message, signature) in RFC_8032 {
            let signature: [u8; 64] = hex::decode(signature).unwrap().try_into().unwrap();
            assert!(!none.verifies(&hex::decode(message).unwrap(), &signature));
        }
        assert!(Ed25519Key::from_bytes(&[]).is_err());
        assert!(Ed25519Key::from_bytes(&[1; 33]).is_err());
    }
}
