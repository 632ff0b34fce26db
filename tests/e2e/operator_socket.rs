//! The operator's socket, by the command line and by hand.

use std::os::unix::fs::PermissionsExt as _;

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use custodyd_tests::device::b64;
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
async fn an_operator_exports_what_is_held_and_never_a_secret() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let content = b"the device secret";
    device.back_up("device-secret", content).await.expect(200);
    let own = device
        .call("GET", "/v1/account/export", None)
        .await
        .expect(200)
        .body;
    let file = app.path("export.json");
    let command = format!(
        "account export --app notes --account {} --output {}",
        device.account,
        file.display()
    );
    let output = app.command(&command).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("test device"), "{}", said(&output));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let export: Value = serde_json::from_str(&text).unwrap();

    // What the owner gets, without what is the caller's: attempts left, which device asks.
    let (theirs, mine) = (&export["account"], &own["account"]);
    for same in [
        "account", "app", "created", "app_keys", "secrets", "contacts",
    ] {
        assert_eq!(theirs[same], mine[same], "{same}");
    }
    assert_eq!(theirs["devices"][0]["name"], mine["devices"][0]["name"]);
    assert_eq!(theirs["devices"][0]["current"], json!(false));
    assert_eq!(theirs["pin"]["device_id"], mine["pin"]["device_id"]);
    assert_eq!(export["secrets"], json!({}));
    assert_eq!(export["secrets_withheld"], json!(["device-secret"]));
    let held = &export["secrets_held"][0];
    assert_eq!(held["name"], "device-secret");
    assert_eq!(held["server_slot_bytes"], json!(content.len()));
    assert_eq!(own["secrets"]["device-secret"]["server_slot"], b64(content));
    assert!(!text.contains(&b64(content)), "{text}");
    // Which way the PIN is checked may be said; what it is checked by may not.
    assert_eq!(text.matches("argon2").count(), 1, "{text}");
    assert_eq!(theirs["pin"]["checked_by"], "argon2id");

    // The owner sees it, and that it was not they.
    let page = device.call("GET", "/v1/account/events", None).await;
    let mut newest = page.expect(200).body["events"][0].clone();
    // Its proof is the page's.
    newest.as_object_mut().unwrap().remove("log").unwrap();
    assert_eq!(newest["kind"], "account-exported");
    assert_eq!(newest["detail"], "by an operator");
    assert_eq!(export["events"][0], newest);
    assert_eq!(export["events_complete_from"], json!(1));
    let events = export["events"].as_array().unwrap().len();
    assert_eq!(events, device.events().await.len());

    // A file that is there is left alone, and then nothing was exported.
    let again = app.command(&command).output().unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(device.events().await.len(), events);
    // To standard output, for people and for machines.
    let base = format!("account export --app notes --account {}", device.account);
    for (arguments, at) in [(base.clone(), ""), (format!("{base} --json"), "/result")] {
        let output = app.command(&arguments).output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown.pointer(at).unwrap()["secrets_held"][0], *held);
    }
    let nobody = "00000000-0000-4000-8000-000000000000";
    let missing = app.path("missing.json");
    let unknown = format!(
        "account export --app notes --account {nobody} --output {}",
        missing.display()
    );
    let output = app.command(&unknown).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(!missing.exists());
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
    // A scrape of before answers for a moment.
    let mut shown = String::new();
    for _ in 0..100 {
        shown = app.operator("/metrics").await.1;
        if shown.contains("custodyd_reload_total") && shown.contains("custodyd_commit_queue") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
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
