//! Tests of the release and step-up rules. Called by the test harness only; must never be compiled into a build.

use super::*;
use crate::app::Release;
use crate::properties::minimal_policy;

const ALL: [Factor; 7] = [
    Factor::Creation,
    Factor::Device,
    Factor::Pin,
    Factor::Passkey,
    Factor::Totp,
    Factor::DeliveredCode,
    Factor::RecoveryCode,
];

fn policy(rules: &[(&str, &[Factor])]) -> AppPolicy {
    let rules = rules
        .iter()
        .map(|(name, factors)| ((*name).to_owned(), factors.to_vec()))
        .collect();
    AppPolicy {
        release: Release(rules),
        ..minimal_policy()
    }
}

fn lacks(need_at_least: Factor, need_fresh: bool) -> Result<(), StepUp> {
    Err(StepUp {
        need_at_least,
        need_fresh,
    })
}

#[test]
fn the_rule_of_the_name_comes_before_the_general_one() {
    let policy = policy(&[("app-key", &[Factor::Passkey]), ("*", &[Factor::Pin])]);
    assert!(may_release(&policy, "app-key", Factor::Passkey, true));
    assert!(!may_release(&policy, "app-key", Factor::Pin, true));
    assert!(may_release(&policy, "notes", Factor::Pin, false));
    assert!(!may_release(&policy, "notes", Factor::Passkey, false));
}

#[test]
fn an_empty_rule_releases_to_nobody_although_the_general_one_would() {
    let policy = policy(&[("app-key", &[]), ("*", &[Factor::Pin, Factor::Passkey])]);
    for factor in ALL {
        assert!(!may_release(&policy, "app-key", factor, true));
    }
}

#[test]
fn without_any_rule_nothing_is_released() {
    for factor in ALL {
        assert!(!may_release(&policy(&[]), "app-key", factor, true));
    }
}

#[test]
fn a_fresh_creation_counts_as_a_passkey_and_a_stale_one_as_the_device_key() {
    let policy = policy(&[
        ("both", &[Factor::Pin, Factor::Passkey]),
        ("pin", &[Factor::Pin]),
        ("device", &[Factor::Device]),
    ]);
    assert!(may_release(&policy, "both", Factor::Creation, true));
    assert!(!may_release(&policy, "both", Factor::Creation, false));
    assert!(!may_release(&policy, "pin", Factor::Creation, true));
    assert!(may_release(&policy, "device", Factor::Creation, true));
    assert!(may_release(&policy, "device", Factor::Creation, false));
}

#[test]
fn the_device_key_releases_only_where_it_is_written() {
    let policy = policy(&[("cache", &[Factor::Device]), ("*", &[Factor::Pin])]);
    assert!(may_release(&policy, "cache", Factor::Device, false));
    assert!(!may_release(&policy, "other", Factor::Device, true));
}

fn not_its_reader(
    need_at_least: Factor,
    need_fresh: bool,
    one_of: &[Factor],
) -> Result<(), NotItsReader> {
    Err(NotItsReader {
        step_up: StepUp {
            need_at_least,
            need_fresh,
        },
        one_of: one_of.to_vec(),
    })
}

#[test]
fn who_may_not_read_a_secret_may_not_replace_it() {
    use Factor::{Creation, DeliveredCode, Device, Passkey, Pin, RecoveryCode, Totp};
    let policy = policy(&[
        ("app-key", &[Passkey, RecoveryCode]),
        ("notes", &[Pin, Passkey, Device]),
        ("pins", &[Pin]),
        ("nobody", &[]),
        ("*", &[Pin, Passkey]),
    ]);
    let all = [Pin, Passkey, Totp, DeliveredCode];
    let asked = |name: &str, by: Factor, fresh: bool| may_replace(&policy, name, &all, by, fresh);
    // A reader may, however long the login is ago: notes are saved all day.
    for (name, by) in [
        ("notes", Pin),
        ("app-key", Passkey),
        ("other", Pin),
        ("pins", Pin),
    ] {
        assert_eq!(asked(name, by, false), Ok(()), "{name}");
    }
    for by in [Totp, DeliveredCode] {
        assert_eq!(
            asked("notes", by, true),
            not_its_reader(Pin, false, &[Pin, Passkey])
        );
    }
    assert_eq!(
        asked("app-key", Pin, true),
        not_its_reader(Passkey, false, &[Passkey])
    );
    // A list is no threshold: what is stronger and kept out does not count as at least that.
    assert_eq!(
        asked("pins", Passkey, true),
        not_its_reader(Pin, false, &[Pin])
    );
    // What nobody reads is the strongest login's.
    assert_eq!(asked("nobody", Passkey, true), Ok(()));
    assert_eq!(
        asked("nobody", Passkey, false),
        not_its_reader(Passkey, true, &[Passkey])
    );
    assert_eq!(
        asked("nobody", Pin, true),
        not_its_reader(Passkey, false, &[Passkey])
    );
    // The account's creation has made what is there; later it is worth its device key.
    assert_eq!(asked("pins", Creation, true), Ok(()));
    assert_eq!(asked("notes", Creation, false), Ok(()));
    assert_eq!(
        asked("pins", Creation, false),
        not_its_reader(Pin, false, &[Pin])
    );
}

