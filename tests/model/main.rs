//! An explicit-state model of budget, ledger and anchor: every interleaving of
//! one or two nodes, crashes and a database that shows any head ever sealed,
//! within the bounds of `scenarios`. `docs/MODEL.md` says what stands for what.
//!
//! The model shares no code with the daemon: it checks the rules, and the
//! other suites check that the daemon keeps them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod actions;
mod anchor;
mod committer;
mod config;
mod mac_keys;
mod mutants;
mod properties;
mod record;
mod scenarios;
mod starting;
mod state;
