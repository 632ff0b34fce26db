//! Creating accounts, sessions, secrets, devices and events.

use custodyd_tests::device::b64;
use custodyd_tests::{Setup, TestApp};
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
async fn a_proof_is_good_for_one_request_only() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut call = device.prepare("GET", "/v1/account", None);
    call.proof = Some(device.proof(&call));
    device.send(&call).await.expect(200);
    device.send(&call).await.refused("401 dpop-replayed");
}

#[tokio::test]
async fn a_proof_says_what_it_is_for() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for (claims, code) in [
        (json!({"htm": "POST"}), "401 dpop-invalid"),
        (
            json!({"htu": "https://evil.example/v1/account"}),
            "401 dpop-invalid",
        ),
        (json!({"ath": null}), "401 dpop-invalid"),
        (json!({"ath": b64(&[0; 32])}), "401 dpop-invalid"),
        (json!({"iat": 1_000_000}), "401 dpop-invalid"),
        (json!({"jti": null}), "401 dpop-invalid"),
        (json!({"nonce": "AAAA"}), "401 use-dpop-nonce"),
        (json!({"nonce": null}), "401 use-dpop-nonce"),
    ] {
        let mut call = device.prepare("GET", "/v1/account", None);
        call.claims = claims.clone();
        let answer = device.send(&call).await;
        assert_eq!(answer.refusal(), code, "{claims}");
    }
    device.call("GET", "/v1/account", None).await.expect(200);
}

#[tokio::test]
async fn a_write_is_bound_to_its_body() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut call = device.prepare("PUT", "/v1/account/pin", Some(json!({"pin": "830517"})));
    call.proof = Some(device.proof(&call));
    call.body = Some(br#"{"pin":"000001"}"#.to_vec());
    device.send(&call).await.refused("401 dpop-invalid");
    let mut call = device.prepare("PUT", "/v1/account/pin", Some(json!({"pin": "830517"})));
    call.claims = json!({"body_sha256": null});
    device.send(&call).await.refused("401 dpop-invalid");
}

#[tokio::test]
async fn a_session_is_worthless_without_its_device_key() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut thief = app.device("notes");
    thief.token.clone_from(&device.token);
    thief
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-invalid");
}

#[tokio::test]
async fn a_session_token_can_not_be_edited() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let token = device.token.clone().unwrap();
    for at in [0, 4, 10, token.len() / 2, token.len() - 1] {
        let mut edited = token.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
        device.token = Some(String::from_utf8(edited).unwrap());
        let answer = device.call("GET", "/v1/account", None).await;
        assert_eq!(answer.refusal(), "401 session-invalid", "byte {at}");
    }
}

#[tokio::test]
async fn signing_out_ends_the_session_and_a_restart_does_not_revive_it() {
    let mut app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.call("DELETE", "/v1/session", None).await.expect(204);
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
    app.restart().await;
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
}

#[tokio::test]
async fn signing_out_everywhere_ends_the_other_sessions_too() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let first = device.token.clone();
    device.try_pin("830517", &[]).await.expect(201);
    device
        .call("DELETE", "/v1/sessions", None)
        .await
        .expect(204);
    for token in [device.token.clone(), first] {
        device.token = token;
        device
            .call("GET", "/v1/account", None)
            .await
            .refused("401 session-ended");
    }
}

#[tokio::test]
async fn a_session_ends_when_idle_and_refreshing_moves_the_end() {
    let app = TestApp::with(Setup::notes(
        "sessions = { idle = \"1m\", absolute = \"1h\" }",
    ))
    .await;
    let mut device = app.device("notes");
    let created = device.enrol().await;
    let idle = created.body["session"]["idle_until"].as_u64().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let renewed = device
        .call("POST", "/v1/session/refresh", None)
        .await
        .expect(200);
    assert!(renewed.body["idle_until"].as_u64().unwrap() > idle);
    assert_eq!(
        renewed.body["absolute_until"],
        created.body["session"]["absolute_until"]
    );
    device.token = Some(renewed.body["token"].as_str().unwrap().to_owned());
    device.call("GET", "/v1/account", None).await.expect(200);
}

#[tokio::test]
async fn a_device_session_reads_and_does_not_write() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device
        .back_up("app-key", b"wrapped private key")
        .await
        .expect(200);
    device.back_up("device-secret", b"secret").await.expect(200);
    let started = device.try_device(&["app-key"]).await.expect(201);
    assert_eq!(started.body["session"]["scope"], "read");
    assert_eq!(
        started.body["secrets"]["app-key"]["server_slot"],
        b64(b"wrapped private key")
    );
    device.recover("app-key").await.expect(200);
    device
        .recover("device-secret")
        .await
        .refused("403 release-forbidden");
    device
        .set_pin("830517")
        .await
        .refused("403 read-only-session");
    device
        .back_up("more", b"x")
        .await
        .refused("403 read-only-session");
    device
        .call("DELETE", "/v1/sessions", None)
        .await
        .refused("403 read-only-session");
}

