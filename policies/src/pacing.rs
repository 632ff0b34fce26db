//! When the next code may be delivered.
//!
//! Called by the daemon's delivery worker; the times come from the sealed envelope. Anybody may ask for a code to be
//! sent to somebody else, so the adversary here either floods a mailbox or wants its owner to get no code. Must
//! never refuse for good: there is always a time, and not a far one, at which the next delivery is due.

use std::time::Duration;

use crate::app::DeliveredCodes;
use crate::time::Timestamp;

const DAY: u64 = 24 * 60 * 60;

/// A delivery has to wait. A request that waits is served by the next code; it is not refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next code can be delivered at {} seconds after the Unix epoch", until.0)]
pub struct Paced {
    /// The first second in which a delivery is due.
    pub until: Timestamp,
}

/// Whether a code may be delivered at `now`.
///
/// `to_contact` is the last delivery to the contact in question, `to_account` are all deliveries to the account that
/// are [`kept`], in any order. The first half of a day's deliveries keeps the interval alone; the second half is
/// spread over a day. So within any 24 hours there are at most `per_day`. Whoever burns them has each gap for
/// themselves, if they come first each time: so what is delivered then is [`good_for`] the gap.
///
/// # Errors
/// [`Paced`] says until when to wait.
pub fn may_deliver(
    policy: &DeliveredCodes,
    to_contact: Option<Timestamp>,
    to_account: &[Timestamp],
    now: Timestamp,
) -> Result<(), Paced> {
    let mut recent: Vec<Timestamp> = to_account
        .iter()
        .copied()
        .filter(|sent| kept(*sent, now))
        .collect();
    recent.sort_unstable();
    let until = [
        to_contact.map(|sent| sent.plus(policy.interval)),
        spread(policy.per_day, &recent),
        full(policy.per_day, &recent),
    ];
    match until.into_iter().flatten().max() {
        Some(until) if now < until => Err(Paced { until }),
        _ => Ok(()),
    }
}

/// For how long a code of the long form has to be good that is delivered at `now`: until the next delivery is due,
/// where that is longer than its policy says. Whoever asks meanwhile gets none of their own and is let in on this one,
/// which lies in the owner's mailbox, whoever has had it sent there.
#[must_use]
pub fn good_for(policy: &DeliveredCodes, to_account: &[Timestamp], now: Timestamp) -> Duration {
    let sent = [to_account, &[now]].concat();
    let wait = match may_deliver(policy, Some(now), &sent, now) {
        Err(Paced { until }) => until.0.saturating_sub(now.0),
        Ok(()) => 0,
    };
    policy.expiry.max(Duration::from_secs(wait))
}

/// Whether a delivery at `sent` still counts at `now`. One that does not may be forgotten.
#[must_use]
pub fn kept(sent: Timestamp, now: Timestamp) -> bool {
    now < sent.plus(Duration::from_secs(DAY))
}

/// Once the first half is spent: a gap after the last delivery, such that the second half fills a day.
fn spread(per_day: u32, recent: &[Timestamp]) -> Option<Timestamp> {
    let first_half = usize::try_from(per_day / 2).unwrap_or(usize::MAX);
    let second_half = u64::from(per_day.div_ceil(2).max(1));
    let last = recent.last().filter(|_| recent.len() >= first_half)?;
    Some(last.plus(Duration::from_secs(DAY.div_ceil(second_half))))
}

