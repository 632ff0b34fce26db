//! `[limits]`: what strangers may do, how long they wait for an answer, and how often a device
//! may call with a session.
//!
//! Called by `check` only. The defaults suit a service for people: an office behind one address
//! signs in at once, and a machine that guesses is stopped. Benchmarks raise them.

use std::num::NonZeroU32;
use std::time::Duration;

use toml::de::DeValue;

use super::check::{duration, number};
use super::reader::{Document, Table};

/// What a caller gets who has no session, or is not bound to the account that they name; and the
/// rate of those who have one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Their answers leave at a multiple of this after the request; zero: at once.
    pub stranger_deadline: Duration,
    /// Requests without a session from one address.
    pub address_per_second: NonZeroU32,
    pub address_burst: NonZeroU32,
    /// Requests without a session to one app.
    pub app_per_second: NonZeroU32,
    pub app_burst: NonZeroU32,
    /// Requests with a session by one device key.
    pub device_per_second: NonZeroU32,
    pub device_burst: NonZeroU32,
    /// Codes to one address or number that anybody can cause, of each kind.
    pub recipient_per_hour: NonZeroU32,
    pub recipient_burst: NonZeroU32,
    /// Wrong guesses in the whole realm that begin the slow mode.
    pub slow_failures_per_minute: NonZeroU32,
    /// In slow mode the deadline is so many times longer and the rate so many times lower.
    pub slow_factor: NonZeroU32,
}

const MOST: usize = 10_000_000;

fn count(value: &DeValue<'_>, most: usize) -> Result<NonZeroU32, String> {
    let number = number(value, 1..=most)?;
    u32::try_from(number)
        .ok()
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "expected a whole number above zero".to_owned())
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number.saturating_sub(1))
}

pub(super) fn limits<'i>(doc: &mut Document<'i>, top: &mut Table<'i>) -> Limits {
    let mut table = doc.table(top, "limits");
    let longest = Duration::from_secs(2);
    let stranger_deadline = doc.or(
        &mut table,
        "stranger_deadline",
        Duration::from_millis(100),
        |value| duration(value, Duration::ZERO..=longest),
    );
    let mut rate = |key, default| {
        doc.or(&mut table, key, at_least_one(default), |value| {
            count(value, MOST)
        })
    };
    let address_per_second = rate("address_per_second", 20);
    let address_burst = rate("address_burst", 200);
    let app_per_second = rate("app_per_second", 1000);
    let app_burst = rate("app_burst", 5000);
    let device_per_second = rate("device_per_second", 10);
    let device_burst = rate("device_burst", 100);
    let recipient_per_hour = rate("recipient_per_hour", 6);
    let recipient_burst = rate("recipient_burst", 10);
    let slow_failures_per_minute = rate("slow_failures_per_minute", 600);
    // Ten times the longest deadline is still well within a request's time.
    let slow_factor = doc.or(&mut table, "slow_factor", at_least_one(10), |value| {
        count(value, 10)
    });
    doc.finish(table);
    Limits {
        stranger_deadline,
        address_per_second,
        address_burst,
        app_per_second,
        app_burst,
        device_per_second,
        device_burst,
        recipient_per_hour,
        recipient_burst,
        slow_failures_per_minute,
        slow_factor,
    }
}
