//! Authenticator apps: enrolment, each code once, and a budget of their own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use custodyd_tests::codes::policy;
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

const ROUNDS: &str = "rounds = [{ attempts = 3 }, { attempts = 1, wait = \"1h\" }]";

async fn app(totp: &str, more: &str) -> TestApp {
    TestApp::with(Setup {
        policies: vec![policy("notes", totp, more)],
        ..Setup::default()
    })
    .await
}

async fn enrolled(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device
}

#[tokio::test]
async fn an_app_is_enrolled_confirmed_and_opens_a_session_with_the_secret() {
    let mut app = app("", "").await;
    let mut device = enrolled(&app).await;
    device
        .back_up("device-secret", b"the secret")
        .await
        .expect(200);
    let mut authenticator = device.add_totp().await;
    app.restart().await;
    let code = authenticator.show();
    let started = device.try_totp(&code, &["device-secret"]).await.expect(201);
    assert_eq!(started.body["session"]["factor"], "totp");
    assert_eq!(started.body["device_bound"], true);
    let secret = &started.body["secrets"]["device-secret"]["server_slot"];
    assert_eq!(*secret, custodyd_tests::device::b64(b"the secret"));
    let events = device.events().await;
    let totp: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|kind| kind.starts_with("totp"))
        .collect();
    assert_eq!(
        totp,
        [
            "totp-enrolled",
            "totp-charged",
            "totp-added",
            "totp-charged"
        ]
    );
}

#[tokio::test]
async fn the_enrolment_shows_the_secret_once_as_text_and_as_pictures() {
    let app = app("digits = 8\nperiod = \"60s\"", "").await;
    let mut device = enrolled(&app).await;
    let body = json!({"label": "ann@example.com"});
    let shown = device
        .call("POST", "/v1/account/totp", Some(body))
        .await
        .expect(201);
    assert_eq!(shown.header("cache-control"), "no-store");
    let otpauth = shown.body["otpauth"].as_str().unwrap();
    for part in ["digits=8", "period=60", "issuer=notes", "ann"] {
        assert!(otpauth.contains(part), "{part}: {otpauth}");
    }
    let svg = shown.body["svg"].as_str().unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    let png = URL_SAFE_NO_PAD
        .decode(shown.body["png"].as_str().unwrap())
        .unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    let view = device.view().await;
    assert_eq!(
        (&view["totp"], &view["totp_pending"]),
        (&Value::Null, &json!(true))
    );
    assert!(!view.to_string().contains("otpauth") && !app.log().contains("otpauth"));
}

#[tokio::test]
async fn the_receipt_names_the_app_and_its_kind() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    device.add_totp().await;
    let view = device.view().await;
    let jws = view["totp"]["binding"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD
        .decode(jws.split('.').nth(1).unwrap())
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["kind"], "totp");
    assert_eq!(claims["device_id"], view["totp"]["device_id"]);
    assert_eq!(claims["sub"], device.account.as_str());
}

#[tokio::test]
async fn an_app_that_was_not_confirmed_opens_nothing() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    let mut authenticator = device.enrol_totp().await;
    let code = authenticator.show();
    let answer = device.try_totp(&code, &[]).await;
    answer.refused("409 totp-not-set");
}

#[tokio::test]
async fn a_step_is_used_once_and_none_before_it() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    let mut authenticator = device.add_totp().await;
    // The code that confirmed it is a used one.
    let confirmed = authenticator.again();
    device
        .try_totp(&confirmed, &[])
        .await
        .refused("401 totp-wrong");
    let (skipped, newer) = (authenticator.show(), authenticator.show());
    device.try_totp(&newer, &[]).await.expect(201);
    device.try_totp(&newer, &[]).await.refused("401 totp-wrong");
    device
        .try_totp(&skipped, &[])
        .await
        .refused("401 totp-wrong");
    device
        .try_totp(&authenticator.show(), &[])
        .await
        .expect(201);
}