#[tokio::test]
async fn secrets_have_versions_and_lost_updates_are_refused() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let first = device.back_up("device-secret", b"one").await.expect(200);
    assert_eq!(first.header("etag"), "\"1\"");
    let again = device.back_up("device-secret", b"two").await;
    again.refused("412 precondition-failed");
    assert_eq!(again.body["current_version"], 1);
    let content = json!({"server_slot": b64(b"two")});
    device
        .put("device-secret", "If-Match", "\"1\"", content.clone())
        .await
        .expect(200);
    device
        .put("device-secret", "If-Match", "\"1\"", content.clone())
        .await
        .refused("412 precondition-failed");
    let call = device.prepare("PUT", "/v1/account/secrets/device-secret", Some(content));
    device.run(&call).await.refused("428 precondition-required");
    let now = device.recover("device-secret").await.expect(200);
    assert_eq!(now.body["server_slot"], b64(b"two"));
    assert_eq!(now.header("etag"), "\"2\"");
}

#[tokio::test]
async fn a_deleted_secret_is_gone_and_its_version_is_never_used_again() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.back_up("device-secret", b"one").await.expect(200);
    let mut call = device.prepare("DELETE", "/v1/account/secrets/device-secret", None);
    device.run(&call).await.refused("428 precondition-required");
    call.headers.push(("If-Match".into(), "\"1\"".into()));
    device.run(&call).await.expect(204);
    device
        .recover("device-secret")
        .await
        .refused("404 not-found");
    let made = device.back_up("device-secret", b"one").await.expect(200);
    assert_eq!(made.body["version"], 2);
}

#[tokio::test]
async fn a_secret_needs_a_way_to_open_it_that_is_not_prf_alone() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let slot = |kind: &str| json!({"type": kind, "credential": "c", "ciphertext": b64(b"sealed")});
    for (content, code) in [
        (json!({"slots": []}), "422 secret-malformed"),
        (json!({"slots": [slot("prf")]}), "422 prf-only-slot"),
        (
            json!({"slots": [slot("prf"), slot("prf")]}),
            "422 prf-only-slot",
        ),
        (json!({"slots": [slot("magic")]}), "400 malformed-request"),
        (
            json!({"slots": [], "server_slot": "not base64url!"}),
            "400 malformed-request",
        ),
        (
            json!({"slots": [], "sever_slot": "AAAA"}),
            "400 malformed-request",
        ),
        (
            json!({"server_slot": b64(&vec![7; 20_000])}),
            "413 secret-too-large",
        ),
    ] {
        let answer = device
            .put("device-secret", "If-None-Match", "*", content)
            .await;
        answer.refused(code);
    }
    let content = json!({"slots": [slot("prf"), slot("recovery-code")]});
    device
        .put("device-secret", "If-None-Match", "*", content.clone())
        .await
        .expect(200);
    let back = device.recover("device-secret").await.expect(200);
    assert_eq!(back.body["slots"], content["slots"]);
    let list = device
        .call("GET", "/v1/account/secrets", None)
        .await
        .expect(200);
    assert_eq!(list.body["secrets"][0]["name"], "device-secret");
}

#[tokio::test]
async fn a_policy_may_forbid_server_slots() {
    let app = TestApp::with(Setup::notes("secrets = { server_slot = \"forbidden\" }")).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device
        .back_up("device-secret", b"x")
        .await
        .refused("422 server-slot-forbidden");
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
async fn malformed_requests_get_a_clear_answer() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for (body, code) in [
        (&b"{"[..], "400 malformed-request"),
        (b"[]", "400 malformed-request"),
        (b"{\"pin\":1}", "400 malformed-request"),
        (b"{\"pin\":\"830517\",\"extra\":1}", "400 malformed-request"),
        (b"\xff\xfe", "400 malformed-request"),
        (b"{\"pin\":\"1\"}", "422 pin-weak"),
    ] {
        let mut call = device.prepare("PUT", "/v1/account/pin", Some(json!({})));
        call.body = Some(body.to_vec());
        let answer = device.run(&call).await;
        assert_eq!(answer.refusal(), code, "{}", String::from_utf8_lossy(body));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let mut call = device.prepare("PUT", "/v1/account/pin", Some(json!({})));
    call.body = Some(vec![b' '; 70_000]);
    device.run(&call).await.refused("413 body-too-large");
    device
        .call("GET", "/v2/nothing", None)
        .await
        .refused("404 no-such-route");
    device
        .call("PUT", "/v1/account", Some(json!({})))
        .await
        .refused("405 method-not-allowed");
    let call = device.prepare("POST", "/v1/apps/no-such-app/sessions/pin", Some(json!({})));
    device.run(&call).await.refused("404 app-unknown");
}

#[tokio::test]
async fn a_foreign_origin_is_refused_and_the_apps_own_gets_cors_headers() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut call = device.prepare("GET", "/v1/account", None);
    call.headers = vec![("Origin".into(), "https://evil.example".into())];
    let answer = device.run(&call).await;
    answer.refused("403 origin-not-allowed");
    assert_eq!(answer.header("access-control-allow-origin"), "");
    // Another app's page is a foreign page as well.
    call.headers = vec![("Origin".into(), "https://wallet.example.com".into())];
    device.run(&call).await.refused("403 origin-not-allowed");
    call.headers = vec![("Origin".into(), "https://notes.example.com".into())];
    let answer = device.run(&call).await.expect(200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://notes.example.com"
    );
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("dpop-nonce")
    );
    assert!(answer.header("vary").contains("origin"));
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
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

#[tokio::test]
async fn openapi_describes_every_route() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    let api = device.call("GET", "/openapi.json", None).await.expect(200);
    assert!(api.body["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = api.body["paths"].as_object().unwrap();
    assert!(paths.len() >= 15, "{:?}", paths.keys());
    assert!(paths.contains_key("/v1/account/secrets/{name}"));
}
