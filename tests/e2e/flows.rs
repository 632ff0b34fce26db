//! What real people go through, from their device's point of view: `docs/FLOWS.md` tells each
//! of these with its messages, in the same order and under the same name.

use custodyd_tests::codes::policy;
use custodyd_tests::device::b64;
use custodyd_tests::{Answer, Device, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

use crate::contacts::{add, mails, with_mail};

const PIN: &str = "830517";
const SECRET: &[u8] = b"the device secret, 32 bytes long";
const APP_KEY: &[u8] = b"the app's private key, wrapped";

async fn app() -> TestApp {
    TestApp::with(Setup {
        policies: vec![policy("notes", "", "")],
        ..Setup::default()
    })
    .await
}

/// Phone A, as its owner has set it up.
struct Phone {
    device: Device,
    /// Synchronised: the owner's other phones have it too.
    passkey: SoftAuthenticator,
}

impl Phone {
    async fn enrolled(app: &TestApp) -> Self {
        let mut device = app.device("notes");
        let mut passkey = SoftAuthenticator::new("notes");
        device.enrol().await;
        device.add_passkey(&mut passkey).await.expect(201);
        device.set_pin(PIN).await.expect(200);
        device.back_up("device-secret", SECRET).await.expect(200);
        device.back_up("app-key", APP_KEY).await.expect(200);
        Self { device, passkey }
    }

    /// All that the browser kept is gone, the device key too.
    fn cleared(&self, app: &TestApp) -> Device {
        app.device(&self.device.app)
    }
}

/// Both secrets are what they were.
fn brought_back(answer: &Answer) {
    let secrets = &answer.body["secrets"];
    assert_eq!(secrets["device-secret"]["server_slot"], b64(SECRET));
    assert_eq!(secrets["app-key"]["server_slot"], b64(APP_KEY));
}

const BOTH: [&str; 2] = ["device-secret", "app-key"];

#[tokio::test]
async fn enrol_on_phone_a_with_passkey_and_pin() {
    let app = app().await;
    let mut phone = Phone::enrolled(&app).await;
    let view = phone.device.view().await;
    assert_eq!(view["recovery_incomplete"], false);
    assert_eq!(view["devices"].as_array().unwrap().len(), 1);
    brought_back(&phone.device.try_pin(PIN, &BOTH).await.expect(201));
    let more = json!({"release": BOTH});
    brought_back(
        &phone
            .device
            .try_passkey(&mut phone.passkey, more)
            .await
            .expect(201),
    );
}

#[tokio::test]
async fn storage_partly_cleared_keeps_the_device_key() {
    let mut app = app().await;
    let mut phone = Phone::enrolled(&app).await;
    // Session and wrapped key are gone; the browser still has the device key and the account.
    phone.device.token = None;
    app.restart().await;
    // Reading asks for nothing, and gives nothing that only a factor may have.
    let reading = phone.device.try_device(&[]).await.expect(201);
    assert_eq!(reading.body["session"]["scope"], "read");
    phone
        .device
        .recover("device-secret")
        .await
        .refused("403 release-forbidden");
    brought_back(&phone.device.try_pin(PIN, &BOTH).await.expect(201));
}

#[tokio::test]
async fn all_storage_cleared_is_a_new_device_for_the_passkey() {
    let app = app().await;
    let mut phone = Phone::enrolled(&app).await;
    let mut again = phone.cleared(&app);
    let more = json!({"release": BOTH, "bind_device": {"name": "phone A again"}});
    let started = again
        .try_passkey(&mut phone.passkey, more)
        .await
        .expect(201);
    brought_back(&started);
    assert_eq!(started.body["account"], phone.device.account);
    assert_eq!(started.body["device_bound"], true);
    // It is bound now: the PIN works on it, and the old key can be removed.
    again.try_pin(PIN, &[]).await.expect(201);
    let old = format!("/v1/account/devices/{}", phone.device.key.thumbprint());
    again.call("DELETE", &old, None).await.expect(204);
    phone
        .device
        .try_pin(PIN, &[])
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn new_phone_with_a_synced_passkey() {
    let app = app().await;
    let phone = Phone::enrolled(&app).await;
    let mut synced = phone.passkey.cloned();
    let mut new = app.device("notes");
    let more = json!({"release": BOTH, "bind_device": {"name": "phone B"}});
    brought_back(&new.try_passkey(&mut synced, more).await.expect(201));
    let view = new.view().await;
    assert_eq!(view["devices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn totp_after_a_forgotten_pin_on_the_bound_device() {
    let app = app().await;
    let mut phone = Phone::enrolled(&app).await;
    let mut authenticator = phone.device.add_totp().await;
    for wrong in ["111222", "333444"] {
        phone
            .device
            .try_pin(wrong, &[])
            .await
            .refused("401 pin-wrong");
    }
    let code = authenticator.show();
    let started = phone.device.try_totp(&code, &[]).await.expect(201);
    assert_eq!(started.body["session"]["factor"], "totp");
    // Weaker than a PIN, and all the same: the exception is for just this.
    phone.device.set_pin("294061").await.expect(200);
    assert!(phone.device.events().await.contains(&"recover-used".into()));
    brought_back(&phone.device.try_pin("294061", &BOTH).await.expect(201));
    phone
        .device
        .try_pin(PIN, &[])
        .await
        .refused("401 pin-wrong");
}

#[tokio::test]
async fn a_crash_after_each_single_step_of_enrolment() {
    let mut app = app().await;
    let mut device = app.device("notes");
    let mut passkey = SoftAuthenticator::new("notes");
    device.enrol().await;
    crash(&mut app).await;
    device.add_passkey(&mut passkey).await.expect(201);
    crash(&mut app).await;
    device.set_pin(PIN).await.expect(200);
    crash(&mut app).await;
    device.back_up("device-secret", SECRET).await.expect(200);
    crash(&mut app).await;
    device.back_up("app-key", APP_KEY).await.expect(200);
    crash(&mut app).await;
    // What was answered is there, and the session of the creation went on through it all.
    device.call("GET", "/v1/account", None).await.expect(200);
    brought_back(&device.try_pin(PIN, &BOTH).await.expect(201));
    let events = device.events().await;
    for kind in ["account-created", "passkey-added", "pin-set"] {
        let times = events.iter().filter(|event| *event == kind).count();
        assert_eq!(times, 1, "{kind}: {events:?}");
    }
}

async fn crash(app: &mut TestApp) {
    app.kill();
    app.launch().await;
}

#[tokio::test]
async fn the_account_erased_and_the_same_alias_enrolled_again() {
    const ANN: &str = "ann@example.com";
    let (app, mail) = with_mail("").await;
    let mut old = app.device("notes");
    old.enrol().await;
    add(&mut old, &mail, "contact", ANN).await;
    old.back_up("device-secret", SECRET).await.expect(200);
    let body = json!({"confirm": old.account});
    old.call("DELETE", "/v1/account", Some(body))
        .await
        .expect(204);
    let told = mails(&mail, ANN, 2).await;
    assert!(told[1].body.contains("erased"), "{:?}", told[1]);
    let erased = old.account.clone();
    old.try_device(&[])
        .await
        .refused("401 authentication-failed");

    // The same phone, the same address: another account, in which nothing of the old one is.
    (old.token, old.nonce) = (None, String::new());
    old.enrol().await;
    assert_ne!(old.account, erased);
    add(&mut old, &mail, "contact", ANN).await;
    old.recover("device-secret").await.refused("404 not-found");
    let view = old.view().await;
    assert_eq!(view["contacts"][0]["address"], ANN);
    assert_eq!(view["secrets"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn somebody_else_tries_all_of_it() {
    let app = app().await;
    let mut phone = Phone::enrolled(&app).await;
    phone.device.add_totp().await;
    phone.device.set_recovery_codes().await;
    let mut thief = app.device("notes");
    thief.account.clone_from(&phone.device.account);
    let mut of_theirs = SoftAuthenticator::new("notes");
    let mut own = app.device("notes");
    own.enrol().await;
    own.add_passkey(&mut of_theirs).await.expect(201);

    let refused = "401 authentication-failed";
    // Even with the right PIN: the device is not bound.
    thief.try_pin(PIN, &BOTH).await.refused(refused);
    thief.try_totp("123456", &BOTH).await.refused(refused);
    thief.try_device(&BOTH[1..]).await.refused(refused);
    let code = custodyd_tests::codes::recovery_codes().remove(0);
    thief
        .try_recovery_code(&code, json!({"release": BOTH}))
        .await
        .refused(refused);
    // A passkey of the thief's own opens the thief's own account, and none other.
    let started = thief
        .try_passkey(&mut of_theirs, json!({}))
        .await
        .expect(201);
    assert_eq!(started.body["account"], own.account);
    thief
        .recover("device-secret")
        .await
        .refused("404 not-found");
    // With the owner's session token in hand, but not the device key.
    thief.token.clone_from(&phone.device.token);
    thief
        .recover("device-secret")
        .await
        .refused("401 session-invalid");

    // The owner has lost no attempt by all this.
    let view = phone.device.view().await;
    assert_eq!(view["pin"]["attempts_left"], 5);
    brought_back(&phone.device.try_pin(PIN, &BOTH).await.expect(201));
}
