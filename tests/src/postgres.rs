//! A PostgreSQL server of a test's own: in a folder in memory, behind a Unix socket, and by TLS on
//! loopback where the test brings a certificate. Called by the tests and by the daemon's own.
//!
//! It refuses to run as root, so root's tests start it as nobody. Killed when it is dropped.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

const NOBODY: u32 = 65534;
/// The server's superuser, and the daemon's user.
pub const USER: &str = "custodyd";

#[derive(Debug)]
pub struct PostgresServer {
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl PostgresServer {
    /// Behind its socket alone.
    #[must_use]
    pub fn start() -> Self {
        Self::with(5432, &["listen_addresses="])
    }

    /// With settings of a test's own, such as `max_connections=4`. The port is the socket's, too.
    #[must_use]
    pub fn with(port: u16, settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("pg-")
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        if geteuid().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut server = Self {
            dir,
            port,
            settings: settings.iter().map(|&one| one.to_owned()).collect(),
            child: None,
        };
        let made = server
            .program("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-U", USER, "-E", "UTF8", "--locale=C", "--auth=trust"])
            .args(["--no-sync", "--no-instructions"])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.launch();
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The folder of its socket.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives the server a private file, such as a certificate's key; returns its path.
    #[must_use]
    pub fn keep(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path
    }

    /// Who may come in, and how, from the next launch on: lines of `pg_hba.conf`.
    pub fn admit(&self, lines: &str) {
        std::fs::write(self.data().join("pg_hba.conf"), lines).unwrap();
    }

    /// Another setting from the next launch on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Starts it, and waits until it takes connections.
    pub fn launch(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", self.port.to_string().as_str(), "-k"])
            .arg(self.dir.path())
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=40"]);
        for setting in &self.settings {
            command.args(["-c", setting.as_str()]);
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let child = self.child.insert(child);
        let give_up = Instant::now() + Duration::from_secs(30);
        let said = self.dir.path().join("data/postmaster.pid");
        // It writes its state on the file's eighth line, and its number on the first.
        let ready = |id: u32| {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(id.to_string().as_str())
                && lines.nth(6).is_some_and(|line| line.trim() == "ready")
        };
        while !ready(child.id()) {
            assert!(
                Instant::now() < give_up && child.try_wait().unwrap().is_none(),
                "PostgreSQL does not start: {}",
                std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As when its process is killed: nothing under way is finished, and the log is read again at the
    /// next launch.
    pub fn kill(&mut self) {
        self.end(Signal::QUIT);
    }

    /// In order; connections are cut.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let _ = kill_process(id, signal);
        let _ = child.wait();
    }

    /// A program of PostgreSQL's, as who runs the server.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(bin().join(name));
        command
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir(self.dir.path());
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// A database of its own, empty or as another is now, with nobody connected to that.
    pub fn create(&self, name: &str, template: &str) {
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        );
    }

    /// Runs statements as the server's superuser; returns what they say.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let done = self
            .program("psql")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                USER,
                "-d",
                database,
            ])
            .args(["-p", self.port.to_string().as_str(), "-h"])
            .arg(self.dir.path())
            .args(["-c", sql])
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian keeps each version's programs in a folder of their own.
fn bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let found = versions.flatten().map(|entry| entry.path().join("bin"));
    found
        .filter(|bin| bin.join("initdb").exists())
        .max()
        .expect("PostgreSQL is missing, and these tests need it: apt install postgresql")
}
