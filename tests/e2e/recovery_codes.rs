//! Recovery codes: from any device, each once, and nobody locks anybody out by guessing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use custodyd_tests::codes::{policy, recovery_codes};
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

const SET: &str = "/v1/account/recovery-codes";

async fn app(more: &str) -> TestApp {
    TestApp::with(Setup {
        policies: vec![policy("notes", "", more)],
        ..Setup::default()
    })
    .await
}

async fn with_codes(app: &TestApp) -> (Device, Vec<String>) {
    let mut device = app.device("notes");
    device.enrol().await;
    device
        .back_up("device-secret", b"the secret")
        .await
        .expect(200);
    let codes = device.set_recovery_codes().await;
    (device, codes)
}

/// A device that nobody has bound, in the hands of somebody who knows the account.
fn other(app: &TestApp, owner: &Device) -> Device {
    let mut other = app.device("notes");
    other.account.clone_from(&owner.account);
    other
}

#[tokio::test]
async fn a_code_brings_a_new_device_in_and_the_secret_back() {
    let mut app = app("").await;
    let (owner, codes) = with_codes(&app).await;
    app.restart().await;
    let mut new = other(&app, &owner);
    let more = json!({"bind_device": {"name": "new phone"}, "release": ["device-secret"]});
    let started = new.try_recovery_code(&codes[3], more).await.expect(201);
    assert_eq!(started.body["device_bound"], true);
    assert_eq!(started.body["session"]["factor"], "recovery-code");
    let secret = &started.body["secrets"]["device-secret"]["server_slot"];
    assert_eq!(*secret, custodyd_tests::device::b64(b"the secret"));
    let view = new.view().await;
    assert_eq!(view["recovery_codes"]["left"], 9);
    assert_eq!(view["devices"].as_array().unwrap().len(), 2);
    new.try_device(&[]).await.expect(201);
}

#[tokio::test]
async fn a_code_is_used_once_whoever_asks_and_also_after_a_kill() {
    let mut app = app("").await;
    let (mut owner, codes) = with_codes(&app).await;
    let mut new = other(&app, &owner);
    new.try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    app.kill();
    app.launch().await;
    let answer = new.try_recovery_code(&codes[0], json!({})).await;
    answer.refused("401 authentication-failed");
    let answer = owner.try_recovery_code(&codes[0], json!({})).await;
    answer.refused("401 recovery-code-wrong");
}

#[tokio::test]
async fn one_code_sent_n_times_at_once_opens_exactly_one_session() {
    let app = app("[recovery_codes]\nrounds = [{ attempts = 30 }]").await;
    let (mut owner, codes) = with_codes(&app).await;
    let mut new = other(&app, &owner);
    new.meet().await;
    for (device, code) in [(&mut new, &codes[0]), (&mut owner, &codes[1])] {
        let body = json!({"account": device.account, "code": code});
        let answers = device.at_once("recovery-code", body, 12).await;
        let opened = answers.iter().filter(|answer| *answer == "201 -").count();
        assert_eq!(opened, 1, "{answers:?}");
    }
}

