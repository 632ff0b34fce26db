//! Secrets: versions, slots, deletion.

use custodyd_tests::device::b64;
use custodyd_tests::{Setup, TestApp};
use serde_json::json;

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
            "422 secret-malformed",
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
    let unknown = device
        .put("device-secret", "If-None-Match", "*", content)
        .await;
    unknown.refused("422 slot-unknown");
    let codes = device.set_recovery_codes().await;
    let id = custodyd_tests::slots::code_id(&custodyd_tests::device::unb64(&codes[0]));
    let content = json!({"sealed": b64(b"content"), "slots": [
        {"type": "recovery-code", "credential": id, "ciphertext": b64(b"sealed")}]});
    device
        .put("device-secret", "If-None-Match", "*", content.clone())
        .await
        .expect(200);
    let back = device.recover("device-secret").await.expect(200);
    assert_eq!(back.body["slots"], content["slots"]);
    assert_eq!(back.body["sealed"], content["sealed"]);
    assert_eq!(back.body.get("server_slot"), None);
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
