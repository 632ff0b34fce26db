//! How many codes one address or number is sent that its owner may never have asked for.
//!
//! Called by the commits that issue a code, for the two kinds of it that anybody can cause: to
//! confirm an address, from any account that names it, and to sign in, for a device that is not
//! bound. The adversary has as many accounts as enrolment lets them make and one victim's
//! address, over which an account's own pacing does not count. The two kinds are counted apart,
//! so that nobody's claims keep the address's owner from signing in; what a bound device asks
//! for is not counted, because only the owner of a confirmed address has one. In memory that
//! is bounded like that of `rates`, and by cells whose hash nobody outside can compute. It must
//! never be asked before the account's own pacing: what that refuses sends nothing.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use super::rates::{self, Limiter, Quota};
use crate::config::Limits;
use crate::delivery::{Address, Purpose};

/// So many that an address shares its cell with another of the last hours only in a large
/// realm, and few enough to count all of them in some megabytes.
const CELLS: u32 = 1 << 18;

pub struct Recipients {
    quota: Quota,
    cells: RandomState,
    confirmations: Limiter<u32>,
    sign_ins: Limiter<u32>,
}

impl Recipients {
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let quota = Quota::hourly(limits.recipient_per_hour, limits.recipient_burst);
        Self::with(quota)
    }

    pub(super) fn with(quota: Quota) -> Self {
        Self {
            quota,
            cells: RandomState::new(),
            confirmations: quota.limiter(),
            sign_ins: quota.limiter(),
        }
    }

    /// How long an address may have to wait for its next code, where one account has had so many.
    pub(super) fn pause_after(&self, sent: usize) -> Duration {
        match sent < self.quota.burst() {
            true => Duration::ZERO,
            false => self.quota.each(),
        }
    }

    /// Counts one code that somebody unknown has caused.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn take(&self, to: &Address, purpose: Purpose) -> Result<(), Duration> {
        let (limiter, name) = match purpose {
            Purpose::ConfirmAddress => (&self.confirmations, "confirmation"),
            Purpose::SignIn => (&self.sign_ins, "sign-in"),
        };
        rates::take(limiter, &self.cell(to)).inspect_err(|_| {
            metrics::counter!("custodyd_recipient_limited_total", "purpose" => name).increment(1);
        })
    }

    /// Every spelling that may reach the same box is one: here a stranger's box that is taken
    /// for another's is the lesser evil, so the local part loses its case and its tag as well.
    fn cell(&self, to: &Address) -> u32 {
        let text = to.normal_form().to_ascii_lowercase();
        let box_of = match text.rsplit_once('@') {
            Some((local, domain)) => {
                let plain = local.split('+').next().unwrap_or(local);
                format!("{plain}@{domain}")
            }
            None => text,
        };
        let [.., a, b, c, d] = self.cells.hash_one(box_of).to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) % CELLS
    }
}

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipients").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn recipients(per_hour: u32, burst: u32) -> Recipients {
        let number = |number| std::num::NonZeroU32::new(number).unwrap();
        Recipients::with(Quota::hourly(number(per_hour), number(burst)))
    }

    fn mail(text: &str) -> Address {
        Address::email(text).unwrap()
    }

    #[test]
    fn a_burst_is_sent_and_then_one_in_a_while() {
        let recipients = recipients(6, 3);
        let take = |to: &str| recipients.take(&mail(to), Purpose::ConfirmAddress);
        for _ in 0..3 {
            take("ann@example.com").unwrap();
        }
        let wait = take("ann@example.com").unwrap_err();
        assert!(wait > Duration::from_secs(590) && wait <= Duration::from_secs(600));
        take("bob@example.com").unwrap();
    }

    #[test]
    fn claims_leave_the_owners_sign_in_alone() {
        let recipients = recipients(6, 1);
        let ann = mail("ann@example.com");
        recipients.take(&ann, Purpose::ConfirmAddress).unwrap();
        assert!(recipients.take(&ann, Purpose::ConfirmAddress).is_err());
        recipients.take(&ann, Purpose::SignIn).unwrap();
    }

    #[test]
    fn other_spellings_of_one_box_are_one() {
        let recipients = recipients(6, 1);
        let cell = |text: &str| recipients.cell(&mail(text));
        for same in [
            "Ann@Example.com",
            "ann+1@example.com",
            "aNN+x+y@example.com",
        ] {
            assert_eq!(cell(same), cell("ann@example.com"), "{same}");
        }
        assert_ne!(cell("anna@example.com"), cell("ann@example.com"));
        let phone = |text: &str| recipients.cell(&Address::phone(text).unwrap());
        assert_ne!(phone("+4912345678"), phone("+4912345679"));
        // Another process counts in other cells.
        let others: Vec<Recipients> = (0..4).map(|_| self::recipients(6, 1)).collect();
        let ann = mail("ann@example.com");
        assert!(
            others
                .iter()
                .any(|other| other.cell(&ann) != recipients.cell(&ann))
        );
    }

    #[test]
    fn addresses_are_spread_over_the_cells_and_there_are_no_others() {
        let recipients = recipients(6, 1);
        let cells: std::collections::BTreeSet<u32> = (0..2000_u32)
            .map(|number| Address::phone(&format!("+49{number:08}")).unwrap())
            .map(|to| recipients.cell(&to))
            .collect();
        assert!(cells.last().is_some_and(|last| *last < CELLS));
        assert!(cells.len() > 1900, "{}", cells.len());
    }
}
