//! Bringing root keys in that an escrow has made or opened.
//!
//! Called by `provision`, by people, never by a daemon. A secret goes in as every secret does, encrypted by the
//! session. A pair cannot: TPM2_Import takes it below the storage key, wrapped for that key alone (Part 1 of the
//! TPM 2.0 Library Specification, section 23.3), so whoever listens on the bus learns nothing; an
//! interposer who answers with a storage key of its own would, so its name is compared before (docs/ESCROW.md). What was imported is
//! not `fixedTPM`; it has no policy, without which no TPM duplicates it, or one for TPM2_Sign alone.

use aws_lc_rs::{
    agreement::{self, ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey},
    cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey},
    hmac,
    iv::FixedLength,
    rand::SystemRandom,
};
use tss_esapi::{
    constants::tss::TPM2_ALG_ECC,
    tss2_esys::{TPM2B_ECC_PARAMETER, TPM2B_PUBLIC, TPMS_ECC_POINT, TPMU_PUBLIC_ID},
};

use super::{
    Options,
    attributes::{self, Form},
    esys::Tr,
    token::{self, Connection, auth},
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::sha256,
    },
    error::Error,
    public_key::PublicKey,
    root_keys::{KeyOrigin, RootKey},
    secret::{Secret, SecretBytes},
};

/// A pair wrapped for one parent: what TPM2_Import takes.
pub(super) struct Wrapped {
    pub(super) public: TPM2B_PUBLIC,
    pub(super) duplicate: Vec<u8>,
    /// The seed of the wrapping, for the parent.
    pub(super) seed: Vec<u8>,
}

/// Makes a transient object of the key below the storage key.
pub(super) fn object(connection: &mut Connection, options: &Options, key: &RootKey) -> Attempt<Tr> {
    let label = key.id.label();
    let auth = auth(&options.secret, &label)?;
    let parent = connection.storage_key;
    let Some(point) = key.public() else {
        let form = super::keys::form_of(key.id.purpose, options.mode);
        let policy = connection.policy_of(form);
        let template = form.template_with(KeyOrigin::Imported, policy.as_ref());
        return connection.command("TPM2_Create", |esys, session| {
            esys.create((parent, session), &template, auth.expose(), key.expose())
        });
    };
    let found = connection.command("read the storage key", |esys, session| {
        esys.read_public(parent, Some(session))
    })?;
    let (_, storage) = attributes::judge(&found, Form::StorageKey, KeyOrigin::Token, None);
    let storage = storage.ok_or_else(|| Trouble::Sick("a storage key without a point".into()))?;
    let policy = connection.policy_of(Form::Ecdsa);
    let template = Form::Ecdsa.template_with(KeyOrigin::Imported, policy.as_ref());
    let wrapped = wrap(&storage, template, (point, key.expose()), &auth)?;
    connection.command("TPM2_Import", |esys, session| {
        esys.import((parent, session), &wrapped)
    })
}

fn wrap(
    storage: &PublicKey,
    mut public: TPM2B_PUBLIC,
    (point, number): (&PublicKey, &[u8; 32]),
    auth: &Secret<32>,
) -> Attempt<Wrapped> {
    public.publicArea.unique = TPMU_PUBLIC_ID {
        ecc: as_point(point),
    };
    let name = token::name(&public)?;
    let (secret, ephemeral) = agree(storage)?;
    let seed = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let storage_tag = kdfa(&seed, b"STORAGE", &name, 128);
    let integrity = kdfa(&seed, b"INTEGRITY", &[], 256);
    let concealed = conceal(&storage_tag, sensitive(number, auth))?;
    let mut outer = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, integrity.expose()));
    outer.update(&concealed);
    outer.update(&name);
    let mut duplicate = sized(outer.sign().as_ref());
    duplicate.extend(concealed);
    let (x, y) = coordinates(&ephemeral);
    Ok(Wrapped {
        public,
        duplicate,
        seed: [sized(&x), sized(&y)].concat(),
    })
}

/// TPM2B_SENSITIVE of a pair.
fn sensitive(number: &[u8; 32], auth: &Secret<32>) -> SecretBytes {
    const INNER: u16 = 2 + 34 + 2 + 34;
    let parts: [&[u8]; 7] = [
        &INNER.to_be_bytes(),
        &TPM2_ALG_ECC.to_be_bytes(),
        &32_u16.to_be_bytes(),
        auth.expose(),
        // A seed is for parents alone.
        &[0, 0],
        &32_u16.to_be_bytes(),
        number,
    ];
    let all = parts.into_iter().flatten();
    SecretBytes::init(usize::from(INNER) + 2, |place| {
        place.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
    })
}

