//! The client in TypeScript, run by the same gate as the rest: its lints, its own unit tests, its
//! types against the daemon's description, its size, and its flows in a real browser.
//!
//! Node, the packages of `client/package-lock.json` and Chromium are installed by
//! `scripts/ensure-tools test`; what is missing fails here, with that advice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod browser;
mod sources;
mod tools;