#[tokio::test]
async fn the_session_of_the_last_code_makes_new_ones() {
    let app = app("").await;
    let (mut owner, codes) = with_codes(&app).await;
    owner.set_pin("830517").await.expect(200);
    let mut new = other(&app, &owner);
    for code in &codes {
        new.try_recovery_code(code, json!({})).await.expect(201);
    }
    let view = new.view().await;
    assert_eq!(view["recovery_codes"]["left"], 0);
    let last = new.token.clone();
    let answer = new.try_recovery_code(&codes[9], json!({})).await;
    answer.refused("401 authentication-failed");
    new.token = last;
    let codes = new.set_recovery_codes().await;
    new.view().await;
    new.try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn another_set_ends_the_old_codes_and_their_sessions() {
    let app = app("").await;
    let (mut owner, old) = with_codes(&app).await;
    let mut new = other(&app, &owner);
    new.try_recovery_code(&old[0], json!({})).await.expect(201);
    owner.set_recovery_codes().await;
    let answer = new.call("GET", "/v1/account", None).await;
    answer.refused("401 session-ended");
    let answer = new.try_recovery_code(&old[1], json!({})).await;
    answer.refused("401 authentication-failed");
}

#[tokio::test]
async fn removed_codes_open_nothing() {
    let app = app("").await;
    let (mut owner, codes) = with_codes(&app).await;
    let mut new = other(&app, &owner);
    new.try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    owner.call("DELETE", SET, None).await.expect(204);
    let answer = new.call("GET", "/v1/account", None).await;
    answer.refused("401 session-ended");
    let answer = new.try_recovery_code(&codes[1], json!({})).await;
    answer.refused("401 authentication-failed");
    let answer = owner.try_recovery_code(&codes[1], json!({})).await;
    answer.refused("409 recovery-code-not-set");
}

#[tokio::test]
async fn strangers_get_one_answer_leave_nothing_and_lock_nobody_out() {
    let app = app("[recovery_codes]\nrounds = [{ attempts = 2 }]").await;
    let (mut owner, codes) = with_codes(&app).await;
    let mut without = app.device("notes");
    without.enrol().await;
    let mut stranger = other(&app, &owner);
    let rows = app.admin().await.count("log_entries").await;
    let mut answers = Vec::new();
    for account in [
        owner.account.clone(),
        without.account.clone(),
        "00000000-0000-4000-8000-000000000000".to_owned(),
    ] {
        stranger.account = account;
        for code in recovery_codes() {
            let answer = stranger.try_recovery_code(&code, json!({})).await;
            answers.push((answer.status, answer.body));
        }
    }
    assert_eq!(answers[0].1["code"], "authentication-failed");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(app.admin().await.count("log_entries").await, rows);
    // Neither the owner's bound device nor a new one has lost anything.
    owner
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    let mut new = other(&app, &owner);
    new.try_recovery_code(&codes[1], json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_bound_device_is_charged_and_told() {
    let app = app("[recovery_codes]\nrounds = [{ attempts = 2 }]").await;
    let (mut owner, codes) = with_codes(&app).await;
    let wrong = recovery_codes();
    for left in [1, 0] {
        let answer = owner.try_recovery_code(&wrong[0], json!({})).await;
        answer.refused("401 recovery-code-wrong");
        assert_eq!(answer.body["attempts_left"], left);
    }
    let answer = owner.try_recovery_code(&codes[0], json!({})).await;
    answer.refused("403 recovery-code-exhausted");
    // From elsewhere the owner still comes in, and that makes the device's tries good again.
    let mut new = other(&app, &owner);
    new.try_recovery_code(&codes[1], json!({}))
        .await
        .expect(201);
    owner
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_code_makes_an_exhausted_pin_and_app_usable_again() {
    let app = app("[pin]\nrounds = [{ attempts = 1 }]").await;
    let (mut owner, codes) = with_codes(&app).await;
    owner.set_pin("830517").await.expect(200);
    owner.try_pin("830518", &[]).await.refused("401 pin-wrong");
    owner
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
    let mut new = other(&app, &owner);
    new.try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    owner.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn changing_the_codes_needs_what_is_as_strong() {
    let app = app("").await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    owner.set_pin("830517").await.expect(200);
    owner.try_pin("830517", &[]).await.expect(201);
    // Nothing stronger is there, so the PIN does.
    let codes = owner.set_recovery_codes().await;
    let body = json!({"codes": recovery_codes()});
    let answer = owner.call("POST", SET, Some(body)).await;
    answer.refused("403 step-up-required");
    assert_eq!(answer.body["need_at_least"], "recovery-code");
    let answer = owner.call("DELETE", SET, None).await;
    answer.refused("403 step-up-required");
    owner
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    owner.set_recovery_codes().await;
    let mut passkey = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut passkey).await.expect(201);
    owner.try_passkey(&mut passkey, json!({})).await.expect(201);
    owner.call("DELETE", SET, None).await.expect(204);
}

#[tokio::test]
async fn a_set_is_ten_different_codes_of_the_right_length() {
    let app = app("").await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    let good = recovery_codes();
    let mut repeated = good.clone();
    repeated[9].clone_from(&good[0]);
    let mut short = good.clone();
    short[4] = "AAAA".to_owned();
    let mut many = good.clone();
    many.extend(recovery_codes());
    for codes in [&good[..9], &repeated, &short, &many, &[]] {
        let answer = owner.call("POST", SET, Some(json!({"codes": codes}))).await;
        answer.refused("400 malformed-request");
    }
    assert_eq!(owner.view().await["recovery_codes"], Value::Null);
    owner.set_recovery_codes().await;
    let answer = owner.try_recovery_code("AAAA", json!({})).await;
    answer.refused("400 malformed-request");
}

#[tokio::test]
async fn the_receipt_names_the_set_and_spending_a_code_does_not_change_it() {
    let app = app("").await;
    let (mut owner, codes) = with_codes(&app).await;
    let before = owner.view().await["recovery_codes"].clone();
    let jws = before["binding"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD
        .decode(jws.split('.').nth(1).unwrap())
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["kind"], "recovery-codes");
    assert_eq!(claims["device_id"], before["device_id"]);
    owner
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    let after = owner.view().await["recovery_codes"].clone();
    assert_eq!(after["device_id"], before["device_id"]);
    assert_eq!(after["left"], 9);
}

#[tokio::test]
async fn a_policy_may_forbid_them() {
    let app = TestApp::with(Setup::notes("[recovery_codes]\nallowed = false\n")).await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    let body = json!({"codes": recovery_codes()});
    let answer = owner.call("POST", SET, Some(body)).await;
    answer.refused("403 not-allowed-by-policy");
}
