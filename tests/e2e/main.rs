//! End to end: the real daemon over TLS, a real SoftHSM2 token, SQLite, a soft authenticator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accounts;
mod contacts;
mod delivered_codes;
mod delivery;
mod http;
mod operator;
mod passkey;
mod pin;
mod privacy;
mod recovery_codes;
mod secrets;
mod sessions;
mod totp;
mod unknown_devices;
mod walk;
