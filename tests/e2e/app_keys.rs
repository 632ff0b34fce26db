//! Further app keys, and the look-up by the app's backend.

use custodyd_tests::SoftAuthenticator;
use custodyd_tests::app::{Setup, TestApp};
use custodyd_tests::device::{Answer, Device, Key};
use serde_json::json;

pub(crate) const CREDENTIAL: &str = "backend-credential-of-the-test";

pub(crate) fn with_backend() -> Setup {
    use aws_lc_rs::digest::{SHA256, digest};
    let hash = |text: &str| hex::encode(digest(&SHA256, text.as_bytes()));
    Setup::notes(&format!(
        "[backend]\ncredentials_sha256 = [\"{}\", \"{}\"]",
        hash("an older credential"),
        hash(CREDENTIAL)
    ))
}

/// Signs with another app key from now on.
async fn add_key(device: &mut Device) -> Answer {
    device.app_key = Key::default();
    let body = json!({"app_key_proof": device.app_key_proof()});
    device
        .call("POST", "/v1/account/app-keys", Some(body))
        .await
}

async fn remove_key(device: &mut Device, id: &str) -> Answer {
    device
        .call("DELETE", &format!("/v1/account/app-keys/{id}"), None)
        .await
}

pub(crate) async fn look_up(device: &Device, path: &str, credential: Option<&str>) -> Answer {
    let mut request = device.http.get(format!("{}{path}", device.url));
    if let Some(credential) = credential {
        request = request.header("Authorization", credential);
    }
    let answer = request.send().await.unwrap();
    Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.json().await.unwrap(),
    }
}

async fn status(device: &Device, id: &str) -> Answer {
    let path = format!("/v1/apps/notes/bindings/{id}?account={}", device.account);
    look_up(device, &path, Some(&format!("Bearer {CREDENTIAL}")))
        .await
        .expect(200)
}

#[tokio::test]
async fn a_rotated_key_is_bound_and_the_old_one_revoked_for_good() {
    let mut app = TestApp::with(with_backend()).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let old = device.app_key.thumbprint();
    let added = add_key(&mut device).await.expect(201);
    let new = device.app_key.thumbprint();
    assert_eq!(added.body["device_id"], new);

    for id in [&old, &new] {
        let found = status(&device, id).await;
        assert_eq!(found.body["status"], "bound");
        assert_eq!(found.body["kind"], "app-key");
    }
    let found = status(&device, &new).await;
    assert_eq!(found.body["binding"], added.body["binding"]);

    remove_key(&mut device, &old).await.expect(204);
    remove_key(&mut device, &old).await.refused("404 not-found");
    remove_key(&mut device, &new)
        .await
        .refused("409 last-app-key");
    app.restart().await;
    let found = status(&device, &old).await;
    assert_eq!(found.body["status"], "revoked");
    assert_eq!(found.body["kind"], "app-key");
    assert!(found.body["revoked"].as_u64() >= found.body["issued"].as_u64());
    assert!(found.body.get("binding").is_none());
    assert_eq!(status(&device, &new).await.body["status"], "bound");
    assert_eq!(
        device.events().await,
        [
            "account-created",
            "device-bound",
            "app-key-added",
            "app-key-removed"
        ]
    );
}

#[tokio::test]
async fn a_revoked_key_is_not_bound_again_and_a_bound_one_keeps_its_binding() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let first = add_key(&mut device).await.expect(201);
    let body = json!({"app_key_proof": device.app_key_proof()});
    let again = device
        .call("POST", "/v1/account/app-keys", Some(body))
        .await
        .expect(201);
    assert_eq!(again.body, first.body);
    let id = device.app_key.thumbprint();
    remove_key(&mut device, &id).await.expect(204);
    let body = json!({"app_key_proof": device.app_key_proof()});
    device
        .call("POST", "/v1/account/app-keys", Some(body))
        .await
        .refused("409 app-key-revoked");
}

