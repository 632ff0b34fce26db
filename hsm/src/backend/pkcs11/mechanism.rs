//! The three operations that are asked of a module, with their outputs checked.
//!
//! Called on a session by `session`, `keys` and `epoch`. A result of the wrong
//! length is a sick token, never a value.

use cryptoki::{
    context::Pkcs11,
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::ObjectHandle,
    session::Session,
    slot::Slot,
};
use zeroize::Zeroizing;

pub(super) use crate::backend::attempt::{Attempt, Trouble};
use crate::{
    error::Error,
    secret::{Secret, SecretBytes},
};

impl From<cryptoki::error::Error> for Trouble {
    /// The function and the code by name: the library's own text for a code is
    /// a paragraph of the standard.
    fn from(error: cryptoki::error::Error) -> Self {
        Self::Sick(match error {
            cryptoki::error::Error::Pkcs11(code, function) => {
                format!("C_{function:?} answered {code:?}")
            }
            other => other.to_string(),
        })
    }
}

pub(super) fn hmac(session: &Session, key: ObjectHandle, message: &[u8]) -> Attempt<Secret<32>> {
    let tag = SecretBytes::from(session.sign(&Mechanism::Sha256Hmac, key, message)?);
    if tag.len() != 32 {
        return Err(Trouble::Sick(format!("an HMAC of {} bytes", tag.len())));
    }
    Ok(Secret::init(|out| out.copy_from_slice(tag.expose())))
}

pub(super) fn ecdsa(session: &Session, key: ObjectHandle, digest: &[u8; 32]) -> Attempt<[u8; 64]> {
    let signature = session.sign(&Mechanism::Ecdsa, key, digest)?;
    let length = signature.len();
    signature
        .try_into()
        .map_err(|_| Trouble::Sick(format!("an ECDSA signature of {length} bytes")))
}

/// Pure Ed25519, for which the mechanism has no parameters.
pub(super) fn eddsa(session: &Session, key: ObjectHandle, message: &[u8]) -> Attempt<[u8; 64]> {
    let pure = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
    let signature = session.sign(&pure, key, message)?;
    let length = signature.len();
    signature
        .try_into()
        .map_err(|_| Trouble::Sick(format!("an Ed25519 signature of {length} bytes")))
}

pub(super) fn random(session: &Session, out: &mut [u8]) -> Attempt<()> {
    // Some modules bound one request; all take this much.
    for chunk in out.chunks_mut(1024) {
        let mut bytes = Zeroizing::new(vec![0; chunk.len()]);
        session.generate_random_slice(&mut bytes)?;
        if bytes.len() >= 16 && bytes.iter().all(|byte| *byte == 0) {
            return Err(Trouble::Sick("random bytes that are all zero".to_owned()));
        }
        chunk.copy_from_slice(&bytes);
    }
    Ok(())
}

/// Refuses a module that lacks a mechanism before anything depends on it.
pub(super) fn require(context: &Pkcs11, slot: Slot) -> Attempt<()> {
    let offered = context.get_mechanism_list(slot)?;
    for (wanted, name) in [
        (MechanismType::SHA256_HMAC, "CKM_SHA256_HMAC"),
        (MechanismType::ECDSA, "CKM_ECDSA"),
    ] {
        if !offered.contains(&wanted) {
            let sentence = format!("the token does not offer {name}, which custodyd needs");
            return Err(Trouble::Final(Error::Misconfigured(sentence)));
        }
    }
    Ok(())
}
