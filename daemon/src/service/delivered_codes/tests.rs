//! Wishes for a code, second by second: how many codes are under way, for whom, and until when.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use custodyd_hsm::{AccountId, AppId, RealmName, SecretBytes};
use custodyd_policies::Budget;

use super::*;
use crate::account::Usage;
use crate::factors::delivered_code::{OtpSecret, PendingCodes};
use crate::factors::dpop::DeviceKey;
use crate::service::Apps;
use crate::service::rates::Quota;

/// The public key of RFC 7515, appendix A.3.
const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const POLICY: &str = r#"app = "notes"
origins = ["https://notes.example.com"]
relying_party = { id = "notes.example.com" }
[delivered_codes]
interval = "10s"
expiry = "10m"
per_day = 200
"#;
const NOW: u64 = 1_000_000;

fn apps() -> Apps {
    let realm = RealmName::parse("realm.example").unwrap();
    let policy = custodyd_policies::parse("notes.toml", POLICY).unwrap();
    let id = AppId::parse("notes").unwrap();
    Apps::new(&realm, BTreeMap::from([(id, policy)])).unwrap()
}

/// Somebody who is not bound, by name: the thumbprint is all that is looked at.
fn device(name: &str) -> Device {
    Device {
        app: apps().get("notes").unwrap(),
        key: DeviceKey {
            jwk: serde_json::from_str(JWK).unwrap(),
            thumbprint: name.to_owned(),
        },
    }
}

fn account() -> Account {
    let mut account = Account::new(
        RealmName::parse("realm.example").unwrap(),
        AppId::parse("notes").unwrap(),
        AccountId([1; 16]),
        Timestamp(NOW),
        SecretBytes::from(vec![7; 32]),
    );
    let otp = OtpSecret::new().unwrap();
    account.contacts.list.push(Contact {
        id: "mail".into(),
        address: Address::email("ann@example.com").unwrap(),
        usage: Usage::Contact,
        device_id: otp.device_id(),
        otp,
        binding: String::new(),
        added: Timestamp(NOW),
        confirmed: Some(Timestamp(NOW)),
        replaces: None,
        codes: PendingCodes::default(),
        last_sent: None,
        guesses: Budget::default(),
    });
    account
}

fn ask(account: &mut Account, name: &str, at: u64) -> Result<Wished, Unsent> {
    let named = Named::Account(account.id);
    // Each time anew: how many one address gets is another test's.
    let plenty = std::num::NonZeroU32::MAX;
    let recipients = Recipients::with(Quota::hourly(plenty, plenty));
    wish(
        account,
        &device(name),
        &named,
        None,
        &recipients,
        Timestamp(at),
    )
}

fn issued(account: &mut Account, name: &str, at: u64) -> Code {
    match ask(account, name, at) {
        Ok(Wished::Issued(_, code, _)) => code,
        _ => panic!("{name} got no code of its own at {at}"),
    }
}

fn attached(account: &mut Account, name: &str, at: u64) -> bool {
    matches!(ask(account, name, at), Ok(Wished::Attached))
}

/// Whether this device could use this code then.
fn opens(account: &Account, name: &str, code: &Code, at: u64) -> bool {
    let contact = &account.contacts.list[0];
    let now = Timestamp(at);
    let found = contact.codes.find(&contact.otp, name, code, now);
    let redeem = |counter| contact.codes.clone().redeem(counter, name, now).is_some();
    found.is_some_and(redeem)
}

fn under_way(account: &Account) -> usize {
    account.contacts.list[0].codes.codes().len()
}

#[test]
fn a_code_opens_until_the_second_in_which_it_expires() {
    let mut account = account();
    let code = issued(&mut account, "phone", NOW);
    assert!(opens(&account, "phone", &code, NOW));
    assert!(opens(&account, "phone", &code, NOW + 599));
    assert!(!opens(&account, "phone", &code, NOW + 600));
    assert!(!opens(&account, "thief", &code, NOW));
    // Found in its last second and redeemed in the next one: it is worth nothing.
    let contact = &mut account.contacts.list[0];
    let found = contact
        .codes
        .find(&contact.otp, "phone", &code, Timestamp(NOW + 599));
    let late = contact
        .codes
        .redeem(found.unwrap(), "phone", Timestamp(NOW + 600));
    assert_eq!(late, None);
}

#[test]
fn the_ninth_who_asks_is_let_in_on_the_latest_code() {
    let mut account = account();
    let mut codes = Vec::new();
    for n in 0..8 {
        let name = format!("device {n}");
        codes.push(issued(&mut account, &name, NOW + 10 * n));
    }
    assert_eq!(under_way(&account), 8);
    let ninth = NOW + 80;
    assert!(attached(&mut account, "ninth", ninth));
    assert_eq!(under_way(&account), 8, "no code more, and none less");
    assert!(opens(&account, "ninth", &codes[7], ninth));
    assert!(!opens(&account, "ninth", &codes[6], ninth));
    for (n, code) in codes.iter().enumerate() {
        assert!(opens(&account, &format!("device {n}"), code, ninth), "{n}");
    }
    // Asking again changes nothing.
    let again = ask(&mut account, "ninth", ninth);
    assert!(matches!(again, Err(Unsent::Nothing)));
    // Control: once the first has expired there is room, and the tenth gets a code of its own.
    let free = NOW + 600;
    let own = issued(&mut account, "tenth", free);
    assert!(opens(&account, "tenth", &own, free));
    assert_eq!(under_way(&account), 8);
}

/// A script that asks whenever a code is due leaves the owner none of their own, and the last one of its own.
#[test]
fn whoever_spends_the_days_codes_keeps_nobody_out() {
    let mut account = account();
    let code = |account: &mut Account, n: u64| issued(account, &format!("thief {n}"), NOW + 80 * n);
    let codes: Vec<_> = (0..100).map(|n| code(&mut account, n)).collect();
    let (last, due) = (NOW + 80 * 99, NOW + 80 * 99 + 864);
    // The control: by the time that the policy says, the last code of the first half would be over.
    assert!(opens(&account, "thief 98", &codes[98], NOW + 80 * 98 + 599));
    assert!(!opens(
        &account,
        "thief 98",
        &codes[98],
        NOW + 80 * 98 + 600
    ));
    assert!(attached(&mut account, "owner", last + 700));
    assert!(opens(&account, "owner", &codes[99], due - 1));
    let next = issued(&mut account, "thief", due);
    assert!(attached(&mut account, "owner", due + 863));
    assert!(opens(&account, "owner", &next, due + 863));
}

#[test]
fn whoever_asks_too_soon_is_let_in_on_what_was_sent() {
    let mut account = account();
    let code = issued(&mut account, "phone", NOW);
    assert!(attached(&mut account, "thief", NOW + 9));
    assert!(opens(&account, "phone", &code, NOW + 9));
    // Control: a second later there is another code.
    let other = issued(&mut account, "late", NOW + 10);
    assert!(opens(&account, "late", &other, NOW + 10));
    assert!(!opens(&account, "late", &code, NOW + 10));
}
