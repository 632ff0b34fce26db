//! What an account holds after keys came and went. The routes are tested end to end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use custodyd_hsm::{AppId, RealmName, SecretBytes};
use proptest::prelude::*;

use super::*;
use crate::factors::jwk::PublicJwk;

const NOW: Timestamp = Timestamp(1000);

fn account() -> Account {
    Account::new(
        RealmName::parse("realm.example").unwrap(),
        AppId::parse("notes").unwrap(),
        AccountId([1; 16]),
        NOW,
        SecretBytes::from(vec![7; 32]),
    )
}

/// A key by name: the thumbprint is all that is looked at.
fn key(name: &str) -> AppKey {
    let jwk: PublicJwk = serde_json::from_value(serde_json::json!({
        "kty": "EC", "crv": "P-256",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    }))
    .unwrap();
    AppKey {
        jwk,
        thumbprint: name.to_owned(),
    }
}

fn put(account: &mut Account, name: &str) -> Result<bool, Refused> {
    add(account, key(name), format!("binding of {name}"), NOW)
}

#[test]
fn a_key_is_added_once_and_the_last_one_stays() {
    let mut account = account();
    assert!(put(&mut account, "a").unwrap());
    assert!(!put(&mut account, "a").unwrap());
    assert!(matches!(
        remove(&mut account, "a", NOW),
        Err(Refused::LastAppKey)
    ));
    assert!(matches!(
        remove(&mut account, "b", NOW),
        Err(Refused::NotFound(_))
    ));
    assert!(put(&mut account, "b").unwrap());
    remove(&mut account, "a", NOW).unwrap();
    assert_eq!(
        bound(&account, "b"),
        Some((BindingKind::AppKey, "binding of b"))
    );
    assert_eq!(bound(&account, "a"), None);
}

#[test]
fn a_revoked_key_never_comes_back() {
    let mut account = account();
    put(&mut account, "a").unwrap();
    put(&mut account, "b").unwrap();
    remove(&mut account, "a", Timestamp(2000)).unwrap();
    assert!(matches!(
        put(&mut account, "a"),
        Err(Refused::AppKeyRevoked)
    ));
    let expected = RevokedBinding {
        kind: BindingKind::AppKey,
        device_id: "a".into(),
        issued: NOW,
        revoked: Timestamp(2000),
    };
    assert_eq!(account.revoked, [expected]);
}

#[test]
fn at_most_eight_keys_are_kept() {
    let mut account = account();
    for number in 0..MAX_APP_KEYS {
        put(&mut account, &number.to_string()).unwrap();
    }
    assert!(matches!(
        put(&mut account, "x"),
        Err(Refused::TooMany { limit: 8, .. })
    ));
}

proptest! {
    #[test]
    fn whatever_happens_one_key_is_left_and_the_marks_are_bounded(
        steps in proptest::collection::vec((any::<bool>(), 0u8..60), 0..300)
    ) {
        let mut account = account();
        put(&mut account, "first").unwrap();
        for (adds, name) in steps {
            let name = name.to_string();
            let _ = if adds {
                put(&mut account, &name).map(drop)
            } else {
                remove(&mut account, &name, NOW)
            };
            prop_assert!((1..=MAX_APP_KEYS).contains(&account.app_keys.len()));
            prop_assert!(account.revoked.len() <= MAX_REVOKED);
            for mark in &account.revoked {
                prop_assert!(find(&account, &mark.device_id).is_none());
            }
        }
    }
}
