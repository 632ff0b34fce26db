//! The file itself: schema, other files, other realms, and rows that nothing reads.

use custodyd_tests::app::said;
use custodyd_tests::{Device, Setup, TestApp};

use crate::{ready, served, uncached, uncached_with, unready, victim};

async fn in_a_file() -> TestApp {
    uncached_with(Setup::default().in_a_file()).await
}

/// The daemon must not start, and must say why, and so must who only looks; after `mend` it must.
async fn refused_at_start(app: &mut TestApp, attack: &str, mend: &str, why: &str) {
    assert!(app.stop());
    app.admin().await.run(attack).await;
    for command in ["serve", "ledger tail"] {
        let output = app.command(command).output().unwrap();
        assert!(!output.status.success(), "{command}: {attack}");
        let said = said(&output);
        assert!(said.contains(why), "{command}: {attack}: {said}");
    }
    app.admin().await.run(mend).await;
    app.launch().await;
}

#[tokio::test]
async fn what_custodyd_did_not_make_is_refused_at_start() {
    let mut app = in_a_file().await;
    let (mut device, _) = victim(&app, "notes").await;
    for (attack, mend) in [
        (
            "CREATE TRIGGER t AFTER UPDATE ON records BEGIN DELETE FROM records; END",
            "DROP TRIGGER t",
        ),
        ("CREATE VIEW v AS SELECT * FROM records", "DROP VIEW v"),
        ("CREATE TABLE sessions (token TEXT)", "DROP TABLE sessions"),
        ("CREATE INDEX i ON records (generation)", "DROP INDEX i"),
    ] {
        refused_at_start(&mut app, attack, mend, "custodyd did not make").await;
    }
    refused_at_start(
        &mut app,
        "DROP TABLE log_tiles",
        "CREATE TABLE log_tiles ( level INTEGER NOT NULL, idx INTEGER NOT NULL, \
         data BLOB NOT NULL, PRIMARY KEY (level, idx) ) STRICT",
        "missing from the schema",
    )
    .await;
    refused_at_start(
        &mut app,
        "PRAGMA user_version = 2",
        "PRAGMA user_version = 1",
        "schema 2",
    )
    .await;
    served(&mut device).await;
}

/// A trigger that leaves a mark: how it is seen to have acted.
const MARK: &str = "AFTER UPDATE ON records BEGIN INSERT INTO log_tiles VALUES (1, 1, x'01') \
                    ON CONFLICT DO NOTHING; END";

