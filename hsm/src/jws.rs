//! Compact JWS (RFC 7515) as this realm writes it: ES256, a type of its own
//! for each use, and the signer named by its thumbprint (RFC 7638).
//!
//! Used by `binding` and `webhook`. Each signs with the keys of its own purpose
//! under its own `typ`, so a statement of one can never stand for the other's.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{
    custody::Custody,
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
};

/// Signs the claims, in the order of their fields, with the newest key of a purpose.
pub(crate) fn sign(
    custody: &mut dyn Custody,
    purpose: KeyPurpose,
    typ: &'static str,
    claims: &impl Serialize,
) -> Result<String> {
    let key = custody.current(purpose)?;
    let header = header(typ, &custody.public_key(key)?);
    let claims = serde_json::to_vec(claims)
        .map_err(|error| Error::invalid("claims to sign", error.to_string()))?;
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = custody.sign(key, &crate::seal::sha256(&[input.as_bytes()]))?;
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The one header that a key writes for a type, encoded.
pub(crate) fn header(typ: &str, key: &PublicKey) -> String {
    URL_SAFE_NO_PAD.encode(format!(
        r#"{{"alg":"ES256","typ":"{typ}","kid":"{}"}}"#,
        key.thumbprint()
    ))
}

/// The public keys of a purpose that are accepted, the newest last; one that was announced and does
/// not sign yet among them. The database has no say in this.
pub(crate) fn public_keys(
    custody: &mut dyn Custody,
    purpose: KeyPurpose,
) -> Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for version in custody.versions(purpose)? {
        let key = KeyId::new(purpose, version);
        if custody.holds(key)? {
            keys.push(custody.public_key(key)?);
        }
    }
    Ok(keys)
}
