//! Charges by hand: what a guess costs, and when it settles or opens nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use custodyd_hsm::{AccountId, AppId, RealmName, SecretBytes};
use proptest::prelude::*;

use super::*;
use crate::account::{BoundKey, BoundRecoveryCodes, BoundTotp, Device as BoundDevice};
use crate::bytes::SharedSecret;
use crate::factors::dpop::DeviceKey;
use crate::factors::jwk::PublicJwk;
use crate::factors::recovery_code::{CODES, PART_BYTES, RecoveryCodes};
use crate::factors::totp::TotpRecord;
use crate::service::Apps;

/// The public key of RFC 7515, appendix A.3.
const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const POLICY: &str = r#"app = "notes"
origins = ["https://notes.example.com"]
relying_party = { id = "notes.example.com" }
[totp]
rounds = [{ attempts = 3 }]
[recovery_codes]
rounds = [{ attempts = 2 }]
[delivered_codes]
rounds = [{ attempts = 4 }]
"#;
const NOW: Timestamp = Timestamp(1_000_000);
const LATER: Timestamp = Timestamp(1_000_060);

fn device() -> Device {
    let realm = RealmName::parse("realm.example").unwrap();
    let policy = custodyd_policies::parse("notes.toml", POLICY).unwrap();
    let id = AppId::parse("notes").unwrap();
    let apps = Apps::new(&realm, BTreeMap::from([(id, policy)])).unwrap();
    let jwk: PublicJwk = serde_json::from_str(JWK).unwrap();
    Device {
        app: apps.get("notes").unwrap(),
        key: DeviceKey {
            jwk,
            thumbprint: "this-device".into(),
        },
    }
}

fn bind(account: &mut Account) {
    let key = device().key;
    account.devices.push(BoundDevice {
        key: BoundKey {
            jwk: key.jwk,
            thumbprint: key.thumbprint,
            binding: String::new(),
            added: NOW,
        },
        name: None,
        session_epoch: 0,
    });
}

fn totp() -> BoundTotp {
    let record = TotpRecord::new(6, 30).unwrap();
    BoundTotp {
        device_id: record.device_id(),
        record,
        binding: String::new(),
        added: NOW,
        budget: Budget::default(),
    }
}

fn account() -> Account {
    let key = SecretBytes::from(vec![7; 32]);
    let realm = RealmName::parse("realm.example").unwrap();
    let app = AppId::parse("notes").unwrap();
    let mut account = Account::new(realm, app, AccountId([1; 16]), NOW, key);
    bind(&mut account);
    account.totp = Some(totp());
    let parts: Vec<SharedSecret> = (0..CODES)
        .map(|n| {
            SharedSecret::new(SecretBytes::from(vec![
                u8::try_from(n).unwrap();
                PART_BYTES
            ]))
        })
        .collect();
    let codes = RecoveryCodes::enrol(&parts).unwrap();
    account.recovery_codes = Some(BoundRecoveryCodes {
        device_id: codes.device_id(),
        codes,
        binding: String::new(),
        added: NOW,
        budget: Budget::default(),
    });
    account
}

fn charge(guess: Guess, account: &mut Account) -> Result<Charged, Refused> {
    Charged::new(
        guess,
        &device(),
        account,
        NOW,
        LATER,
        &mut Journal::default(),
    )
}

fn left(guess: Guess, account: &mut Account) -> u32 {
    let rounds = guess.rounds(&device().app.policy);
    guess.target(account).unwrap().1.standing(&rounds, NOW).left
}

#[test]
fn each_kind_has_codes_and_a_budget_of_its_own() {
    let mut account = account();
    charge(Guess::Totp, &mut account).unwrap();
    assert_eq!(left(Guess::Totp, &mut account), 2);
    assert_eq!(left(Guess::RecoveryCode, &mut account), 2);
    let wrong: Vec<&str> = Guess::ALL.iter().map(|guess| guess.codes().wrong).collect();
    assert_eq!(
        wrong,
        [
            "pin-wrong",
            "pin-wrong",
            "totp-wrong",
            "totp-wrong",
            "recovery-code-wrong",
            "pin-wrong",
            "code-wrong",
            "code-wrong",
            "code-wrong"
        ]
    );
}

#[test]
fn what_is_not_there_is_told_to_those_who_may_know() {
    let mut account = account();
    let refused = charge(Guess::Pin, &mut account).unwrap_err();
    assert!(matches!(refused, Refused::NotSet(Guess::Pin)));
    let refused = charge(Guess::StrangerPin, &mut account).unwrap_err();
    assert!(matches!(refused, Refused::AuthenticationFailed));
    account.devices.clear();
    let refused = charge(Guess::Pin, &mut account).unwrap_err();
    assert!(matches!(refused, Refused::AuthenticationFailed));
}

#[test]
fn the_last_attempt_is_the_last() {
    let mut account = account();
    for _ in 0..2 {
        charge(Guess::RecoveryCode, &mut account).unwrap();
    }
    let refused = charge(Guess::RecoveryCode, &mut account).unwrap_err();
    assert!(matches!(refused, Refused::Exhausted(Guess::RecoveryCode)));
}

