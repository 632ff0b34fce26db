//! The Debian package that machines install, around the programs that these tests run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use custodyd_tests::app::said;
use custodyd_tests::token;

use super::root;

/// The package, where who started this process has built it.
const PACKAGE: &str = "CUSTODYD_TEST_PACKAGE";

/// Made once in a run of the tests, which are processes of their own, and once again in the next run.
pub(crate) fn built() -> PathBuf {
    if let Some(package) = std::env::var_os(PACKAGE) {
        return package.into();
    }
    let program = token::program("custodyd");
    let target = program.parent().and_then(Path::parent).unwrap();
    let folder = target.join("test-package");
    std::fs::create_dir_all(&folder).unwrap();
    let (package, stamp) = (folder.join("custodyd.deb"), folder.join("run"));
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    // Without nextest nothing tells one run from another.
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == run) {
        return package;
    }
    let build = Command::new(root().join("scripts/deb"))
        .env("CARGO_TARGET_DIR", target)
        .arg("--tests")
        .arg(&package)
        .output()
        .unwrap();
    assert!(build.status.success(), "scripts/deb: {}", said(&build));
    std::fs::write(&stamp, run).unwrap();
    package
}

/// Whether this process is nobody to start a machine: then root has run the test in its place. The package is
/// made first, so that no file of root's is left where the programs are built.
pub(crate) fn handed_to_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let variables = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    let ran = Command::new("sudo")
        .args(["-n", "env"])
        .args(variables)
        .arg(format!("{PACKAGE}={}", built().display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .output()
        .unwrap();
    let told = said(&ran);
    // A name that fits no test would be none that failed.
    assert!(
        ran.status.success() && told.contains("1 passed"),
        "{told}\nthis test starts a container and needs root: it failed there, or sudo asks for a password; \
         CUSTODYD_WITHOUT_MACHINE=1 leaves it out"
    );
    true
}
