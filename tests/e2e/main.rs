//! End to end: the real daemon over TLS, a real SoftHSM2 token, SQLite, a soft authenticator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accounts;
mod acknowledged;
mod app_keys;
mod callers;
mod clock;
mod code_limits;
mod code_recovers;
mod contacts;
mod courier;
mod delivered_codes;
mod delivery;
mod ends;
mod enrolment;
mod escrow;
mod failover;
mod flows;
mod handed;
mod http;
mod io;
mod kills;
mod ledger;
mod limits;
mod load;
mod log;
mod mixed;
mod modules;
mod moved;
mod offline;
mod opaque;
mod openapi;
mod operator;
mod operator_socket;
mod passkey;
mod pin;
mod privacy;
mod proxied;
mod public_log;
mod recipients;
mod recovery_codes;
mod related_origins;
mod reload;
mod restoring;
mod rotation;
mod rotation_kills;
mod rotation_load;
mod rotation_mac;
mod secrets;
mod server_slots;
mod sessions;
mod slots;
mod slow_mode;
mod softhsm_setup;
mod space;
mod stranger_pin;
mod text_messages;
mod token;
mod totp;
mod tpm;
mod tpm_booted;
mod tpm_evidence;
mod unknown_devices;
mod versions;
mod walk;
mod weak_sessions;
mod witnesses;
