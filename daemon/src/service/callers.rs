//! How often one device may call with a session, and how often the devices of one account together.
//!
//! Called by `http::request` once a proof has shown who holds the device key, before the account
//! is loaded, and by the sign-ins for a device that turns out to be bound. The adversary has an account of their own,
//! which anybody may have where enrolment
//! is open, and a session that lives for hours: without a rate each call could be a commit, and
//! an entry of a log that only grows. The first count is the device key's, so that a token without its
//! key takes nothing from it; the second is the account's, however many devices it binds. Must never count a
//! stranger: whoever knows an account's name could close it.

use custodyd_hsm::AccountId;

use super::Refused;
use super::rates::{AccountRate, DeviceRate, Quota, limited};
use crate::config::Limits;

#[derive(Debug)]
pub struct Callers {
    devices: DeviceRate,
    accounts: AccountRate,
}

impl Callers {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let device = Quota::new(limits.device_per_second, limits.device_burst);
        let account = Quota::new(limits.account_per_second, limits.account_burst);
        Self {
            devices: DeviceRate::new(device),
            accounts: AccountRate::new(account),
        }
    }

    /// A device with a session. Asked first: what it is refused takes nothing from the others of its account.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit(&self, thumbprint: &str) -> Result<(), Refused> {
        self.devices
            .take(thumbprint)
            .map_err(|wait| limited("device", wait))
    }

    /// A device that has the account's session, or is bound to it as it signs in: before anything is charged.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit_to(&self, account: AccountId) -> Result<(), Refused> {
        self.accounts
            .take(account)
            .map_err(|wait| limited("account", wait))
    }
}
