//! `[limits]`: how much is done at once, what strangers may do and how long they wait for an answer, and how
//! often a device or an account may call.
//!
//! Called by `check` only. The defaults suit a service for people: an office behind one address
//! signs in at once, and a machine that guesses is stopped. Benchmarks raise them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use custodyd_hsm::AppId;
use serde::{Serialize, Serializer};
use serde_json::Value;
use toml::de::DeValue;

use super::check::{duration, number};
use super::reader::{Document, Table};
use crate::ledger::QUEUE;

/// What a caller gets who has no session, or is not bound to the account that they name; and the
/// rate of those who have one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Limits {
    /// Requests under way at once, of everybody.
    pub requests_at_once: usize,
    /// Their answers leave at a multiple of this after the request; zero: at once.
    #[serde(serialize_with = "as_in_the_file")]
    pub stranger_deadline: Duration,
    /// Requests without a session from one address.
    pub address_per_second: NonZeroU32,
    pub address_burst: NonZeroU32,
    /// Requests without a session to one app.
    pub app_per_second: NonZeroU32,
    pub app_burst: NonZeroU32,
    /// The same of apps that have their own.
    pub apps: BTreeMap<AppId, AppLimit>,
    /// Requests with a session by one device key.
    pub device_per_second: NonZeroU32,
    pub device_burst: NonZeroU32,
    /// The same, and sign-ins of bound devices, by all devices of one account.
    pub account_per_second: NonZeroU32,
    pub account_burst: NonZeroU32,
    /// Codes to one address or number that anybody can cause, of each kind.
    pub recipient_per_hour: NonZeroU32,
    pub recipient_burst: NonZeroU32,
    /// Wrong guesses in the whole realm that begin the slow mode.
    pub slow_failures_per_minute: NonZeroU32,
    /// In slow mode the deadline is so many times longer and the rate so many times lower.
    pub slow_factor: NonZeroU32,
}

/// `[limits.apps.NAME]`: what strangers may ask of this app.
///
/// In the order of the alphabet: nodes compare the text (`Limits::set`), and whether JSON keeps the order of fields or
/// sorts them is decided by which crates a build holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct AppLimit {
    pub burst: NonZeroU32,
    pub per_second: NonZeroU32,
}

const MOST: usize = 10_000_000;
/// Requests that may be under way at once. Each has one change on its way to the committer at the most, so that its
/// queue holds all of them, and as many again for what is done beside requests.
pub const MOST_REQUESTS: usize = QUEUE / 2;

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

impl Limits {
    /// As the file has those that are not as by default. So two versions compare, of which one knows more of them.
    #[must_use]
    pub fn set(&self) -> String {
        let defaults = of_nothing().map(|limits| limits.each()).unwrap_or_default();
        let mut set = self.each();
        set.retain(|key, value| defaults.get(key) != Some(value));
        let set = set.iter().map(|(key, value)| format!("{key} = {value}"));
        set.collect::<Vec<_>>().join(", ")
    }

    fn each(&self) -> BTreeMap<String, Value> {
        let each = serde_json::to_value(self).and_then(serde_json::from_value);
        each.unwrap_or_default()
    }
}

fn as_in_the_file<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*span))
}

/// Those of a file that says nothing of them.
fn of_nothing() -> Option<Limits> {
    let mut doc = Document::new("", "");
    let mut top = doc.top()?;
    Some(limits(&mut doc, &mut top))
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
    let requests_at_once = doc.or(&mut table, "requests_at_once", 256, |value| {
        number(value, 1..=MOST_REQUESTS)
    });
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
    let account_per_second = rate("account_per_second", 20);
    let account_burst = rate("account_burst", 200);
    let recipient_per_hour = rate("recipient_per_hour", 6);
    let recipient_burst = rate("recipient_burst", 10);
    let slow_failures_per_minute = rate("slow_failures_per_minute", 600);
    // Ten times the longest deadline is still well within a request's time.
    let slow_factor = doc.or(&mut table, "slow_factor", at_least_one(10), |value| {
        count(value, 10)
    });
    let apps = apps(doc, &mut table, (app_per_second, app_burst));
    doc.finish(table);
    Limits {
        requests_at_once,
        stranger_deadline,
        address_per_second,
        address_burst,
        app_per_second,
        app_burst,
        apps,
        device_per_second,
        device_burst,
        account_per_second,
        account_burst,
        recipient_per_hour,
        recipient_burst,
        slow_failures_per_minute,
        slow_factor,
    }
}

/// Apps that may be asked more or less than the others, by their names: those of policy files, which may come later.
fn apps<'i>(
    doc: &mut Document<'i>,
    limits: &mut Table<'i>,
    (per_second, burst): (NonZeroU32, NonZeroU32),
) -> BTreeMap<AppId, AppLimit> {
    let mut table = doc.table(limits, "apps");
    let mut found = BTreeMap::new();
    for (name, mut inner) in doc.every_table(&mut table) {
        let at = inner.at();
        let limit = AppLimit {
            per_second: doc.or(&mut inner, "per_second", per_second, |value| {
                count(value, MOST)
            }),
            burst: doc.or(&mut inner, "burst", burst, |value| count(value, MOST)),
        };
        doc.finish(inner);
        match AppId::parse(&name) {
            Ok(app) => drop(found.insert(app, limit)),
            Err(error) => doc.error(
                at,
                format!("limits.apps: {name:?} is no app's name: {error}"),
            ),
        }
    }
    doc.finish(table);
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_where_somebody_has_set_it() {
        let mut limits = of_nothing().unwrap();
        assert_eq!(limits.set(), "");
        limits.account_burst = at_least_one(7);
        limits.stranger_deadline = Duration::from_millis(20);
        let app = AppLimit {
            per_second: limits.app_per_second,
            burst: limits.app_burst,
        };
        limits.apps.insert(AppId::parse("notes").unwrap(), app);
        assert_eq!(
            limits.set(),
            "account_burst = 7, apps = {\"notes\":{\"burst\":5000,\"per_second\":1000}}, stranger_deadline = \"20ms\""
        );
    }
}