#[tokio::test]
async fn an_app_key_is_worth_the_strongest_factor() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut passkey = SoftAuthenticator::new("notes");
    device.add_passkey(&mut passkey).await.expect(201);
    device.set_pin("830517").await.expect(200);
    device.try_pin("830517", &[]).await.expect(201);
    let refused = add_key(&mut device).await;
    refused.refused("403 step-up-required");
    assert_eq!(refused.body["need_at_least"], "passkey");
    let account = device.call("GET", "/v1/account", None).await.expect(200);
    let only = account.body["app_keys"][0]["device_id"].clone();
    remove_key(&mut device, only.as_str().unwrap())
        .await
        .refused("403 step-up-required");
    device.try_device(&[]).await.expect(201);
    add_key(&mut device).await.refused("403 read-only-session");
    assert_eq!(account.body["app_keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn at_most_eight_app_keys() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for _ in 0..7 {
        add_key(&mut device).await.expect(201);
    }
    let refused = add_key(&mut device).await;
    refused.refused("409 too-many");
    assert_eq!(refused.body["limit"], 8);
}

#[tokio::test]
async fn a_proof_for_another_device_binds_no_app_key() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut other = app.device("notes");
    other.nonce.clone_from(&device.nonce);
    let body = json!({"app_key_proof": other.app_key_proof()});
    device
        .call("POST", "/v1/account/app-keys", Some(body))
        .await
        .refused("401 dpop-invalid");
}

#[tokio::test]
async fn a_backend_asks_about_devices_and_passkeys_too() {
    let app = TestApp::with(with_backend()).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut passkey = SoftAuthenticator::new("notes");
    let registered = device.add_passkey(&mut passkey).await.expect(201);
    let passkey_id = registered.body["device_id"].as_str().unwrap();
    let found = status(&device, &device.key.thumbprint()).await;
    assert_eq!(found.body["status"], "bound");
    assert_eq!(found.body["kind"], "device-key");
    let found = status(&device, passkey_id).await;
    assert_eq!(found.body["kind"], "passkey");
    device
        .call(
            "DELETE",
            &format!("/v1/account/passkeys/{passkey_id}"),
            None,
        )
        .await
        .expect(204);
    assert_eq!(status(&device, passkey_id).await.body["status"], "revoked");
}

#[tokio::test]
async fn a_backend_learns_nothing_without_its_credential_or_about_others() {
    let app = TestApp::with(with_backend()).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let id = device.app_key.thumbprint();
    let path = format!("/v1/apps/notes/bindings/{id}?account={}", device.account);
    for credential in [
        None,
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer wrong"),
        Some("Basic backend-credential-of-the-test"),
        Some("backend-credential-of-the-test"),
    ] {
        let answer = look_up(&device, &path, credential).await;
        answer.refused("401 credential-invalid");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let good = format!("Bearer {CREDENTIAL}");
    // The other app lists no credential.
    let elsewhere = path.replace("/notes/", "/wallet/");
    look_up(&device, &elsewhere, Some(&good))
        .await
        .refused("401 credential-invalid");
    let no_app = path.replace("/notes/", "/nothing/");
    look_up(&device, &no_app, Some(&good))
        .await
        .refused("404 app-unknown");
    for query in ["", "?account=", "?account=1", "?account=x&x=1"] {
        look_up(
            &device,
            &format!("/v1/apps/notes/bindings/{id}{query}"),
            Some(&good),
        )
        .await
        .refused("400 malformed-request");
    }
    // No such account, and no such key of an account that is there: one answer.
    let nobody = "9e3a5a94-6d21-4f5e-8f56-0d0f7a4f0b11";
    let unknown = json!({"status": "unknown"});
    let answer = look_up(
        &device,
        &format!("/v1/apps/notes/bindings/{id}?account={nobody}"),
        Some(&good),
    )
    .await;
    assert_eq!(answer.body, unknown);
    assert_eq!(status(&device, "no-such-key").await.body, unknown);
    assert_eq!(status(&device, &id).await.body["status"], "bound");
}
