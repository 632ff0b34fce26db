//! End to end: the real daemon over TLS, a real SoftHSM2 token, SQLite, a soft authenticator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accounts;
mod delivery;
mod http;
mod limits;
mod operator;
mod operator_socket;
mod passkey;
mod pin;
mod reload;
mod secrets;
mod sessions;
mod walk;
