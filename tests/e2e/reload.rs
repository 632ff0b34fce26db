//! Certificate and policies are replaced while the daemon serves.

use custodyd_tests::app::{Setup, certificates, policy, said};
use custodyd_tests::{Device, TestApp};
use rustix::process::Signal;
use serde_json::json;

fn write(app: &TestApp, name: &str, text: &str) {
    std::fs::write(app.path(&format!("policies/{name}.toml")), text).unwrap();
}

#[track_caller]
fn reload(app: &TestApp) -> String {
    let output = app.reload();
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

#[tokio::test]
async fn an_added_app_is_served() {
    let app = TestApp::start().await;
    let mut device = app.device("extra");
    let call = device.prepare("POST", "/v1/apps/{app}/sessions/device", Some(json!({})));
    device.send(&call).await.refused("404 app-unknown");
    write(&app, "extra", &policy("extra", ""));
    assert!(reload(&app).contains("added app extra"));
    app.device("extra").enrol().await;
    let (_, metrics) = app.operator("/metrics").await;
    assert!(
        metrics.contains("custodyd_reload_total{outcome=\"done\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_changed_policy_takes_effect_on_the_next_request() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let strict = "[pin]\nmin_length = 8\n";
    write(&app, "notes", &policy("notes", strict));
    assert!(reload(&app).contains("changed app notes"));
    device.set_pin("830517").await.refused("422 pin-weak");
    write(&app, "notes", &policy("notes", ""));
    assert!(reload(&app).contains("changed app notes"));
    device.set_pin("830517").await.expect(200);
}

#[tokio::test]
async fn a_retired_app_refuses_its_sessions_and_newcomers_and_can_come_back() {
    let app = TestApp::start().await;
    let mut device = app.device("wallet");
    device.enrol().await;
    let file = app.path("policies/wallet.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(reload(&app).contains("retired app wallet"));
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
    let mut new = app.device("wallet");
    let call = new.prepare("POST", "/v1/apps/{app}/accounts", Some(json!({})));
    new.send(&call).await.refused("404 app-unknown");
    app.device("notes").enrol().await;
    std::fs::write(&file, text).unwrap();
    reload(&app);
    device.call("GET", "/v1/account", None).await.expect(200);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_named() {
    let app = TestApp::start().await;
    // Good changes beside a broken one: all or nothing.
    write(&app, "extra", &policy("extra", ""));
    write(
        &app,
        "notes",
        &policy("notes", "[sessions]\nidle = \"quarter\"\n"),
    );
    let output = app.reload();
    assert!(!output.status.success());
    assert!(said(&output).contains("notes.toml:"), "{}", said(&output));
    app.device("notes").enrol().await;
    let mut extra = app.device("extra");
    let call = extra.prepare("POST", "/v1/apps/{app}/accounts", Some(json!({})));
    extra.send(&call).await.refused("404 app-unknown");

    // The same with a key that belongs to another certificate.
    write(&app, "notes", &policy("notes", ""));
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    std::fs::copy(
        other.path().join("certificate.pem"),
        app.path("certificate.pem"),
    )
    .unwrap();
    let output = app.reload();
    assert!(!output.status.success());
    assert!(
        said(&output).contains("does not belong"),
        "{}",
        said(&output)
    );
    extra.send(&call).await.refused("404 app-unknown");
    // New connections still get the old certificate.
    app.device("notes").enrol().await;
    let (_, metrics) = app.operator("/metrics").await;
    assert!(
        metrics.contains("custodyd_reload_total{outcome=\"refused\"} 2"),
        "{metrics}"
    );
    assert!(
        app.log().contains("everything stays as it was"),
        "{}",
        app.log()
    );
}

#[tokio::test]
async fn a_replaced_certificate_is_served_to_new_connections_and_old_ones_live_on() {
    let app = TestApp::start().await;
    let mut before = app.device("notes");
    before.enrol().await;
    let authority = certificates(app.dir.path());
    app.signal(Signal::HUP);
    for _ in 0..200 {
        if app.log().contains("reloaded the certificate") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // On the connection that stands.
    before.call("GET", "/v1/account", None).await.expect(200);
    // A new one meets the new certificate, which the old authority has not signed.
    let mut after = Device::new(&app.url, &authority, "notes");
    after.enrol().await;
    let old = app.device("notes");
    let refused = old.http.get(format!("{}/openapi.json", app.url)).send();
    assert!(refused.await.is_err());
}

#[tokio::test]
async fn a_stop_after_a_reload_is_in_order() {
    let mut app = TestApp::with(Setup::default()).await;
    reload(&app);
    assert!(app.stop(), "{}", app.log());
    assert!(!app.path("operator.sock").exists());
}
