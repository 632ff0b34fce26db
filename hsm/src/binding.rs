//! Bindings: the token's signed statement that a credential belongs to an
//! account of an app. A compact JWS (RFC 7515), ES256, with a type of its own.
//!
//! Signed when a credential is bound, verified by the daemon on every use, kept
//! by the client as a receipt. Anyone can verify one against the realm's JWKS.
//! The adversary may present any text at all to [`BindingKeys::verify`]; what
//! it accepts is exactly what [`sign`] writes, for a key of this realm.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    custody::Custody,
    error::{Error, Result},
    id::{AccountId, AppId, KeyPurpose, RealmName},
    jws,
    public_key::PublicKey,
};

/// The longest binding, in bytes.
pub const MAX_BINDING: usize = 2048;
/// The longest device identifier, in bytes.
pub const MAX_DEVICE_ID: usize = 128;
const WHAT: &str = "binding";
const TYP: &str = "custodyd-binding+jwt";

/// What kind of credential is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindingKind {
    AppKey,
    DeviceKey,
    Passkey,
    Pin,
    Totp,
    RecoveryCodes,
    DeliveredCode,
}

/// The claims of a binding, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    #[serde(rename = "iss")]
    pub realm: RealmName,
    pub app: AppId,
    #[serde(rename = "sub")]
    pub account: AccountId,
    /// The credential: 1 to 128 of the base64url alphabet.
    pub device_id: String,
    pub kind: BindingKind,
    /// Seconds since the Unix epoch.
    #[serde(rename = "iat")]
    pub issued: u64,
}

impl Binding {
    fn check(&self) -> Result<()> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let length = self.device_id.len();
        if length == 0 || length > MAX_DEVICE_ID || !self.device_id.chars().all(allowed) {
            return Err(Error::invalid(
                "device identifier",
                "expected 1 to 128 of the base64url alphabet",
            ));
        }
        Ok(())
    }
}

/// Signs a binding with the newest bind key of the token.
///
/// # Errors
/// [`Error::Invalid`] for a device identifier outside its bounds or the
/// reserved app; else the token's.
pub fn sign(custody: &mut dyn Custody, binding: &Binding) -> Result<String> {
    binding.check()?;
    AppId::parse(binding.app.as_str())?;
    jws::sign(custody, KeyPurpose::Bind, TYP, binding)
}

/// The realm's public bind keys, of all versions.
#[derive(Debug, Clone)]
pub struct BindingKeys {
    /// By the one encoded header that each key writes.
    by_header: BTreeMap<String, PublicKey>,
    /// In the order of their versions, the newest last.
    keys: Vec<PublicKey>,
}

impl BindingKeys {
    /// Reads all bind keys that the token holds. The database has no say in this.
    ///
    /// # Errors
    /// The token's.
    pub fn load(custody: &mut dyn Custody) -> Result<Self> {
        Ok(Self::from_keys(jws::public_keys(
            custody,
            KeyPurpose::Bind,
        )?))
    }

    /// The keys given, the newest last.
    #[must_use]
    pub fn from_keys(keys: Vec<PublicKey>) -> Self {
        let by_header = keys
            .iter()
            .map(|key| (jws::header(TYP, key), *key))
            .collect();
        Self { by_header, keys }
    }

    /// The same with a newer key.
    #[must_use]
    pub fn with(&self, newer: PublicKey) -> Self {
        let mut keys = self.keys.clone();
        keys.push(newer);
        Self::from_keys(keys)
    }

