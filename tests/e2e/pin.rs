//! The PIN: its budget above all.

use custodyd_tests::{Setup, SoftAuthenticator, TestApp};
use serde_json::json;

const ROUNDS: &str = r#"
[[pin.rounds]]
attempts = 3
[[pin.rounds]]
attempts = 1
wait = "1h"
"#;

async fn with_pin(app: &TestApp) -> custodyd_tests::Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    device
}

#[tokio::test]
async fn a_pin_brings_the_secret_back_after_a_restart() {
    let mut app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    app.restart().await;
    let started = device
        .try_pin("830517", &["device-secret"])
        .await
        .expect(201);
    let secret = &started.body["secrets"]["device-secret"]["server_slot"];
    assert_eq!(*secret, custodyd_tests::device::b64(b"the device secret"));
    assert_eq!(started.body["device_bound"], true);
}

#[tokio::test]
async fn wrong_pins_use_the_round_up_and_then_wait() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    for left in [2, 1, 0] {
        let answer = device.try_pin("830518", &[]).await;
        answer.refused("401 pin-wrong");
        assert_eq!(answer.body["attempts_left"], left);
    }
    let answer = device.try_pin("830517", &[]).await;
    answer.refused("429 pin-wait");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_lock_survives_a_restart_and_a_kill() {
    let mut app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    for _ in 0..3 {
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    }
    app.restart().await;
    device.try_pin("830517", &[]).await.refused("429 pin-wait");
    app.kill();
    app.launch().await;
    device.try_pin("830517", &[]).await.refused("429 pin-wait");
}

#[tokio::test]
async fn an_exhausted_pin_is_reset_by_a_passkey() {
    let app = TestApp::with(Setup::notes("[[pin.rounds]]\nattempts = 2\n")).await;
    let mut device = with_pin(&app).await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    let last = device.try_pin("830518", &[]).await;
    assert_eq!(last.body["exhausted"], true);
    device
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    device.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn a_right_pin_clears_the_failures_before_it() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    for _ in 0..4 {
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
        device.try_pin("830517", &[]).await.expect(201);
    }
}

#[tokio::test]
async fn n_parallel_wrong_guesses_cost_exactly_n() {
    let app = TestApp::with(Setup::notes("[[pin.rounds]]\nattempts = 30\n")).await;
    let mut device = with_pin(&app).await;
    device.token = None;
    let body = json!({"account": device.account, "pin": "830518"});
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let call = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body.clone()));
        let request = device
            .http
            .post(format!("{}{}", device.url, call.path))
            .header("DPoP", device.proof(&call))
            .header("Content-Type", "application/json")
            .body(call.body.clone().unwrap());
        running.spawn(async move { request.send().await.unwrap().status().as_u16() });
    }
    let statuses = running.join_all().await;
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    let next = device.try_pin("830518", &[]).await;
    assert_eq!(next.body["attempts_left"], 30 - 21);
    device.try_pin("830517", &[]).await.expect(201);
    let charged = device
        .events()
        .await
        .iter()
        .filter(|kind| *kind == "pin-charged")
        .count();
    assert_eq!(charged, 22);
}

#[tokio::test]
async fn parallel_guesses_past_the_budget_are_not_evaluated() {
    let app = TestApp::with(Setup::notes("[[pin.rounds]]\nattempts = 3\n")).await;
    let mut device = with_pin(&app).await;
    device.token = None;
    let mut running = tokio::task::JoinSet::new();
    for guess in 0..12 {
        // The right PIN is among them, behind more wrong ones than the budget has.
        let pin = if guess == 11 {
            "830517".to_owned()
        } else {
            format!("83051{}", 8 + guess % 2)
        };
        let body = json!({"account": device.account, "pin": pin});
        let call = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
        let request = device
            .http
            .post(format!("{}{}", device.url, call.path))
            .header("DPoP", device.proof(&call))
            .header("Content-Type", "application/json")
            .body(call.body.clone().unwrap());
        running.spawn(async move {
            let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
            answer["code"].as_str().unwrap_or("in").to_owned()
        });
    }
    let codes = running.join_all().await;
    let evaluated = codes
        .iter()
        .filter(|code| *code == "pin-wrong" || *code == "in")
        .count();
    assert!(evaluated <= 4, "{codes:?}");
}

#[tokio::test]
async fn a_weak_pin_is_refused_with_a_reason() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for pin in ["1234", "123456", "111111", "121212", "987654"] {
        let answer = device.set_pin(pin).await;
        answer.refused("422 pin-weak");
        assert!(!answer.body["detail"].as_str().unwrap().contains(pin));
    }
}

#[tokio::test]
async fn changing_the_pin_needs_a_fresh_session_and_ends_the_old_pin() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    device.try_pin("830517", &[]).await.expect(201);
    device.set_pin("294061").await.expect(200);
    device.try_pin("830517", &[]).await.refused("401 pin-wrong");
    device.try_pin("294061", &[]).await.expect(201);
    device
        .call("DELETE", "/v1/account/pin", None)
        .await
        .expect(204);
    device
        .try_pin("294061", &[])
        .await
        .refused("409 pin-not-set");
}

#[tokio::test]
async fn a_changed_pin_rewraps_secrets_in_the_same_commit_or_not_at_all() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    let rewrap = |version: u64| {
        json!({"pin": "294061", "secrets": {"device-secret": {
            "if_version": version, "content": {"server_slot": "AAAA"}}}})
    };
    let answer = device.call("PUT", "/v1/account/pin", Some(rewrap(7))).await;
    answer.refused("412 precondition-failed");
    device
        .call("PUT", "/v1/account/pin", Some(rewrap(1)))
        .await
        .expect(200);
    let started = device
        .try_pin("294061", &["device-secret"])
        .await
        .expect(201);
    assert_eq!(
        started.body["secrets"]["device-secret"]["server_slot"],
        "AAAA"
    );
    assert_eq!(started.body["secrets"]["device-secret"]["version"], 2);
}

#[tokio::test]
async fn what_can_not_be_released_costs_no_attempt() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    for _ in 0..5 {
        device
            .try_pin("830517", &["no-such-secret"])
            .await
            .refused("404 not-found");
    }
    device
        .try_pin("830517", &["device-secret"])
        .await
        .expect(201);
}

#[tokio::test]
async fn an_unbound_device_can_not_even_lock_the_owner_out() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut owner = with_pin(&app).await;
    let mut stranger = app.device("notes");
    stranger.account.clone_from(&owner.account);
    for _ in 0..10 {
        stranger
            .try_pin("830518", &[])
            .await
            .refused("401 authentication-failed");
    }
    owner.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn a_release_list_is_short_and_names_nothing_twice() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    device
        .try_pin("830517", &["device-secret", "device-secret"])
        .await
        .refused("400 malformed-request");
    let many: Vec<String> = (0..9).map(|n| format!("a{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    device
        .try_pin("830517", &many)
        .await
        .refused("409 too-many");
}
