//! Which key may become a device's. The routes are tested end to end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use custodyd_hsm::{AppId, RealmName, SecretBytes};

use super::*;
use crate::factors::dpop::DeviceKey;
use crate::service::Apps;

/// The public key of RFC 7515, appendix A.3.
const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const POLICY: &str = r#"app = "notes"
origins = ["https://notes.example.com"]
relying_party = { id = "notes.example.com" }
"#;
const NOW: Timestamp = Timestamp(1000);

#[test]
fn an_app_key_of_the_account_is_no_devices_key() {
    let realm = RealmName::parse("realm.example").unwrap();
    let id = AppId::parse("notes").unwrap();
    let policy = custodyd_policies::parse("notes.toml", POLICY).unwrap();
    let apps = Apps::new(&realm, BTreeMap::from([(id.clone(), policy)])).unwrap();
    let key = SecretBytes::from(vec![7; 32]);
    let mut account = Account::new(realm, id, AccountId([1; 16]), NOW, key);
    let device = |thumbprint: &str| Device {
        app: apps.get("notes").unwrap(),
        key: DeviceKey {
            jwk: serde_json::from_str(JWK).unwrap(),
            thumbprint: thumbprint.to_owned(),
        },
    };
    account.app_keys.push(BoundKey {
        jwk: device("").key.jwk,
        thumbprint: "app-key".into(),
        binding: String::new(),
        added: NOW,
    });
    let mut journal = Journal::default();
    let mut bind_key = |name: &str| {
        let (device, wanted) = (device(name), Wanted(None));
        bind(
            &mut account,
            &device,
            wanted,
            String::new(),
            NOW,
            &mut journal,
        )
    };
    let refused = bind_key("app-key");
    assert!(matches!(refused, Err(Refused::Malformed(_))), "{refused:?}");
    bind_key("another").unwrap();
    let bound = account.devices.iter().map(|device| &device.key.thumbprint);
    assert_eq!(bound.collect::<Vec<_>>(), ["another"]);
}