/// The seed, and the point by which the parent finds it: KDFe over an agreement with a key of the moment.
fn agree(storage: &PublicKey) -> Attempt<(Secret<32>, PublicKey)> {
    let failed = || Trouble::Sick("no agreement with the storage key".to_owned());
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new());
    let own = own.map_err(|_| failed())?;
    let point = own.compute_public_key().map_err(|_| failed())?;
    let ephemeral = PublicKey::from_point(point.as_ref())?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, storage.as_point());
    let seed =
        agreement::agree_ephemeral(own, theirs, Error::invalid("agreement", "failed"), |z| {
            let (ours, parent) = (coordinates(&ephemeral).0, coordinates(storage).0);
            let one = 1_u32.to_be_bytes();
            Ok(Secret::init(|place| {
                *place = sha256(&[&one, z, b"DUPLICATE\0", &ours, &parent]);
            }))
        })?;
    Ok((seed, ephemeral))
}

/// The KDF of SP 800-108 as Part 1, section 11.4.10 has it, one block of SHA-256.
fn kdfa(seed: &hmac::Key, label: &[u8], context: &[u8], bits: u32) -> Secret<32> {
    let mut input = 1_u32.to_be_bytes().to_vec();
    input.extend_from_slice(label);
    input.push(0);
    input.extend_from_slice(context);
    input.extend_from_slice(&bits.to_be_bytes());
    let tag = hmac::sign(seed, &input);
    Secret::init(|place| {
        place
            .iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
    })
}

/// AES-128-CFB with an initialisation vector of zeros; the key is used once.
fn conceal(key: &Secret<32>, plain: SecretBytes) -> Attempt<Vec<u8>> {
    let failed = || Trouble::Sick("AES-128-CFB did not take the key".to_owned());
    let (half, _) = key.expose().split_at(16);
    let cipher = UnboundCipherKey::new(&AES_128, half).and_then(EncryptingKey::cfb128);
    let mut bytes = plain.expose().to_vec();
    let context = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    let done = cipher
        .and_then(|cipher| cipher.less_safe_encrypt(&mut bytes, context))
        .map(|_| ());
    if done.is_err() {
        zeroize::Zeroize::zeroize(&mut bytes);
        return Err(failed());
    }
    Ok(bytes)
}

fn coordinates(point: &PublicKey) -> ([u8; 32], [u8; 32]) {
    let (_, xy) = point.as_point().split_at(1);
    let mut halves = xy.as_chunks::<32>().0.iter().copied();
    (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    )
}

fn as_point(point: &PublicKey) -> TPMS_ECC_POINT {
    let (x, y) = coordinates(point);
    let parameter = |number: [u8; 32]| {
        let mut parameter = TPM2B_ECC_PARAMETER {
            size: 32,
            ..Default::default()
        };
        let places = parameter.buffer.iter_mut();
        places.zip(number).for_each(|(to, from)| *to = from);
        parameter
    };
    TPMS_ECC_POINT {
        x: parameter(x),
        y: parameter(y),
    }
}

/// With its length in front, as every TPM2B.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cipher_is_aes_128_cfb() {
        // With a key, a vector and a text of zeros the first block is AES-128 of a zero block.
        let key = Secret::init(|_| ());
        let zeros = SecretBytes::init(16, |_| ());
        let block = conceal(&key, zeros).unwrap();
        assert_eq!(hex::encode(block), "66e94bd4ef8a2c3b884cfa59ca342b2e");
    }

    #[test]
    fn a_sensitive_area_has_its_lengths() {
        let auth = Secret::init(|place: &mut [u8; 32]| place.fill(0xAA));
        let area = sensitive(&[0xBB; 32], &auth);
        assert_eq!(area.len(), 74);
        let bytes = area.expose();
        assert_eq!(bytes[..6], [0, 72, 0, 0x23, 0, 32]);
        assert_eq!(bytes[38..42], [0, 0, 0, 32]);
        assert_eq!(bytes[42..], [0xBB; 32]);
    }
}
