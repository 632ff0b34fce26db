//! The kinds of token. One folder each, with the same file names per task.
//!
//! A backend implements [`crate::Backend`] and [`crate::Custody`] and knows
//! nothing of records, bindings or anchors' meaning: it moves bytes. What all of
//! them need stands beside their folders.

mod attempt;
mod inside;
mod known_answer;
mod origin;
mod patience;
pub mod pkcs11;
pub mod tpm;

pub use self::inside::rests;
