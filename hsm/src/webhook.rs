//! Calls to a webhook: the token's signed statement that this realm sent this
//! body to this address. A compact JWS (RFC 7515), ES256, with a type of its own.
//!
//! Signed by the daemon beside each request that it sends out. The receiver
//! verifies it against the realm's JWKS; nothing here reads one back, because
//! this realm never receives any. What the receiver must compare stands in
//! FORMAT.md, section 7.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    custody::Custody,
    error::{Error, Result},
    id::{KeyPurpose, RealmName},
    jws,
    public_key::PublicKey,
};

/// The longest address, in bytes.
pub const MAX_URL: usize = 1024;
const TYP: &str = "custodyd-webhook+jwt";

/// The claims of a call, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookCall {
    #[serde(rename = "iss")]
    pub realm: RealmName,
    /// The address of the receiver, as configured.
    #[serde(rename = "aud")]
    pub url: String,
    /// Seconds since the Unix epoch.
    #[serde(rename = "iat")]
    pub issued: u64,
    /// Names the message: a call that is made again for it has the same.
    #[serde(rename = "jti")]
    pub id: String,
    pub body_sha256: String,
}

impl WebhookCall {
    /// # Errors
    /// [`Error::Invalid`] for an address that is empty, longer than [`MAX_URL`]
    /// or holds anything but visible ASCII.
    pub fn new(
        realm: RealmName,
        url: &str,
        issued: u64,
        id: [u8; 16],
        body: &[u8],
    ) -> Result<Self> {
        let visible = url.bytes().all(|byte| byte.is_ascii_graphic());
        if url.is_empty() || url.len() > MAX_URL || !visible {
            return Err(Error::invalid(
                "webhook address",
                "expected 1 to 1024 of visible ASCII",
            ));
        }
        Ok(Self {
            realm,
            url: url.to_owned(),
            issued,
            id: URL_SAFE_NO_PAD.encode(id),
            body_sha256: URL_SAFE_NO_PAD.encode(crate::seal::sha256(&[body])),
        })
    }
}

/// Signs a call with the newest webhook key of the token.
///
/// # Errors
/// The token's.
pub fn sign(custody: &mut dyn Custody, call: &WebhookCall) -> Result<String> {
    jws::sign(custody, KeyPurpose::Webhook, TYP, call)
}

/// The realm's public webhook keys, the newest last.
///
/// # Errors
/// The token's.
pub fn keys(custody: &mut dyn Custody) -> Result<Vec<PublicKey>> {
    jws::public_keys(custody, KeyPurpose::Webhook)
}

/// The header that a key writes, encoded; for the golden vectors.
#[cfg(test)]
pub(crate) fn header(key: &PublicKey) -> String {
    jws::header(TYP, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{binding::BindingKeys, id::KeyId, software::SoftCustody};

    fn call(url: &str) -> Result<WebhookCall> {
        let realm = RealmName::parse("realm").unwrap();
        WebhookCall::new(realm, url, 1_800_000_000, [7; 16], b"{}")
    }

    #[test]
    fn a_call_verifies_under_the_newest_webhook_key_and_is_no_binding() {
        let mut custody = SoftCustody::new();
        custody.add_version(KeyPurpose::Webhook, 2);
        let jws = sign(&mut custody, &call("https://a.example/sms").unwrap()).unwrap();
        let (input, signature) = jws.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let signature: [u8; 64] = signature.try_into().unwrap();
        let keys = keys(&mut custody).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(!keys[0].verifies(input.as_bytes(), &signature));
        assert!(keys[1].verifies(input.as_bytes(), &signature));
        let newest = KeyId::new(KeyPurpose::Webhook, 2);
        assert_eq!(keys[1], custody.public_key(newest).unwrap());
        // Even under the webhook key itself, the type keeps the two apart.
        assert!(BindingKeys::from_keys(keys).verify(&jws).is_err());
    }

    #[test]
    fn an_address_outside_its_bounds_is_not_signed() {
        assert!(call(&format!("https://{}", "a".repeat(MAX_URL - 8))).is_ok());
        for url in [
            "",
            "https://a b",
            "https://ä",
            "https://a\n",
            &"a".repeat(MAX_URL + 1),
        ] {
            assert!(call(url).is_err(), "{url:?}");
        }
    }
}
