//! Tests of the exception to step-up, and its properties beside those of step-up itself.
//! Called by the test harness only; must never be compiled into a build.

use proptest::prelude::*;

use super::*;
use crate::properties::minimal_policy;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn policy(by: &[Factor]) -> AppPolicy {
    let mut policy = minimal_policy();
    policy.recover.by = by.to_vec();
    policy.recover.delay = WEEK;
    policy
}

const AT_ONCE: Result<RecoverGrant, StepUp> = Ok(RecoverGrant {
    delay: Duration::ZERO,
    by_exception: false,
});
const DELAYED: Result<RecoverGrant, StepUp> = Ok(RecoverGrant {
    delay: WEEK,
    by_exception: true,
});

fn lacks(need_at_least: Factor, need_fresh: bool) -> Result<RecoverGrant, StepUp> {
    Err(StepUp {
        need_at_least,
        need_fresh,
    })
}

#[test]
fn a_weak_factor_on_the_list_waits_and_a_strong_one_does_not() {
    let policy = policy(&Factor::LOGINS);
    let held = [Factor::Passkey, Factor::Pin, Factor::Totp];
    for change in [Recovery::ReplacePin, Recovery::BindDevice] {
        let ask = |by| may_recover(&policy, change, &held, by, true);
        assert_eq!(ask(Factor::Totp), DELAYED);
        assert_eq!(ask(Factor::Pin), AT_ONCE);
        assert_eq!(ask(Factor::Passkey), AT_ONCE);
        assert_eq!(ask(Factor::Creation), AT_ONCE);
    }
}

#[test]
fn the_strongest_factor_of_an_account_does_not_wait_however_weak() {
    let held = [Factor::DeliveredCode];
    let ask = |by| may_recover(&policy(&[]), Recovery::BindDevice, &held, by, true);
    assert_eq!(ask(Factor::DeliveredCode), AT_ONCE);
    assert_eq!(ask(Factor::Device), lacks(Factor::DeliveredCode, false));
}

#[test]
fn what_is_not_on_the_list_is_refused_with_what_would_do() {
    let held = [Factor::Passkey, Factor::Pin, Factor::DeliveredCode];
    let ask = |by: &[Factor]| {
        let weak = Factor::DeliveredCode;
        may_recover(&policy(by), Recovery::ReplacePin, &held, weak, true)
    };
    assert_eq!(ask(&[Factor::Totp]), lacks(Factor::Pin, false));
    assert_eq!(ask(&[Factor::DeliveredCode]), DELAYED);
}

#[test]
fn what_would_do_never_names_a_factor_with_a_gap_above_it() {
    let held = [Factor::Pin, Factor::Totp, Factor::DeliveredCode];
    let ask = |by: &[Factor]| {
        may_recover(
            &policy(by),
            Recovery::BindDevice,
            &held,
            Factor::Device,
            true,
        )
    };
    // "delivered-code or something stronger" would send people to their TOTP, in vain.
    assert_eq!(ask(&[Factor::DeliveredCode]), lacks(Factor::Pin, false));
    assert_eq!(ask(&[Factor::Totp]), lacks(Factor::Totp, false));
    let both = [Factor::DeliveredCode, Factor::Totp];
    assert_eq!(ask(&both), lacks(Factor::DeliveredCode, false));
}

#[test]
fn a_pin_that_is_not_there_cannot_be_replaced() {
    let policy = policy(&Factor::LOGINS);
    let held = [Factor::Passkey, Factor::Totp];
    let ask = |change| may_recover(&policy, change, &held, Factor::Totp, true);
    assert_eq!(ask(Recovery::ReplacePin), lacks(Factor::Passkey, false));
    assert_eq!(ask(Recovery::BindDevice), DELAYED);
}

#[test]
fn the_exception_needs_a_recent_login() {
    let held = [Factor::Pin, Factor::Totp];
    let change = Recovery::ReplacePin;
    let stale = may_recover(&policy(&Factor::LOGINS), change, &held, Factor::Totp, false);
    assert_eq!(stale, lacks(Factor::Totp, true));
}

#[test]
fn a_contact_that_was_removed_recovers_nothing() {
    let policy = policy(&Factor::LOGINS);
    let change = Recovery::ReplacePin;
    let gone = may_recover(&policy, change, &[Factor::Pin], Factor::DeliveredCode, true);
    assert_eq!(gone, lacks(Factor::Pin, false));
}

