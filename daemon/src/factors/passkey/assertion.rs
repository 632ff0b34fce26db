//! An assertion, held against the credential that it names (WebAuthn Level 3, section 7.2).
//!
//! Called by `passkey` after `body` has read the answer, refused PRF results and compared the origin
//! with the policy's. The adversary writes every byte of client data, authenticator data and
//! signature; the credential is the envelope's, and the challenge was sealed by us. Nothing is
//! believed before the signature has verified: what is compared before only refuses in words.
//!
//! `webauthn-rs` makes the options and registers, and would do these steps, too. But it verifies a
//! signature on P-256 in three times what `aws-lc-rs` takes, and that was a tenth of a whole recovery.
//! The tests hold both against each other.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use webauthn_rs::prelude::{
    COSEAlgorithm, COSEKey, COSEKeyType, Credential, ECDSACurve, PublicKeyCredential,
};

use super::super::{sha256, unb64};
use super::error::PasskeyError;

// Flags of the authenticator data (WebAuthn Level 3, section 6.1).
const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const BACKUP_ELIGIBLE: u8 = 0x08;
const BACKED_UP: u8 = 0x10;

/// The part of CollectedClientData (section 5.8.1) that `body` has not looked at.
#[derive(Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
}

/// What is compared of the authenticator data. A key and outputs of extensions may follow: they are
/// signed, and decide nothing here.
struct AuthenticatorData {
    rp_id_hash: [u8; 32],
    flags: u8,
    counter: u32,
}

impl AuthenticatorData {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (rp_id_hash, rest) = bytes.split_first_chunk::<32>()?;
        let ([flags], rest) = rest.split_first_chunk::<1>()?;
        let (counter, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            rp_id_hash: *rp_id_hash,
            flags: *flags,
            counter: u32::from_be_bytes(*counter),
        })
    }

    fn says(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Checks the answer to `challenge`, and brings the credential's counter and backup state up to date. On
/// an error it is unchanged.
pub(super) fn check(
    answer: &PublicKeyCredential,
    rp_id_hash: &[u8; 32],
    challenge: &[u8],
    credential: &mut Credential,
) -> Result<(), PasskeyError> {
    if answer.raw_id != credential.cred_id {
        return Err(PasskeyError::OtherAccount);
    }
    let response = &answer.response;
    let client: ClientData = serde_json::from_slice(&response.client_data_json)
        .map_err(|error| PasskeyError::Invalid(format!("response.clientDataJSON: {error}")))?;
    if client.kind != "webauthn.get" {
        return Err(PasskeyError::invalid(
            "response.clientDataJSON: type: expected \"webauthn.get\"",
        ));
    }
    if unb64(&client.challenge).as_deref() != Some(challenge) {
        return Err(PasskeyError::Challenge);
    }
    let data = AuthenticatorData::parse(&response.authenticator_data).ok_or_else(|| {
        PasskeyError::invalid("response.authenticatorData: expected 37 bytes or more")
    })?;
    if data.rp_id_hash != *rp_id_hash {
        return Err(PasskeyError::invalid(
            "the authenticator answered for another rp.id",
        ));
    }
    if !data.says(USER_PRESENT) || !data.says(USER_VERIFIED) {
        return Err(PasskeyError::UserNotVerified);
    }
    // Whether a passkey may be copied is fixed when it is made (section 6.1.3); one that may not be is not backed up.
    let eligible = data.says(BACKUP_ELIGIBLE);
    if eligible != credential.backup_eligible || (data.says(BACKED_UP) && !eligible) {
        return Err(PasskeyError::BackupFlags);
    }
    let client_hash = sha256(&[&response.client_data_json]);
    let signed = [response.authenticator_data.as_slice(), &client_hash].concat();
    if !verifies(&credential.cred, &signed, &response.signature) {
        return Err(PasskeyError::invalid(
            "the signature does not verify under the registered key",
        ));
    }
    let counts = data.counter > 0 || credential.counter > 0;
    if counts && data.counter <= credential.counter {
        return Err(PasskeyError::Counter);
    }
    credential.counter = data.counter;
    credential.backup_state = data.says(BACKED_UP);
    Ok(())
}

/// By the algorithms that options for a registration list, and no others.
pub(super) fn verifies(key: &COSEKey, message: &[u8], signature: &[u8]) -> bool {
    match (&key.key, key.type_) {
        (COSEKeyType::EC_EC2(ec), kind) => {
            let algorithm: &'static dyn VerificationAlgorithm = match (&ec.curve, kind) {
                (ECDSACurve::SECP256R1, COSEAlgorithm::ES256) => &ECDSA_P256_SHA256_ASN1,
                (ECDSACurve::SECP384R1, COSEAlgorithm::ES384) => &ECDSA_P384_SHA384_ASN1,
                _ => return false,
            };
            let point = [&[4], ec.x.as_slice(), &ec.y].concat();
            let key = UnparsedPublicKey::new(algorithm, point);
            key.verify(message, signature).is_ok()
        }
        (COSEKeyType::RSA(rsa), COSEAlgorithm::RS256) => {
            let (n, e) = (without_zeros(&rsa.n), without_zeros(&rsa.e));
            RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok()
        }
        _ => false,
    }
}

/// A number's bytes as the library takes them: none is zero before the first that is not.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|byte| *byte != 0);
    bytes
        .get(first.unwrap_or(bytes.len())..)
        .unwrap_or_default()
}
