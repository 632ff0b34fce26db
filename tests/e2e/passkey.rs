//! Passkeys, with a soft authenticator.

use custodyd_tests::device::b64;
use custodyd_tests::shim::Clock;
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

pub(crate) async fn with_passkey(app: &TestApp) -> (Device, SoftAuthenticator) {
    let mut device = app.device("notes");
    device.enrol().await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    (device, authenticator)
}

#[tokio::test]
async fn a_discovered_passkey_brings_the_secret_to_a_new_device() {
    let mut app = TestApp::start().await;
    let (first, mut authenticator) = with_passkey(&app).await;
    app.restart().await;
    let mut second = app.device("notes");
    let started = second
        .try_passkey(
            &mut authenticator,
            json!({"release": ["device-secret"], "bind_device": {"name": "new"}}),
        )
        .await
        .expect(201);
    assert_eq!(started.body["account"], first.account);
    assert_eq!(started.body["device_bound"], true);
    assert_eq!(
        started.body["secrets"]["device-secret"]["server_slot"],
        b64(b"the device secret")
    );
    second.try_device(&[]).await.expect(201);
}

#[tokio::test]
async fn a_bound_device_gets_an_allow_list_and_a_stranger_does_not() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let account = device.account.clone();
    let ask = json!({"account": account});
    device.token = None;
    let options = device
        .call(
            "POST",
            "/v1/apps/{app}/sessions/passkey/options",
            Some(ask.clone()),
        )
        .await
        .expect(200);
    assert_eq!(
        options.body["publicKey"]["allowCredentials"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(options.body["publicKey"]["userVerification"], "required");
    assert!(options.body["publicKey"]["extensions"]["prf"]["eval"]["first"].is_string());
    let mut stranger = app.device("notes");
    let options = stranger
        .call("POST", "/v1/apps/{app}/sessions/passkey/options", Some(ask))
        .await
        .expect(200);
    assert!(
        options.body["publicKey"]["allowCredentials"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let body = device.assertion(&mut authenticator, Some(&account)).await;
    device.finish_passkey(body).await.expect(201);
}

#[tokio::test]
async fn a_ceremony_is_good_for_one_login() {
    let mut app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let body = device.assertion(&mut authenticator, None).await;
    device.finish_passkey(body.clone()).await.expect(201);
    device.token = None;
    let again = device.finish_passkey(body.clone()).await;
    // The counter moved on, so the assertion itself is stale; a ceremony of an authenticator
    // without a counter is covered by the mark in the envelope (see the test below).
    assert!(
        ["401 passkey-counter", "401 ceremony-consumed"].contains(&again.refusal().as_str()),
        "{again:?}"
    );
    app.restart().await;
    let again = device.finish_passkey(body).await;
    assert_eq!(again.status, 401);
}

#[tokio::test]
async fn a_ceremony_belongs_to_its_device_app_purpose_and_account() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let body = device.assertion(&mut authenticator, None).await;
    let mut other = app.device("notes");
    other
        .finish_passkey(body.clone())
        .await
        .refused("401 ceremony-other-device");
    device.app = "wallet".into();
    device
        .finish_passkey(body.clone())
        .await
        .refused("401 ceremony-other-app");
    device.app = "notes".into();
    let mut broken = body.clone();
    broken["ceremony"] = json!("cc1.1.AAAA");
    device
        .finish_passkey(broken)
        .await
        .refused("401 ceremony-invalid");
    device.finish_passkey(body).await.expect(201);
    // A login's ceremony does not register a passkey.
    let login = device.assertion(&mut authenticator, None).await;
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    let register = json!({"ceremony": login["ceremony"], "credential": {}});
    let answer = device
        .call("POST", "/v1/account/passkeys", Some(register))
        .await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test]
async fn an_expired_ceremony_is_refused() {
    let setup = Setup::notes("passkeys = { ceremony = \"30s\" }");
    let (app, clock) = Clock::of_a_daemon(setup).await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let in_time = device.assertion(&mut authenticator, None).await;
    let body = device.assertion(&mut authenticator, None).await;
    // Control: one that began before it, and whose time is not over.
    device.finish_passkey(in_time).await.expect(201);
    device.token = None;
    clock.is_off_by(31);
    device
        .finish_passkey(body)
        .await
        .refused("401 ceremony-expired");
}

#[tokio::test]
async fn another_origin_is_refused() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let honest = authenticator.origin.clone();
    authenticator.origin = "https://login.notes.example.com".parse().unwrap();
    let answer = device.try_passkey(&mut authenticator, json!({})).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    authenticator.origin = honest;
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_cloned_authenticator_is_noticed_by_its_counter() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let mut clone = authenticator.cloned();
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    let answer = device.try_passkey(&mut clone, json!({})).await;
    answer.refused("401 passkey-counter");
}

#[tokio::test]
async fn prf_output_is_refused_wherever_it_hides() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let mut body = device.assertion(&mut authenticator, None).await;
    body["credential"]["clientExtensionResults"] = json!({"prf": {"results": {"first": "AAAA"}}});
    device
        .finish_passkey(body.clone())
        .await
        .refused("422 prf-results-refused");
    body["credential"]["clientExtensionResults"] = json!({"prf": {"enabled": true}});
    device.finish_passkey(body).await.expect(201);
}

