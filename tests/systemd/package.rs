//! The package, from its installation to its purge, in a machine: on SoftHSM2 and on a TPM, with every
//! socket handed over, mail by the courier, and the units as they are shipped.

use std::path::Path;

use custodyd_tests::app::{LIMITS, REALM, certificates, free_port, policy};
use custodyd_tests::mail::Mode;
use custodyd_tests::{Device, MailServer, token};
use serde_json::json;
use tempfile::TempDir;

use super::debian::{built, handed_to_root, older};
use super::inside;
use super::machine::{Machine, left_out};
use super::tpm_device::{self, TpmDevice};

const SECRET: &[u8] = b"the device secret";
const PIN: &str = "830517";
const DEB: &str = "/root/custodyd.deb";
/// The package of a version before.
const OLDER: &str = "/root/custodyd-older.deb";
const DATABASE: &str = "/var/lib/custodyd/custodyd.sqlite";
const UNITS: &str = "custodyd.socket custodyd-operator.socket custodyd-metrics.socket custodyd-courier.socket custodyd.service custodyd-doctor.timer";
/// A command as the daemon's user, with the daemon's credentials and environment.
const AS_DAEMON: &str = "as-custodyd";

struct Scene {
    machine: Machine,
    mail: MailServer,
    _tpm: TpmDevice,
    ca: String,
    port: u16,
    operator: u16,
    _dir: TempDir,
}

impl Scene {
    /// A machine with the package in it, and around it a mail server and a TPM.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mail = MailServer::prepared(Mode::Starttls, Some(("custody", "s3cret pass")));
        mail.run();
        let tpm = TpmDevice::new();
        let machine = Machine::boot(&[(tpm.path(), tpm_device::AT)]);
        std::fs::copy(built(), machine.path(DEB)).unwrap();
        std::fs::copy(older(dir.path()), machine.path(OLDER)).unwrap();
        let ca = certificates(dir.path());
        Self {
            machine,
            mail,
            _tpm: tpm,
            ca,
            port: free_port(),
            operator: free_port(),
            _dir: dir,
        }
    }

    fn config(&self, token: &str) -> String {
        let (port, operator) = (self.port, self.operator);
        let authority = self.mail.authority().display().to_string();
        let file = format!(
            "password_file = \"{}\"",
            self.mail.password_file().display()
        );
        let mail = self
            .mail
            .config()
            .replace(&authority, "/etc/custodyd/mail-authority.pem")
            .replace(&file, "password_credential = \"smtp-password\"");
        format!(
            "[realm]\nname = \"{REALM}\"\n[listen]\npublic = \"127.0.0.1:{port}\"\n\
             url = \"https://localhost:{port}\"\ncertificate = \"/etc/custodyd/tls/certificate.pem\"\n\
             private_key_credential = \"tls-key\"\n[operator]\nlisten = \"127.0.0.1:{operator}\"\n\
             socket = \"/run/custodyd-sockets/operator.sock\"\n[courier]\nsocket = \"/run/custodyd-sockets/courier.sock\"\n\
             {token}[limits]\n{LIMITS}{mail}"
        )
    }

    fn configure(&self, token: &str) {
        self.machine
            .write("/etc/custodyd/custodyd.toml", &self.config(token));
    }

    /// What an operator does once, but for the token.
    fn prepare(&self, dir: &Path) {
        let machine = &self.machine;
        machine.write("/etc/custodyd/policies/notes.toml", &policy("notes", ""));
        let copy = |from: &Path, to: &str| {
            machine.write(to, &std::fs::read_to_string(from).unwrap());
        };
        copy(
            &dir.join("certificate.pem"),
            "/etc/custodyd/tls/certificate.pem",
        );
        copy(&self.mail.authority(), "/etc/custodyd/mail-authority.pem");
        copy(&dir.join("private-key.pem"), "/root/tls-key");
        copy(&self.mail.password_file(), "/root/smtp-password");
        self.encrypt("tls-key", "/root/tls-key", "custodyd");
        self.encrypt("smtp-password", "/root/smtp-password", "custodyd-courier");
        for (unit, address) in [("custodyd", self.port), ("custodyd-metrics", self.operator)] {
            let text = format!("[Socket]\nListenStream=\nListenStream=127.0.0.1:{address}\n");
            machine.write(
                &format!("/etc/systemd/system/{unit}.socket.d/test.conf"),
                &text,
            );
        }
    }

    fn encrypt(&self, name: &str, file: &str, unit: &str) {
        self.machine.ok(&format!(
            "systemd-creds encrypt --quiet --name={name} {file} /etc/credstore.encrypted/{unit}.{name} && rm {file}"
        ));
    }

    fn drop_in(&self, name: &str) {
        let from = format!("/usr/share/custodyd/drop-ins/{name}.conf");
        let to = "/etc/systemd/system/custodyd.service.d";
        self.machine.ok(&format!(
            "mkdir -p {to} && cp {from} {to}/ && systemctl daemon-reload"
        ));
    }

    fn device(&self) -> Device {
        Device::new(
            &format!("https://localhost:{}", self.port),
            &self.ca,
            "notes",
        )
    }

    /// An account, a confirmed contact and a backup, and the backup recovered by the PIN.
    async fn serves(&self, address: &str) -> Device {
        let mut device = self.device();
        device.enrol().await;
        let body = Some(json!({"email": address}));
        let claimed = device
            .call("PUT", "/v1/account/contact", body)
            .await
            .expect(202);
        let mails = loop {
            let count = self.mail.received().len();
            match self.mail.received().iter().find(|mail| mail.to == address) {
                Some(mail) => break mail.clone(),
                None => drop(self.mail.wait_for(count + 1).await),
            }
        };
        assert_eq!(mails.more["user"], true);
        let code = mails.body.lines().next().unwrap().trim().to_owned();
        let body = Some(json!({"id": claimed.body["id"], "code": code}));
        let path = "/v1/account/contact/confirm";
        device.call("POST", path, body).await.expect(204);
        device.set_pin(PIN).await.expect(200);
        device.back_up("device-secret", SECRET).await.expect(200);
        recovers(&mut device).await;
        device
    }
}