#[tokio::test]
async fn n_right_codes_at_once_open_exactly_one_session() {
    let app = app("rounds = [{ attempts = 30 }]", "").await;
    let mut device = enrolled(&app).await;
    let mut authenticator = device.add_totp().await;
    let body = json!({"account": device.account, "code": authenticator.show()});
    let answers = device.at_once("totp", body, 20).await;
    let opened = answers.iter().filter(|answer| *answer == "201 -").count();
    assert_eq!(opened, 1, "{answers:?}");
    let used = answers.iter().filter(|a| *a == "401 totp-wrong").count();
    assert_eq!(used, 19, "{answers:?}");
}

#[tokio::test]
async fn wrong_codes_use_the_round_up_and_then_wait() {
    let mut app = app(ROUNDS, "").await;
    let mut device = enrolled(&app).await;
    let mut authenticator = device.add_totp().await;
    for left in [2, 1, 0] {
        let answer = device.try_totp(&authenticator.wrong(), &[]).await;
        answer.refused("401 totp-wrong");
        assert_eq!(answer.body["attempts_left"], left);
    }
    app.restart().await;
    let answer = device.try_totp(&authenticator.show(), &[]).await;
    answer.refused("429 totp-wait");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    app.kill();
    app.launch().await;
    let answer = device.try_totp(&authenticator.again(), &[]).await;
    answer.refused("429 totp-wait");
}

#[tokio::test]
async fn a_right_code_clears_the_failures_before_it() {
    let app = app(ROUNDS, "").await;
    let mut device = enrolled(&app).await;
    let mut authenticator = device.add_totp().await;
    for _ in 0..2 {
        for _ in 0..2 {
            let answer = device.try_totp(&authenticator.wrong(), &[]).await;
            answer.refused("401 totp-wrong");
        }
        device
            .try_totp(&authenticator.show(), &[])
            .await
            .expect(201);
    }
}

#[tokio::test]
async fn what_was_answered_before_a_kill_stays_charged() {
    let mut app = app("rounds = [{ attempts = 100 }]", "").await;
    let mut device = enrolled(&app).await;
    let authenticator = device.add_totp().await;
    let body = json!({"account": device.account, "code": authenticator.wrong()});
    let rows = app.admin().await.count("log_entries").await;
    let guessing = device.at_once("totp", body, 60);
    let killing = async {
        let mut admin = app.admin().await;
        while admin.count("log_entries").await < rows + 20 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        app.kill();
    };
    let (answers, ()) = tokio::join!(guessing, killing);
    let answered = answers.iter().filter(|a| *a == "401 totp-wrong").count();
    app.launch().await;
    device.nonce = String::new();
    let answer = device.try_totp(&authenticator.wrong(), &[]).await;
    answer.refused("401 totp-wrong");
    let left = answer.body["attempts_left"].as_u64().unwrap();
    // Those that were charged and not answered count too; none is given back.
    assert!(
        left < 100 - answered as u64 && left < 95,
        "{left} left, {answered} answered"
    );
}

#[tokio::test]
async fn an_exhausted_app_is_reset_by_a_pin_and_an_exhausted_pin_not_by_the_app() {
    let app = app(
        "rounds = [{ attempts = 2 }]",
        "[pin]\nrounds = [{ attempts = 2 }]",
    )
    .await;
    let mut device = enrolled(&app).await;
    device.set_pin("830517").await.expect(200);
    let mut authenticator = device.add_totp().await;
    for _ in 0..2 {
        device
            .try_totp(&authenticator.wrong(), &[])
            .await
            .refused("401 totp-wrong");
    }
    let answer = device.try_totp(&authenticator.show(), &[]).await;
    answer.refused("403 totp-exhausted");
    device.try_pin("830517", &[]).await.expect(201);
    device
        .try_totp(&authenticator.again(), &[])
        .await
        .expect(201);
    for _ in 0..2 {
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    }
    device
        .try_totp(&authenticator.show(), &[])
        .await
        .expect(201);
    device
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
}

