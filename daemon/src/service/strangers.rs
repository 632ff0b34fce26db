//! What strangers may do at once and how long they wait: rates, deadline, slow mode.
//!
//! Called by `http::strangers` for every request without a session, and by `authenticate` when a
//! caller turns out not to be bound to the account they name. The adversary controls the
//! request, as many addresses as they can pay for, and their own clock. It knows no account and
//! must never concern a bound device, except for the rates at the door: those are asked before
//! anything of a request is believed, so they can not tell who it is.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use custodyd_hsm::AppId;
use custodyd_policies::{SlowMode, Timestamp, Turn, leaves_after};

use super::rates::{AddressRate, AppRate, Quota, limited};
use super::{Refused, standing};
use crate::config::Limits;
use crate::factors::random;

/// The random part of an answer's moment, as a part of the deadline: 100 ms have one of 6 ms.
const BLUR: u32 = 16;

/// A random time below this. Without randomness none: then nothing is signed in either.
fn blur(below: Duration) -> Duration {
    let part = u32::from_be_bytes(random().unwrap_or_default());
    let nanos = (below.as_nanos() * u128::from(part)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[derive(Debug)]
pub struct Strangers {
    deadline: Duration,
    slow_factor: u32,
    slow: Mutex<SlowMode>,
    addresses: AddressRate,
    apps: AppRate,
    /// Asked in slow mode only.
    slowed: AddressRate,
}

impl Strangers {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let address = Quota::new(limits.address_per_second, limits.address_burst);
        metrics::gauge!("custodyd_slow_mode").set(0.0);
        Self {
            deadline: limits.stranger_deadline,
            slow_factor: limits.slow_factor.get(),
            slow: Mutex::new(SlowMode::new(limits.slow_failures_per_minute.get())),
            addresses: AddressRate::new(address),
            apps: AppRate::new(limits),
            slowed: AddressRate::new(address.divided_by(limits.slow_factor)),
        }
    }

    /// At the door, before a proof is verified. The address comes first: what its own flood is
    /// refused takes nothing from the app.
    ///
    /// # Errors
    /// `RateLimited`.
    pub fn admit(&self, address: Option<IpAddr>, app: Option<&AppId>) -> Result<(), Refused> {
        let admitted = address
            .map_or(Ok(()), |address| self.addresses.take(address))
            .map_err(|wait| ("address", wait))
            .and_then(|()| match app {
                Some(app) => self.apps.take(app).map_err(|wait| ("app", wait)),
                None => Ok(()),
            });
        admitted.map_err(|(by, wait)| limited(by, wait))
    }

    /// Somebody who is not bound to the account they name, whether it exists or not.
    ///
    /// # Errors
    /// `RateLimited`, in slow mode.
    pub(super) fn meet(&self) -> Result<(), Refused> {
        match standing::address() {
            Some(address) if self.is_slow() => self
                .slowed
                .take(address)
                .map_err(|wait| limited("slow-mode", wait)),
            _ => Ok(()),
        }
    }

    /// How long after its request a stranger's answer leaves that took `worked` until now: at the
    /// deadline, and a random moment later. A core that has just worked wakes up a few hundredths
    /// of a millisecond sooner or later than one that has not; that drowns in the random part.
    #[must_use]
    pub fn leaves_after(&self, worked: Duration) -> Duration {
        let factor = if self.is_slow() { self.slow_factor } else { 1 };
        let deadline = self.deadline.saturating_mul(factor);
        leaves_after(worked, deadline).saturating_add(blur(self.deadline / BLUR))
    }

    /// Until the next multiple of the deadline after the request: what was done so far then took
    /// everybody as long. Never the longer one of slow mode, because the caller may hold a place
    /// for an evaluation.
    pub(super) async fn wait(&self) {
        if let Some(arrived) = standing::arrived_at() {
            let next = leaves_after(arrived.elapsed(), self.deadline);
            tokio::time::sleep_until(arrived + next).await;
        }
    }

    /// The same without waiting here, where the request's place is held: its answer leaves as if it had waited. For what
    /// takes nothing that another could feel it take sooner.
    pub(super) fn wait_later(&self) {
        if let Some(worked) = standing::worked() {
            let next = leaves_after(worked, self.deadline);
            standing::owes(next.saturating_sub(worked));
        }
    }

    /// Counts a guess that failed, whoever made it.
    pub fn failed(&self, now: Timestamp) {
        self.turn(|slow| slow.failed(now));
    }

    /// Ends the slow mode where it is over; called every second or so.
    pub fn look(&self, now: Timestamp) {
        self.turn(|slow| slow.look(now));
    }

    pub(super) fn is_slow(&self) -> bool {
        self.locked().is_on()
    }

    fn turn(&self, change: impl FnOnce(&mut SlowMode) -> Option<Turn>) {
        let turned = change(&mut self.locked());
        match turned {
            Some(Turn::Begins) => {
                metrics::gauge!("custodyd_slow_mode").set(1.0);
                metrics::counter!("custodyd_slow_mode_begun_total").increment(1);
                tracing::warn!("too many wrong guesses within a minute: strangers are slowed down");
            }
            Some(Turn::Ends) => {
                metrics::gauge!("custodyd_slow_mode").set(0.0);
                tracing::warn!("wrong guesses have become fewer: strangers are served as usual");
            }
            None => {}
        }
    }

    /// Counts are whole at every moment, whatever panicked elsewhere.
    fn locked(&self) -> std::sync::MutexGuard<'_, SlowMode> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_part_stays_below_its_bound_and_reaches_all_of_it() {
        let bound = Duration::from_millis(6);
        let drawn: Vec<Duration> = (0..1000).map(|_| blur(bound)).collect();
        assert!(drawn.iter().all(|time| *time < bound));
        let quarters = |time: &Duration| time.as_micros() / 1500;
        for quarter in 0..4 {
            assert!(drawn.iter().any(|time| quarters(time) == quarter));
        }
        assert_eq!(blur(Duration::ZERO), Duration::ZERO);
    }
}