impl Scene {
    /// After a restart, over a connection of its own, which a daemon that stops afterwards does not have to wait for.
    async fn recovers_again(&self, device: &mut Device) {
        device.http = self.device().http;
        recovers(device).await;
        device.http = self.device().http;
    }
}

async fn recovers(device: &mut Device) {
    device.token = None;
    device.try_pin("000000", &[]).await.refused("401 pin-wrong");
    let answer = device.try_pin(PIN, &["device-secret"]).await.expect(201);
    let text = answer.body.to_string();
    assert!(
        text.contains(&custodyd_tests::device::b64(SECRET)),
        "{text}"
    );
}

#[tokio::test]
async fn the_package_installs_serves_upgrades_and_goes() {
    if left_out() || handed_to_root("package::the_package_installs_serves_upgrades_and_goes") {
        return;
    }
    let scene = Scene::new();
    let machine = &scene.machine;
    installs(machine);
    scene.prepare(scene._dir.path());
    on_softhsm(&scene);
    let mut device = scene.serves("ann@example.com").await;
    inside::is_shut_off(machine);
    inside::is_confined(machine, scene.port);
    is_looked_at(&scene);
    machine.ok("custodyd reload");
    machine.ok("systemctl reload custodyd.service");
    restarts_what_hangs(machine);
    scene.recovers_again(&mut device).await;
    is_upgraded(machine);
    scene.recovers_again(&mut device).await;
    // The same version again.
    let before = machine.main_process("custodyd.service");
    machine.ok(&format!("dpkg -i {DEB}"));
    assert_ne!(machine.main_process("custodyd.service"), before);
    scene.recovers_again(&mut device).await;
    refuses_what_a_newer_one_has_written(machine);
    scene.recovers_again(&mut device).await;
    // Removed, and there again: everything is kept.
    machine.ok("dpkg -r custodyd");
    machine.ok("test ! -e /usr/bin/custodyd && test -f /etc/custodyd/custodyd.toml");
    machine.fails("pgrep -x custodyd");
    machine.ok(&format!("dpkg -i {DEB} && systemctl start {UNITS}"));
    scene.recovers_again(&mut device).await;
    on_a_tpm(&scene);
    scene.serves("bob@example.com").await;
    inside::has_its_device_alone(machine);
    machine.ok("systemctl start custodyd-doctor.service");
    is_purged(machine);
}

fn installs(machine: &Machine) {
    // Images for containers forbid their packages to start and stop services; this one has booted.
    machine.ok("rm -f /usr/sbin/policy-rc.d");
    machine.ok(&format!("dpkg -i {OLDER}"));
    machine.ok("id custodyd && id custodyd-courier");
    let folders = machine.ok("stat -c '%U %a' /var/lib/custodyd /run/custodyd");
    assert_eq!(folders, "custodyd 700\ncustodyd 700\n");
    // Nothing is started before there is a token: that is the operator's to say.
    machine.fails("systemctl is-enabled custodyd.service");
    machine.fails("systemctl is-active custodyd.socket");
    let verified = machine.ok(
        "cd /usr/lib/systemd/system && systemd-analyze verify ./custodyd*.service ./custodyd*.socket ./custodyd*.timer 2>&1 | grep custodyd || true",
    );
    assert_eq!(verified, "", "systemd-analyze verify");
}

