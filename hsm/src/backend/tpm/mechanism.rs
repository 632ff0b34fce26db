//! The three operations that are asked of a TPM, with their outputs checked.
//!
//! Called by `session` and `keys` under the connection's lock. A result of the wrong form is a sick
//! TPM, never a value.

use aws_lc_rs::hmac as host;
use tss_esapi::structures::{EccSignature, Signature};
use zeroize::Zeroizing;

use super::{esys::Tr, policy::Use, token::Connection};
use crate::{
    backend::attempt::{Attempt, Trouble},
    secret::Secret,
};

/// TPM2_PT_INPUT_BUFFER of every TPM of the PC client profile.
const INPUT: usize = 1024;

/// HMAC-SHA-256 under a key that stays in the TPM. A long message goes in parts.
pub(super) fn hmac(connection: &mut Connection, key: Tr, message: &[u8]) -> Attempt<Secret<32>> {
    let tag = match message.len() {
        0..=INPUT => connection.with_key("TPM2_HMAC", Use::Root, |esys, by| {
            esys.hmac(key, by, message)
        })?,
        _ => hmac_in_parts(connection, key, message)?,
    };
    if tag.len() != 32 {
        return Err(Trouble::Sick(format!("an HMAC of {} bytes", tag.len())));
    }
    Ok(Secret::init(|out| out.copy_from_slice(&tag)))
}

/// Not repeated where the TPM puts a step off: a sequence that is given up holds its place until
/// the connection ends.
fn hmac_in_parts(
    connection: &mut Connection,
    key: Tr,
    message: &[u8],
) -> Attempt<Zeroizing<Vec<u8>>> {
    let sequence = connection.with_key("TPM2_HMAC_Start", Use::Root, |esys, by| {
        esys.hmac_start(key, by)
    })?;
    let mut parts = message.chunks(INPUT).peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return connection.command("TPM2_SequenceComplete", |esys, session| {
                esys.hmac_end(sequence, session, part)
            });
        }
        connection.command("TPM2_SequenceUpdate", |esys, session| {
            esys.hmac_update(sequence, session, part)
        })?;
    }
    Err(Trouble::Sick("a message without parts".to_owned()))
}

/// HMAC-SHA-256 under a root that was unsealed into this process.
pub(super) fn hmac_on_host(root: &Secret<32>, message: &[u8]) -> Secret<32> {
    let key = host::Key::new(host::HMAC_SHA256, root.expose());
    let tag = host::sign(&key, message);
    Secret::init(|out| {
        for (to, from) in out.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
    })
}

pub(super) fn unseal(connection: &mut Connection, object: Tr) -> Attempt<Secret<32>> {
    let root = connection.with_key("TPM2_Unseal", Use::Root, |esys, by| esys.unseal(object, by))?;
    root.ok_or_else(|| Trouble::Sick("a root key that is not of 32 bytes".to_owned()))
}

pub(super) fn ecdsa(connection: &mut Connection, key: Tr, digest: &[u8; 32]) -> Attempt<[u8; 64]> {
    let answer = connection.with_key("TPM2_Sign", Use::Pair, |esys, by| {
        esys.sign(key, by, digest)
    })?;
    match Signature::try_from(answer) {
        Ok(Signature::EcDsa(signature)) => raw(&signature),
        _ => Err(no_signature()),
    }
}

fn no_signature() -> Trouble {
    Trouble::Sick("a signature that is none of ECDSA P-256".to_owned())
}

/// r || s.
pub(super) fn raw(signature: &EccSignature) -> Attempt<[u8; 64]> {
    let mut out = [0; 64];
    let (r, s) = out.split_at_mut(32);
    for (place, number) in [
        (r, signature.signature_r().value()),
        (s, signature.signature_s().value()),
    ] {
        *place.first_chunk_mut().ok_or_else(no_signature)? =
            right_aligned(number).ok_or_else(no_signature)?;
    }
    Ok(out)
}

/// A number as TPMs give it, which leave zeros out at the front or do not.
pub(super) fn right_aligned(number: &[u8]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let start = out.len().checked_sub(number.len())?;
    out.get_mut(start..)?.copy_from_slice(number);
    Some(out)
}

pub(super) fn random(connection: &mut Connection, out: &mut [u8]) -> Attempt<()> {
    let mut rest = out;
    while !rest.is_empty() {
        // A TPM gives at most a digest at a time.
        let wanted = u16::try_from(rest.len().min(32)).unwrap_or(32);
        let bytes = connection.command("TPM2_GetRandom", |esys, session| {
            esys.random(session, wanted)
        })?;
        let given = bytes.len().min(rest.len());
        if given == 0 || (given >= 16 && bytes.iter().all(|byte| *byte == 0)) {
            return Err(Trouble::Sick("random bytes that are none".to_owned()));
        }
        let (now, later) = rest.split_at_mut(given);
        for (to, from) in now.iter_mut().zip(bytes.iter()) {
            *to = *from;
        }
        rest = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_filled_up_at_the_front() {
        assert_eq!(right_aligned(&[1, 2]).unwrap()[29..], [0, 1, 2]);
        assert_eq!(right_aligned(&[7; 32]), Some([7; 32]));
        assert_eq!(right_aligned(&[7; 33]), None);
        assert_eq!(right_aligned(&[]), Some([0; 32]));
    }

    #[test]
    fn the_host_computes_what_a_token_would() {
        // RFC 4231, test case 1 has a key of 20 bytes; HMAC pads keys with zeros, so 12 more change nothing.
        let key = Secret::init(|key: &mut [u8; 32]| key[..20].fill(0x0b));
        let tag = hmac_on_host(&key, b"Hi There");
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(tag.expose()), expected);
    }
}
