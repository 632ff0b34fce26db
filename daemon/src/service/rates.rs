//! Rates by address, by app and by device key, in memory that is bounded whoever asks.
//!
//! Called by `strangers`, `callers` and `door`, and its quota by `recipients`. An address or a device key is not a key of its own
//! but one of 65,536 cells, chosen by a hash that nobody outside can compute: so there is nothing
//! to shed, and no flood of addresses makes the memory grow or pushes another's count out. Who
//! shares a cell with somebody who uses theirs up is refused with them; to close all cells takes
//! that many times one address's rate, which the app's own rate refuses long before, or that many
//! devices with a session each.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use custodyd_hsm::{AccountId, AppId};
use governor::RateLimiter;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;

use super::Refused;
use crate::config::Limits;

pub(super) type Limiter<K> =
    RateLimiter<K, HashMapStateStore<K>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// So many at once, and so many a second after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    each: Duration,
    burst: NonZeroU32,
}

impl Quota {
    pub(super) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.get(),
            burst,
        }
    }

    pub(super) fn hourly(per_hour: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            each: Duration::from_secs(3600) / per_hour.get(),
            burst,
        }
    }

    /// Between two, after the burst.
    pub(super) fn each(self) -> Duration {
        self.each
    }

    pub(super) fn burst(self) -> usize {
        usize::try_from(self.burst.get()).unwrap_or(usize::MAX)
    }

    /// The same, so many times lower.
    pub(super) fn divided_by(self, factor: NonZeroU32) -> Self {
        let burst = self.burst.get() / factor.get();
        Self {
            each: self.each.saturating_mul(factor.get()),
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        }
    }

    pub(super) fn limiter<K: Hash + Eq + Clone>(self) -> Limiter<K> {
        // None for no time at all, which `new` never makes.
        let quota = governor::Quota::with_period(self.each)
            .unwrap_or(governor::Quota::per_second(NonZeroU32::MIN));
        RateLimiter::hashmap_with_clock(quota.allow_burst(self.burst), MonotonicClock)
    }
}

pub(super) fn take<K: Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K) -> Result<(), Duration> {
    limiter
        .check_key(key)
        .map_err(|until| until.wait_time_from(MonotonicClock.now()))
}

struct Cells {
    hasher: RandomState,
    limiter: Limiter<u16>,
}

impl Cells {
    fn new(quota: Quota) -> Self {
        Self {
            hasher: RandomState::new(),
            limiter: quota.limiter(),
        }
    }

    fn take(&self, of: impl Hash) -> Result<(), Duration> {
        let [.., high, low] = self.hasher.hash_one(of).to_be_bytes();
        take(&self.limiter, &u16::from_be_bytes([high, low]))
    }
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct AddressRate(Cells);

impl AddressRate {
    pub(super) fn new(quota: Quota) -> Self {
        Self(Cells::new(quota))
    }

    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        self.0.take(network(address))
    }
}

/// By the key that a device has proven to hold.
#[derive(Debug)]
pub(super) struct DeviceRate(Cells);

impl DeviceRate {
    pub(super) fn new(quota: Quota) -> Self {
        Self(Cells::new(quota))
    }

    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, thumbprint: &str) -> Result<(), Duration> {
        self.0.take(thumbprint)
    }
}

/// By the key of the device that a session token names, and by the network that it comes from.
#[derive(Debug)]
pub(super) struct BearerRate(Cells);

impl BearerRate {
    pub(super) fn new(quota: Quota) -> Self {
        Self(Cells::new(quota))
    }

    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, from: Option<IpAddr>, thumbprint: &str) -> Result<(), Duration> {
        self.0.take((from.map(network), thumbprint))
    }
}

/// By the account that somebody has proven to belong to.
#[derive(Debug)]
pub(super) struct AccountRate(Cells);

impl AccountRate {
    pub(super) fn new(quota: Quota) -> Self {
        Self(Cells::new(quota))
    }

    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, account: AccountId) -> Result<(), Duration> {
        self.0.take(account.0)
    }
}

/// One count for each app: there are as many as there are policy files. Some have a quota of their own.
pub(super) struct AppRate {
    quota: Limiter<AppId>,
    own: BTreeMap<AppId, Limiter<AppId>>,
}

impl AppRate {
    pub(super) fn new(limits: &Limits) -> Self {
        let own = limits.apps.iter().map(|(app, limit)| {
            let quota = Quota::new(limit.per_second, limit.burst);
            (app.clone(), quota.limiter())
        });
        Self {
            quota: Quota::new(limits.app_per_second, limits.app_burst).limiter(),
            own: own.collect(),
        }
    }

    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, app: &AppId) -> Result<(), Duration> {
        take(self.own.get(app).unwrap_or(&self.quota), app)
    }
}

impl std::fmt::Debug for AppRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppRate").finish_non_exhaustive()
    }
}

/// Counts and makes the refusal of who was too fast, by which rate.
pub(super) fn limited(by: &'static str, retry_after: Duration) -> Refused {
    metrics::counter!("custodyd_rate_limited_total", "by" => by).increment(1);
    Refused::RateLimited { retry_after }
}

/// What one customer of a network has: an IPv4 address, or a /64 of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_burst_is_served_and_then_there_is_a_wait() {
        let rate = AddressRate::new(Quota::new(number(1), number(3)));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..3 {
            rate.take(address).unwrap();
        }
        let wait = rate.take(address).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
    }

    #[test]
    fn a_slower_quota_is_slower_in_both() {
        let slow = Quota::new(number(20), number(200)).divided_by(number(10));
        assert_eq!(slow.each, Duration::from_millis(500));
        assert_eq!(slow.burst, number(20));
        let least = Quota::new(number(1), number(1)).divided_by(number(10));
        assert_eq!(
            (least.each, least.burst),
            (Duration::from_secs(10), number(1))
        );
    }

    #[test]
    fn a_network_of_one_customer_is_one_address() {
        let network = |text: &str| super::network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn no_number_of_addresses_needs_more_than_the_cells() {
        let rate = AddressRate::new(Quota::new(number(1), number(1)));
        for number in 0..200_000u32 {
            let _ = rate.take(IpAddr::V4(number.into()));
        }
        assert!(rate.0.limiter.len() <= 1 << 16);
        assert!(
            rate.0.limiter.len() > 1 << 15,
            "and they are spread over them"
        );
    }
}