#[test]
fn a_secret_that_no_factor_of_the_account_reads_is_its_strongest_factors() {
    use Factor::{Creation, Device, Passkey, Pin, RecoveryCode, Totp};
    let policy = policy(&[("app-key", &[Passkey])]);
    let asked =
        |held: &[Factor], by: Factor, fresh: bool| may_replace(&policy, "app-key", held, by, fresh);
    // Such a session could add the passkey that reads.
    assert_eq!(asked(&[Pin, Totp], Pin, true), Ok(()));
    assert_eq!(
        asked(&[Pin, Totp], Pin, false),
        not_its_reader(Pin, true, &[Pin])
    );
    assert_eq!(
        asked(&[Pin, Totp], Totp, true),
        not_its_reader(Pin, false, &[Pin])
    );
    assert_eq!(asked(&[RecoveryCode], RecoveryCode, true), Ok(()));
    // Without a factor nobody comes back who could be wronged.
    assert_eq!(asked(&[], Creation, false), Ok(()));
    assert_eq!(asked(&[Device], Creation, false), Ok(()));
}

#[test]
fn names_of_secrets() {
    let longest = "a".repeat(64);
    for good in ["a", "0", "device-secret", "app-key", longest.as_str()] {
        assert!(is_secret_name(good), "{good}");
    }
    let long = "a".repeat(65);
    for bad in [
        "",
        "*",
        "-a",
        "A",
        "a_b",
        "a/b",
        "ä",
        "recover",
        long.as_str(),
    ] {
        assert!(!is_secret_name(bad), "{bad}");
    }
}

#[test]
fn as_strong_as_the_one_concerned() {
    let both = [Factor::Pin, Factor::Passkey];
    assert_eq!(
        step_up(Factor::Passkey, &both, Factor::Passkey, true),
        Ok(())
    );
    assert_eq!(step_up(Factor::Pin, &both, Factor::Pin, true), Ok(()));
    assert_eq!(step_up(Factor::Pin, &both, Factor::Passkey, true), Ok(()));
    assert_eq!(step_up(Factor::Device, &both, Factor::Pin, true), Ok(()));
    assert_eq!(
        step_up(Factor::Passkey, &both, Factor::Pin, true),
        lacks(Factor::Passkey, false)
    );
}

#[test]
fn where_none_is_that_strong_the_strongest_suffices() {
    assert_eq!(
        step_up(Factor::Passkey, &[Factor::Pin], Factor::Pin, true),
        Ok(())
    );
    assert_eq!(
        step_up(
            Factor::Passkey,
            &[Factor::Pin, Factor::Device],
            Factor::Pin,
            true
        ),
        Ok(())
    );
}

#[test]
fn what_is_asked_for_is_something_the_account_has() {
    assert_eq!(
        step_up(Factor::Pin, &[Factor::Passkey], Factor::Device, true),
        lacks(Factor::Passkey, false)
    );
    assert_eq!(
        step_up(
            Factor::Device,
            &[Factor::Passkey, Factor::Pin],
            Factor::Device,
            false
        ),
        lacks(Factor::Pin, true)
    );
}

#[test]
fn a_stale_authentication_never_suffices() {
    for wanted in ALL {
        for by in ALL {
            assert!(step_up(wanted, &[Factor::Pin, Factor::Passkey], by, false).is_err());
        }
    }
}

#[test]
fn the_device_key_alone_never_suffices() {
    let holdings: [&[Factor]; 4] = [
        &[],
        &[Factor::Device],
        &[Factor::Device, Factor::Pin],
        &[Factor::Device, Factor::Passkey],
    ];
    for held in holdings {
        for wanted in ALL {
            assert!(step_up(wanted, held, Factor::Device, true).is_err());
        }
    }
}

#[test]
fn a_fresh_creation_may_do_everything_and_a_stale_one_nothing() {
    for wanted in ALL {
        assert_eq!(step_up(wanted, &[], Factor::Creation, true), Ok(()));
        assert!(step_up(wanted, &[], Factor::Creation, false).is_err());
    }
}

#[test]
fn a_factor_that_was_removed_lends_no_strength() {
    assert_eq!(
        step_up(Factor::Passkey, &[Factor::Pin], Factor::Passkey, true),
        lacks(Factor::Pin, false)
    );
}

#[test]
fn a_recovery_code_does_what_a_passkey_does() {
    let held = [Factor::Pin, Factor::Passkey, Factor::RecoveryCode];
    for (wanted, by) in [
        (Factor::Passkey, Factor::RecoveryCode),
        (Factor::RecoveryCode, Factor::Passkey),
    ] {
        assert_eq!(step_up(wanted, &held, by, true), Ok(()));
    }
}

#[test]
fn an_account_with_weak_factors_only_can_still_be_changed() {
    let both = [Factor::Totp, Factor::DeliveredCode];
    for wanted in [Factor::Passkey, Factor::Pin, Factor::Totp, DEVICE_WORTH] {
        assert_eq!(step_up(wanted, &both, Factor::Totp, true), Ok(()));
        assert_eq!(
            step_up(wanted, &both, Factor::DeliveredCode, true),
            lacks(Factor::Totp, false)
        );
    }
    let code = [Factor::DeliveredCode];
    assert_eq!(
        step_up(CONTACT_WORTH, &code, Factor::DeliveredCode, true),
        Ok(())
    );
}

#[test]
fn who_reads_the_mail_cannot_move_the_contact_of_an_account_with_a_pin() {
    let held = [Factor::Pin, Factor::DeliveredCode];
    assert_eq!(
        step_up(CONTACT_WORTH, &held, Factor::DeliveredCode, true),
        lacks(Factor::Pin, false)
    );
}

#[test]
fn an_account_without_factors_is_told_the_kind_of_factor() {
    for (wanted, named) in [
        (Factor::Device, Factor::DeliveredCode),
        (Factor::DeliveredCode, Factor::DeliveredCode),
        (Factor::Totp, Factor::Totp),
        (Factor::Pin, Factor::Pin),
        (Factor::RecoveryCode, Factor::Passkey),
    ] {
        assert_eq!(
            step_up(wanted, &[], Factor::Device, true),
            lacks(named, false)
        );
    }
}
