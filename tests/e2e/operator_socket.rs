//! The operator's socket, by the command line and by hand.

use std::os::unix::fs::PermissionsExt as _;

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use serde_json::{Value, json};

#[tokio::test]
async fn a_trail_shows_what_happened_and_nothing_personal() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    let command = format!("account trail --app notes --account {}", device.account);
    let output = app.command(&command).output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("secret-stored"), "{text}");
    assert!(lines.last().unwrap().contains("account-created"), "{text}");

    let output = app.command(&format!("{command} --json")).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let events = json["result"]["events"].as_array().unwrap();
    let owner = device.events().await;
    assert_eq!(events.len(), owner.len());
    for event in events {
        let mut names: Vec<_> = event.as_object().unwrap().keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["at", "kind", "number"]);
    }
    let said = json.to_string();
    for personal in [
        "test device",
        "device-secret",
        device.key.thumbprint().as_str(),
    ] {
        assert!(!said.contains(personal), "{said}");
    }
}

#[tokio::test]
async fn wrong_names_and_unknown_accounts_are_told_apart() {
    let app = TestApp::start().await;
    let run = |arguments: &str| app.command(arguments).output().unwrap();
    let wrong = run("account trail --app notes --account nobody");
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    let unknown = run("account trail --app notes --account 00000000-0000-4000-8000-000000000000");
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(
        said(&unknown).contains("there is no account"),
        "{}",
        said(&unknown)
    );
}

#[tokio::test]
async fn an_operator_erases_an_account_and_only_when_they_say_yes() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let command = format!("account erase --app notes --account {}", device.account);
    for careful in [command.clone(), format!("{command} --dry-run")] {
        let output = app.command(&careful).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("with 3 events"), "{}", said(&output));
        device.call("GET", "/v1/account", None).await.expect(200);
    }
    let yes = format!("{command} --yes");
    let output = app.command(&yes).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
    device
        .try_pin("830517", &[])
        .await
        .refused("401 authentication-failed");
    let output = app.command(&yes).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_gone_with_the_daemon() {
    let mut app = TestApp::start().await;
    let socket = app.path("operator.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A killed daemon leaves it behind, and the next one takes its place.
    app.kill();
    assert!(socket.exists());
    let output = app.reload();
    assert!(!output.status.success());
    assert!(
        said(&output).contains("is the daemon running"),
        "{}",
        said(&output)
    );
    app.launch().await;
    assert!(app.reload().status.success());
    assert!(app.stop());
    assert!(!socket.exists());
}

/// Whatever the daemon shows after it has been used a bit is named and explained.
#[tokio::test]
async fn every_metric_that_is_shown_is_documented() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    device.try_pin("830517", &[]).await.expect(201);
    let mut stranger = app.device("notes");
    let body = json!({"account": device.account});
    stranger
        .call("POST", "/v1/apps/{app}/sessions/device", Some(body))
        .await
        .refused("401 authentication-failed");
    app.reload();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let (_, shown) = app.operator("/metrics").await;
    let documented = include_str!("../../docs/METRICS.md");
    let mut names = std::collections::BTreeSet::new();
    for line in shown.lines().filter(|line| line.starts_with("# TYPE ")) {
        names.insert(line.split(' ').nth(2).unwrap().to_owned());
    }
    for name in &names {
        assert!(
            documented.contains(&format!("| `{name}` |")),
            "{name} is not in METRICS.md"
        );
    }
    for expected in [
        "custodyd_token_call_seconds",
        "custodyd_token_queue",
        "custodyd_commit_queue",
        "custodyd_pin_places_taken",
        "custodyd_guesses_total",
        "custodyd_slow_mode",
        "custodyd_reload_total",
    ] {
        assert!(
            names.contains(expected),
            "{expected} is not shown: {names:?}"
        );
    }
    for personal in [
        device.account.as_str(),
        device.key.thumbprint().as_str(),
        "127.0.0.1",
    ] {
        assert!(!shown.contains(personal), "{personal}");
    }
}
