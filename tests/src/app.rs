//! A daemon of a test's own: real binary, TLS, SQLite, SoftHSM2, in a folder that goes away.
//!
//! Stopped with SIGTERM. Killed with SIGKILL only after it has said that it serves, which is
//! after its one login: SoftHSM2 can lose a token that is killed inside the login.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::token::{self, SoftToken};
use crate::{Admin, Device, PostgresServer};

/// What a test changes about its daemon before it starts.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Policy files: app name and text.
    pub policies: Vec<(String, String)>,
    /// Appended to the configuration.
    pub config: String,
    /// MiB of the daemon's cache of committed accounts.
    pub cache_mib: usize,
    /// The section `[token]`; none for the SoftHSM2 token that each test has.
    pub token: Option<String>,
    /// The section `[limits]`: rates out of the way and short deadlines, but for tests of these.
    pub limits: String,
    /// Which kind of database: a file, unless the whole run of the tests is to be on servers.
    pub database: Database,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Default for Database {
    fn default() -> Self {
        match std::env::var("CUSTODYD_TEST_STORE").as_deref() {
            Ok("postgres") => Self::Postgres,
            Ok(other) => panic!("CUSTODYD_TEST_STORE={other}: expected postgres, or nothing"),
            Err(_) => Self::Sqlite,
        }
    }
}

/// A permissive policy, so that tests wait for nothing.
#[must_use]
pub fn policy(app: &str, more: &str) -> String {
    format!(
        r#"app = "{app}"
display_name = "Test {app}"
origins = ["https://{app}.example.com"]
relying_party = {{ id = "{app}.example.com", name = "Test {app}" }}
{more}
[release]
"device-secret" = ["pin", "passkey"]
"app-key" = ["pin", "passkey", "device"]
"#
    )
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policies: vec![
                ("notes".into(), policy("notes", "")),
                ("wallet".into(), policy("wallet", "")),
            ],
            config: String::new(),
            cache_mib: 64,
            token: None,
            limits: LIMITS.into(),
            database: Database::default(),
        }
    }
}

impl Setup {
    /// On a PostgreSQL server of its own.
    #[must_use]
    pub fn on_postgres(self) -> Self {
        let database = Database::Postgres;
        Self { database, ..self }
    }

    /// In a file, also where all tests are run on servers: for those that are about the file.
    #[must_use]
    pub fn in_a_file(self) -> Self {
        let database = Database::Sqlite;
        Self { database, ..self }
    }

    /// The app `notes` with more in its policy.
    #[must_use]
    pub fn notes(more: &str) -> Self {
        Self {
            policies: vec![
                ("notes".into(), policy("notes", more)),
                ("wallet".into(), policy("wallet", "")),
            ],
            ..Self::default()
        }
    }
}

#[derive(Debug)]
pub struct TestApp {
    pub dir: TempDir,
    pub url: String,
    pub operator: String,
    pub ca: String,
    pub token: SoftToken,
    /// The daemon's steps after those of this version: none is the real one, else `later-custodyd`.
    pub later: Option<u8>,
    /// Of the daemon, when it is started: see `shim.rs`.
    pub environment: Vec<(String, OsString)>,
    child: Option<Child>,
    /// Where the database is, unless it is a file. After the daemon: it goes first.
    pub postgres: Option<PostgresServer>,
}

/// The database of a test's realm on its server.
pub const DATABASE: &str = "realm";

pub const REALM: &str = "test.example";

/// Of nodes that share a database, in `[store.postgres]`: each has an address of its own here, which nodes of a realm must not.
pub const SEVERAL: &str = "nodes = \"several\"\nrollout = [\"listen.url\"]\n";

