//! One file for each kind of resource. A route proves who asks, parses what is asked, calls
//! one use case of the service and gives its answer a shape; it decides nothing.

pub(super) mod account;
pub(super) mod accounts;
pub(super) mod app_keys;
pub(super) mod bindings;
pub(super) mod contacts;
pub(super) mod devices;
pub(super) mod discovery;
pub(super) mod log;
pub(super) mod offline;
pub(super) mod opaque;
pub(super) mod otp;
pub(super) mod passkeys;
pub(super) mod pin;
pub(super) mod privacy;
pub(super) mod recover;
pub(super) mod recovery_codes;
pub(super) mod secrets;
pub(super) mod sessions;
pub(super) mod totp;
