//! A PKCS#11 module with faults, in front of SoftHSM2's.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{built, shared};
use crate::token;

const MODULE: &str = include_str!("../shims/module.c");
const PLAN: &str = "module.plan";

/// What the plan has where: numbers of 32 bits, as `module.c` orders them.
const HANG: u64 = 0;
const RELEASES: u64 = 1;
const FAIL: u64 = 2;
const HANG_LOGIN: u64 = 3;
const HANG_BEFORE: u64 = 4;
const HANG_AFTER: u64 = 5;
const SESSIONS: u64 = 6;
const WRONG_PIN: u64 = 7;
const SHOWN: u64 = 8;
const HIDDEN: u64 = 9;
const HANGING: u64 = 10;
const LOGINS: u64 = 11;
const FINALIZED: u64 = 12;
const OPEN: u64 = 13;
const REFUSED: u64 = 14;
const NUMBERS: u64 = 15;

/// What a token tells of its user PIN (PKCS#11 2.40, table 6).
pub const PIN_COUNT_LOW: u32 = 0x1_0000;
pub const PIN_FINAL_TRY: u32 = 0x2_0000;
pub const PIN_LOCKED: u32 = 0x4_0000;

/// The module as one process has it.
#[derive(Debug)]
pub struct Module {
    folder: PathBuf,
    plan: File,
}

impl Module {
    /// With what it needs in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        built(MODULE, "module", folder);
        Self {
            folder: folder.to_owned(),
            plan: shared(&folder.join(PLAN), NUMBERS * 4),
        }
    }

    /// One that another process has made there.
    #[must_use]
    pub fn attach(folder: &Path) -> Self {
        let mut how = OpenOptions::new();
        let plan = how.read(true).write(true).open(folder.join(PLAN)).unwrap();
        Self {
            folder: folder.to_owned(),
            plan,
        }
    }

    /// To be named in the place of the real one.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("module.so")
    }

    /// Of the process that loads it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("CUSTODYD_TEST_MODULE", token::module().into()),
            ("CUSTODYD_TEST_MODULE_PLAN", self.folder.join(PLAN)),
        ]
    }

    /// The same, for a daemon.
    pub fn of_a_daemon(&self) -> impl Iterator<Item = (String, OsString)> {
        let environment = self.environment().into_iter();
        environment.map(|(name, value)| (name.to_owned(), value.into()))
    }

    fn write(&self, what: u64, number: u32) {
        let place = what * 4;
        self.plan
            .write_all_at(&number.to_ne_bytes(), place)
            .unwrap();
    }

    fn read(&self, what: u64) -> u32 {
        let mut number = [0; 4];
        self.plan.read_exact_at(&mut number, what * 4).unwrap();
        u32::from_ne_bytes(number)
    }

    /// So many calls that sign hang from now on.
    pub fn hangs(&self, calls: u32) {
        self.write(HANG, calls);
    }

    /// So many logins hang from now on.
    pub fn hangs_at_login(&self, calls: u32) {
        self.write(HANG_LOGIN, calls);
    }

    /// So many calls hang from now on that are made on the way to a login.
    pub fn hangs_before_a_login(&self, calls: u32) {
        self.write(HANG_BEFORE, calls);
    }

    /// So many calls hang from now on that look for objects, which is what a login is followed by.
    pub fn hangs_after_a_login(&self, calls: u32) {
        self.write(HANG_AFTER, calls);
    }

    /// Whatever hangs returns.
    pub fn releases(&self) {
        self.write(RELEASES, self.read(RELEASES) + 1);
    }

    /// So many calls that sign fail from now on.
    pub fn fails(&self, calls: u32) {
        self.write(FAIL, calls);
    }

    /// No more sessions than these are open at once; none stands for any number.
    pub fn has_room_for(&self, sessions: Option<u32>) {
        self.write(SESSIONS, sessions.unwrap_or(0));
    }

    /// A wrong PIN is answered by this code.
    pub fn tells_a_wrong_pin_by(&self, code: u32) {
        self.write(WRONG_PIN, code);
    }

    /// Flags that the token shows whatever it says itself, and such that it never shows.
    pub fn shows(&self, shown: u32, hidden: u32) {
        self.write(SHOWN, shown);
        self.write(HIDDEN, hidden);
    }

    /// Calls that hang now.
    #[must_use]
    pub fn hanging(&self) -> u32 {
        self.read(HANGING)
    }

    /// How often a PIN was presented.
    #[must_use]
    pub fn logins(&self) -> u32 {
        self.read(LOGINS)
    }

    /// How often the module was finalised beneath a call.
    #[must_use]
    pub fn finalized_beneath_a_call(&self) -> u32 {
        self.read(FINALIZED)
    }

    #[must_use]
    pub fn open_sessions(&self) -> u32 {
        self.read(OPEN)
    }

    /// Sessions that there was no room for.
    #[must_use]
    pub fn refused_sessions(&self) -> u32 {
        self.read(REFUSED)
    }
}