#[test]
fn a_charge_that_expired_opens_nothing() {
    let mut account = account();
    let charged = charge(Guess::Totp, &mut account).unwrap();
    assert!(charged.succeed(&mut account.clone(), NOW).is_ok());
    assert!(charged.succeed(&mut account, LATER).is_err());
}

#[test]
fn a_guess_at_a_replaced_credential_opens_nothing_and_settles_nothing() {
    let mut account = account();
    let charged = charge(Guess::Totp, &mut account).unwrap();
    let mut new = totp();
    new.budget = account.totp.take().unwrap().budget;
    account.totp = Some(new);
    assert!(charged.succeed(&mut account, NOW).is_err());
    let rounds = Guess::Totp.rounds(&device().app.policy);
    let failed = charged.fail(&rounds, &mut account, NOW, &mut Journal::default());
    assert!(failed.is_err());
    assert_eq!(left(Guess::Totp, &mut account), 2);
}

#[test]
fn only_what_is_no_stronger_may_be_tried_again() {
    let spent = || {
        let mut account = account();
        for guess in [Guess::Totp, Guess::RecoveryCode] {
            let charged = charge(guess, &mut account).unwrap();
            let rounds = guess.rounds(&device().app.policy);
            charged
                .fail(&rounds, &mut account, NOW, &mut Journal::default())
                .unwrap();
        }
        account
    };
    for (by, totp_left, codes_left) in [
        (Factor::DeliveredCode, 2, 1),
        (Factor::Totp, 2, 1),
        (Factor::Pin, 3, 1),
        (Factor::RecoveryCode, 3, 1),
        (Factor::Passkey, 3, 2),
    ] {
        let mut account = spent();
        vouch(&mut account, &device(), by, NOW);
        assert_eq!(left(Guess::Totp, &mut account), totp_left, "{by}");
        assert_eq!(left(Guess::RecoveryCode, &mut account), codes_left, "{by}");
    }
}

/// A code may open what the authenticator app does not, so the app must not buy guesses at it:
/// one for each of its steps, for ever. Whoever may change the contact needs no guesses.
#[test]
fn codes_may_be_tried_again_by_whoever_may_change_the_contact() {
    let spent = |only_totp: bool| {
        let mut account = account();
        if only_totp {
            account.recovery_codes = None;
        }
        let charged = charge(Guess::Code, &mut account).unwrap();
        let rounds = Guess::Code.rounds(&device().app.policy);
        charged
            .fail(&rounds, &mut account, NOW, &mut Journal::default())
            .unwrap();
        account
    };
    for (only_totp, by, left_then) in [
        (false, Factor::DeliveredCode, 3),
        (false, Factor::Totp, 3),
        (false, Factor::Pin, 4),
        (false, Factor::RecoveryCode, 4),
        (false, Factor::Passkey, 4),
        // Nothing stronger is there: it may change the contact, and is the only way back.
        (true, Factor::Totp, 4),
        (true, Factor::DeliveredCode, 3),
    ] {
        let mut account = spent(only_totp);
        vouch(&mut account, &device(), by, NOW);
        assert_eq!(
            left(Guess::Code, &mut account),
            left_then,
            "{by}, {only_totp}"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Charge,
    Succeed(usize),
    Fail(usize),
    Replace,
    Remove,
    Bind,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Charge),
        2 => (0..8_usize).prop_map(Step::Succeed),
        2 => (0..8_usize).prop_map(Step::Fail),
        1 => Just(Step::Replace),
        1 => Just(Step::Remove),
        1 => Just(Step::Bind),
    ]
}

proptest! {
    #[test]
    fn a_session_opens_once_by_a_live_charge_at_the_credential_of_now(
        steps in proptest::collection::vec(step(), 0..40)
    ) {
        let mut account = account();
        let rounds = Guess::Totp.rounds(&device().app.policy);
        // Every charge, and whether it may still open something.
        let mut charges: Vec<(Charged, bool)> = Vec::new();
        let mut since_success = 0;
        for step in steps {
            let bound = !account.devices.is_empty();
            match step {
                Step::Charge => if let Ok(charged) = charge(Guess::Totp, &mut account) {
                    prop_assert!(bound);
                    since_success += 1;
                    charges.push((charged, true));
                },
                Step::Succeed(at) => if let Some((charged, live)) = charges.get_mut(at) {
                    let opened = charged.succeed(&mut account, NOW).is_ok();
                    prop_assert_eq!(opened, *live && bound);
                    if opened {
                        *live = false;
                        since_success = charges.iter().filter(|(_, live)| *live).count();
                    }
                },
                Step::Fail(at) => if let Some((charged, live)) = charges.get_mut(at) {
                    let told = charged.fail(&rounds, &mut account, NOW, &mut Journal::default());
                    *live &= told.is_err();
                },
                Step::Replace => {
                    let mut new = totp();
                    new.budget = account.totp.take().unwrap().budget;
                    new.budget.secret_replaced(NOW);
                    account.totp = Some(new);
                    since_success = charges.iter().filter(|(_, live)| *live).count();
                    for (_, live) in &mut charges {
                        *live = false;
                    }
                }
                Step::Remove => account.devices.clear(),
                Step::Bind => if !bound { bind(&mut account) },
            }
            // Charges at the credential before count as well, as long as they are in flight.
            prop_assert!(since_success <= 3, "{since_success} guesses");
        }
    }
}
