//! Creating accounts, devices, strangers and events.

use custodyd_tests::TestApp;
use custodyd_tests::device::b64;
use serde_json::{Value, json};

#[tokio::test]
async fn an_account_binds_both_keys_and_survives_a_restart() {
    let mut app = TestApp::start().await;
    let mut device = app.device("notes");
    let created = device.enrol().await;
    let seen = device.call("GET", "/v1/account", None).await.expect(200);
    assert_eq!(seen.body["account"], created.body["account"]);
    assert_eq!(
        seen.body["app_keys"][0]["device_id"],
        device.app_key.thumbprint()
    );
    assert_eq!(
        seen.body["devices"][0]["device_id"],
        device.key.thumbprint()
    );
    assert_eq!(
        seen.body["devices"][0]["binding"],
        created.body["bindings"]["device_key"]
    );
    assert_eq!(seen.body["recovery_incomplete"], true);

    app.restart().await;
    let again = device.call("GET", "/v1/account", None).await.expect(200);
    assert_eq!(again.body, seen.body);
}

#[tokio::test]
async fn bindings_verify_against_the_published_keys() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    let created = device.enrol().await;
    let jwks = device
        .call("GET", "/.well-known/jwks.json", None)
        .await
        .expect(200);
    for (kind, id) in [
        ("app_key", device.app_key.thumbprint()),
        ("device_key", device.key.thumbprint()),
    ] {
        let jws = created.body["bindings"][kind].as_str().unwrap();
        let claims = verify_es256(jws, &jwks.body["keys"][0]);
        assert_eq!(claims["device_id"], id);
        assert_eq!(claims["sub"], device.account);
        assert_eq!(claims["app"], "notes");
    }
}

/// RFC 7515 by hand, against a JWK.
fn verify_es256(jws: &str, jwk: &Value) -> Value {
    use base64::Engine as _;
    let decode = |text: &str| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text)
            .unwrap()
    };
    let (input, signature) = jws.rsplit_once('.').unwrap();
    let mut point = vec![4];
    point.extend(decode(jwk["x"].as_str().unwrap()));
    point.extend(decode(jwk["y"].as_str().unwrap()));
    aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
        point,
    )
    .verify(input.as_bytes(), &decode(signature))
    .unwrap();
    serde_json::from_slice(&decode(input.split_once('.').unwrap().1)).unwrap()
}

#[tokio::test]
async fn the_app_key_must_be_proven_for_this_device_and_app() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.meet().await;
    let other = app.device("notes");
    // A proof that another device may present: it names that device's key.
    let mut stolen = other;
    stolen.nonce.clone_from(&device.nonce);
    let body = json!({"app_key_proof": stolen.app_key_proof()});
    let answer = device
        .call("POST", "/v1/apps/{app}/accounts", Some(body))
        .await;
    answer.refused("401 dpop-invalid");

    let body = json!({"app_key_proof": device.app_key_proof()});
    let call = device.prepare("POST", "/v1/apps/wallet/accounts", Some(body));
    device.run(&call).await.refused("401 dpop-invalid");
}

#[tokio::test]
async fn an_idempotency_key_finds_the_same_account_from_the_same_keys_only() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.meet().await;
    let mut accounts = Vec::new();
    for _ in 0..2 {
        let mut call = device.prepare(
            "POST",
            "/v1/apps/{app}/accounts",
            Some(json!({"app_key_proof": device.app_key_proof()})),
        );
        call.headers
            .push(("Idempotency-Key".into(), "first-try".into()));
        let answer = device.run(&call).await.expect(201);
        accounts.push(answer.body["account"].clone());
    }
    assert_eq!(accounts[0], accounts[1]);
    // Another app key behind the same device key is another request.
    let other = app.device("notes");
    device.app_key = other.app_key;
    let mut call = device.prepare(
        "POST",
        "/v1/apps/{app}/accounts",
        Some(json!({"app_key_proof": device.app_key_proof()})),
    );
    call.headers
        .push(("Idempotency-Key".into(), "first-try".into()));
    device.run(&call).await.refused("409 account-exists");
}

#[tokio::test]
async fn two_apps_do_not_see_each_other() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    // The same device key asks the other app for this app's account.
    device.app = "wallet".into();
    device
        .try_pin("830517", &[])
        .await
        .refused("401 authentication-failed");
    device
        .try_device(&[])
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn strangers_get_one_answer_whether_the_account_exists_or_not() {
    let app = TestApp::start().await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    owner.set_pin("830517").await.expect(200);
    let rows = app.admin().await.count("log_entries").await;
    let mut stranger = app.device("notes");
    let mut answers = Vec::new();
    for account in [
        owner.account.clone(),
        "7d444840-9dc0-41d1-b245-5ffdce74fad2".into(),
    ] {
        stranger.account = account;
        let pin = stranger.try_pin("830517", &[]).await;
        let device = stranger.try_device(&[]).await;
        answers.push((pin.status, pin.body, device.status, device.body));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].1["code"], "authentication-failed");
    assert_eq!(
        app.admin().await.count("log_entries").await,
        rows,
        "a stranger wrote something"
    );
}

