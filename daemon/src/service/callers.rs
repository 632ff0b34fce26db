//! How often one device may call with a session.
//!
//! Called by `http::request` once a proof has shown who holds the device key, before the account
//! is loaded. The adversary has an account of their own, which anybody may have where enrolment
//! is open, and a session that lives for hours: without a rate each call could be a commit, and
//! an entry of a log that only grows. The count is the device key's, so that a token without its
//! key takes nothing from it, and no device of an account takes from another.

use super::Refused;
use super::rates::{DeviceRate, Quota, limited};
use crate::config::Limits;

#[derive(Debug)]
pub struct Callers(DeviceRate);

impl Callers {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let quota = Quota::new(limits.device_per_second, limits.device_burst);
        Self(DeviceRate::new(quota))
    }

    /// # Errors
    /// `RateLimited`.
    pub fn admit(&self, thumbprint: &str) -> Result<(), Refused> {
        self.0
            .take(thumbprint)
            .map_err(|wait| limited("device", wait))
    }
}
