//! The public half of a P-256 key, checked to be a point of the curve.
//!
//! Made by backends from what the token says, used to verify bindings and to
//! publish the JWKS. Verification runs on the host with aws-lc-rs.

use std::fmt;

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The length of an uncompressed P-256 point: 0x04, x, y (SEC 1, section 2.3.3).
pub const POINT_LENGTH: usize = 65;

/// A P-256 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_LENGTH]);

impl PublicKey {
    /// # Errors
    /// [`Error::Invalid`] when the bytes are not an uncompressed point of the curve.
    pub fn from_point(point: &[u8]) -> Result<Self> {
        let refused = || Error::invalid("public key", "not an uncompressed P-256 point");
        let bytes: [u8; POINT_LENGTH] = point.try_into().map_err(|_| refused())?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }

    #[must_use]
    pub fn as_point(&self) -> &[u8; POINT_LENGTH] {
        &self.0
    }

    fn coordinates(&self) -> (String, String) {
        let (_, xy) = self.0.split_at(1);
        let (x, y) = xy.split_at(32);
        (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
    }

    /// The key as a JWK (RFC 7517, RFC 7518 section 6.2) with `kid`, `use` and `alg`.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let (x, y) = self.coordinates();
        json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "kid": self.thumbprint(), "use": "sig", "alg": "ES256",
        })
    }

    /// The JWK thumbprint with SHA-256 (RFC 7638), base64url without padding.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let (x, y) = self.coordinates();
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        URL_SAFE_NO_PAD.encode(hash.as_ref())
    }

    /// Verifies ECDSA with SHA-256, signature as r || s.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// Keys as a JWK set (RFC 7517, section 5), in the order given.
pub fn jwk_set<'k>(keys: impl IntoIterator<Item = &'k PublicKey>) -> Value {
    let keys: Vec<Value> = keys.into_iter().map(PublicKey::jwk).collect();
    json!({ "keys": keys })
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.thumbprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The P-256 key of RFC 7515, appendix A.3.
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn rfc_key() -> PublicKey {
        let mut point = vec![4];
        point.extend(URL_SAFE_NO_PAD.decode(X).unwrap());
        point.extend(URL_SAFE_NO_PAD.decode(Y).unwrap());
        PublicKey::from_point(&point).unwrap()
    }

    #[test]
    fn the_jwk_of_the_rfc() {
        let jwk = rfc_key().jwk();
        assert_eq!(jwk["x"], X);
        assert_eq!(jwk["y"], Y);
        assert_eq!(jwk["kid"], rfc_key().thumbprint());
    }

    #[test]
    fn the_signature_of_the_rfc() {
        let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = URL_SAFE_NO_PAD
            .decode("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
            .unwrap();
        let mut signature: [u8; 64] = signature.try_into().unwrap();
        assert!(rfc_key().verifies(message, &signature));
        signature[5] ^= 1;
        assert!(!rfc_key().verifies(message, &signature));
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let mut point = *rfc_key().as_point();
        point[64] ^= 1;
        assert!(PublicKey::from_point(&point).is_err());
        assert!(PublicKey::from_point(&point[..64]).is_err());
        assert!(PublicKey::from_point(&[]).is_err());
    }

    #[test]
    fn wycheproof_ecdsa() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/vectors/wycheproof_ecdsa_secp256r1_sha256_p1363.json"
        );
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert!(vectors.len() > 200);
        for vector in vectors {
            let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
            let key = PublicKey::from_point(&bytes("key")).unwrap();
            let signature: std::result::Result<[u8; 64], _> = bytes("sig").try_into();
            let verified = signature.is_ok_and(|sig| key.verifies(&bytes("msg"), &sig));
            assert_eq!(verified, vector["valid"].as_bool().unwrap(), "{vector}");
        }
    }
}