#[tokio::test]
async fn events_tell_the_whole_story_in_order() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device.back_up("device-secret", b"x").await.expect(200);
    device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    device
        .try_pin("830517", &["device-secret"])
        .await
        .expect(201);
    assert_eq!(
        device.events().await,
        [
            "account-created",
            "device-bound",
            "pin-set",
            "secret-stored",
            "pin-charged",
            "pin-refused",
            "pin-charged",
            "session-started",
            "secret-released"
        ]
    );
}

#[tokio::test]
async fn events_come_in_pages_and_a_made_up_cursor_is_refused() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for version in 0..60 {
        let content = json!({"server_slot": "AAAA"});
        let (header, value) = match version {
            0 => ("If-None-Match", "*".to_owned()),
            n => ("If-Match", format!("\"{n}\"")),
        };
        device
            .put("device-secret", header, &value, content)
            .await
            .expect(200);
    }
    let first = device
        .call("GET", "/v1/account/events", None)
        .await
        .expect(200);
    let next = first.body["next"].as_str().unwrap().to_owned();
    let second = device
        .call("GET", &format!("/v1/account/events?from={next}"), None)
        .await
        .expect(200);
    assert_eq!(first.body["events"].as_array().unwrap().len(), 50);
    assert_eq!(second.body["events"].as_array().unwrap().len(), 12);
    assert_eq!(second.body["next"], Value::Null);
    assert_eq!(second.body["complete_from"], 1);
    for cursor in ["x", "1.", "9.1", "99999.99999", "1.18446744073709551615"] {
        let answer = device
            .call("GET", &format!("/v1/account/events?from={cursor}"), None)
            .await;
        assert_eq!(answer.refusal(), "400 malformed-request", "{cursor}");
    }
}

#[tokio::test]
async fn another_device_is_bound_and_removed() {
    let app = TestApp::start().await;
    let mut first = app.device("notes");
    first.enrol().await;
    let mut authenticator = custodyd_tests::SoftAuthenticator::new("notes");
    first.add_passkey(&mut authenticator).await.expect(201);
    let mut second = app.device("notes");
    let started = second
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    assert_eq!(started.body["device_bound"], false);
    let old = second.token.clone();
    let bound = second
        .call(
            "POST",
            "/v1/account/devices",
            Some(json!({"name": "second"})),
        )
        .await
        .expect(201);
    second.token = Some(bound.body["session"]["token"].as_str().unwrap().to_owned());
    let seen = second.call("GET", "/v1/account", None).await.expect(200);
    assert_eq!(seen.body["devices"].as_array().unwrap().len(), 2);
    let own = format!("/v1/account/devices/{}", second.key.thumbprint());
    second
        .call("DELETE", &own, None)
        .await
        .refused("409 own-device");

    first
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    first.call("DELETE", &own, None).await.expect(204);
    for token in [second.token.clone(), old] {
        second.token = token;
        second
            .call("GET", "/v1/account", None)
            .await
            .refused("401 session-ended");
    }
    second.account.clone_from(&first.account);
    second
        .try_device(&[])
        .await
        .refused("401 authentication-failed");
}

#[tokio::test]
async fn kill_minus_nine_loses_no_acknowledged_change() {
    let mut app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for round in 1..=5u64 {
        let content = json!({"server_slot": b64(&round.to_be_bytes())});
        let (header, value) = match round {
            1 => ("If-None-Match", "*".to_owned()),
            n => ("If-Match", format!("\"{}\"", n - 1)),
        };
        device
            .put("device-secret", header, &value, content)
            .await
            .expect(200);
        app.kill();
        app.launch().await;
        let back = device.recover("device-secret").await.expect(200);
        assert_eq!(back.body["server_slot"], b64(&round.to_be_bytes()));
    }
}

#[tokio::test]
async fn the_operator_sees_health_readiness_and_metrics() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    assert_eq!(app.operator("/healthz").await.0, 200);
    assert_eq!(app.operator("/readyz").await.0, 200);
    let (_, metrics) = app.operator("/metrics").await;
    assert!(metrics.contains("custodyd_request_seconds"), "{metrics}");
    assert!(!metrics.contains(&device.account));
    // The log names no account, no device and no token either.
    let log = app.log();
    for secret in [
        device.account.as_str(),
        &device.key.thumbprint(),
        device.token.as_deref().unwrap(),
    ] {
        assert!(!log.contains(secret));
    }
}