/// From an older version: what it has left in the state and what the operator has changed stays and is used, what it
/// confined less is confined, and what it had besides is gone.
fn is_upgraded(machine: &Machine) {
    // As a version made it that did not shorten its file.
    machine.ok("systemctl stop custodyd.socket custodyd.service");
    machine.ok(&format!(
        "runuser -u custodyd -- sqlite3 {DATABASE} 'PRAGMA auto_vacuum = NONE; VACUUM'"
    ));
    machine.ok("systemctl start custodyd.socket custodyd.service");
    let own = "/etc/systemd/system/custodyd.service.d/own.conf";
    machine.write(own, "[Service]\nTasksMax=511\n");
    machine.ok("systemctl daemon-reload");
    let shown = |property: &str| {
        machine.ok(&format!(
            "systemctl show --property={property} --value custodyd.service"
        ))
    };
    let version = || machine.ok("dpkg-query --show --showformat='${Version}' custodyd");
    let configured = || machine.ok("cd /etc/custodyd && sha256sum custodyd.toml policies/* tls/*");
    assert_eq!(shown("MemorySwapMax"), "infinity\n");
    machine.ok("systemctl cat custodyd-tidy.timer");
    let (process, files) = (machine.main_process("custodyd.service"), configured());
    assert_eq!(version(), "0.0.9-1");
    machine.ok(&format!("dpkg -i {DEB}"));
    assert_eq!(version(), "0.1.0-1");
    assert_ne!(machine.main_process("custodyd.service"), process);
    assert_eq!(shown("MemorySwapMax"), "0\n");
    assert_eq!(shown("TasksMax"), "511\n");
    assert_eq!(configured(), files);
    machine.fails("systemctl cat custodyd-tidy.timer");
    machine.ok(&format!("rm {own} && systemctl daemon-reload"));
}

/// The tables have had one form so far, so a newer one is one in number only.
fn refuses_what_a_newer_one_has_written(machine: &Machine) {
    machine.ok("systemctl stop 'custodyd*.socket' custodyd.service");
    let schema = |number: u32| {
        machine.ok(&format!(
            "runuser -u custodyd -- sqlite3 {DATABASE} 'PRAGMA user_version = {number}'"
        ))
    };
    schema(2);
    let content = || machine.ok(&format!("sha256sum {DATABASE}"));
    let before = content();
    machine.ok(&format!("dpkg -i {OLDER} 2>&1"));
    let told = machine.fails(&format!("timeout 60 {AS_DAEMON} custodyd serve 2>&1"));
    assert!(
        told.contains("the database has schema 2, this custodyd knows schema 1"),
        "{told}"
    );
    assert!(told.contains("install that version again"), "{told}");
    assert_eq!(content(), before);
    schema(1);
    machine.ok(&format!("dpkg -i {DEB} && systemctl start {UNITS}"));
}

fn on_softhsm(scene: &Scene) {
    let machine = &scene.machine;
    machine.ok(&format!(
        "setpriv --reuid=custodyd --regid=custodyd --clear-groups \
         /usr/share/custodyd/softhsm-setup/provision --dir /var/lib/custodyd/softhsm --label {}",
        token::LABEL
    ));
    scene.configure(&format!(
        "[token]\nmodule = \"{}\"\nlabel = \"{}\"\npin_credential = \"token-pin\"\n",
        token::module(),
        token::LABEL
    ));
    scene.encrypt(
        "token-pin",
        "/var/lib/custodyd/softhsm/user-pin",
        "custodyd",
    );
    scene.drop_in("softhsm2");
    a_command_has_the_credentials_of_the_daemon(scene);
    machine.ok(&format!("{AS_DAEMON} custodyd init"));
    machine.ok(&format!("systemctl enable --now {UNITS}"));
}

/// Those of the unit and of its drop-ins, and none that a drop-in has taken away.
fn a_command_has_the_credentials_of_the_daemon(scene: &Scene) {
    let machine = &scene.machine;
    let path = "/etc/systemd/system/custodyd.service.d/credentials.conf";
    let given = |lines: &str| {
        machine.write(path, &format!("[Service]\n{lines}\n"));
        machine.ok("systemctl daemon-reload");
        machine.ok(&format!(
            "{AS_DAEMON} sh -c 'cd \"$CREDENTIALS_DIRECTORY\" && grep -s . spare-pin plain; ls'"
        ))
    };
    machine.write("/root/spare-pin", "1234");
    scene.encrypt("spare-pin", "/root/spare-pin", "custodyd");
    let spare = "LoadCredentialEncrypted=spare-pin:custodyd.spare-pin";
    assert_eq!(given("# none"), "tls-key\ntoken-pin\n");
    assert_eq!(
        given(&format!("{spare}\nSetCredential=plain:two words")),
        "spare-pin:1234\nplain:two words\nplain\nspare-pin\ntls-key\ntoken-pin\n"
    );
    assert_eq!(
        given(&format!("LoadCredentialEncrypted=\n{spare}")),
        "spare-pin:1234\nspare-pin\n"
    );
    machine.ok(&format!("rm {path} && systemctl daemon-reload"));
}

