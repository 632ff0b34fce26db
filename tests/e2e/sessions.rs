//! Proofs and sessions: what they are bound to, how they end.

use custodyd_tests::app::policy;
use custodyd_tests::device::b64;
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

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
async fn a_session_from_before_its_device_was_bound_ends_with_the_binding_and_stays_ended() {
    let app = TestApp::start().await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await.expect(201);
    let mut second = app.device("notes");
    second
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    let guest = second.token.clone();
    second.call("GET", "/v1/account", None).await.expect(200);
    second
        .try_passkey(&mut authenticator, json!({"bind_device": {}}))
        .await
        .expect(201);
    let bound = second.token.clone();
    let ended = async |second: &mut Device, token: &Option<String>| {
        second.token.clone_from(token);
        let answer = second.call("GET", "/v1/account", None).await;
        answer.refused("401 session-ended");
    };
    ended(&mut second, &guest).await;

    owner
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    let device = format!("/v1/account/devices/{}", second.key.thumbprint());
    owner.call("DELETE", &device, None).await.expect(204);
    ended(&mut second, &bound).await;
    ended(&mut second, &guest).await;
    // The key itself is not barred: its holder may sign in as a stranger again.
    second
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    second.call("GET", "/v1/account", None).await.expect(200);
}

#[tokio::test]
async fn binding_a_device_again_revives_no_session_of_it() {
    let app = TestApp::start().await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await.expect(201);
    let mut second = app.device("notes");
    let mut old = Vec::new();
    for _ in 0..2 {
        second
            .try_passkey(&mut authenticator, json!({"bind_device": {}}))
            .await
            .expect(201);
        old.push(second.token.clone());
        second.call("DELETE", "/v1/session", None).await.expect(204);
        second
            .try_passkey(&mut authenticator, json!({}))
            .await
            .expect(201);
        old.push(second.token.clone());
        owner
            .try_passkey(&mut authenticator, json!({}))
            .await
            .expect(201);
        let device = format!("/v1/account/devices/{}", second.key.thumbprint());
        owner.call("DELETE", &device, None).await.expect(204);
    }
    second
        .try_passkey(&mut authenticator, json!({"bind_device": {}}))
        .await
        .expect(201);
    second.call("GET", "/v1/account", None).await.expect(200);
    for token in old {
        second.token = token;
        second
            .call("GET", "/v1/account", None)
            .await
            .refused("401 session-ended");
    }
}

#[tokio::test]
async fn a_changed_pin_ends_what_the_old_one_opened_and_not_the_session_that_changed_it() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device.try_pin("830517", &[]).await.expect(201);
    let thief = device.token.clone();
    device.try_pin("830517", &[]).await.expect(201);
    device.set_pin("294061").await.expect(200);
    device.call("GET", "/v1/account", None).await.expect(200);
    device.set_pin("730291").await.expect(200);
    device.token = thief;
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
}

#[tokio::test]
async fn a_factor_that_the_policy_stopped_allowing_opens_nothing() {
    let mut app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device.try_pin("830517", &[]).await.expect(201);
    let strict = policy("notes", "pin = { allowed = false }").replace("\"pin\", ", "");
    std::fs::write(app.path("policies/notes.toml"), strict).unwrap();
    app.restart().await;
    // A session from before, still fresh, lends the strength of a PIN no more.
    let path = "/v1/account/passkeys/options";
    device
        .call("POST", path, Some(json!({})))
        .await
        .refused("403 step-up-required");
    device
        .try_pin("830517", &[])
        .await
        .refused("403 not-allowed-by-policy");
}
