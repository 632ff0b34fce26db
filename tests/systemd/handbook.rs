//! The operator's handbook (`docs/handbook`), followed to the letter: a machine with the package, the
//! commands of each chapter in one session of bash, and a client outside whose secret must outlive it all.
//!
//! What the machine is given beforehand is what "You need" of `provision.md` lists. The token is SoftHSM2, or a TPM
//! (`tpm_device`).

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;

use custodyd_tests::Device;
use custodyd_tests::app::{certificates_for, said};
use custodyd_tests::handbook::{Block, When, agrees, chapter, folder};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::debian::{built, handed_to_root};
use super::machine::{Machine, left_out};
use super::tpm_device::{self, TpmDevice};

const HOST: &str = "custody.example";
const PIN: &str = "830517";
const SECRET: &[u8] = b"the device secret";
/// Where an operator stands.
const DESK: &str = "/root/desk";
/// Between the outputs of two blocks.
const MARK: char = '\u{1e}';

/// Somebody's machine, and what they took along.
struct Site {
    machine: Machine,
    ca: String,
    dir: TempDir,
}

impl Site {
    fn new(binds: &[(&Path, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = certificates_for(dir.path(), HOST);
        let machine = Machine::boot_apart(binds);
        // Images for containers forbid their packages to start services; this one has booted.
        machine.ok("rm -f /usr/sbin/policy-rc.d");
        machine.write("/etc/hosts", &format!("127.0.0.1 localhost {HOST}\n"));
        machine.write(&format!("{DESK}/ca.pem"), &ca);
        let package = machine.path(&format!("{DESK}/custodyd_0.1.0-1_amd64.deb"));
        std::fs::copy(built(), package).unwrap();
        let promtool = machine.path("/usr/bin/promtool");
        std::fs::copy(tool("promtool"), promtool).unwrap();
        let site = Self { machine, ca, dir };
        site.certificate();
        site
    }

    /// Certificate and key lie on the desk.
    fn certificate(&self) {
        for (from, to) in [("certificate", "fullchain"), ("private-key", "privkey")] {
            let text = std::fs::read_to_string(self.dir.path().join(format!("{from}.pem")));
            let path = format!("{DESK}/{to}.pem");
            self.machine.write(&path, &text.unwrap());
        }
    }

    /// Runs a chapter, as somebody does who takes these ways through it.
    fn follow(&self, name: &str, ways: &[&str]) {
        self.follow_with(name, ways, &[]);
    }

    /// The same, with variables that the reader knows.
    fn follow_with(&self, name: &str, ways: &[&str], known: &[(&str, &str)]) {
        let run = |block: &Block| match &block.when {
            When::Always => true,
            When::On(on) => on.iter().any(|way| ways.contains(&way.as_str())),
            When::Never => false,
        };
        let blocks: Vec<Block> = chapter(name).into_iter().filter(run).collect();
        assert!(!blocks.is_empty(), "{name} has no commands for {ways:?}");
        let marked = blocks
            .iter()
            .map(|block| format!("printf '{MARK}%s\\n' \"$SECONDS\"\n{}", block.commands));
        let script = format!(
            "set -euo pipefail\nexec 2>&1\n{}",
            marked.collect::<String>()
        );
        self.machine.write("/run/handbook.sh", &script);
        let output = self
            .machine
            .inside()
            .env("HOME", "/root")
            .envs(known.iter().copied())
            .env("CURL_CA_BUNDLE", format!("{DESK}/ca.pem"))
            .args([
                "bash",
                "-c",
                "cd \"$1\" && exec bash /run/handbook.sh",
                "-",
                DESK,
            ])
            .output()
            .unwrap();
        let told = said(&output);
        let parts = told
            .split(MARK)
            .skip(1)
            .filter_map(|part| part.split_once('\n'));
        let (seconds, parts): (Vec<&str>, Vec<&str>) = parts.unzip();
        if std::env::var_os("CUSTODYD_HANDBOOK_TRANSCRIPT").is_some() {
            for ((block, part), second) in blocks.iter().zip(&parts).zip(&seconds) {
                println!(
                    "--- {name}, second {second}\n{}--->\n{part}",
                    block.commands
                );
            }
        }
        if !output.status.success() {
            let journal = self.machine.journal();
            let failed = &blocks[parts.len().saturating_sub(1)].commands;
            panic!(
                "{name}: this failed ({}):\n{failed}--->\n{}\n{journal}",
                output.status,
                parts.last().unwrap_or(&"")
            );
        }
        assert_eq!(
            blocks.len(),
            parts.len(),
            "{name}: a block has ended the session"
        );
        for (block, part) in blocks.iter().zip(&parts) {
            if let Some(shown) = &block.shown {
                let commands = &block.commands;
                assert!(
                    agrees(shown, part),
                    "{name}: the handbook shows\n{shown}\nfor\n{commands}\nand this was said:\n{part}"
                );
            }
        }
    }

    /// A person's device, on the machine's network.
    fn client(&self) -> reqwest::Client {
        let network = File::open(self.machine.network()).unwrap();
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )
        .unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(self.ca.as_bytes()).unwrap()])
            .resolve(HOST, SocketAddr::from(([127, 0, 0, 1], 8443)))
            .build()
            .unwrap()
    }

    /// Somebody with a PIN and a secret in custody.
    async fn owner(&self) -> Device {
        let mut device = Device::new(&format!("https://{HOST}:8443"), &self.ca, "notes");
        device.realm = HOST.to_owned();
        device.http = self.client();
        device.enrol().await;
        device.set_pin(PIN).await.expect(200);
        device.back_up("device-secret", SECRET).await.expect(200);
        hang_up(&mut device).await;
        device
    }

    /// The secret is still there, for who knows the PIN.
    async fn recovers(&self, device: &mut Device) {
        device.http = self.client();
        device.token = None;
        let answer = device.try_pin(PIN, &["device-secret"]).await.expect(201);
        let secret = custodyd_tests::device::b64(SECRET);
        assert!(answer.body.to_string().contains(&secret));
        hang_up(device).await;
    }
}

