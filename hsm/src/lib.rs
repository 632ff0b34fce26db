//! Key custody: everything that touches a token, and every byte format that
//! depends on a token key.
//!
//! Called by the daemon. This crate knows no HTTP and no SQL, and it imports
//! neither the daemon nor the policies. `FORMAT.md` beside it fixes every byte.
//!
//! The order of the modules is the order of trust:
//! `id, secret, error -> encoding -> custody -> {mac, seal, binding, webhook, anchor, checkpoint}` and
//! `custody -> backend`. A backend never imports what stands in those braces; `proof` stands above them. `pool <-> set`: the set's tokens each
//! have a pool, and one pool is in front of them; `lane -> turns -> pool` says whose turn it is. `root_keys ->
//! escrow` is for the ceremonies in which keys are outside of a token; of the two a backend knows the first, to import.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may stop at once; the build without tests checks the rest"
    )
)]

pub mod anchor;
pub mod backend;
pub mod binding;
pub mod checkpoint;
pub mod counters;
pub mod custody;
pub mod ed25519;
pub mod encoding;
pub mod error;
pub mod escrow;
pub mod evidence;
pub mod id;
mod jws;
pub mod lane;
pub mod mac;
pub mod pool;
pub mod proof;
pub mod public_key;
pub mod report;
pub mod root_keys;
pub mod seal;
pub mod secret;
pub mod set;
pub mod turns;
pub mod versions;
pub mod webhook;

#[cfg(test)]
mod properties;
#[cfg(any(test, feature = "test-support"))]
pub mod software;
#[cfg(test)]
mod vectors;

pub use anchor::{Advanced, Anchor};
pub use binding::{Binding, BindingKeys, BindingKind};
pub use custody::{AnchorHandle, AnchorObject, Backend, Custody};
pub use ed25519::Ed25519Key;
pub use error::{AnchorFault, Error, Result};
pub use evidence::Evidence;
pub use id::{AccountId, AppId, KeyId, KeyPurpose, RealmName, RecordId, RecordKind};
pub use lane::Lane;
pub use pool::{Pool, PoolOptions, PoolStatus};
pub use public_key::{PublicKey, jwk_set};
pub use report::{Imported, KeyKind, KeyReport, ProvisionReport, TokenDescription, Verdict};
pub use root_keys::{KeyCheck, KeyOrigin, RootKey, RootKeys};
pub use secret::{Secret, SecretBytes};
pub use set::{Member, Standing, TokenSet};
pub use turns::Turns;
pub use versions::KeyVersions;
pub use webhook::WebhookCall;
