//! What a test's daemon is told in place of the truth: libraries in C that are loaded before its own (`LD_PRELOAD`), and a
//! PKCS#11 module (`module`).
//!
//! For calls that reach the C library by name. What rustix asks of the kernel, it asks itself: the time since the host was started.

mod module;

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::token::SoftToken;
use crate::{Setup, TestApp};

pub use self::module::{Module, PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_LOCKED};

type Environment = Vec<(String, OsString)>;

const CLOCK: &str = include_str!("shims/clock.c");
const DISK: &str = include_str!("shims/disk.c");

/// Whether a compiler is there for them.
#[must_use]
pub fn can_be_built() -> bool {
    let asked = Command::new("cc").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

fn built(source: &str, name: &str, folder: &Path) -> PathBuf {
    let (text, library) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}.so")),
    );
    std::fs::write(&text, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]);
    let made = compiler.arg(&library).arg(&text).output();
    let made = made.expect("a C compiler is missing: apt install gcc libc6-dev");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{name}.c: {said}");
    library
}

fn shared(path: &Path, size: u64) -> File {
    let mut how = OpenOptions::new();
    how.read(true).write(true).create(true).truncate(true);
    let file = how.open(path).unwrap();
    // A database's server has a user of its own.
    file.set_permissions(Permissions::from_mode(0o666)).unwrap();
    file.set_len(size).unwrap();
    file
}

/// The host's clock as one daemon sees it.
#[derive(Debug)]
pub struct Clock {
    moved: File,
    environment: Environment,
}

impl Clock {
    /// With what it needs in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let file = folder.join("clock");
        Self {
            moved: shared(&file, 24),
            environment: vec![
                ("LD_PRELOAD".into(), built(CLOCK, "clock", folder).into()),
                ("CUSTODYD_TEST_CLOCK".into(), file.into()),
            ],
        }
    }

    /// A daemon that sees the host's clock so, with a realm of its own.
    pub async fn of_a_daemon(setup: Setup) -> (TestApp, Self) {
        let mut app = TestApp::prepared(setup, SoftToken::fresh());
        let clock = Self::new(app.dir.path());
        app.environment = clock.environment();
        app.found().await;
        (app, clock)
    }

    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment.clone()
    }

    /// Before or behind the host's own, from now on.
    pub fn is_off_by(&self, seconds: i64) {
        self.moved.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// As if so much time had gone by since the beginning in which the process stood still: also by the clock that nobody sets,
    /// as far as who asks the C library goes. What lies in wait wakes up at its next look; what the kernel counts down goes on.
    pub fn has_gone_by(&self, seconds: i64) {
        self.moved.write_all_at(&seconds.to_ne_bytes(), 16).unwrap();
    }

    /// How often the daemon, in whatever life, has been told a time that was not the host's.
    #[must_use]
    pub fn told(&self) -> u64 {
        let mut told = [0; 8];
        self.moved.read_exact_at(&mut told, 8).unwrap();
        u64::from_ne_bytes(told)
    }
}

/// Kinds of calls, as `disk.c` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Sync = 1,
    Write = 2,
    Rename = 3,
}

/// One call that fails, of those that reach a daemon's files.
#[derive(Debug)]
pub struct Disk {
    /// Kind, which one, how many there were, whether it has failed.
    plan: File,
    environment: Environment,
}

impl Disk {
    /// Of the files whose paths begin so, with what it needs in this folder.
    #[must_use]
    pub fn new(folder: &Path, of: &[PathBuf]) -> Self {
        let file = folder.join("disk");
        let of: Vec<&str> = of.iter().map(|path| path.to_str().unwrap()).collect();
        Self {
            plan: shared(&file, 16),
            environment: vec![
                ("LD_PRELOAD".into(), built(DISK, "disk", folder).into()),
                ("CUSTODYD_TEST_DISK".into(), file.into()),
                ("CUSTODYD_TEST_FOLDERS".into(), of.join(":").into()),
            ],
        }
    }

    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment.clone()
    }

    /// The how many-th such call from now on fails, and no other.
    pub fn fails_at(&self, call: Call, nth: u32) {
        let plan = [call as u32, nth, 0, 0];
        let bytes: Vec<u8> = plan
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect();
        self.plan.write_all_at(&bytes, 0).unwrap();
    }

    /// No call fails any more. Whether one has.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let mut failed = [0; 4];
        self.plan.read_exact_at(&mut failed, 12).unwrap();
        self.plan.write_all_at(&[0; 16], 0).unwrap();
        failed != [0; 4]
    }
}
