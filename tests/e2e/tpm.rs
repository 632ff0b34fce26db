//! A daemon whose keys are in a TPM, as a person sets it up: provisioned by hand, bounded anchoring.

use std::path::Path;
use std::process::{Command, Output};

use custodyd_tests::app::said;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Setup, TestApp, token};

use crate::modules::{DROPS, HEALS, ready};
use crate::restoring::{key, sign};

/// An interval that a TPM would not stand for long, and a budget that lets it.
pub(crate) const LEDGER: &str = r#"[ledger]
anchor = "bounded"
anchor_interval = "1s"
runtime_directory = "."
"#;

pub(crate) fn section(tpm: &SwTpm, more: &str) -> String {
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
        .args(["token", "provision"])
        .args(arguments)
        .output()
        .unwrap()
}

/// By the command line, as docs/TPM.md says it; returns the line to configure.
pub(crate) fn provisioned(tpm: &SwTpm, more: &str) -> String {
    provisioned_by(tpm, more, &[])
}

/// The same with what such a TPM wants besides.
pub(crate) fn provisioned_by(tpm: &SwTpm, more: &str, arguments: &[&str]) -> String {
    let dry = provision(tpm, more, &[arguments, &["--dry-run"]].concat());
    assert!(
        dry.status.success() && said(&dry).contains("would make"),
        "{}",
        said(&dry)
    );
    assert!(!tpm.dir().join("pin").exists());
    let done = provision(tpm, more, arguments);
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

/// What a look can tell is told before there is a secret that nobody needs.
#[test]
fn a_wrong_owners_password_leaves_no_secret_behind() {
    let tpm = SwTpm::blank();
    tpm.tool("tpm2_changeauth", &["-c", "owner", "the owner's"]);
    let before = tpm.tool("tpm2_getcap", &["handles-persistent"]);
    for more in [&[][..], &["--dry-run"]] {
        let told = provision(&tpm, "", more);
        assert!(!told.status.success(), "{}", said(&told));
        assert!(
            said(&told).contains("--owner-password-file"),
            "{}",
            said(&told)
        );
        assert!(!tpm.dir().join("pin").exists() && !tpm.anchors().exists());
    }
    assert_eq!(tpm.tool("tpm2_getcap", &["handles-persistent"]), before);
}

async fn daemon(tpm: &SwTpm, ledger: &str) -> TestApp {
    let line = provisioned(tpm, "");
    TestApp::with(Setup {
        token: Some(section(tpm, &format!("{line}\n"))),
        config: format!("{LEDGER}{ledger}"),
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
    ready(&app, 503, DROPS).await;
    let refused = device.set_pin("830517").await;
    assert_eq!(refused.status, 503, "{:?}", refused.body);
    // Until the pauses between two attempts are as long as they get.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    tpm.power_on();
    ready(&app, 200, HEALS).await;
    device.set_pin("830517").await.expect(200);
}

#[tokio::test]
async fn records_put_back_with_the_database_are_refused() {
    let tpm = SwTpm::blank();
    let mut app = daemon(&tpm, "").await;
    assert!(app.stop());
    app.keep_database("old");
    copy(&tpm.anchors(), &app.path("old-anchors"));
    app.launch().await;
    app.device("notes").enrol().await;
    assert!(app.stop());
    // Everything that is a file: the database, and the records of anchors.
    app.put_database("old");
    let _ = std::fs::remove_file(app.path("custodyd.anchor"));
    let start = app.command("serve").output().unwrap();
    assert!(said(&start).contains("rolled back"), "{}", said(&start));
    copy(&app.path("old-anchors"), &tpm.anchors());
    let start = app.command("serve").output().unwrap();
    assert!(said(&start).contains("NV index"), "{}", said(&start));
}

/// docs/TPM.md, "When the anchors are lost".
#[tokio::test]
async fn a_realm_whose_anchors_are_lost_is_restored_on_the_same_tpm() {
    let tpm = SwTpm::blank();
    let home = tempfile::tempdir().unwrap();
    let keys = ["ann", "bob"].map(|name| key(home.path(), name, "ed25519"));
    let approvers: String = keys
        .iter()
        .map(|key| {
            let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
            let name = key.file_name().unwrap().to_str().unwrap();
            format!("{name} = \"{}\"\n", public.trim())
        })
        .collect();
    let restore =
        format!("[ledger.restore]\napprovals = 2\n[ledger.restore.approvers]\n{approvers}");
    let mut app = daemon(&tpm, &restore).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    assert!(app.stop());
    std::fs::remove_dir_all(tpm.anchors()).unwrap();
    let told = |arguments: &str| said(&app.command(arguments).output().unwrap());
    assert!(
        told("serve").contains("token.state_directory"),
        "{}",
        told("serve")
    );
    // Making the directory again makes no anchor.
    let refused = told("token provision");
    assert!(refused.contains("nothing was changed"), "{refused}");
    let config = app.path("custodyd.toml");
    let old = format!("state_directory = \"{}\"", tpm.anchors().display());
    let new = format!(
        "nv_index = 0x1818101\nstate_directory = \"{}-2\"",
        tpm.anchors().display()
    );
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains(&old));
    std::fs::write(&config, text.replace(&old, &new)).unwrap();
    let made = told("token provision");
    assert!(made.contains("NV index 0x01818101"), "{made}");
    let refused = told("serve");
    assert!(refused.contains("no anchor of this realm"), "{refused}");
    let statement = app.path("restore.json");
    let proposed = told(&format!(
        "ledger propose-restore --without-anchor --guesses-left 2 {}",
        statement.display()
    ));
    assert!(statement.exists(), "{proposed}");
    let [one, two] = keys.map(|key| sign(&key, "custodyd-restore", &statement));
    let accepted = told(&format!(
        "ledger accept-restore {} --approval {} --approval {}",
        statement.display(),
        one.display(),
        two.display()
    ));
    app.launch().await;
    let answer = device.try_pin("830517", &[]).await;
    assert_eq!(answer.status, 201, "{accepted} {:?}", answer.body);
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