#[tokio::test]
async fn a_trigger_does_not_hide_behind_a_name_that_only_looks_like_sqlites_own() {
    let mut app = in_a_file().await;
    let (mut device, row) = victim(&app, "notes").await;
    // The first two are any administrator's; the others take an editor of the file's bytes,
    // because SQLite lets nobody create them. `X` becomes `_`.
    for (name, edited) in [
        ("sqliteXstat", false),
        ("sqliteXautoindexXrecordsX1", false),
        ("sqliteXstat1", true),
        ("sqliteXstat4", true),
        ("sqliteXautoindexXrecordsX9", true),
    ] {
        assert!(app.stop());
        let honest = std::fs::read(app.path("custodyd.sqlite")).unwrap();
        let mut admin = app.admin().await;
        admin.run(&format!("CREATE TRIGGER {name} {MARK}")).await;
        // Control: it works for whoever writes to this file.
        row.restore(&mut admin).await;
        assert_eq!(admin.count("log_tiles").await, 1, "{name} does not act");
        admin.close().await;
        if edited {
            let file = std::fs::read(app.path("custodyd.sqlite")).unwrap();
            let file = replaced(&file, name, &name.replace('X', "_"));
            std::fs::write(app.path("custodyd.sqlite"), file).unwrap();
            let mut admin = app.admin().await;
            admin.run("DELETE FROM log_tiles").await;
            row.restore(&mut admin).await;
            assert_eq!(
                admin.count("log_tiles").await,
                1,
                "{name} edited does not act"
            );
            admin.close().await;
        }
        let output = app.command("serve").output().unwrap();
        assert!(!output.status.success(), "{name}");
        let why = said(&output);
        assert!(
            why.contains("custodyd did not make: CREATE TRIGGER"),
            "{name}: {why}"
        );
        std::fs::write(app.path("custodyd.sqlite"), honest).unwrap();
        app.launch().await;
    }
    served(&mut device).await;
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..=bytes.len() - from.len())
        .filter(|at| bytes[*at..].starts_with(from.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[tokio::test]
async fn a_trigger_made_while_the_daemon_runs_never_acts_in_its_commits() {
    let app = in_a_file().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    admin.run(&format!("CREATE TRIGGER t {MARK}")).await;
    device
        .try_pin("830517", &[])
        .await
        .refused("503 store-unavailable");
    assert_eq!(admin.count("log_tiles").await, 0);
    assert!(app.log().contains("custodyd did not make: CREATE TRIGGER"));
    assert!(app.log().contains("the database was tampered with"));
    unready(&app, "custodyd did not make: CREATE TRIGGER").await;
    let (_, metrics) = app.operator("/metrics").await;
    let counted = "custodyd_write_failures_total{step=\"commit\",why=\"tampered\"}";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("custodyd_ready{check=\"store\"} 1"));
    // Control: it acts for whoever writes without looking.
    row.restore(&mut admin).await;
    assert_eq!(admin.count("log_tiles").await, 1);
    // Once it is gone the same daemon goes on, before anybody comes; nothing of the attempt was charged or lost.
    admin.run("DROP TRIGGER t").await;
    ready(&app).await;
    device.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn another_realms_database_and_other_files_are_refused() {
    let mut here = in_a_file().await;
    let mut there = in_a_file().await;
    assert!(here.stop() && there.stop());
    let own = std::fs::read(here.path("custodyd.sqlite")).unwrap();
    // Both realms have one name; the tokens hold copies of the same keys in these tests, so
    // what tells them apart here is the realm's name in the head.
    let file = there.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("test.example", "other.example")).unwrap();
    std::fs::remove_file(there.path("custodyd.sqlite")).unwrap();
    assert!(there.command("init").output().unwrap().status.success());
    std::fs::copy(there.path("custodyd.sqlite"), here.path("custodyd.sqlite")).unwrap();
    let output = here.command("serve").output().unwrap();
    assert!(
        !output.status.success() && said(&output).contains("other.example"),
        "{}",
        said(&output)
    );
    std::fs::write(
        here.path("custodyd.sqlite"),
        b"not a database, but long enough to be read",
    )
    .unwrap();
    let output = here.command("serve").output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    std::fs::write(here.path("custodyd.sqlite"), own).unwrap();
    here.launch().await;
}

#[tokio::test]
async fn no_row_mints_a_session() {
    let app = uncached().await;
    let (mut device, _) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    // Whatever an administrator inserts, no table is read for a session.
    for table in [
        "log_tiles (level, idx, data) VALUES (0, 0, x'01')",
        "bucket_digests VALUES (7, x'01', 9)",
    ] {
        admin.run(&format!("INSERT INTO {table}")).await;
    }
    let honest = device.token.clone();
    for (token, refusal) in [
        ("cs1.20000.AAAA", "401 session-expired"),
        ("AAAA", "401 session-invalid"),
        ("cs1.0.", "401 session-expired"),
        ("cs1.99999999999.AAAA", "401 session-invalid"),
    ] {
        device.token = Some(token.into());
        let answer = device.call("GET", "/v1/account", None).await;
        assert_eq!(answer.refusal(), refusal, "{token}");
    }
    device.token = honest;
    served(&mut device).await;
    // A session of another account, with the right device key of this one.
    let (other, _): (Device, _) = victim(&app, "notes").await;
    device.token = other.token;
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-invalid");
}