/// Closes the device's connections: while a chapter is followed, nobody here would notice that a daemon which
/// stops wants to close them.
async fn hang_up(device: &mut Device) {
    device.http = reqwest::Client::new();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

/// A program that `scripts/ensure-tools` has put beside the others.
fn tool(name: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not in PATH: scripts/ensure-tools, then make test"))
}

#[tokio::test]
async fn a_realm_is_made_and_run_by_the_handbook() {
    if left_out() || handed_to_root("handbook::a_realm_is_made_and_run_by_the_handbook") {
        return;
    }
    let site = Site::new(&[]);
    site.machine
        .write(&format!("{DESK}/smtp-password"), "of the mail server");
    site.follow("provision", &["softhsm", "made", "mail"]);
    let mut device = site.owner().await;
    // A renewed one.
    site.certificate();
    site.follow_with("run", &["grown"], &[("ACCOUNT", &device.account)]);
    site.recovers(&mut device).await;
    site.follow("monitor", &[]);
    site.follow("rotate", &["made"]);
    site.recovers(&mut device).await;
    site.follow("disagree", &[]);
    site.recovers(&mut device).await;
}

#[tokio::test]
async fn a_lost_database_comes_back_by_the_handbook() {
    if left_out() || handed_to_root("handbook::a_lost_database_comes_back_by_the_handbook") {
        return;
    }
    let site = Site::new(&[]);
    site.follow("provision", &["softhsm", "made"]);
    let mut device = site.owner().await;
    site.follow("backup", &["backup"]);
    // What the backup does not know.
    site.recovers(&mut device).await;
    site.follow("backup", &["restore"]);
    site.recovers(&mut device).await;
}

#[tokio::test]
async fn a_lost_token_comes_back_by_the_handbook() {
    if left_out() || handed_to_root("handbook::a_lost_token_comes_back_by_the_handbook") {
        return;
    }
    let site = Site::new(&[]);
    site.follow("provision", &["softhsm", "escrow", "softhsm-escrow"]);
    let mut device = site.owner().await;
    site.follow("rotate", &["escrow"]);
    site.recovers(&mut device).await;
    site.follow("lose-hsm", &["softhsm", "lost"]);
    site.recovers(&mut device).await;
}

#[tokio::test]
async fn one_of_several_tokens_is_lost_by_the_handbook() {
    if left_out() || handed_to_root("handbook::one_of_several_tokens_is_lost_by_the_handbook") {
        return;
    }
    let site = Site::new(&[]);
    site.follow("provision", &["softhsm", "escrow", "softhsm-escrow"]);
    let mut device = site.owner().await;
    site.follow("rotate", &["escrow"]);
    site.follow("lose-hsm", &["several"]);
    site.recovers(&mut device).await;
}

#[tokio::test]
async fn a_realm_is_made_and_run_on_a_tpm_by_the_handbook() {
    if left_out() || handed_to_root("handbook::a_realm_is_made_and_run_on_a_tpm_by_the_handbook") {
        return;
    }
    let tpm = TpmDevice::new();
    let site = Site::new(&[(tpm.path(), tpm_device::AT)]);
    site.follow("provision", &["tpm", "tpm-made"]);
    let mut device = site.owner().await;
    site.certificate();
    site.follow_with("run", &[], &[("ACCOUNT", &device.account)]);
    site.recovers(&mut device).await;
    site.follow("disagree", &[]);
    site.recovers(&mut device).await;
}

#[tokio::test]
async fn a_lost_tpm_comes_back_by_the_handbook() {
    if left_out() || handed_to_root("handbook::a_lost_tpm_comes_back_by_the_handbook") {
        return;
    }
    let tpm = TpmDevice::new();
    let site = Site::new(&[(tpm.path(), tpm_device::AT)]);
    site.follow("provision", &["tpm", "escrow", "tpm-escrow"]);
    let mut device = site.owner().await;
    site.follow("rotate", &["tpm", "escrow"]);
    site.recovers(&mut device).await;
    site.machine
        .ok("systemctl stop 'custodyd*.socket' custodyd.service");
    tpm.exchange();
    site.follow("lose-hsm", &["tpm", "lost"]);
    site.recovers(&mut device).await;
}

#[tokio::test]
async fn a_realm_moves_by_the_handbook() {
    if left_out() || handed_to_root("handbook::a_realm_moves_by_the_handbook") {
        return;
    }
    let medium = tempfile::tempdir().unwrap();
    let old = Site::new(&[(medium.path(), "/mnt")]);
    old.follow("provision", &["softhsm", "made"]);
    let mut device = old.owner().await;
    let new = Site::new(&[(medium.path(), "/mnt")]);
    old.follow("move", &["old"]);
    new.follow("move", &["new"]);
    new.recovers(&mut device).await;
}

/// Chapters that have no commands.
const WITHOUT: [&str; 2] = ["README", "plan"];
/// What nobody can run here, by its first line, in alphabetical order.
const NOT_RUN: [&str; 1] = [
    "install -D -m 644 -t /etc/systemd/system/custodyd.service.d /usr/share/custodyd/drop-ins/network-hsm.conf",
];

#[test]
fn every_chapter_is_followed_and_little_is_left_out() {
    let tests = include_str!("handbook.rs");
    let mut left_out = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let blocks = chapter(name);
        assert_eq!(blocks.is_empty(), WITHOUT.contains(&name), "{name}");
        let followed = tests.contains(&format!("(\"{name}\", &["));
        assert!(followed || blocks.is_empty(), "no test follows {name}");
        for block in blocks {
            match block.when {
                When::Always => {}
                When::On(on) => {
                    for way in on {
                        let taken = tests.contains(&format!("\"{way}\""));
                        assert!(taken, "no test of {name} takes the way {way}");
                    }
                }
                When::Never => left_out.push(block.commands.lines().next().unwrap().to_owned()),
            }
        }
    }
    left_out.sort_unstable();
    assert_eq!(left_out, NOT_RUN);
}
