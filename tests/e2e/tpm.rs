//! A daemon whose keys are in a TPM, as a person sets it up: provisioned by hand, bounded anchoring.

use std::path::Path;
use std::process::{Command, Output};

use custodyd_tests::app::said;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Setup, TestApp, token};

/// An interval that a TPM would not stand for long, and a budget that lets it.
const LEDGER: &str = r#"[ledger]
anchor = "bounded"
anchor_interval = "1s"
runtime_directory = "."
"#;

fn section(tpm: &SwTpm, more: &str) -> String {
    format!(
        "kind = \"tpm\"\ntcti = \"{}\"\nstate_directory = \"{}\"\npin_file = \"{}\"\nnv_writes_per_day = 1000000\n{more}",
        tpm.tcti(),
        tpm.anchors().display(),
        tpm.dir().join("pin").display(),
    )
}

/// A command that needs no more than the token.
fn provision(tpm: &SwTpm, more: &str, arguments: &[&str]) -> Output {
    let config = tpm.dir().join("custodyd.toml");
    let text = format!(
        "[realm]\nname = \"{}\"\n[listen]\npublic = \"127.0.0.1:1\"\nurl = \"https://localhost\"\n\
         certificate = \"c\"\nprivate_key = \"k\"\n{LEDGER}[token]\n{}\n",
        custodyd_tests::app::REALM,
        section(tpm, more)
    );
    std::fs::write(&config, text).unwrap();
    Command::new(token::program("custodyd"))
        .arg("--config")
        .arg(config)
        .args(["token", "provision-tpm"])
        .args(arguments)
        .output()
        .unwrap()
}

/// By the command line, as docs/TPM.md says it; returns the line to configure.
fn provisioned(tpm: &SwTpm, more: &str) -> String {
    let dry = provision(tpm, more, &["--dry-run"]);
    assert!(
        dry.status.success() && said(&dry).contains("would make"),
        "{}",
        said(&dry)
    );
    assert!(!tpm.dir().join("pin").exists());
    let done = provision(tpm, more, &[]);
    let text = said(&done);
    assert!(done.status.success(), "{text}");
    let at = text.find("storage_key = ").unwrap();
    let line: String = text[at..]
        .chars()
        .take("storage_key = ".len() + 70)
        .collect();
    // Again: everything is there.
    let again = said(&provision(tpm, &format!("{more}{line}\n"), &[]));
    assert_eq!(again.matches("ok   there").count(), 5, "{again}");
    assert!(!again.contains("ok   made"), "{again}");
    line
}

async fn daemon(tpm: &SwTpm, more: &str) -> TestApp {
    let line = provisioned(tpm, more);
    TestApp::with(Setup {
        token: Some(section(tpm, &format!("{more}{line}\n"))),
        config: LEDGER.to_owned(),
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn a_daemon_on_a_tpm_enrols_recovers_and_starts_again() {
    let tpm = SwTpm::blank();
    let mut app = daemon(&tpm, "").await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let secret = b"the device secret";
    device.back_up("device-secret", secret).await.expect(200);
    app.restart().await;
    let recovered = |started: custodyd_tests::Answer| {
        let released = &started.body["secrets"]["device-secret"]["server_slot"];
        assert_eq!(*released, custodyd_tests::device::b64(secret));
    };
    recovered(
        device
            .try_pin("830517", &["device-secret"])
            .await
            .expect(201),
    );
    // The plug is pulled from the daemon, then from both.
    app.kill();
    tpm.flush();
    app.launch().await;
    recovered(
        device
            .try_pin("830517", &["device-secret"])
            .await
            .expect(201),
    );
    app.kill();
    tpm.power_off();
    tpm.power_on();
    app.launch().await;
    device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    recovered(
        device
            .try_pin("830517", &["device-secret"])
            .await
            .expect(201),
    );
    let check = app.command("doctor").output().unwrap();
    assert!(said(&check).contains("ready"), "{}", said(&check));
    assert!(app.stop());
    let check = app.command("token check").output().unwrap();
    assert!(check.status.success(), "{}", said(&check));
    assert!(said(&check).contains("fixedTPM=true"), "{}", said(&check));
}

#[tokio::test]
async fn a_tpm_that_goes_away_drops_readiness_and_heals() {
    let tpm = SwTpm::blank();
    let app = daemon(&tpm, "").await;
    let mut device = app.device("notes");
    device.enrol().await;
    tpm.power_off();
    until(&app, 503, 2).await;
    let refused = device.set_pin("830517").await;
    assert_eq!(refused.status, 503, "{:?}", refused.body);
    tpm.power_on();
    until(&app, 200, 5).await;
    device.set_pin("830517").await.expect(200);
}

#[tokio::test]
async fn records_put_back_with_the_database_are_refused() {
    let tpm = SwTpm::blank();
    let mut app = daemon(&tpm, "").await;
    assert!(app.stop());
    let database = app.path("custodyd.sqlite");
    let kept = |name: &str| app.path(name);
    std::fs::copy(&database, kept("old.sqlite")).unwrap();
    copy(&tpm.anchors(), &kept("old-anchors"));
    app.launch().await;
    app.device("notes").enrol().await;
    assert!(app.stop());
    // Everything that is a file: the database, and the records of anchors.
    std::fs::copy(app.path("old.sqlite"), &database).unwrap();
    for name in [
        "custodyd.sqlite-wal",
        "custodyd.sqlite-shm",
        "custodyd.anchor",
    ] {
        let _ = std::fs::remove_file(app.path(name));
    }
    let start = app.command("serve").output().unwrap();
    assert!(said(&start).contains("rolled back"), "{}", said(&start));
    copy(&app.path("old-anchors"), &tpm.anchors());
    let start = app.command("serve").output().unwrap();
    assert!(said(&start).contains("NV index"), "{}", said(&start));
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Waits until readiness is this; the time is what an operator is promised, and some for a busy machine.
async fn until(app: &TestApp, status: u16, seconds: u64) {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(seconds * 4);
    while app.operator("/readyz").await.0 != status {
        assert!(
            std::time::Instant::now() < give_up,
            "readiness does not become {status}: {}",
            app.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
