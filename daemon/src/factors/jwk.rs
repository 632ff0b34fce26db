//! P-256 public keys as JWK (RFC 7517) and their thumbprints (RFC 7638).
//!
//! Called by `dpop` for the key inside a proof, and by `service/` for the keys
//! kept in an envelope. A [`PublicJwk`] is always a valid curve point: there is
//! no other way to make one. It must never carry, keep or print a private key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{b64, quoted, sha256, unb64_array};

/// A P-256 public key. JSON form: `{"kty":"EC","crv":"P-256","x":..,"y":..}`.
///
/// On the way in, further public members (`alg`, `use`, `ext`, `key_ops`,
/// `kid`) are ignored as RFC 7517 section 4 asks; `d` is refused.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "RawJwk", into = "CanonicalJwk")]
pub struct PublicJwk {
    x: [u8; 32],
    y: [u8; 32],
    /// The same, as what verifies takes it: the point was checked when it was made, and is not for each signature again.
    parsed: Arc<ParsedPublicKey>,
}

impl PartialEq for PublicJwk {
    fn eq(&self, other: &Self) -> bool {
        self.x == other.x && self.y == other.y
    }
}

impl Eq for PublicJwk {}

impl Hash for PublicJwk {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.x.hash(state);
        self.y.hash(state);
    }
}

/// What was wrong with a JWK. Shown to the developer, so it never holds key bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Another key type or curve than the one this service speaks.
    #[error("jwk.{member}: expected {expected:?}, found {found}")]
    Unsupported {
        /// `kty` or `crv`.
        member: &'static str,
        /// The one value that is accepted.
        expected: &'static str,
        /// What came, escaped and cut.
        found: String,
    },
    /// A coordinate is not 32 bytes of base64url.
    #[error("jwk.{0}: expected 32 bytes as 43 characters of unpadded base64url")]
    Coordinate(&'static str),
    /// The private key was sent along.
    #[error(
        "jwk.d: this is the private key; it must never leave the device. Send kty, crv, x and y only, and make a new key"
    )]
    Private,
    /// The coordinates are not a point of the curve.
    #[error("jwk: x and y are not a point of P-256")]
    NotOnCurve,
}

/// The JSON as it comes, before anything is believed.
#[derive(Deserialize)]
struct RawJwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(default)]
    d: Option<serde::de::IgnoredAny>,
}

/// The JSON as it goes out, and the input of the thumbprint: RFC 7638 section
/// 3.2 wants exactly these members in this (lexicographic) order.
#[derive(Serialize)]
struct CanonicalJwk {
    crv: &'static str,
    kty: &'static str,
    x: String,
    y: String,
}

impl PublicJwk {
    /// From the two coordinates, big-endian; fails off the curve.
    pub fn from_coordinates(x: [u8; 32], y: [u8; 32]) -> Result<Self, JwkError> {
        // Parsing checks the point; a signature by a point off the curve would
        // be refused anyway, but a key is also kept before it ever signs.
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed_point(&x, &y))
            .map_err(|_| JwkError::NotOnCurve)?;
        let parsed = Arc::new(parsed);
        Ok(PublicJwk { x, y, parsed })
    }

    /// Whether this key signed `message`: ECDSA with SHA-256, the signature as r || s (RFC 7518
    /// section 3.4).
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// RFC 7638 thumbprint with SHA-256, 43 characters of base64url. It is the
    /// device identifier of device keys and app keys, and the `jkt` of sessions.
    pub fn thumbprint(&self) -> String {
        let canonical = format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            b64(&self.x),
            b64(&self.y)
        );
        b64(&sha256(&[canonical.as_bytes()]))
    }
}

/// SEC 1 uncompressed point, 65 bytes: 04 || x || y.
fn uncompressed_point(x: &[u8; 32], y: &[u8; 32]) -> [u8; 65] {
    let mut point = [4u8; 65];
    let (to_x, to_y) = point[1..].split_at_mut(32);
    to_x.copy_from_slice(x);
    to_y.copy_from_slice(y);
    point
}

impl TryFrom<RawJwk> for PublicJwk {
    type Error = JwkError;

