//! What no server on these cores can do better: the parts of a recovery as others' libraries do them, with nothing
//! around them. The token's operations and requests over TLS are in the rounds (`token_*`, `tls_*`).

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};

use crate::commit::{self, Shape};
use crate::cpu::{Sample, on_all_cores};

const PART: Duration = Duration::from_millis(700);
/// About what an authenticator signs: its data, and a hash of the client's.
const SIGNED: [u8; 69] = [5; 69];

/// Verifications of a signature by P-256, over SHA-256.
pub(crate) fn ecdsa() -> Sample {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let signature = key.sign(&SystemRandom::new(), &SIGNED).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
    on_all_cores(PART, usize::MAX, |_, _| {
        public.verify(&SIGNED, signature.as_ref()).unwrap();
    })
}

/// Durable commits of one recovery each, and of as many as the daemon's had; both counted in recoveries.
pub(crate) fn commits(shape: &Shape) -> [Sample; 2] {
    [
        commit::commits(&shape.alone(), PART),
        commit::commits(shape, PART),
    ]
}
