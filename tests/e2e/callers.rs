//! Rates of those who are known, and who must not use them up: whoever has stolen a device, whoever was signed out. docs/LOAD.md.

use custodyd_tests::app::LIMITS;
use custodyd_tests::device::b64;
use custodyd_tests::opaque::LoggingIn;
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

use crate::contacts::{add, with_mail_and};
use crate::delivered_codes::{ANN, by_alias, enter, fetch, new_phone};

/// The limits of tests with these lines in place of their own.
fn limits(lines: &[(&str, u32)]) -> Setup {
    let mut limits = LIMITS.to_owned();
    for (key, number) in lines {
        let line = format!("{key} = 1000000");
        assert!(limits.contains(&line), "{key}");
        limits = limits.replace(&line, &format!("{key} = {number}"));
    }
    Setup {
        limits,
        ..Setup::default()
    }
}

async fn is_let_in(device: &mut Device) -> String {
    device.call("GET", "/v1/account", None).await.refusal()
}

/// Whether one of some calls is refused for a rate: of which one is given back each second.
async fn is_limited(device: &mut Device) -> bool {
    for _ in 0..5 {
        if is_let_in(device).await == "429 rate-limited" {
            return true;
        }
    }
    false
}

/// A device that was stolen signs in as often as it can, and its owner removes it.
#[tokio::test]
async fn a_stolen_device_does_not_use_up_its_accounts_rate() {
    for (device_burst, takes) in [(20, false), (1_000_000, true)] {
        let app = TestApp::with(limits(&[
            ("device_per_second", 1),
            ("device_burst", device_burst),
            ("account_per_second", 1),
            ("account_burst", 60),
        ]))
        .await;
        let mut owner = app.device("notes");
        owner.enrol().await;
        let mut authenticator = SoftAuthenticator::new("notes");
        owner.add_passkey(&mut authenticator).await;
        let mut stolen = app.device("notes");
        stolen.account.clone_from(&owner.account);
        stolen
            .try_passkey(&mut authenticator, json!({"bind_device": {}}))
            .await
            .expect(201);
        let mut refused = 0;
        for _ in 0..100 {
            let answer = stolen.try_device(&[]).await.refusal();
            refused += u32::from(answer == "429 rate-limited");
        }
        assert!(refused > 10, "{refused}");
        // The second one is the control: with no rate of its own it takes the account's.
        assert_eq!(is_limited(&mut owner).await, takes);
    }
}

/// Whoever had a session keeps its token and its key.
#[tokio::test]
async fn a_session_that_has_ended_takes_nothing_from_its_account() {
    let app = TestApp::with(limits(&[("account_per_second", 1), ("account_burst", 60)])).await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await;
    let mut guest = app.device("notes");
    guest.account.clone_from(&owner.account);
    guest
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    owner.call("DELETE", "/v1/sessions", None).await.expect(204);
    owner
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    for _ in 0..100 {
        assert_eq!(is_let_in(&mut guest).await, "401 session-ended");
    }
    assert_eq!(is_let_in(&mut owner).await, "200 -");
    // The control: one that stands takes from it.
    guest
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    for _ in 0..100 {
        is_let_in(&mut guest).await;
    }
    assert!(is_limited(&mut owner).await);
}

/// The last message of a PIN that was charged to half a session, whose device has asked as often as it may.
#[tokio::test]
async fn no_rate_refuses_the_end_of_what_was_charged_to_a_session() {
    let slow = [
        ("device_per_second", 1),
        ("device_burst", 30),
        ("account_per_second", 1),
        ("account_burst", 60),
    ];
    let (app, mail) = with_mail_and(limits(&slow)).await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    owner.register_pin("830517").await;
    add(&mut owner, &mail, "contact", ANN).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    let half = enter(&mut phone, by_alias(), &code, json!({})).await;
    assert_eq!(half.expect(201).body["session"]["scope"], "pin-only");
    let (start, finish) = ("/v1/session/opaque/start", "/v1/session/opaque/finish");
    // The proof of an end is good once, though the app's memory of proofs has no part in it.
    let body = json!({"ke1": LoggingIn::start("830518").ke1});
    let wrong = phone.call("POST", start, Some(body)).await.expect(200).body;
    let body = json!({"login": wrong["login"], "ke3": b64(&[7; 64])});
    let mut call = phone.prepare("POST", finish, Some(body));
    call.proof = Some(phone.proof(&call));
    let end = phone.send(&call).await;
    end.refused("401 authentication-failed");
    phone.send(&call).await.refused("401 dpop-replayed");
    let right = LoggingIn::start("830517");
    let body = json!({"ke1": right.ke1});
    let started = phone.call("POST", start, Some(body)).await.expect(200).body;
    // The control: anything else is refused by now.
    for _ in 0..60 {
        is_let_in(&mut phone).await;
    }
    assert!(is_limited(&mut phone).await);
    let ke3 = right.finish(&started).unwrap().ke3;
    let body = json!({"login": started["login"], "ke3": ke3});
    let full = phone.call("POST", finish, Some(body)).await.expect(201);
    assert_eq!(full.body["session"]["scope"], "full");
}