#[tokio::test]
async fn a_stranger_is_told_nothing_and_leaves_nothing() {
    let app = app(ROUNDS, "").await;
    let mut owner = enrolled(&app).await;
    let mut authenticator = owner.add_totp().await;
    let mut stranger = app.device("notes");
    let code = authenticator.show();
    let rows = app.admin().await.count("log_entries").await;
    let mut answers = Vec::new();
    for (account, code) in [
        (owner.account.clone(), code.clone()),
        (owner.account.clone(), authenticator.wrong()),
        (
            "00000000-0000-4000-8000-000000000000".to_owned(),
            code.clone(),
        ),
    ] {
        stranger.account = account;
        for _ in 0..4 {
            let answer = stranger.try_totp(&code, &[]).await;
            answers.push((answer.status, answer.body));
        }
    }
    assert_eq!(answers[0].1["code"], "authentication-failed");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    assert_eq!(app.admin().await.count("log_entries").await, rows);
    // The code that the stranger showed is still the owner's, and so is every attempt.
    owner.try_totp(&code, &[]).await.expect(201);
}

#[tokio::test]
async fn a_replaced_app_opens_nothing_and_its_sessions_end() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    let mut old = device.add_totp().await;
    device.try_totp(&old.show(), &[]).await.expect(201);
    let before = device.token.clone();
    let mut new = device.enrol_totp().await;
    // Until the new one is confirmed, the old one stays in use.
    device.try_totp(&old.show(), &[]).await.expect(201);
    let code = new.show();
    device.confirm_totp(&code).await.expect(200);
    device.view().await;
    let asked = std::mem::replace(&mut device.token, before);
    let answer = device.call("GET", "/v1/account", None).await;
    answer.refused("401 session-ended");
    device.token = asked;
    device
        .try_totp(&old.show(), &[])
        .await
        .refused("401 totp-wrong");
    device.try_totp(&new.show(), &[]).await.expect(201);
}

#[tokio::test]
async fn a_removed_app_ends_its_sessions() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    let mut authenticator = device.add_totp().await;
    device
        .try_totp(&authenticator.show(), &[])
        .await
        .expect(201);
    let answer = device.call("DELETE", "/v1/account/totp", None).await;
    answer.expect(204);
    let answer = device.call("GET", "/v1/account", None).await;
    answer.refused("401 session-ended");
    let answer = device.try_totp(&authenticator.show(), &[]).await;
    answer.refused("409 totp-not-set");
}

#[tokio::test]
async fn codes_that_shall_confirm_are_charged_too() {
    let app = app("rounds = [{ attempts = 2 }]", "").await;
    let mut device = enrolled(&app).await;
    let answer = device.confirm_totp("000000").await;
    answer.refused("409 totp-not-pending");
    let mut authenticator = device.enrol_totp().await;
    let wrong = authenticator.wrong();
    let answer = device.confirm_totp(&wrong).await;
    answer.refused("401 totp-wrong");
    assert_eq!(answer.body["attempts_left"], 1);
    device.confirm_totp(&wrong).await.refused("401 totp-wrong");
    let code = authenticator.show();
    device
        .confirm_totp(&code)
        .await
        .refused("403 totp-exhausted");
    device.add_totp().await;
}

