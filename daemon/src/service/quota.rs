//! How many accounts this node makes in an hour for people without a ticket.
//!
//! Called by account creation just before it writes. In memory and for this node alone: it bounds
//! what a flood of strangers may write, and is no promise to the app. What must be exact is a
//! ticket. An hour begins with the first account after the one before has ended.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use custodyd_hsm::AppId;
use custodyd_policies::Timestamp;

const HOUR: u64 = 3600;

/// One count for each app; apps come from policy files, so there are few.
#[derive(Debug, Default)]
pub struct EnrolmentQuota(Mutex<HashMap<AppId, Hour>>);

#[derive(Debug, Clone, Copy)]
struct Hour {
    began: u64,
    made: u32,
}

impl EnrolmentQuota {
    /// Counts one more account of this app.
    ///
    /// # Errors
    /// When the hour's quota is used up: how long to wait.
    pub(super) fn take(&self, app: &AppId, quota: u32, now: Timestamp) -> Result<(), Duration> {
        // A panic elsewhere can not leave a count half changed.
        let mut hours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Hour {
            began: now.0,
            made: 0,
        };
        let hour = hours.entry(app.clone()).or_insert(fresh);
        if now.0.saturating_sub(hour.began) >= HOUR {
            *hour = fresh;
        }
        if hour.made >= quota {
            let end = hour.began.saturating_add(HOUR);
            return Err(Duration::from_secs(end.saturating_sub(now.0).max(1)));
        }
        hour.made = hour.made.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn app(name: &str) -> AppId {
        AppId::parse(name).unwrap()
    }

    #[test]
    fn an_hour_has_its_quota_and_the_next_one_another() {
        let quota = EnrolmentQuota::default();
        let notes = app("notes");
        assert_eq!(quota.take(&notes, 2, Timestamp(1000)), Ok(()));
        assert_eq!(quota.take(&notes, 2, Timestamp(1900)), Ok(()));
        let wait = Duration::from_secs(2700);
        assert_eq!(quota.take(&notes, 2, Timestamp(1900)), Err(wait));
        assert_eq!(quota.take(&app("wallet"), 2, Timestamp(1900)), Ok(()));
        let wait = Duration::from_secs(1);
        assert_eq!(quota.take(&notes, 2, Timestamp(4599)), Err(wait));
        assert_eq!(quota.take(&notes, 2, Timestamp(4600)), Ok(()));
        // A reload may lower it; the clock of a test may stand still or go back.
        assert!(quota.take(&notes, 1, Timestamp(0)).is_err());
    }

    proptest! {
        #[test]
        fn any_hour_has_twice_its_quota_at_most(
            quota in 1u32..5, steps in proptest::collection::vec(0u64..900, 0..100)
        ) {
            let counter = EnrolmentQuota::default();
            let (mut now, mut made) = (0, Vec::new());
            for step in steps {
                now += step;
                if counter.take(&app("notes"), quota, Timestamp(now)).is_ok() {
                    made.push(now);
                }
            }
            for from in &made {
                let within = made.iter().filter(|at| (*from..from + HOUR).contains(*at));
                prop_assert!(within.count() <= 2 * quota as usize);
            }
        }
    }
}
