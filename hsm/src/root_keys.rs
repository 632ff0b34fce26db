//! Root keys outside of any token: for the moments of an escrow in which they are made, split, put
//! together again, and imported.
//!
//! Called by `escrow`, and by the backends' imports. Nothing else may hold one, and a daemon that serves never
//! does. Keys that are made here are as good as the better of two sources: the token's random
//! bytes, which are mixed in, and the host's.

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    digest, hmac, rand,
};
use serde::{Deserialize, Serialize};

use crate::{
    custody::Custody,
    encoding,
    error::{Error, Result},
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    secret::Secret,
};

/// Where a realm's keys were made. A realm has one kind for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyOrigin {
    /// In the token, which they have never left. Imported keys are refused.
    #[default]
    Token,
    /// On the host, for an escrow, and imported. Keys that were made in the token are refused: no
    /// escrow brings them back.
    Imported,
}

/// One root key: the bytes of a secret, or the private number of a pair.
#[derive(Debug)]
pub struct RootKey {
    pub id: KeyId,
    value: Secret<32>,
    public: Option<PublicKey>,
}

/// What shows that a token holds a key, without showing the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyCheck {
    pub key: KeyId,
    /// An HMAC over a fixed statement, or the public point of a pair.
    #[serde(with = "hex::serde")]
    pub check: Vec<u8>,
}

/// Root keys of a realm, by rising [`KeyId`], each once.
#[derive(Debug)]
pub struct RootKeys(Vec<RootKey>);

impl RootKey {
    /// # Errors
    /// [`Error::Invalid`] where the bytes are no private number of P-256.
    pub fn new(id: KeyId, value: Secret<32>) -> Result<Self> {
        let public = match id.purpose.is_symmetric() {
            true => None,
            false => Some(point_of(&value)?),
        };
        Ok(Self { id, value, public })
    }

    /// Fresh bytes, from the host's random numbers and from what the token gave.
    fn make(id: KeyId, from_token: &Secret<32>) -> Result<Self> {
        // A number at or above the order of P-256 comes once in 2^32 times.
        for _ in 0..4 {
            let own = Secret::<32>::try_init(|place| rand::fill(place))
                .map_err(|_| Error::Misconfigured("the host gives no random bytes".to_owned()))?;
            let statement = encoding::Fields::new(b"custodyd/root-key/v1")
                .text(&id.label())
                .bytes(own.expose())
                .bytes(from_token.expose())
                .finish();
            let statement = zeroize::Zeroizing::new(statement);
            let value = Secret::init(|place| copy(place, sha256(&statement).as_ref()));
            if let Ok(key) = Self::new(id, value) {
                return Ok(key);
            }
        }
        Err(Error::invalid(
            "random numbers",
            "none of them was a key of P-256",
        ))
    }

    /// The bytes. Only for the import, and for the seal of an escrow.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.value.expose()
    }

    /// The public half of a pair.
    #[must_use]
    pub fn public(&self) -> Option<&PublicKey> {
        self.public.as_ref()
    }

    /// What shows that a token holds it.
    pub(crate) fn check(&self) -> KeyCheck {
        let check = match &self.public {
            Some(point) => point.as_point().to_vec(),
            None => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.value.expose());
                let tag = hmac::sign(&key, &encoding::key_check(self.id));
                tag.as_ref().to_vec()
            }
        };
        KeyCheck {
            key: self.id,
            check,
        }
    }
}

impl RootKeys {
    /// The first version of every key. `from_token` are random bytes of the token that they are for.
    ///
    /// # Errors
    /// Where the host gives no random bytes.
    pub fn make(from_token: &Secret<32>) -> Result<Self> {
        let ids = KeyPurpose::REQUIRED.map(|purpose| KeyId::new(purpose, 1));
        let keys = ids.into_iter().map(|id| RootKey::make(id, from_token));
        Self::new(keys.collect::<Result<_>>()?)
    }