#[tokio::test]
async fn a_session_by_totp_changes_what_is_no_stronger() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    device.set_pin("830517").await.expect(200);
    let mut passkey = SoftAuthenticator::new("notes");
    device.add_passkey(&mut passkey).await.expect(201);
    let mut authenticator = device.add_totp().await;
    device
        .try_totp(&authenticator.show(), &[])
        .await
        .expect(201);
    for (method, path, body, needed) in [
        ("DELETE", "/v1/account/pin", Value::Null, "pin"),
        (
            "POST",
            "/v1/account/recovery-codes",
            json!({"codes": custodyd_tests::codes::recovery_codes()}),
            "passkey",
        ),
        (
            "DELETE",
            "/v1/account/recovery-codes",
            Value::Null,
            "passkey",
        ),
        ("DELETE", "/v1/account/devices/AAAA", Value::Null, "pin"),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = device.call(method, path, body).await;
        answer.refused("403 step-up-required");
        assert_eq!(answer.body["need_at_least"], needed, "{path}");
    }
    // By a PIN the app may be removed, by the device key alone nothing.
    device.try_device(&[]).await.expect(201);
    let answer = device.call("POST", "/v1/account/totp", None).await;
    answer.refused("403 read-only-session");
    device.try_pin("830517", &[]).await.expect(201);
    let answer = device.call("DELETE", "/v1/account/totp", None).await;
    answer.expect(204);
}

#[tokio::test]
async fn a_confirmation_rewraps_secrets_in_the_same_commit_or_not_at_all() {
    let app = app("", "").await;
    let mut device = enrolled(&app).await;
    device.back_up("device-secret", b"old").await.expect(200);
    let mut authenticator = device.enrol_totp().await;
    let code = authenticator.show();
    let body = |version: u64| {
        json!({"code": code, "secrets": {"device-secret": {
            "if_version": version, "content": {"server_slot": "AAAA"}}}})
    };
    let path = "/v1/account/totp/confirm";
    let answer = device.call("POST", path, Some(body(7))).await;
    answer.refused("412 precondition-failed");
    assert_eq!(device.view().await["totp"], Value::Null);
    device.call("POST", path, Some(body(1))).await.expect(200);
    let secret = device.recover("device-secret").await.expect(200);
    assert_eq!(secret.body["server_slot"], "AAAA");
}

#[tokio::test]
async fn the_policy_decides_whether_there_is_totp_and_what_it_releases() {
    let app = TestApp::with(Setup {
        policies: vec![
            (
                "wallet".into(),
                custodyd_tests::app::policy("wallet", "[totp]\nallowed = false\n"),
            ),
            (
                "notes".into(),
                custodyd_tests::app::policy("notes", "[totp]\nwindow = 2\n"),
            ),
        ],
        ..Setup::default()
    })
    .await;
    let mut device = app.device("wallet");
    device.enrol().await;
    let answer = device.call("POST", "/v1/account/totp", None).await;
    answer.refused("403 not-allowed-by-policy");
    device
        .try_totp("000000", &[])
        .await
        .refused("403 not-allowed-by-policy");
    let mut device = enrolled(&app).await;
    let mut authenticator = device.add_totp().await;
    let code = authenticator.show();
    let answer = device.try_totp(&code, &["device-secret"]).await;
    answer.refused("403 release-forbidden");
    device.try_totp(&code, &[]).await.expect(201);
}

#[tokio::test]
async fn bad_input_costs_nothing() {
    let app = app(ROUNDS, "").await;
    let mut device = enrolled(&app).await;
    for label in ["", "a:b", "a\nb", &"x".repeat(129)] {
        let body = json!({"label": label});
        let answer = device.call("POST", "/v1/account/totp", Some(body)).await;
        answer.refused("400 malformed-request");
    }
    let mut authenticator = device.add_totp().await;
    for body in [
        json!({}),
        json!({"code": 123_456}),
        json!({"code": "123456", "x": 1}),
    ] {
        let mut body = body;
        body["account"] = json!(device.account);
        let path = "/v1/apps/{app}/sessions/totp";
        device.token = None;
        let answer = device.call("POST", path, Some(body)).await;
        answer.refused("400 malformed-request");
    }
    // What is no code is a wrong one.
    for code in ["", "12345", "1234567", "abcdef", &"9".repeat(5000)] {
        let answer = device.try_totp(code, &[]).await;
        assert!(
            answer.status == 401 || answer.status == 429,
            "{}",
            answer.body
        );
    }
    assert_eq!(
        device.try_totp(&authenticator.show(), &[]).await.status,
        429
    );
}