#[tokio::test]
async fn an_altered_assertion_is_refused() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let mut body = device.assertion(&mut authenticator, None).await;
    body["credential"]["response"]["signature"] = json!(b64(&[0x30; 70]));
    let answer = device.finish_passkey(body).await;
    assert_eq!(answer.status, 401);
    // For a device that is not bound, no reason is given.
    let mut stranger = app.device("notes");
    let mut body = stranger.assertion(&mut authenticator, None).await;
    body["credential"]["response"]["signature"] = json!(b64(&[0x30; 70]));
    stranger
        .finish_passkey(body)
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn a_removed_passkey_opens_nothing_and_its_sessions_end() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let seen = device.call("GET", "/v1/account", None).await.expect(200);
    let id = seen.body["passkeys"][0]["device_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = device.assertion(&mut authenticator, None).await;
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    device
        .call("DELETE", &format!("/v1/account/passkeys/{id}"), None)
        .await
        .expect(204);
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
    device.token = None;
    device
        .finish_passkey(before)
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn a_pin_session_may_not_remove_a_passkey_or_add_one_beside_it() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    device.set_pin("830517").await.expect(200);
    let seen = device.call("GET", "/v1/account", None).await.expect(200);
    let id = seen.body["passkeys"][0]["device_id"]
        .as_str()
        .unwrap()
        .to_owned();
    device.try_pin("830517", &[]).await.expect(201);
    let answer = device
        .call("DELETE", &format!("/v1/account/passkeys/{id}"), None)
        .await;
    answer.refused("403 step-up-required");
    assert_eq!(answer.body["need_at_least"], "passkey");
    let mut other = SoftAuthenticator::new("notes");
    device
        .add_passkey(&mut other)
        .await
        .refused("403 step-up-required");
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    device.add_passkey(&mut other).await.expect(201);
}

#[tokio::test]
async fn an_account_with_only_a_pin_may_add_its_first_passkey() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device.try_pin("830517", &[]).await.expect(201);
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
}

#[tokio::test]
async fn a_passkey_is_confirmed_by_its_own_assertion() {
    let app = TestApp::start().await;
    let (mut device, mut authenticator) = with_passkey(&app).await;
    let seen = device.call("GET", "/v1/account", None).await.expect(200);
    let id = seen.body["passkeys"][0]["device_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let ask = json!({"confirm": id});
    let options = device
        .call("POST", "/v1/account/passkeys/options", Some(ask))
        .await
        .expect(200);
    let credential = authenticator.get(&options.body["publicKey"]).await;
    let body = json!({"ceremony": options.body["ceremony"], "credential": credential});
    let path = format!("/v1/account/passkeys/{id}/confirm");
    device
        .call("POST", &path, Some(body.clone()))
        .await
        .expect(204);
    let again = device.call("POST", &path, Some(body)).await;
    assert_eq!(again.status, 401);
    assert!(
        device
            .events()
            .await
            .contains(&"passkey-confirmed".to_owned())
    );
}