#[test]
fn the_device_key_recovers_nothing_even_where_a_policy_lists_it() {
    let policy = policy(&[Factor::Device]);
    let held = [Factor::Device, Factor::Pin];
    for change in [Recovery::ReplacePin, Recovery::BindDevice] {
        let given = may_recover(&policy, change, &held, Factor::Device, true);
        assert_eq!(given, lacks(Factor::Pin, false));
    }
}

#[test]
fn a_pending_change_is_due_at_the_end_of_its_delay() {
    let at = |now| due(Timestamp(now), Timestamp(100), Duration::from_secs(50));
    assert!(!at(0) && !at(149));
    assert!(at(150));
    assert!(due(Timestamp(100), Timestamp(100), Duration::ZERO));
}

fn any_factor() -> impl Strategy<Value = Factor> {
    prop::sample::select([&Factor::LOGINS[..], &[Factor::Creation, Factor::Device]].concat())
}

/// A session and an account in any state: `held`, `by`, `fresh`.
fn any_session() -> impl Strategy<Value = (Vec<Factor>, Factor, bool)> {
    let held = prop::collection::vec(any_factor(), 0..6);
    (held, any_factor(), any::<bool>())
}

proptest! {
    #[test]
    fn who_may_change_something_may_still_with_a_stronger_factor(
        wanted in any_factor(),
        (held, by, fresh) in any_session(),
    ) {
        if step_up(wanted, &held, by, fresh).is_ok() {
            for stronger in held.iter().filter(|f| f.strength() >= by.effective(fresh)) {
                prop_assert!(step_up(wanted, &held, *stronger, fresh).is_ok());
            }
        }
    }

    #[test]
    fn who_may_change_something_may_change_all_that_is_weaker(
        wanted in any_factor(),
        (held, by, fresh) in any_session(),
    ) {
        let weaker = |factor: &Factor| factor.effective(true) <= wanted.effective(true);
        if step_up(wanted, &held, by, fresh).is_ok() {
            for weaker in Factor::LOGINS.into_iter().filter(weaker) {
                prop_assert!(step_up(weaker, &held, by, fresh).is_ok());
            }
        }
    }

    /// No list of the exception can change it: `step_up` does not even see the policy.
    #[test]
    fn whoever_passes_step_up_is_recent_strong_and_held(
        wanted in any_factor(),
        (held, by, fresh) in any_session(),
    ) {
        let strongest = held.iter().map(|factor| factor.strength()).max();
        if step_up(wanted, &held, by, fresh).is_ok() {
            prop_assert!(fresh);
            prop_assert!(by == Factor::Creation || held.contains(&by));
            prop_assert!(by.effective(fresh) > Strength::DeviceKey);
            let as_strong = by.effective(fresh) >= wanted.effective(true);
            prop_assert!(as_strong || Some(by.strength()) == strongest);
        }
    }

    #[test]
    fn what_a_refusal_names_would_have_done(
        wanted in any_factor(),
        (held, by, fresh) in any_session(),
    ) {
        if let Err(lack) = step_up(wanted, &held, by, fresh) {
            let usable = held.iter().any(|factor| factor.strength() > Strength::DeviceKey);
            let named = step_up(wanted, &held, lack.need_at_least, true).is_ok();
            prop_assert!(named || !usable);
            prop_assert_eq!(lack.need_fresh, !fresh);
        }
    }

    #[test]
    fn a_grant_is_step_up_at_once_or_the_list_after_the_delay(
        by_list in prop::collection::vec(any_factor(), 0..6),
        bind in any::<bool>(),
        (held, by, fresh) in any_session(),
    ) {
        let policy = policy(&by_list);
        let change = if bind { Recovery::BindDevice } else { Recovery::ReplacePin };
        let strong = step_up(Factor::Pin, &held, by, fresh).is_ok();
        match may_recover(&policy, change, &held, by, fresh) {
            Ok(grant) if strong => prop_assert_eq!(Ok(grant), AT_ONCE),
            Ok(grant) => {
                prop_assert_eq!(Ok(grant), DELAYED);
                prop_assert!(fresh && by_list.contains(&by) && held.contains(&by));
                prop_assert!(by.strength() > Strength::DeviceKey);
                prop_assert!(bind || held.contains(&Factor::Pin));
            }
            Err(lack) => {
                prop_assert!(!strong);
                prop_assert_eq!(lack.need_fresh, !fresh);
            }
        }
    }
}