/// The limit itself, which the gaps keep by themselves unless the policy was changed in between.
fn full(per_day: u32, recent: &[Timestamp]) -> Option<Timestamp> {
    let most = usize::try_from(per_day.max(1)).unwrap_or(usize::MAX);
    let ages_out = recent.len().checked_sub(most)?;
    let sent = recent.get(ages_out)?;
    Some(sent.plus(Duration::from_secs(DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds;
    use proptest::prelude::*;

    fn policy(interval: u64, per_day: u32) -> DeliveredCodes {
        DeliveredCodes {
            interval: Duration::from_secs(interval),
            per_day,
            ..DeliveredCodes::default()
        }
    }

    fn wait(until: u64) -> Result<(), Paced> {
        let until = Timestamp(until);
        Err(Paced { until })
    }

    #[test]
    fn the_interval_is_kept_for_each_contact() {
        let (policy, sent) = (policy(60, 20), Timestamp(1000));
        let ask = |contact, now| may_deliver(&policy, contact, &[sent], Timestamp(now));
        assert_eq!(ask(Some(sent), 1059), wait(1060));
        assert_eq!(ask(Some(sent), 1060), Ok(()));
        assert_eq!(ask(None, 1000), Ok(()));
    }

    #[test]
    fn the_second_half_of_a_day_is_spread() {
        let sent: Vec<_> = [10, 40, 20, 30].map(Timestamp).into();
        let ask = |per_day, now| may_deliver(&policy(10, per_day), None, &sent, Timestamp(now));
        assert_eq!(ask(10, 50), Ok(()));
        assert_eq!(ask(8, 50), wait(40 + DAY / 4));
        assert_eq!(ask(8, 40 + DAY / 4), Ok(()));
    }

    #[test]
    fn a_shrunk_limit_waits_for_the_oldest_that_is_too_many() {
        let sent: Vec<_> = (1..=40).map(|n| Timestamp(n * 1000)).collect();
        let ask = |now| may_deliver(&policy(10, 20), None, &sent, Timestamp(now));
        assert_eq!(ask(50_000), wait(DAY + 21_000));
        assert_eq!(ask(DAY + 21_000), Ok(()));
        assert_eq!(may_deliver(&policy(10, 0), None, &[], Timestamp(5)), Ok(()));
    }

    #[test]
    fn a_code_is_good_until_the_next_one_is_due() {
        let policy = policy(60, 4);
        let good_for = |sent: &[Timestamp], now| good_for(&policy, sent, Timestamp(now)).as_secs();
        assert_eq!(good_for(&[], 1000), policy.expiry.as_secs());
        assert_eq!(good_for(&[Timestamp(1000)], 1060), DAY / 2);
        let slow = super::tests::policy(3600, 20);
        assert_eq!(super::good_for(&slow, &[], Timestamp(0)).as_secs(), 3600);
    }

    proptest! {
        /// Whoever asks, and whenever: there is a code that is under way, or one is delivered.
        #[test]
        fn nobody_bars_the_owner_by_asking_first(
            per_day in prop_oneof![1_u32..=8, bounds::CODES_PER_DAY],
            interval in 10_u64..=3600,
            pauses in prop::collection::vec(0_u64..20_000, 1..100),
        ) {
            let policy = policy(interval, per_day);
            let mut sent: Vec<Timestamp> = Vec::new();
            let (mut now, mut until) = (Timestamp(1_000_000), Timestamp(0));
            for pause in pauses {
                now = Timestamp(now.0 + pause);
                sent.retain(|sent| kept(*sent, now));
                if may_deliver(&policy, sent.last().copied(), &sent, now).is_ok() {
                    until = now.plus(good_for(&policy, &sent, now));
                    sent.push(now);
                }
                prop_assert!(now < until);
            }
        }

        #[test]
        fn at_most_per_day_in_any_day_and_never_a_far_wait(
            per_day in prop_oneof![1_u32..=8, bounds::CODES_PER_DAY],
            interval in 10_u64..=3600,
            pauses in prop::collection::vec(0_u64..20_000, 1..100),
        ) {
            let policy = policy(interval, per_day);
            let gap = DAY.div_ceil(u64::from(per_day.div_ceil(2))).max(interval);
            let mut sent: Vec<Timestamp> = Vec::new();
            let mut now = Timestamp(1_000_000);
            for pause in pauses {
                now = Timestamp(now.0 + pause);
                if let Err(Paced { until }) = may_deliver(&policy, sent.last().copied(), &sent, now) {
                    prop_assert!(now < until && until.0 <= now.0 + gap);
                    now = until;
                    prop_assert_eq!(may_deliver(&policy, sent.last().copied(), &sent, now), Ok(()));
                }
                sent.push(now);
                sent.retain(|sent| kept(*sent, now));
                prop_assert!(sent.len() <= usize::try_from(per_day).unwrap_or(0));
            }
        }

        #[test]
        fn any_list_is_judged_without_a_panic(
            per_day in any::<u32>(),
            sent in prop::collection::vec(any::<u64>().prop_map(Timestamp), 0..8),
            now in any::<u64>(),
        ) {
            let last = sent.first().copied();
            let _ = may_deliver(&policy(60, per_day), last, &sent, Timestamp(now));
        }
    }
}
