//! custodyd: a key custody daemon for Progressive Web Apps.
//!
//! A request goes down through these modules and its answer comes back up:
//! `http` (bytes, proofs, shapes) -> `service` (the use cases) -> `ledger` (what may be
//! believed) -> `store` (untrusted rows), with `factors` and the crates `custodyd_hsm` and
//! `custodyd_policies` beside `service`. `delivery` takes what `service` has to say to people
//! and sends it by mail or to a gateway for text messages, later and without an answer; `witness`
//! shows the log's checkpoints to others and keeps what they sign.
//! `startup` alone wires them together, with `handed` and `listening` for its sockets, `supervised` for
//! what systemd is told, `reload` and `watch` for what goes on while it serves; `courier` is a second
//! program beside all that, which sends what `delivery` and `witness` give it; `cli` calls `startup`, or the socket of a daemon
//! that runs. No module calls one above it.

pub mod account;
pub mod api;
mod backend;
pub mod bytes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod courier;
pub mod delivery;
pub mod ending;
mod era;
pub mod escrow;
pub mod factors;
mod generations;
pub mod handed;
pub mod hardening;
pub mod http;
pub mod ledger;
mod listening;
mod places;
pub mod private_file;
mod reload;
mod retention;
mod scrub;
pub mod service;
mod spare;
pub mod startup;
pub mod store;
mod supervised;
pub mod telemetry;
mod unheard;
mod watch;
pub mod witness;
