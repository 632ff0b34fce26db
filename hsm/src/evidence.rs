//! What a token says of its anchors in a way that others can check without it.
//!
//! Made by backends that can ([`crate::Custody::certify_anchors`]), written into a file for an auditor. Plain data: whoever
//! reads one from a file has to verify it, as `backend::tpm::verify` does for a TPM's.

use serde::{Deserialize, Serialize};

/// The shortest and the longest nonce of a caller, in bytes.
pub const NONCE: std::ops::RangeInclusive<usize> = 16..=32;

/// A TPM's statement on the NV index of its anchors, signed by a key that signs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    pub nv_index: u32,
    /// The name of the index of approved boots, from which the policies of key and index follow; empty where there
    /// are none.
    #[serde(with = "hex::serde", default, skip_serializing_if = "Vec::is_empty")]
    pub boots: Vec<u8>,
    /// The name of the storage key, which the attestation key is below.
    #[serde(with = "hex::serde")]
    pub storage_key: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    #[serde(with = "hex::serde")]
    pub key: Vec<u8>,
    /// TPMS_ATTEST, as it was signed.
    #[serde(with = "hex::serde")]
    pub attest: Vec<u8>,
    /// ECDSA P-256 over SHA-256 of it, r || s.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
    /// The record that leads to the value of the index, after FORMAT.md, section 10.
    #[serde(with = "hex::serde")]
    pub record: Vec<u8>,
}
