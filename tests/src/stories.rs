//! Stories of `client/e2e` in Debian's Chromium: real daemons over TLS, pages on an origin of the app's policy.
//!
//! Used by the tests of the client and by the bench. A story can have a daemon killed and started again through a
//! small control port, since the daemons are this process's children.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::app::{REALM, free_port, said};
use crate::token::{SoftToken, repository};
use crate::{Setup, TestApp};

/// The browser, as Debian installs it.
pub const CHROMIUM: &str = "/usr/bin/chromium";

/// The policy of an app whose pages are on this port of localhost.
fn policy(port: u16, more: &str) -> (String, String) {
    let text = format!(
        r#"app = "notes"
display_name = "Notes"
origins = ["https://localhost:{port}"]
relying_party = {{ id = "localhost", name = "Notes" }}
{more}
[release]
"device-secret" = ["pin", "passkey", "recovery-code", "totp"]
"app-key" = ["pin", "passkey", "recovery-code", "totp"]
"notes" = ["pin", "passkey", "recovery-code", "totp", "device"]
"key-share" = ["pin", "passkey", "recovery-code"]
"#
    );
    ("notes".into(), text)
}

/// The app's policy says another thing of server slots.
fn turn(app: &TestApp, pages: u16, slot: &str) {
    let more = format!("[secrets]\nserver_slot = \"{slot}\"");
    let (name, mut text) = policy(pages, &more);
    if slot == "forbidden" {
        text = text.replace(", \"totp\"", "");
    }
    std::fs::write(app.path(&format!("policies/{name}.toml")), text).unwrap();
    let output = app.reload();
    assert!(output.status.success(), "{}", said(&output));
}

/// What a weak factor asks for waits from now on.
fn wait(app: &TestApp, pages: u16, delay: &str) {
    let (name, text) = policy(pages, &format!("[recover]\ndelay = \"{delay}\""));
    std::fs::write(app.path(&format!("policies/{name}.toml")), text).unwrap();
    let output = app.reload();
    assert!(output.status.success(), "{}", said(&output));
}

/// Runs OpenSSH's own tool.
fn ssh_keygen(arguments: &str, files: &[&Path]) {
    let output = Command::new("ssh-keygen")
        .args(arguments.split(' '))
        .args(files)
        .output()
        .expect("ssh-keygen, of Debian's openssh-client");
    assert!(output.status.success(), "{}", said(&output));
}

/// Last night's backup.
const OLDER: &str = "older";

/// The operator makes a backup.
async fn keep(app: &mut TestApp) {
    assert!(app.stop(), "{}", app.log());
    app.keep_database(OLDER);
    app.launch().await;
}

/// The database is lost, and the backup takes its place by the restore ceremony: the log goes on in another epoch.
async fn restore(app: &mut TestApp) {
    assert!(app.stop(), "{}", app.log());
    app.put_database(OLDER);
    let [key, statement] = ["approver", "restore.json"].map(|name| app.path(name));
    ssh_keygen("-q -N  -C approver -t ed25519 -f", &[&key]);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let file = app.path("custodyd.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let approvers = format!(
        "\n[ledger.restore]\napprovals = 1\n[ledger.restore.approvers]\none = \"{}\"\n",
        public.trim()
    );
    std::fs::write(&file, config + &approvers).unwrap();
    let run = |command: String| {
        let output = app.command(&command).output().unwrap();
        assert!(output.status.success(), "{command}: {}", said(&output));
    };
    let statement = statement.as_path();
    let at = statement.display();
    run(format!("ledger propose-restore --guesses-left 3 {at}"));
    ssh_keygen("-Y sign -n custodyd-restore -f", &[&key, statement]);
    run(format!("ledger accept-restore {at} --approval {at}.sig"));
    app.launch().await;
}

/// How many of the app's accounts have server slots, as an operator is told.
fn left(app: &TestApp) -> u64 {
    let output = app.command("account slots --json").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["result"]["apps"][0]["left"].as_u64().unwrap()
}

/// An app on the same pages whose secrets the daemon can not open.
fn sealed(port: u16) -> (String, String) {
    let text = format!(
        r#"app = "sealed"
display_name = "Sealed notes"
origins = ["https://localhost:{port}"]
relying_party = {{ id = "localhost", name = "Sealed notes" }}
[secrets]
server_slot = "forbidden"
max_bytes = 12288
[release]
diary = ["pin"]
ledger = ["passkey"]
"#
    );
    ("sealed".into(), text)
}

/// Messages go into a file, which is allowed beside a listener for development only.
fn delivery() -> String {
    let port = free_port();
    format!(
        "[delivery]\noutbox = \"outbox.jsonl\"\n\
         [listen.development]\nlisten = \"127.0.0.1:{port}\"\nurl = \"http://localhost:{port}\"\n"
    )
}

