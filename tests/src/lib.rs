//! What the tests share: a real daemon on loopback with a real SoftHSM2 token, a client that
//! makes its own proofs, a soft authenticator, and an administrator who edits the database.
//!
//! Nothing here is linked into the daemon. A missing component (SoftHSM2, the daemon's binary)
//! fails the test that needs it, with what to install.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

pub mod admin;
pub mod app;
pub mod authenticator;
pub mod balancer;
pub mod campaign;
pub mod codes;
pub mod description;
pub mod device;
pub mod handbook;
pub mod kryoptic;
pub mod log;
pub mod mail;
pub mod nodes;
pub mod opaque;
pub mod owner;
pub mod pair;
pub mod postgres;
pub mod shim;
pub mod slots;
pub mod stories;
pub mod token;
pub mod tpm;
pub mod webhook;
pub mod wire;
pub mod witness;

pub use self::admin::Admin;
pub use self::app::{Setup, TestApp};
pub use self::authenticator::SoftAuthenticator;
pub use self::balancer::Balancer;
pub use self::device::{Answer, Device};
pub use self::mail::{Mail, MailServer};
pub use self::pair::Pair;
pub use self::postgres::PostgresServer;
pub use self::webhook::Webhook;
pub use self::wire::Wire;
pub use self::witness::Witness;
