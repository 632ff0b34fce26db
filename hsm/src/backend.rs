//! The kinds of token. One folder each, with the same file names per task.
//!
//! A backend implements [`crate::Backend`] and [`crate::Custody`] and knows
//! nothing of records, bindings or anchors' meaning: it moves bytes.

pub mod pkcs11;