/// Daemons, and a port for the pages of their app.
#[derive(Debug)]
pub struct Stories {
    pages: u16,
    apps: Vec<(String, TestApp)>,
}

impl Stories {
    /// One daemon.
    pub async fn of_one() -> Self {
        Self::of(&[REALM], "").await
    }

    /// A realm for each name, each with a daemon and a token of its own; `more` is for the app's policy.
    pub async fn of(names: &[&str], more: &str) -> Self {
        assert!(
            Path::new(CHROMIUM).exists(),
            "these stories need a browser: apt install chromium, or run scripts/ensure-tools test"
        );
        let pages = free_port();
        let mut apps: Vec<(String, TestApp)> = Vec::new();
        for name in names {
            let setup = Setup {
                policies: vec![policy(pages, more), sealed(pages)],
                config: delivery(),
                ..Setup::default()
            };
            let mut app = TestApp::prepared(setup, SoftToken::fresh());
            let config = app.path("custodyd.toml");
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, text.replacen(REALM, name, 1)).unwrap();
            // One certificate for all: a browser's store wants no two authorities of one name.
            if let Some((_, first)) = apps.first() {
                for file in ["certificate.pem", "private-key.pem"] {
                    std::fs::copy(first.path(file), app.path(file)).unwrap();
                }
                app.ca.clone_from(&first.ca);
            }
            app.found().await;
            std::fs::write(app.path("authority.pem"), &app.ca).unwrap();
            apps.push(((*name).to_owned(), app));
        }
        Self { pages, apps }
    }

    /// A file in the first daemon's folder.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.apps[0].1.path(below)
    }

    /// Runs one file of stories to its end.
    pub async fn run(&mut self, file: &str) -> Output {
        let realms: Vec<Value> = (self.apps.iter())
            .map(|(name, app)| json!({ "url": app.url, "realm": name }))
            .collect();
        let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = control.local_addr().unwrap().port();
        let artefacts = client().join("../target/client-artefacts");
        std::fs::create_dir_all(&artefacts).unwrap();
        let (name, app) = &self.apps[0];
        let mut command = node(&["scripts/test.mjs", file]);
        command
            .env("NODE_EXTRA_CA_CERTS", app.path("authority.pem"))
            .env("CUSTODYD_URL", &app.url)
            .env("CUSTODYD_APP", "notes")
            .env("CUSTODYD_REALM", name)
            .env("CUSTODYD_REALMS", Value::from(realms).to_string())
            .env("CUSTODYD_FOLDER", app.dir.path())
            .env("CUSTODYD_PAGES", self.pages.to_string())
            .env("CUSTODYD_ARTEFACTS", &artefacts)
            .env("CUSTODYD_CONTROL", port.to_string());
        let mut told = tokio::task::spawn_blocking(move || command.output());
        loop {
            tokio::select! {
                output = &mut told => return output.unwrap().unwrap(),
                asked = control.accept() => self.obey(asked.unwrap().0).await,
            }
        }
    }

    /// `kill`, `start`, `keep` or `restore`, and which of them; of the first one, `policy` and what it says of server slots from
    /// now on, `left`, which answers how many accounts still have one, or `delay` of what a weak factor asks for.
    async fn obey(&mut self, mut asked: TcpStream) {
        let mut line = String::new();
        BufReader::new(&mut asked)
            .read_line(&mut line)
            .await
            .unwrap();
        let (word, which) = line.trim().split_once(' ').unwrap();
        let at = which.parse::<usize>().unwrap_or(0);
        let app = &mut self.apps[at].1;
        let mut answer = "ok".to_owned();
        match word {
            "kill" => app.kill(),
            "start" => app.launch().await,
            "keep" => keep(app).await,
            "restore" => restore(app).await,
            "delay" => wait(app, self.pages, which),
            "policy" => turn(app, self.pages, which),
            "left" => answer = format!("ok {}", left(app)),
            other => panic!("unknown word {other:?}"),
        }
        asked
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .unwrap();
    }
}

/// The folder `client` of the checkout.
#[must_use]
pub fn client() -> PathBuf {
    repository().join("client")
}

/// A run of Node inside `client`, with the packages that `scripts/ensure-tools` has installed.
///
/// # Panics
/// With what to run, where the packages are not those of the lock file.
#[must_use]
pub fn node(arguments: &[&str]) -> Command {
    let stamp = client().join("node_modules/.installed-lock");
    let installed = std::fs::read_to_string(&stamp).unwrap_or_default();
    let locked = std::fs::read_to_string(client().join("package-lock.json")).unwrap();
    assert!(
        installed == locked,
        "the client's packages are not installed: run scripts/ensure-tools test"
    );
    let mut command = Command::new("node");
    command.current_dir(client()).args(arguments);
    command
}