/// The daily check from its own unit: it reaches the daemon and nothing else, and is red where the daemon is not ready, or is
/// there and does not answer.
fn is_looked_at(scene: &Scene) {
    let machine = &scene.machine;
    let look = "systemctl start custodyd-doctor.service";
    let told = |what: &str| {
        let said = "journalctl --no-pager -o cat -u custodyd-doctor.service";
        machine.until(&format!("{said} | grep -q '{what}'"));
    };
    let ready = |status: u16| {
        let at = format!("http://127.0.0.1:{}/readyz", scene.operator);
        machine.until(&format!(
            "curl -s -o /dev/null -w '%{{http_code}}' {at} | grep -q {status}"
        ));
    };
    machine.ok(look);
    told("the running daemon is ready");
    told("public .*: handed over to the running custodyd");
    let tokens = "/var/lib/custodyd/softhsm/tokens";
    machine.ok(&format!("mv {tokens} {tokens}.away"));
    ready(503);
    machine.fails(look);
    told("the running daemon is not ready: token:");
    machine.ok(&format!("mv {tokens}.away {tokens}"));
    ready(200);
    machine.ok(look);
    // It hangs, and its sockets are open, so that there is somebody to wait for.
    let daemon = machine.main_process("custodyd.service");
    machine.ok(&format!("kill -STOP {daemon}"));
    machine.fails(look);
    machine.ok(&format!("kill -CONT {daemon}"));
    told("what listens there does not answer");
    machine.ok(look);
}

/// A process that does not live is ended and started anew.
fn restarts_what_hangs(machine: &Machine) {
    let fast = "[Service]\nWatchdogSec=4s\n";
    machine.write("/etc/systemd/system/custodyd.service.d/fast.conf", fast);
    machine.ok("systemctl daemon-reload && systemctl restart custodyd.service");
    let hung = machine.main_process("custodyd.service");
    machine.ok("sleep 6");
    // The control: it lives, although nobody asks it for anything.
    assert_eq!(machine.main_process("custodyd.service"), hung);
    machine.ok(&format!("kill -STOP {hung}"));
    machine.until("test \"$(systemctl show --property=NRestarts --value custodyd.service)\" = 1");
    machine.until("systemctl is-active custodyd.service");
    assert_ne!(machine.main_process("custodyd.service"), hung);
    machine.ok("rm /etc/systemd/system/custodyd.service.d/fast.conf && systemctl daemon-reload");
    machine.ok("systemctl restart custodyd.service");
}

/// Another realm on the same machine, on a TPM.
fn on_a_tpm(scene: &Scene) {
    let machine = &scene.machine;
    machine.ok(&format!("systemctl stop {UNITS}"));
    machine.ok("cd /var/lib/custodyd && mkdir old && mv custodyd.* old/");
    let tpm = |more: &str| {
        format!(
            "[ledger]\nanchor = \"bounded\"\nanchor_interval = \"1s\"\n[token]\nkind = \"tpm\"\n\
             tcti = \"device:{}\"\nstate_directory = \"/var/lib/custodyd/tpm\"\n\
             nv_writes_per_day = 1000000\n{more}",
            tpm_device::AT
        )
    };
    machine.ok("usermod -aG tss custodyd");
    scene.configure(&tpm("pin_file = \"/var/lib/custodyd/tpm-secret\"\n"));
    let told = machine.ok(&format!("{AS_DAEMON} custodyd token provision"));
    let at = told
        .find("storage_key = ")
        .unwrap_or_else(|| panic!("{told}"));
    let line: String = told[at..]
        .chars()
        .take("storage_key = ".len() + 70)
        .collect();
    scene.encrypt("token-pin", "/var/lib/custodyd/tpm-secret", "custodyd");
    scene.configure(&tpm(&format!("pin_credential = \"token-pin\"\n{line}\n")));
    scene.drop_in("tpm");
    machine.ok(&format!("{AS_DAEMON} custodyd init"));
    machine.ok(&format!("systemctl start {UNITS}"));
}

fn is_purged(machine: &Machine) {
    let told = machine.ok("dpkg -P custodyd 2>&1");
    for kept in [
        "/var/lib/custodyd",
        "/etc/credstore.encrypted/custodyd.token-pin",
    ] {
        assert!(told.contains(&format!("{kept} stays")), "{told}");
    }
    machine.ok("test ! -e /etc/custodyd/custodyd.toml && test ! -e /etc/custodyd/policies");
    machine.ok(
        "test -d /var/lib/custodyd/softhsm/tokens && test -f /var/lib/custodyd/custodyd.sqlite",
    );
    machine.fails("systemctl cat custodyd.service");
    machine.fails("find /etc/systemd/system -xtype l | grep custodyd");
}
