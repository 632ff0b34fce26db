//! `custodyd ledger`: the database against the token, stopped and serving.

use custodyd_tests::app::said;
use custodyd_tests::{Setup, TestApp};
use serde_json::Value;

/// A daemon with an account in its database.
async fn used(setup: Setup) -> TestApp {
    let app = TestApp::with(setup).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    app
}

fn run(app: &TestApp, arguments: &str) -> (bool, String) {
    let output = app.command(arguments).output().unwrap();
    (output.status.success(), said(&output))
}

fn json(app: &TestApp, arguments: &str) -> Value {
    let arguments = format!("{arguments} --json");
    let output = app.command(&arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Does something to the database of a stopped daemon.
async fn attack(app: &TestApp, sql: &str) {
    let mut admin = app.admin().await;
    assert!(admin.run(sql).await >= 1, "{sql}");
    admin.close().await;
}

#[tokio::test]
async fn a_stopped_database_is_verified_and_one_that_serves_is_left_alone() {
    let mut app = used(Setup::default()).await;
    let (good, text) = run(&app, "ledger verify");
    assert!(!good && text.contains("custodyd_scrub_findings"), "{text}");
    assert!(app.stop());
    let (good, text) = run(&app, "ledger verify --open");
    assert!(good && text.contains("records"), "{text}");
    let value = json(&app, "ledger verify --open");
    let data = &value["checks"].as_array().unwrap().last().unwrap()["data"];
    assert_eq!(data["clean"], true);
    assert_eq!(data["first"], Value::Null);
    assert_eq!(data["counts"]["records"], data["counts"]["opened"]);
    assert_eq!(data["counts"]["records"], 2);
    assert_eq!(data["counts"]["entries"], data["size"]);
    // It wrote nothing: the daemon goes on.
    app.launch().await;
}

#[tokio::test]
async fn what_was_altered_is_named() {
    let mut app = used(Setup::default().in_a_file()).await;
    assert!(app.stop());
    let file = app.path("custodyd.sqlite");
    let whole = std::fs::read(&file).unwrap();
    for (sql, what) in [
        (
            "UPDATE log_bodies SET body = zeroblob(length(body)) WHERE idx = 3",
            "log entry 3: its body",
        ),
        (
            "DELETE FROM log_bodies WHERE idx = 3",
            "log entry 3: has no body, and no leaf",
        ),
        (
            "UPDATE log_entries SET leaf = CAST(x'01' || zeroblob(32) AS BLOB) WHERE idx = 3",
            "log entry 3: its body",
        ),
        (
            "UPDATE records SET sealed = zeroblob(length(sealed)) WHERE rowid = 2",
            "its content differs",
        ),
        (
            "UPDATE bucket_members SET members = zeroblob(length(members)) WHERE rowid = (SELECT max(rowid) FROM bucket_members)",
            "its member list is not the newest",
        ),
        (
            "UPDATE bucket_digests SET digest = zeroblob(32) WHERE rowid = (SELECT max(rowid) FROM bucket_digests)",
            "its cached digest",
        ),
        (
            "UPDATE head SET mac = zeroblob(32)",
            "was not made by this token",
        ),
    ] {
        attack(&app, sql).await;
        let (good, text) = run(&app, "ledger verify");
        assert!(!good && text.contains(what), "{sql}: {text}");
        // Evidence of a database that no daemon would start on.
        let (_, text) = run(&app, "ledger tail -n 3");
        assert!(text.contains("state"), "{text}");
        std::fs::write(&file, &whole).unwrap();
        let (good, text) = run(&app, "ledger verify");
        assert!(good, "{text}");
    }
}

#[tokio::test]
async fn an_older_database_is_told_from_the_newest() {
    let mut app = used(Setup::default()).await;
    let (good, text) = run(&app, "ledger anchor");
    assert!(good && text.contains("a daemon starts"), "{text}");
    assert!(app.stop());
    app.keep_database("older");
    app.launch().await;
    app.device("notes").enrol().await;
    assert!(app.stop());
    app.put_database("older");
    for command in ["ledger anchor", "ledger verify"] {
        let (good, text) = run(&app, command);
        assert!(!good && text.contains("the token has anchored"), "{text}");
    }
}

#[tokio::test]
async fn the_log_is_shown_and_exported_and_the_export_verified() {
    let app = used(Setup::default()).await;
    let value = json(&app, "ledger tail -n 100");
    let entries = value["result"]["entries"].as_array().unwrap();
    let kinds: Vec<&str> = entries
        .iter()
        .map(|e| e["kind"].as_str().unwrap())
        .collect();
    for kind in ["state", "boot", "event"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let boot = entries.iter().find(|e| e["kind"] == "boot").unwrap();
    assert_eq!(boot["version"], env!("CARGO_PKG_VERSION"));
    let file = app.path("log.export");
    let export = format!("ledger export {}", file.display());
    let (good, text) = run(&app, &export);
    assert!(good, "{text}");
    let (good, text) = run(&app, &export);
    assert!(!good, "an export was overwritten: {text}");
    let from = format!("ledger verify --from {}", file.display());
    for command in [from.clone(), format!("{from} --without-token")] {
        let (good, text) = run(&app, &command);
        assert!(good, "{text}");
    }
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (good, text) = run(&app, &from);
    assert!(!good && text.contains("log entr"), "{text}");
}

#[tokio::test]
async fn the_scrub_finds_what_nobody_reads() {
    let setup = Setup {
        config: "[ledger]\nscrub_period = \"2s\"\n".into(),
        ..Setup::default()
    };
    let app = used(setup).await;
    let metric = async |line: &str| {
        for _ in 0..200 {
            let (_, metrics) = app.operator("/metrics").await;
            if metrics.lines().any(|found| found.starts_with(line)) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{line} is not in the metrics; the log: {}", app.log());
    };
    metric("custodyd_scrub_clean_time_seconds").await;
    metric("custodyd_scrub_findings 0").await;
    attack(&app, "DELETE FROM log_bodies WHERE idx = 3").await;
    metric("custodyd_scrub_findings 1").await;
    assert!(
        app.log().contains("log entry 3: has no body"),
        "{}",
        app.log()
    );
    // One corrupt row stops nobody.
    assert_eq!(app.operator("/readyz").await.0, 200);
    app.device("notes").enrol().await;
}