/// All tests come from one address, and their devices call more often than people's do.
pub const LIMITS: &str = r#"requests_at_once = 1024
stranger_deadline = "20ms"
address_per_second = 1000000
address_burst = 1000000
app_per_second = 1000000
app_burst = 1000000
device_per_second = 1000000
device_burst = 1000000
account_per_second = 1000000
account_burst = 1000000
slow_failures_per_minute = 1000000
recipient_per_hour = 1000000
recipient_burst = 1000000
"#;

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let mut app = Self::prepared(setup, SoftToken::fresh());
        app.found().await;
        app
    }

    /// Makes the realm, and starts the daemon.
    pub async fn found(&mut self) {
        let init = self.command("init").output().unwrap();
        assert!(init.status.success(), "init: {}", said(&init));
        self.launch().await;
    }

    /// Everything but a realm.
    #[must_use]
    pub fn prepared(setup: Setup, token: SoftToken) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("custodyd-test-")
            .tempdir()
            .unwrap();
        let ca = certificates(dir.path());
        let (public, operator) = (free_port(), free_port());
        let url = format!("https://localhost:{public}");
        std::fs::create_dir(dir.path().join("policies")).unwrap();
        let postgres = (setup.database == Database::Postgres).then(PostgresServer::start);
        let store = match &postgres {
            None => format!(
                "[store]\nsqlite = \"custodyd.sqlite\"\ncache_mib = {}",
                setup.cache_mib
            ),
            Some(server) => {
                server.create(DATABASE, "template0");
                format!(
                    "[store]\ncache_mib = {}\n[store.postgres]\nurl = \"postgres://{}@:{}/{DATABASE}?host={}\"\n\
                     state_directory = \".\"",
                    setup.cache_mib,
                    crate::postgres::USER,
                    server.port(),
                    server.folder().display()
                )
            }
        };
        for (name, text) in &setup.policies {
            std::fs::write(dir.path().join(format!("policies/{name}.toml")), text).unwrap();
        }
        let config = format!(
            r#"[realm]
name = "{REALM}"
[listen]
public = "127.0.0.1:{public}"
url = "{url}"
certificate = "certificate.pem"
private_key = "private-key.pem"
drain = "1s"
[operator]
listen = "127.0.0.1:{operator}"
socket = "operator.sock"
[token]
{}
{store}
[policies]
directory = "policies"
[limits]
{}
{}
"#,
            setup.token.clone().unwrap_or_else(|| token.section()),
            setup.limits,
            setup.config
        );
        std::fs::write(dir.path().join("custodyd.toml"), config).unwrap();
        Self {
            dir,
            url,
            operator: format!("http://127.0.0.1:{operator}"),
            ca,
            token,
            later: None,
            environment: Vec::new(),
            child: None,
            postgres,
        }
    }

    /// Another daemon of the same realm: the same token, and the same server with this database.
    ///
    /// # Panics
    /// Where the database is a file.
    #[must_use]
    pub fn another(&self, setup: Setup, database: &str) -> Self {
        let setup = Setup {
            database: Database::Sqlite,
            ..setup
        };
        let mut other = Self::prepared(setup, SoftToken::attach(self.token.dir()));
        // Clients know one name, whichever node it leads to.
        for file in ["certificate.pem", "private-key.pem"] {
            std::fs::copy(self.path(file), other.path(file)).unwrap();
        }
        other.ca.clone_from(&self.ca);
        let store = |text: &str| {
            let from = text.find("[store]").unwrap();
            (from, text.find("[policies]").unwrap())
        };
        let ours = std::fs::read_to_string(self.path("custodyd.toml")).unwrap();
        let (from, to) = store(&ours);
        let section =
            ours[from..to].replace(&format!("/{DATABASE}?host="), &format!("/{database}?host="));
        assert!(section.contains("[store.postgres]"), "{section}");
        let file = other.path("custodyd.toml");
        let mut text = std::fs::read_to_string(&file).unwrap();
        let (from, to) = store(&text);
        text.replace_range(from..to, &section);
        std::fs::write(file, text).unwrap();
        other
    }

    /// From now on other daemons may use this one's database with it.
    ///
    /// # Panics
    /// Where the database is a file.
    pub fn share_database(&self) {
        let file = self.path("custodyd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let section = "[store.postgres]\n";
        assert!(text.contains(section), "{text}");
        let shared = format!("{section}{SEVERAL}");
        std::fs::write(file, text.replacen(section, &shared, 1)).unwrap();
    }

    /// Ends the daemon; its whole ledger verifies, and every record opens.
    ///
    /// # Panics
    /// Else.
    pub fn verified(&mut self) {
        assert!(self.stop(), "{}", self.log());
        let verified = self.command("ledger verify --open").output().unwrap();
        assert!(verified.status.success(), "{}", said(&verified));
    }

    /// A command of the daemon's binary with this test's configuration.
    #[must_use]
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = match self.later {
            None => Command::new(token::program("custodyd")),
            Some(steps) => {
                let mut later = Command::new(token::program("later-custodyd"));
                later.env("CUSTODYD_TEST_STEPS", steps.to_string());
                later
            }
        };
        let (name, value) = self.token.environment();
        command
            .env(name, value)
            .arg("--config")
            .arg(self.path("custodyd.toml"))
            .args(arguments.split(' '));
        command
    }

    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn launch(&mut self) {
        let started = self.try_launch().await;
        started.unwrap_or_else(|what| panic!("{what}: {}", self.log()));
    }

    /// # Errors
    /// What became of it instead.
    pub async fn try_launch(&mut self) -> Result<(), &'static str> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = self
            .command("serve")
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        // It asks a plain address: no authority is read in for that.
        let http = reqwest::Client::builder().tls_certs_only([]).build();
        let http = http.unwrap();
        // Of several nodes one waits for its turn for up to 40 s.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = http.get(format!("{}/readyz", self.operator)).send().await;
            if ready.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return Err("the daemon ended");
            }
            if Instant::now() > deadline {
                return Err("not ready");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops in order and returns whether the daemon called it a success.
    pub fn stop(&mut self) -> bool {
        self.end(Signal::TERM)
    }

    /// Pulls the plug.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) -> bool {
        let Some(mut child) = self.child.take() else {
            return true;
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
        let status = child.wait().unwrap();
        if signal == Signal::TERM && !status.success() {
            eprintln!("the daemon was told to stop and ended with {status}");
        }
        status.success()
    }

    /// The daemon's process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends the daemon a signal and goes on.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// The daemon's process, unless it has ended.
    pub fn process(&mut self) -> Option<u32> {
        let child = self.child.as_mut()?;
        match child.try_wait().unwrap() {
            None => Some(child.id()),
            Some(_) => None,
        }
    }

    /// The daemon's certificate, key and policies are read again; returns what was said.
    pub fn reload(&self) -> std::process::Output {
        self.command("reload").output().unwrap()
    }

    pub async fn restart(&mut self) {
        assert!(self.stop(), "{}", self.log());
        self.launch().await;
    }

    /// A client with a device key of its own.
    #[must_use]
    pub fn device(&self, app: &str) -> Device {
        Device::new(&self.url, &self.ca, app)
    }

    /// The database's administrator.
    pub async fn admin(&self) -> Admin {
        match &self.postgres {
            None => Admin::open(&self.path("custodyd.sqlite")).await,
            Some(server) => Admin::at(server, DATABASE).await,
        }
    }

    /// The whole database of a stopped daemon, kept under this name.
    pub fn keep_database(&self, name: &str) {
        match &self.postgres {
            None => drop(std::fs::copy(self.path("custodyd.sqlite"), self.path(name)).unwrap()),
            Some(server) => server.create(name, DATABASE),
        }
    }

    /// Puts it back whole.
    pub fn put_database(&self, name: &str) {
        match &self.postgres {
            None => {
                for beside in ["custodyd.sqlite-wal", "custodyd.sqlite-shm"] {
                    let _ = std::fs::remove_file(self.path(beside));
                }
                std::fs::copy(self.path(name), self.path("custodyd.sqlite")).unwrap();
            }
            Some(server) => {
                server.sql(
                    "postgres",
                    &format!("DROP DATABASE {DATABASE} WITH (FORCE)"),
                );
                server.create(DATABASE, name);
            }
        }
    }

    pub async fn operator(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("{}{path}", self.operator))
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        // Its token is a copy of this test's own and goes with it: nothing can be lost.
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

/// Standard output and error of a command that ended.
#[must_use]
pub fn said(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A port of loopback that is this process's until it ends. Neither another test's daemon gets it nor, while ours
/// starts again, somebody's outgoing connection: it is below those that the kernel gives out, and its file is locked.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = format!("custodyd-test-ports-{}", geteuid().as_raw());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    loop {
        let drawn = aws_lc_rs::rand::generate::<[u8; 2]>(&SystemRandom::new());
        let drawn = drawn.unwrap().expose();
        let port = FIRST + u16::from_be_bytes(drawn) % PORTS;
        let held = File::create(folder.join(port.to_string())).unwrap();
        if held.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().unwrap().push(held);
            return port;
        }
    }
}

/// An authority, and a certificate for localhost; returns the authority's PEM.
pub fn certificates(dir: &Path) -> String {
    certificates_for(dir, "localhost")
}

/// The same for another name.
pub fn certificates_for(dir: &Path, name: &str) -> String {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    // Two names: with one, openssl takes the server's certificate for a self-signed one.
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "custodyd test authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    std::fs::write(dir.join("certificate.pem"), certificate.pem()).unwrap();
    let private = dir.join("private-key.pem");
    std::fs::write(&private, key.serialize_pem()).unwrap();
    std::fs::set_permissions(private, std::fs::Permissions::from_mode(0o600)).unwrap();
    authority_pem
}
