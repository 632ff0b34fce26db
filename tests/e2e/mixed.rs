//! Two tokens of two kinds, SoftHSM2 and a TPM, of one realm: each hangs or dies under load, and comes back. Anchoring
//! is bounded, as with every TPM.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use custodyd_hsm::escrow::Identity;
use custodyd_tests::app::said;
use custodyd_tests::token::SoftToken;
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Setup, TestApp};

use crate::failover::{Load, done, owner, recovers, refused, tokens, until};
use crate::tpm::{LEDGER, section};

/// `[token]` of a SoftHSM2 token and of the TPM, with the line that pins it once it is known.
fn both(token: &SoftToken, tpm: &SwTpm, pin: &str) -> String {
    format!(
        "{}escrow = \"escrow.json\"\nfailover_after = \"2s\"\n[token.replicas.tpm]\n{}",
        token.section(),
        section(tpm, pin)
    )
}

/// A realm on both, whose keys one ceremony has brought into each, served.
async fn founded(tpm: &SwTpm) -> TestApp {
    let token = SoftToken::blank();
    let before = both(&token, tpm, "");
    let setup = Setup {
        token: Some(before),
        config: LEDGER.to_owned(),
        ..Setup::default()
    };
    let mut app = TestApp::prepared(setup, token);
    let shares = app.path("shares");
    let custodians = ["ann", "bob"].map(|name| {
        let identity = Identity::generate();
        format!("--custodian {name}={} ", identity.recipient())
    });
    let made = done(
        &app,
        &format!(
            "escrow create --needed 2 {}{}",
            custodians.concat(),
            shares.display()
        ),
    );
    let at = made.find("storage_key = ").unwrap();
    let line: String = made[at..].chars().take(84).collect();
    let config = app.path("custodyd.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let unpinned = section(tpm, "");
    assert!(text.contains(&unpinned), "{text}");
    let pinned = section(tpm, &format!("{line}\n"));
    std::fs::write(&config, text.replace(&unpinned, &pinned)).unwrap();
    app.found().await;
    app
}

/// Stops or continues the program that is this TPM: by its number, which the socket's owner has.
fn signal(tpm: &SwTpm, signal: &str) {
    let done = Command::new("kill")
        .args([signal, &tpm.process().to_string()])
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_that_hangs_beside_another_token_costs_nobody_an_answer() {
    let tpm = SwTpm::blank();
    let mut app = founded(&tpm).await;
    let members = done(&app, "token members");
    assert_eq!(members.matches("in use").count(), 2, "{members}");
    let load = Load::on(&app).await;
    let mut idle = owner(&app).await;
    load.each_has(2).await;
    signal(&tpm, "-STOP");
    until(&app, "tpm", "outside").await;
    load.each_has(1).await;
    load.nobody_was_refused(&app).await;
    recovers(&mut idle).await;
    // While it hangs nobody takes it in; the daemon goes on.
    refused(&app, "token readmit tpm", "");
    recovers(&mut idle).await;
    signal(&tpm, "-CONT");
    readmitted(&app, "tpm").await;
    // Now it is worth what the other one is, whose files are gone at once.
    let (files, aside) = (app.token.tokens(), app.token.dir().join("aside"));
    std::fs::rename(&files, &aside).unwrap();
    until(&app, "primary", "outside").await;
    recovers(&mut idle).await;
    std::fs::rename(&aside, &files).unwrap();
    readmitted(&app, "primary").await;
    let members = done(&app, "token members");
    assert_eq!(members.matches("in use").count(), 2, "{members}");
    assert!(app.stop());
    done(&app, "ledger verify --open");
    // Each of them is looked at.
    let check = said(&app.command("token check").output().unwrap());
    assert!(
        check.contains("primary:") && check.contains("tpm:"),
        "{check}"
    );
    assert!(
        check.contains("CKA_TOKEN") && check.contains("fixedTPM"),
        "{check}"
    );
}

/// The version comes into both kinds of token, while no daemon has the TPM, and the old one leaves both.
#[tokio::test]
async fn a_version_comes_into_a_tpm_beside_another_token() {
    let tpm = SwTpm::blank();
    let mut app = founded(&tpm).await;
    let mut idle = owner(&app).await;
    let identities = ["ann", "dora"].map(|name| (name, Identity::generate()));
    let custodians: String = identities
        .iter()
        .map(|(name, identity)| format!("--custodian {name}={} ", identity.recipient()))
        .collect();
    let second = app.path("second");
    let add = format!(
        "escrow add-version wrap,bind --needed 2 {custodians}{}",
        second.display()
    );
    refused(&app, &add, "the TPM is in use");
    assert!(app.stop() && !second.exists());
    let told = done(&app, &add);
    assert!(told.contains("tpm: imported custodyd-wrap-v2"), "{told}");
    app.launch().await;
    // Its connections were the other daemon's.
    idle.http = app.device("notes").http;
    let key = app.path("dora.key");
    std::fs::write(&key, identities[1].1.to_file().expose()).unwrap();
    private(&key);
    let verify = format!(
        "escrow verify --identity {} --manifest {}/manifest.json {}/dora.age",
        key.display(),
        second.display(),
        second.display()
    );
    let heard = done(&app, &verify);
    let at = heard.find("the manifest is ").unwrap() + "the manifest is ".len();
    let heard: String = heard[at..].chars().take(64).collect();
    done(&app, &format!("key rotate wrap --manifest {heard}"));
    done(&app, &format!("key rotate bind --manifest {heard}"));
    recovers(&mut idle).await;
    done(&app, "key rewrap --share 100");
    let gone = done(&app, "key retire wrap-v1 --destroy --yes");
    assert!(gone.contains("is destroyed"), "{gone}");
    recovers(&mut idle).await;
    assert!(app.stop());
    let check = said(&app.command("token check").output().unwrap());
    assert!(
        check.matches("those but for custodyd-wrap-v1").count() == 2,
        "{check}"
    );
    done(&app, "ledger verify --open");
}

/// Once it has come back from what it was asked; a call on a TPM may take some time to give up.
async fn readmitted(app: &TestApp, name: &str) {
    for _ in 0..60 {
        let command = format!("token readmit {name}");
        let output = app.command(&command).output().unwrap();
        if output.status.success() {
            return;
        }
        let told = said(&output);
        assert!(!told.contains("has anchored"), "{told}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!(
        "{name} is not taken in: {}\n{:?}",
        app.log(),
        tokens(app).await
    );
}

#[tokio::test]
async fn a_recovery_key_is_not_made_by_a_slip() {
    let tpm = SwTpm::blank();
    let app = founded_bound(&tpm);
    let home = |name: &str| app.path(name).display().to_string();
    let restore = |more: &str| {
        format!(
            "escrow restore --dry-run --token tpm {more} --identity {} {} {}",
            home("host.key"),
            home("ann.sent"),
            home("bob.sent")
        )
    };
    let kept = app.path("kept");
    assert!(kept.exists(), "the control: a new realm's is made");
    let slip = app.path("slip");
    refused(
        &app,
        &restore(&format!("--recovery-key {}", slip.display())),
        "is not there. Name the file",
    );
    let wanted = restore(&format!("--recovery-key {}", slip.display()));
    refused(
        &app,
        &wanted.replace(" --dry-run", ""),
        "--new-recovery-key",
    );
    assert!(!slip.exists());
    refused(
        &app,
        &restore(&format!(
            "--new-recovery-key --recovery-key {}",
            kept.display()
        )),
        "is there already",
    );
    // The right ones pass this, and are refused for what the TPM holds already.
    for more in [
        format!("--recovery-key {}", kept.display()),
        format!("--new-recovery-key --recovery-key {}", slip.display()),
    ] {
        refused(&app, &restore(&more), "holds custodyd-");
    }
    refused(
        &app,
        &restore(&format!("--recovery-key {}", kept.display()))
            .replace("--token tpm", "--token primary"),
        "goes with token.pcrs",
    );
}

/// The keys of such a realm in both, the TPM's bound to what was booted; and the shares sent to this host.
fn founded_bound(tpm: &SwTpm) -> TestApp {
    let token = SoftToken::blank();
    let setup = Setup {
        token: Some(both(&token, tpm, "pcrs = [7]\n")),
        config: LEDGER.to_owned(),
        ..Setup::default()
    };
    let app = TestApp::prepared(setup, token);
    let path = |name: &str| app.path(name);
    let identities = ["ann", "bob"].map(|name| {
        let identity = Identity::generate();
        let key = path(&format!("{name}.key"));
        std::fs::write(&key, identity.to_file().expose()).unwrap();
        private(&key);
        (name, identity.recipient().to_string())
    });
    let custodians: String = identities
        .iter()
        .map(|(name, recipient)| format!("--custodian {name}={recipient} "))
        .collect();
    let made = done(
        &app,
        &format!(
            "escrow create --needed 2 --recovery-key {} {custodians}{}",
            path("kept").display(),
            path("shares").display()
        ),
    );
    assert!(made.contains("Keep it off this machine"), "{made}");
    let at = made.find("storage_key = ").unwrap();
    let line: String = made[at..].chars().take(84).collect();
    let config = path("custodyd.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let pinned = text.replace("pcrs = [7]\n", &format!("pcrs = [7]\n{line}\n"));
    std::fs::write(&config, pinned).unwrap();
    done(
        &app,
        &format!("escrow receive {}", path("host.key").display()),
    );
    let host = std::fs::read_to_string(path("host.key")).unwrap();
    let mut lines = host.lines();
    let recipient = lines
        .find_map(|line| line.strip_prefix("# public key: "))
        .unwrap();
    for (name, _) in &identities {
        let share = path(&format!("shares/{name}.age"));
        done(
            &app,
            &format!(
                "escrow reencrypt --identity {} --manifest {} --to {recipient} {} {}",
                path(&format!("{name}.key")).display(),
                path("shares/manifest.json").display(),
                share.display(),
                path(&format!("{name}.sent")).display()
            ),
        );
    }
    app
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
