//! A daemon whose keys are bound to what was booted, from provisioning to a firmware update and back.

use std::process::Command;

use custodyd_tests::app::said;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Setup, TestApp, token};

use crate::modules::{HEALS, ready};
use crate::tpm::{LEDGER, section};

fn extend(tpm: &SwTpm) {
    let event = format!("7:sha256={}", "5a".repeat(32));
    tpm.tool("tpm2_pcrextend", &[&event]);
}

/// As docs/TPM.md has it, without a configuration; returns the line to pin.
fn provisioned(tpm: &SwTpm) -> String {
    let path = |name: &str| tpm.dir().join(name).display().to_string();
    let provision = |more: &[&str]| {
        let output = Command::new(token::program("custodyd"))
            .args(["token", "provision", "--tpm", "--tcti", &tpm.tcti()])
            .args([
                "--pin-file",
                &path("pin"),
                "--state-directory",
                &path("anchors"),
            ])
            .args(more)
            .output()
            .unwrap();
        (output.status.success(), said(&output))
    };
    let (_, refused) = provision(&["--recovery-key", &path("recovery")]);
    assert!(refused.contains("--pcrs"), "{refused}");
    let (_, refused) = provision(&["--pcrs", "7,16"]);
    assert!(refused.contains("any program resets PCR 16"), "{refused}");
    let (_, refused) = provision(&["--pcrs", "7"]);
    assert!(refused.contains("--recovery-key FILE"), "{refused}");
    let (good, made) = provision(&["--pcrs", "7", "--recovery-key", &path("recovery")]);
    assert!(good && made.contains("keep it off this machine"), "{made}");
    assert!(made.contains("pcrs = [7]"), "{made}");
    let at = made.find("storage_key = ").unwrap();
    made[at..]
        .chars()
        .take("storage_key = ".len() + 70)
        .collect()
}

#[tokio::test]
async fn another_boot_is_refused_and_the_recovery_key_is_the_way_back() {
    let tpm = SwTpm::blank();
    let line = provisioned(&tpm);
    let key = tpm.dir().join("recovery");
    let mut app = TestApp::with(Setup {
        token: Some(section(&tpm, &format!("{line}\npcrs = [7]\n"))),
        config: LEDGER.to_owned(),
        ..Setup::default()
    })
    .await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    // Something else was started: a daemon that runs is not ready any more.
    extend(&tpm);
    ready(&app, 503, HEALS).await;
    let refused = device.try_pin("830517", &[]).await;
    assert!(refused.status >= 500, "{:?}", refused.body);
    app.kill();
    tpm.flush();
    let told = |command: &str| said(&app.command(command).output().unwrap());
    for command in ["serve", "doctor", "token check"] {
        let text = told(command);
        assert!(text.contains("PCR 7 is"), "{command}: {text}");
        assert!(text.contains("token reseal --recovery-key FILE"), "{text}");
    }
    let shown = told("token reseal --dry-run");
    assert!(shown.contains("would approve"), "{shown}");
    let refused = told("token reseal");
    assert!(refused.contains("give --recovery-key FILE"), "{refused}");
    let reseal = format!("token reseal --recovery-key {}", key.display());
    let approved = told(&reseal);
    assert!(approved.contains("all keys answer"), "{approved}");
    app.launch().await;
    device.try_pin("830517", &[]).await.expect(201);
    // An update whose PCRs nobody knows before.
    assert!(app.stop());
    let told = |command: &str| said(&app.command(command).output().unwrap());
    let warned = told(&format!("{reseal} --any"));
    assert!(warned.contains("after the update"), "{warned}");
    tpm.power_off();
    tpm.power_on();
    let check = told("doctor");
    assert!(check.contains("approved=any"), "{check}");
    told(&reseal);
    app.launch().await;
    device.try_pin("830517", &[]).await.expect(201);
    assert!(app.stop());
    let check = app.command("token check").output().unwrap();
    assert!(check.status.success(), "{}", said(&check));
    assert!(said(&check).contains("authPolicy=PCRs"), "{}", said(&check));
}