    /// The keys, in the order of their versions.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Verifies a binding and gives its claims. Whether they are about the right
    /// realm, app and account is the caller's to compare.
    ///
    /// # Errors
    /// [`Error::Tampered`].
    pub fn verify(&self, jws: &str) -> Result<Binding> {
        let tampered = || Error::Tampered { what: WHAT };
        if jws.len() > MAX_BINDING {
            return Err(tampered());
        }
        let (input, signature) = jws.rsplit_once('.').ok_or_else(tampered)?;
        let (header, claims) = input.split_once('.').ok_or_else(tampered)?;
        // Equality with our own header settles alg, typ and kid at once: there
        // is no algorithm to negotiate and no other header parameter to honour.
        let key = self.by_header.get(header).ok_or_else(tampered)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| tampered())?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| tampered())?;
        if !key.verifies(input.as_bytes(), &signature) {
            return Err(tampered());
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| tampered())?;
        let binding: Binding = serde_json::from_slice(&claims).map_err(|_| tampered())?;
        binding.check().map_err(|_| tampered())?;
        Ok(binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::KeyId, public_key::jwk_set, software::SoftCustody};

    fn binding() -> Binding {
        Binding {
            realm: RealmName::parse("realm").unwrap(),
            app: AppId::parse("app").unwrap(),
            account: AccountId([5; 16]),
            device_id: "dev-1_A".to_owned(),
            kind: BindingKind::DeviceKey,
            issued: 1_700_000_000,
        }
    }

    #[test]
    fn what_is_signed_verifies_also_after_rotation() {
        let mut custody = SoftCustody::new();
        let old = sign(&mut custody, &binding()).unwrap();
        custody.add_version(KeyPurpose::Bind, 3);
        let new = sign(&mut custody, &binding()).unwrap();
        let keys = BindingKeys::load(&mut custody).unwrap();
        assert_eq!(keys.verify(&old).unwrap(), binding());
        assert_eq!(keys.verify(&new).unwrap(), binding());
        let jwks = jwk_set(keys.keys().iter().rev());
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
        let newest = custody.public_key(KeyId::new(KeyPurpose::Bind, 3)).unwrap();
        assert_eq!(jwks["keys"][0]["kid"], newest.thumbprint());
    }

    /// The token would sign whatever it is given; the parser decides what counts.
    #[test]
    fn a_validly_signed_text_of_another_shape_is_refused() {
        let mut custody = SoftCustody::new();
        let keys = BindingKeys::load(&mut custody).unwrap();
        let key = KeyId::new(KeyPurpose::Bind, 1);
        let public = custody.public_key(key).unwrap();
        let kid = public.thumbprint();
        let good_header =
            format!(r#"{{"alg":"ES256","typ":"custodyd-binding+jwt","kid":"{kid}"}}"#);
        let good_claims = serde_json::to_string(&binding()).unwrap();
        let mut signed = |header: &str, claims: &str| {
            let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let input = format!("{}.{}", encode(header), encode(claims));
            let digest = crate::seal::sha256(&[input.as_bytes()]);
            let signature = URL_SAFE_NO_PAD.encode(custody.sign(key, &digest).unwrap());
            format!("{input}.{signature}")
        };
        assert!(keys.verify(&signed(&good_header, &good_claims)).is_ok());
        for header in [
            format!(r#"{{"typ":"custodyd-binding+jwt","alg":"ES256","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"ES256","typ":"JWT","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"none","typ":"custodyd-binding+jwt","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"ES256","typ":"custodyd-binding+jwt","kid":"{kid}","crit":[]}}"#),
        ] {
            assert!(
                keys.verify(&signed(&header, &good_claims)).is_err(),
                "{header}"
            );
        }
        for claims in [
            good_claims.replace('}', r#","extra":1}"#),
            good_claims.replace('}', r#","iat":1}"#),
            good_claims.replace("device-key", "other"),
            good_claims.replace("dev-1_A", "dev 1"),
            good_claims.replace("dev-1_A", ""),
            good_claims.replace(r#""iss":"realm","#, ""),
            format!("{good_claims}x"),
        ] {
            assert!(
                keys.verify(&signed(&good_header, &claims)).is_err(),
                "{claims}"
            );
        }
    }

    #[test]
    fn other_keys_and_sizes_are_refused() {
        let mut custody = SoftCustody::new();
        let jws = sign(&mut custody, &binding()).unwrap();
        let other = BindingKeys::load(&mut SoftCustody::new()).unwrap();
        assert!(other.verify(&jws).is_err());
        let keys = BindingKeys::load(&mut custody).unwrap();
        assert!(keys.verify(&"a".repeat(MAX_BINDING + 1)).is_err());
        for text in ["", ".", "..", "...", "a.b.c"] {
            assert!(keys.verify(text).is_err());
        }
        assert!(keys.verify(&format!("{jws}.")).is_err());
        assert!(keys.verify(&format!("{jws}=")).is_err());
    }

    #[test]
    fn a_binding_outside_its_bounds_is_not_signed() {
        let mut custody = SoftCustody::new();
        for device_id in ["", "a b", &"a".repeat(129), "ä"] {
            let bad = Binding {
                device_id: device_id.to_owned(),
                ..binding()
            };
            assert!(sign(&mut custody, &bad).is_err());
        }
        let realm_wide = Binding {
            app: AppId::REALM,
            ..binding()
        };
        assert!(sign(&mut custody, &realm_wide).is_err());
    }
}
