//! How often one device may call with a session, and how often the devices of one account together.
//!
//! Called by `http::request` once the session was found to stand and a proof has shown who holds the device key, and by the
//! sign-ins for a device that turns out to be bound. The adversary has an account of their own,
//! which anybody may have where enrolment
//! is open, and a session that lives for hours: without a rate each call could be a commit, and
//! an entry of a log that only grows. The first count is the device key's, so that a token without its
//! key takes nothing from it; the second is the account's, however many devices it binds. Must never count a
//! stranger: whoever knows an account's name could close it.

use std::net::IpAddr;
use std::num::NonZeroU32;

use custodyd_hsm::AccountId;

use super::Refused;
use super::rates::{AccountRate, BearerRate, DeviceRate, Quota, limited};
use crate::config::Limits;

/// So many times the rate of a device may come from one network with its session tokens, whoever sends them: more than a
/// device that is refused comes with, and no more than costs little.
const BEARERS_TIMES: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);

#[derive(Debug)]
pub struct Callers {
    bearers: BearerRate,
    devices: DeviceRate,
    accounts: AccountRate,
}

impl Callers {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let device = Quota::new(limits.device_per_second, limits.device_burst);
        let account = Quota::new(limits.account_per_second, limits.account_burst);
        let bearer = Quota::new(
            limits.device_per_second.saturating_mul(BEARERS_TIMES),
            limits.device_burst.saturating_mul(BEARERS_TIMES),
        );
        Self::with(bearer, device, account)
    }

    fn with(bearer: Quota, device: Quota, account: Quota) -> Self {
        Self {
            bearers: BearerRate::new(bearer),
            devices: DeviceRate::new(device),
            accounts: AccountRate::new(account),
        }
    }

    /// Whoever has a session token of this device and may not have its key: before there is room for a body, and before a
    /// signature is looked at. From elsewhere it takes nothing from the device.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit_bearer(&self, from: Option<IpAddr>, thumbprint: &str) -> Result<(), Refused> {
        self.bearers
            .take(from, thumbprint)
            .map_err(|wait| limited("bearer", wait))
    }

    /// A device with a session, or that is bound as it signs in. Asked first: what it is refused takes nothing from the others of its account.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A token that somebody has without its key costs whoever sends it, from where they send it.
    #[test]
    fn a_token_alone_takes_nothing_from_its_device_elsewhere() {
        let once = Quota::new(NonZeroU32::MIN, NonZeroU32::MIN);
        let often = Quota::new(NonZeroU32::MIN, BEARERS_TIMES);
        let callers = Callers::with(often, once, once);
        let [thief, home] = ["192.0.2.1", "198.51.100.1"].map(|text| text.parse().ok());
        for _ in 0..4 {
            callers.admit_bearer(thief, "device").unwrap();
        }
        assert!(callers.admit_bearer(thief, "device").is_err());
        callers.admit_bearer(home, "device").unwrap();
        callers.admit("device").unwrap();
        assert!(callers.admit("device").is_err(), "the control");
    }
}