    /// These versions, for a ceremony that adds them to what the realm has.
    ///
    /// # Errors
    /// As for [`RootKeys::further`]; where the host gives no random bytes.
    pub fn make_further(ids: &[KeyId], from_token: &Secret<32>) -> Result<Self> {
        let keys = ids.iter().map(|id| RootKey::make(*id, from_token));
        Self::further(keys.collect::<Result<_>>()?)
    }

    /// All keys of a realm's first ceremony.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a key is there twice, or a purpose has none.
    pub fn new(keys: Vec<RootKey>) -> Result<Self> {
        let keys = Self::sorted(keys)?;
        match keys.is_whole() {
            true => Ok(keys),
            false => Err(unsound()),
        }
    }

    /// Keys of a ceremony that adds versions.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a key is there twice, or there is none.
    pub fn further(keys: Vec<RootKey>) -> Result<Self> {
        let keys = Self::sorted(keys)?;
        match keys.0.is_empty() {
            true => Err(unsound()),
            false => Ok(keys),
        }
    }

    /// Those of several ceremonies but for some.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a key is there twice.
    pub fn joined(all: Vec<Self>, without: &[KeyId]) -> Result<Self> {
        let keys = all.into_iter().flat_map(|keys| keys.0);
        Self::sorted(keys.filter(|key| !without.contains(&key.id)).collect())
    }

    fn sorted(mut keys: Vec<RootKey>) -> Result<Self> {
        keys.sort_by_key(|key| key.id);
        let twice = keys.windows(2).any(|two| match two {
            [one, other] => one.id == other.id,
            _ => false,
        });
        // An escrow knows no Ed25519 keys: a public log's second line is not what a realm is lost by.
        let strange = keys.iter().any(|key| key.id.purpose.is_ed25519());
        match twice || strange {
            false => Ok(Self(keys)),
            true => Err(unsound()),
        }
    }

    /// Whether there is one of every purpose that a token must have a key for.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let has = |purpose| self.iter().any(|key| key.id.purpose == purpose);
        KeyPurpose::REQUIRED.into_iter().all(has)
    }

    pub fn iter(&self) -> impl Iterator<Item = &RootKey> {
        self.0.iter()
    }

    #[must_use]
    pub fn checks(&self) -> Vec<KeyCheck> {
        self.iter().map(RootKey::check).collect()
    }
}

fn unsound() -> Error {
    Error::invalid(
        "root keys",
        "expected each once, and one of every purpose; a further ceremony has any but MAC keys",
    )
}

