//! A PostgreSQL server of a test's own: in a folder in memory, behind a Unix socket, and by TLS on
//! loopback where the test brings a certificate. Called by the tests and by the daemon's own.
//!
//! It refuses to run as root, so root's tests start it as nobody. Killed when it is dropped.

use std::ffi::OsString;
use std::fs::File;
use std::io;
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

/// Of a realm.
pub const TABLES: [&str; 7] = [
    "records",
    "bucket_members",
    "bucket_digests",
    "head",
    "log_entries",
    "log_bodies",
    "log_tiles",
];

#[derive(Debug)]
pub struct PostgresServer {
    /// Before the folder that it is mounted on: it goes first.
    disk: Option<Disk>,
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    environment: Vec<(String, OsString)>,
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
        Self::prepared(port, settings, false).founded()
    }

    /// Behind its socket alone, on a disk of its own that can be made too small.
    ///
    /// # Panics
    /// Where the caller is not root.
    #[must_use]
    pub fn on_a_disk() -> Self {
        Self::prepared(5432, &["listen_addresses="], true).founded()
    }

    fn prepared(port: u16, settings: &[&str], own_disk: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("pg-")
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let disk = own_disk.then(|| Disk::on(dir.path()));
        if geteuid().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self {
            disk,
            dir,
            port,
            settings: settings.iter().map(|&one| one.to_owned()).collect(),
            environment: Vec::new(),
            child: None,
        }
    }

    /// With an empty cluster, and started.
    fn founded(mut self) -> Self {
        self.copied_from_template().unwrap();
        self.launch();
        self
    }

    /// A cluster is made once for each build directory, in the place of the first server that needs one, and copied from then
    /// on: that takes a tenth of the time. Who makes the template holds its lock alone, who copies it shares it.
    fn copied_from_template(&self) -> io::Result<()> {
        let template = build_dir()?.join("postgres-template");
        std::fs::create_dir_all(&template)?;
        let lock = File::create(template.join("lock"))?;
        let (kept, whole) = (template.join("data"), template.join("whole"));
        let stamp = format!("{} {}", bin().display(), geteuid().as_raw());
        let is_current = || std::fs::read_to_string(&whole).is_ok_and(|found| found == stamp);
        lock.lock_shared()?;
        if !is_current() {
            lock.unlock()?;
            lock.lock()?;
        }
        // Another process may have made it while this one waited.
        if is_current() {
            copy(&kept, &self.data());
            return Ok(());
        }
        let mut made = self.program("initdb");
        made.arg("-D").arg(self.data());
        made.args(["-U", USER, "-E", "UTF8", "--locale=C", "--auth=trust"]);
        done(made.args(["--no-sync", "--no-instructions"]));
        // Without the stamp a template is none, whatever a process that was killed has left.
        let _ = std::fs::remove_file(&whole);
        let _ = std::fs::remove_dir_all(&kept);
        copy(&self.data(), &kept);
        std::fs::write(&whole, stamp)
    }

    /// A server that follows this one, and that this one waits for at each commit from now on; on a disk of its own
    /// where this one is.
    #[must_use]
    pub fn standby(&self) -> Self {
        let mut settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        // Else it looks for a server that was restarted after five seconds, and every commit waits as long.
        settings.push("wal_retrieve_retry_interval=100ms");
        let mut standby = Self::prepared(self.port, &settings, self.disk.is_some());
        let mut copied = standby.program("pg_basebackup");
        copied.args(["-U", USER, "-p", self.port.to_string().as_str(), "-h"]);
        copied.arg(self.dir.path());
        // With a slot: what it has not had yet is kept for it, however long it was away.
        copied.args(["--create-slot", "--slot", "standby"]);
        copied.args(["--no-sync", "-c", "fast", "-X", "stream", "-R", "-D"]);
        done(copied.arg(standby.data()));
        standby.launch();
        // After the copy, so that nobody waits for a standby that the promoted one does not have.
        self.sql(
            "postgres",
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
        );
        self.sql("postgres", "SELECT pg_reload_conf()");
        let follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let give_up = Instant::now() + Duration::from_secs(30);
        while self.sql("postgres", follows).trim() != "1" {
            assert!(Instant::now() < give_up, "the standby does not follow");
            std::thread::sleep(Duration::from_millis(20));
        }
        standby
    }

    /// Another server with all that is in this one now, which goes on for itself. Nobody here notices.
    #[must_use]
    pub fn copied(&self) -> Self {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let mut copy = Self::prepared(self.port, &settings, false);
        let mut copied = copy.program("pg_basebackup");
        copied.args(["-U", USER, "-p", self.port.to_string().as_str(), "-h"]);
        copied.arg(self.dir.path());
        copied.args(["--no-sync", "-c", "fast", "-X", "stream", "-D"]);
        done(copied.arg(copy.data()));
        copy.launch();
        copy
    }

    /// All rows of a realm's tables, as statements.
    #[must_use]
    pub fn rows(&self, database: &str) -> String {
        let mut dump = self.program("pg_dump");
        dump.args(["--data-only", "--schema", "custodyd", "-U", USER, "-p"]);
        dump.args([self.port.to_string().as_str(), "-d", database, "-h"]);
        let output = dump.arg(self.dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// These rows in place of all that are there, in one transaction.
    pub fn put_rows(&self, database: &str, rows: &str) {
        let file = self.keep("rows.sql", rows);
        let delete: String = TABLES
            .iter()
            .map(|table| format!("DELETE FROM custodyd.{table};"))
            .collect();
        let mut put = self.program("psql");
        put.args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-U", USER]);
        put.args(["-d", database, "-p", self.port.to_string().as_str(), "-h"]);
        put.arg(self.dir.path());
        put.args(["-c", delete.as_str(), "-f"]);
        done(put.arg(file));
    }

    /// Makes a standby the server that takes changes.
    pub fn promote(&self) {
        self.sql("postgres", "SELECT pg_promote()");
    }

    /// The disk that it has of its own.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The server's process, unless it has ended.
    pub fn process(&mut self) -> Option<u32> {
        let child = self.child.as_mut()?;
        match child.try_wait().unwrap() {
            None => Some(child.id()),
            Some(_) => None,
        }
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
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
        command.envs(self.environment.iter().cloned());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let child = self.child.insert(child);
        let give_up = Instant::now() + Duration::from_secs(30);
        let said = self.dir.path().join("data/postmaster.pid");
        // It writes its state on the file's eighth line, and its number on the first.
        let ready = |id: u32| {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(id.to_string().as_str())
                && lines
                    .nth(6)
                    .is_some_and(|line| ["ready", "standby"].contains(&line.trim()))
        };
        while !ready(child.id()) {
            assert!(
                Instant::now() < give_up && child.try_wait().unwrap().is_none(),
                "PostgreSQL does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Is started again, with this besides: such as a clock that lies in its folder.
    pub fn starts_with(&mut self, environment: Vec<(String, OsString)>) {
        self.stop();
        self.environment = environment;
        self.launch();
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
        let said = self.try_sql(database, sql);
        assert!(said.is_ok(), "{sql}: {said:?}");
        said.unwrap_or_default()
    }

    /// # Errors
    /// What the server said instead, or psql without it.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let done = self
            .program("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", USER, "-d", database])
            .args(["-p", self.port.to_string().as_str(), "-h"])
            .arg(self.dir.path())
            .args(["-c", sql])
            .output()
            .unwrap();
        match done.status.success() {
            true => Ok(String::from_utf8(done.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder with all that is in it, and with its owners where root copies.
fn copy(from: &Path, to: &Path) {
    done(Command::new("cp").arg("-a").args([from, to]));
}

/// Where cargo put this program: `target/debug` or the like.
fn build_dir() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let named = |folder: &&Path| !folder.ends_with("deps");
    let dir = program.ancestors().skip(1).find(named);
    Ok(dir.unwrap_or(&program).to_owned())
}

/// Runs a program that must succeed.
fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A disk in memory with a size of its own. Unmounted when it is dropped; what is killed leaves it behind.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    const SIZE: &str = "4g";

    fn on(folder: &Path) -> Self {
        assert!(
            geteuid().is_root(),
            "a disk that can fill up is mounted, and that needs root"
        );
        let size = format!("size={}", Self::SIZE);
        done(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "custodyd-test"])
                .arg(folder),
        );
        Self(folder.to_owned())
    }

    /// Leaves so many bytes free.
    pub fn fill(&self, but: u64) {
        // It grows meanwhile, and is never made smaller than what it holds.
        let filled = (0..20).any(|_| {
            let stat = rustix::fs::statvfs(&self.0).unwrap();
            let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
            self.resize(&format!("size={}", used + but))
        });
        assert!(filled, "{} does not fill up", self.0.display());
    }

    /// As much as at the beginning.
    pub fn clear(&self) {
        assert!(self.resize(&format!("size={}", Self::SIZE)));
    }

    fn resize(&self, size: &str) -> bool {
        let option = format!("remount,{size}");
        let mut command = Command::new("mount");
        command.args(["-o", &option]).arg(&self.0);
        command.output().unwrap().status.success()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
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
