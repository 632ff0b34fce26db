//! One file for each kind of resource. A route proves who asks, parses what is asked, calls
//! one use case of the service and gives its answer a shape; it decides nothing.

pub mod account;
pub mod accounts;
pub mod devices;
pub mod discovery;
pub mod passkeys;
pub mod pin;
pub mod secrets;
pub mod sessions;