/// The first key of which the token does not hold what these checks say.
///
/// # Errors
/// The token's; a key that it does not have is a difference and no error.
pub fn differing(custody: &mut dyn Custody, checks: &[KeyCheck]) -> Result<Option<KeyId>> {
    for expected in checks {
        let key = expected.key;
        if !custody.holds(key)? {
            return Ok(Some(key));
        }
        if check_of(custody, key)?.check != expected.check {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// What shows that a token holds this key, which it does.
///
/// # Errors
/// The token's.
pub fn check_of(custody: &mut dyn Custody, key: KeyId) -> Result<KeyCheck> {
    let check = if key.purpose.is_symmetric() {
        let tag = custody.hmac(key, &encoding::key_check(key))?;
        tag.expose().to_vec()
    } else if key.purpose.is_ed25519() {
        custody.ed25519_key(key)?.as_bytes().to_vec()
    } else {
        custody.public_key(key)?.as_point().to_vec()
    };
    Ok(KeyCheck { key, check })
}

fn point_of(value: &Secret<32>) -> Result<PublicKey> {
    let refused = || Error::invalid("private key", "not a private number of P-256");
    let key = PrivateKey::from_private_key(&ECDH_P256, value.expose()).map_err(|_| refused())?;
    let point = key.compute_public_key().map_err(|_| refused())?;
    PublicKey::from_point(point.as_ref())
}

fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

fn copy(place: &mut [u8; 32], from: &[u8]) {
    for (to, from) in place.iter_mut().zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(byte: u8) -> Secret<32> {
        Secret::init(|place| place.fill(byte))
    }

    #[test]
    fn every_purpose_has_a_fresh_key() {
        let (one, two) = (
            RootKeys::make(&seed(7)).unwrap(),
            RootKeys::make(&seed(7)).unwrap(),
        );
        assert_eq!(one.checks().len(), KeyPurpose::REQUIRED.len());
        for (a, b) in one.iter().zip(two.iter()) {
            assert_eq!(a.id, b.id);
            assert_ne!(a.expose(), b.expose());
            assert_eq!(a.public().is_some(), !a.id.purpose.is_symmetric());
        }
    }

    #[test]
    fn numbers_that_are_no_keys_and_keys_that_are_double_are_refused() {
        let bind = KeyId::new(KeyPurpose::Bind, 1);
        assert!(RootKey::new(bind, seed(0)).is_err());
        assert!(RootKey::new(bind, seed(0xff)).is_err());
        let keys = |ids: &[KeyPurpose]| {
            let keys = ids
                .iter()
                .map(|p| RootKey::new(KeyId::new(*p, 1), seed(1)).unwrap());
            RootKeys::new(keys.collect())
        };
        assert!(keys(&KeyPurpose::REQUIRED).is_ok());
        assert!(keys(&KeyPurpose::REQUIRED[1..]).is_err());
        let mut double = KeyPurpose::REQUIRED.to_vec();
        double.push(KeyPurpose::Mac);
        assert!(keys(&double).is_err());
    }

    #[test]
    fn further_keys_are_any_but_ed25519_keys() {
        let id = KeyId::new;
        let make = |ids: &[KeyId]| RootKeys::make_further(ids, &seed(3));
        let (wrap, bind) = (id(KeyPurpose::Wrap, 2), id(KeyPurpose::Bind, 4));
        let keys = make(&[bind, wrap]).unwrap();
        assert_eq!(
            keys.iter().map(|key| key.id).collect::<Vec<_>>(),
            [wrap, bind]
        );
        for bad in [
            &[][..],
            &[wrap, wrap],
            &[id(KeyPurpose::CheckpointEd25519, 2)],
        ] {
            assert!(make(bad).is_err(), "{bad:?}");
        }
        assert!(make(&[id(KeyPurpose::Mac, 2)]).is_ok());
        let first = || RootKeys::make(&seed(3)).unwrap();
        let one = id(KeyPurpose::Wrap, 1);
        let joined = RootKeys::joined(vec![first(), make(&[wrap]).unwrap()], &[one]).unwrap();
        assert!(joined.is_whole() && joined.iter().all(|key| key.id != one));
        assert!(!RootKeys::joined(vec![first()], &[one]).unwrap().is_whole());
        assert!(RootKeys::joined(vec![first(), first()], &[]).is_err());
    }

    #[test]
    fn the_point_is_that_of_the_number() {
        // SEC 2, section 2.4.2: the base point of P-256.
        let one = Secret::init(|place: &mut [u8; 32]| place[31] = 1);
        let key = RootKey::new(KeyId::new(KeyPurpose::Bind, 1), one).unwrap();
        let x = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
        assert_eq!(hex::encode(&key.public().unwrap().as_point()[1..33]), x);
    }

    #[test]
    fn a_token_with_another_key_is_known() {
        let mut custody = crate::software::SoftCustody::new();
        let wrap = KeyId::new(KeyPurpose::Wrap, 1);
        let tag = custody.hmac(wrap, &encoding::key_check(wrap)).unwrap();
        let bind = KeyId::new(KeyPurpose::Bind, 1);
        let point = custody.public_key(bind).unwrap().as_point().to_vec();
        let of = |key, check| KeyCheck { key, check };
        let mut checks = vec![of(wrap, tag.expose().to_vec()), of(bind, point)];
        assert_eq!(differing(&mut custody, &checks).unwrap(), None);
        checks[1].check[9] ^= 1;
        assert_eq!(differing(&mut custody, &checks).unwrap(), Some(bind));
        checks[0].check[0] ^= 1;
        assert_eq!(differing(&mut custody, &checks).unwrap(), Some(wrap));
        let absent = [of(KeyId::new(KeyPurpose::Wrap, 9), Vec::new())];
        assert_eq!(
            differing(&mut custody, &absent).unwrap(),
            Some(absent[0].key)
        );
    }
}