    fn try_from(raw: RawJwk) -> Result<Self, JwkError> {
        if raw.d.is_some() {
            return Err(JwkError::Private);
        }
        demand("kty", "EC", &raw.kty)?;
        demand("crv", "P-256", &raw.crv)?;
        let x = unb64_array(&raw.x).ok_or(JwkError::Coordinate("x"))?;
        let y = unb64_array(&raw.y).ok_or(JwkError::Coordinate("y"))?;
        PublicJwk::from_coordinates(x, y)
    }
}

fn demand(member: &'static str, expected: &'static str, found: &str) -> Result<(), JwkError> {
    if found == expected {
        return Ok(());
    }
    Err(JwkError::Unsupported {
        member,
        expected,
        found: quoted(found),
    })
}

impl From<PublicJwk> for CanonicalJwk {
    fn from(key: PublicJwk) -> Self {
        CanonicalJwk {
            crv: "P-256",
            kty: "EC",
            x: b64(&key.x),
            y: b64(&key.y),
        }
    }
}

/// The thumbprint identifies the key and is short; coordinates are noise in a log.
impl fmt::Debug for PublicJwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicJwk({})", self.thumbprint())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that cannot go on must stop
    use super::*;
    use serde_json::{Value, json};

    /// The key of RFC 9449 section 4.1, whose thumbprint section 6.1 prints.
    fn rfc9449_key() -> Value {
        json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        })
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut value = rfc9449_key();
        change(&mut value);
        serde_json::from_value::<PublicJwk>(value)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn thumbprint_of_rfc9449() {
        let key: PublicJwk = serde_json::from_value(rfc9449_key()).unwrap();
        assert_eq!(
            key.thumbprint(),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        );
        assert_eq!(serde_json::to_value(&key).unwrap(), rfc9449_key());
    }

    #[test]
    fn public_extras_are_ignored_and_do_not_change_the_thumbprint() {
        let mut value = rfc9449_key();
        value["ext"] = json!(true);
        value["key_ops"] = json!(["verify"]);
        let key: PublicJwk = serde_json::from_value(value).unwrap();
        assert_eq!(
            key.thumbprint(),
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        );
    }

    #[test]
    fn each_defect_is_named() {
        assert!(refusal(|k| k["d"] = json!("AAAA")).contains("private key"));
        assert!(
            refusal(|k| k["kty"] = json!("RSA"))
                .contains("jwk.kty: expected \"EC\", found \"RSA\"")
        );
        assert!(refusal(|k| k["crv"] = json!("secp256k1")).contains("jwk.crv"));
        assert!(refusal(|k| k["x"] = json!("AAAA")).contains("jwk.x"));
        assert!(
            refusal(|k| k["y"] = json!("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDB"))
                .contains("jwk.y")
        );
        assert!(refusal(|k| k["y"] = k["x"].clone()).contains("point"));
        assert!(refusal(|k| k["x"] = Value::Null).contains("string"));
    }

    /// The EC key of RFC 7517 appendix A.1. Its thumbprint is printed nowhere: it was computed
    /// with another implementation (Python's hashlib over the members of RFC 7638 section 3.2).
    /// The example of RFC 7638 itself is an RSA key, which is no key here.
    #[test]
    fn the_ec_key_of_rfc7517_and_the_rsa_key_of_rfc7638() {
        let key: PublicJwk = serde_json::from_value(json!({
            "kty": "EC", "crv": "P-256", "use": "enc", "kid": "1",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        }))
        .unwrap();
        assert_eq!(
            key.thumbprint(),
            "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
        );
        let rsa =
            json!({"kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29", "n": "0vx7"});
        assert!(serde_json::from_value::<PublicJwk>(rsa).is_err());
    }

    /// ECDSA with r || s: what verifies DPoP proofs, app-key proofs and enrolment tickets.
    #[test]
    fn wycheproof_ecdsa_with_fixed_length_signatures() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/vectors/wycheproof_ecdsa_secp256r1_sha256_p1363.json"
        );
        let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert!(vectors.len() > 200);
        for vector in vectors {
            let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap()).unwrap();
            let point = bytes("key");
            let (x, y) = (
                point[1..33].try_into().unwrap(),
                point[33..].try_into().unwrap(),
            );
            let key = PublicJwk::from_coordinates(x, y).unwrap();
            let signature: Result<[u8; 64], _> = bytes("sig").try_into();
            let verified = signature.is_ok_and(|sig| key.verifies(&bytes("msg"), &sig));
            assert_eq!(verified, vector["valid"].as_bool().unwrap(), "{vector}");
        }
    }
}
