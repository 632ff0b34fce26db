//! What a device gets that is not bound to the account, and whether an account can be had back from such a device.
//!
//! Called by the daemon before it evaluates anything a stranger sent, and when it tells an owner about the account. A
//! stranger is anybody: whatever is evaluated for one can be guessed at from everywhere. Must never let an unbound
//! device touch the guess budget of the bound ones.

use std::time::Duration;

use crate::app::{AppPolicy, UnknownDevice};
use crate::factor::Factor;
use crate::rounds::{Round, Rounds};

/// What a login by `by` gives a device that is not bound to the account.
///
/// A passkey or a recovery code cannot be guessed and always brings the device in. TOTP is never evaluated for a
/// stranger, a PIN only on a budget that the policy sets for it, and the device key proves nothing here.
#[must_use]
pub fn unknown_device(policy: &AppPolicy, by: Factor) -> UnknownDevice {
    if !policy.allows(by) {
        return UnknownDevice::Refused;
    }
    match by {
        Factor::Passkey | Factor::RecoveryCode => UnknownDevice::Full,
        Factor::DeliveredCode => policy.devices.code,
        Factor::Pin if policy.devices.stranger_pin.is_some() => UnknownDevice::Full,
        Factor::Pin | Factor::Totp | Factor::Device | Factor::Creation => UnknownDevice::Refused,
    }
}

/// The rounds for a PIN that follows a delivered code ([`UnknownDevice::ThenPin`]): those of `devices.stranger_pin`,
/// or five guesses where there are none. They count against a budget of their own: shared with the bound devices,
/// a mailbox would be enough to lock the owner out; shared with strangers, anybody would be.
#[must_use]
pub fn rounds_after_code(policy: &AppPolicy) -> Rounds {
    policy.devices.stranger_pin.clone().unwrap_or_else(|| {
        let round = |attempts, wait| Round { attempts, wait };
        Rounds::of_checked(vec![
            round(3, Duration::ZERO),
            round(2, Duration::from_secs(60 * 60)),
        ])
    })
}

/// Whether the account is lost with its devices: no factor that it holds could be used from an unknown one.
///
/// `held` is as for [`step_up`](crate::release::step_up). Without an alias or a contact by which it is found, only a
/// passkey helps, which names the account itself.
#[must_use]
pub fn recovery_incomplete(
    policy: &AppPolicy,
    held: &[Factor],
    has_alias_or_contact: bool,
) -> bool {
    let helps = |by: Factor| {
        let found = has_alias_or_contact || by == Factor::Passkey;
        found
            && match unknown_device(policy, by) {
                UnknownDevice::Full => true,
                UnknownDevice::ThenPin => {
                    held.contains(&Factor::Pin) || policy.recover.by.contains(&by)
                }
                UnknownDevice::Refused => false,
            }
    };
    !held.iter().copied().any(helps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::minimal_policy;

    fn policy(code: UnknownDevice) -> AppPolicy {
        let mut policy = minimal_policy();
        policy.devices.code = code;
        policy
    }

    #[test]
    fn what_cannot_be_guessed_always_comes_in_where_it_is_allowed() {
        let mut policy = policy(UnknownDevice::Refused);
        for factor in [Factor::Passkey, Factor::RecoveryCode] {
            assert_eq!(unknown_device(&policy, factor), UnknownDevice::Full);
        }
        policy.passkeys.allowed = false;
        policy.recovery_codes.allowed = false;
        for factor in [Factor::Passkey, Factor::RecoveryCode] {
            assert_eq!(unknown_device(&policy, factor), UnknownDevice::Refused);
        }
    }

    #[test]
    fn a_delivered_code_gives_what_the_policy_says() {
        for code in [
            UnknownDevice::ThenPin,
            UnknownDevice::Full,
            UnknownDevice::Refused,
        ] {
            assert_eq!(unknown_device(&policy(code), Factor::DeliveredCode), code);
        }
        let mut policy = policy(UnknownDevice::Full);
        policy.delivered_codes.allowed = false;
        let given = unknown_device(&policy, Factor::DeliveredCode);
        assert_eq!(given, UnknownDevice::Refused);
    }

    #[test]
    fn a_strangers_pin_needs_a_budget_of_its_own() {
        let mut policy = policy(UnknownDevice::Full);
        assert_eq!(unknown_device(&policy, Factor::Pin), UnknownDevice::Refused);
        policy.devices.stranger_pin = Some(Rounds::default());
        assert_eq!(unknown_device(&policy, Factor::Pin), UnknownDevice::Full);
        policy.pin.allowed = false;
        assert_eq!(unknown_device(&policy, Factor::Pin), UnknownDevice::Refused);
    }

    #[test]
    fn totp_and_the_device_key_never_bring_a_stranger_in() {
        let mut policy = policy(UnknownDevice::Full);
        policy.devices.stranger_pin = Some(Rounds::default());
        for factor in [Factor::Totp, Factor::Device, Factor::Creation] {
            assert_eq!(unknown_device(&policy, factor), UnknownDevice::Refused);
        }
    }

    #[test]
    fn guesses_after_a_code_are_few() {
        let mut policy = policy(UnknownDevice::ThenPin);
        let few = rounds_after_code(&policy);
        assert_eq!(Rounds::new(few.as_slice().to_vec()).as_ref(), Ok(&few));
        assert_eq!(few.total(), 5);
        policy.devices.stranger_pin = Some(Rounds::default());
        assert_eq!(rounds_after_code(&policy), Rounds::default());
    }

    #[test]
    fn an_account_is_told_what_it_lacks() {
        let policy = policy(UnknownDevice::ThenPin);
        let lost = |held: &[Factor], named| recovery_incomplete(&policy, held, named);
        assert!(lost(&[], true));
        assert!(lost(&[Factor::Pin, Factor::Totp], true));
        assert!(!lost(&[Factor::Pin, Factor::Passkey], false));
        assert!(!lost(&[Factor::RecoveryCode], true));
        assert!(lost(&[Factor::RecoveryCode], false));
        assert!(!lost(&[Factor::DeliveredCode], true));
    }

    #[test]
    fn a_code_that_leads_to_nothing_is_no_way_back() {
        let mut policy = policy(UnknownDevice::ThenPin);
        policy.recover.by = vec![Factor::Pin];
        let (code, pin) = (Factor::DeliveredCode, Factor::Pin);
        assert!(recovery_incomplete(&policy, &[code, Factor::Totp], true));
        assert!(!recovery_incomplete(&policy, &[code, pin], true));
        policy.devices.code = UnknownDevice::Refused;
        assert!(recovery_incomplete(&policy, &[code, pin], true));
    }
}
