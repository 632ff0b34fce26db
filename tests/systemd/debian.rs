//! The Debian package that machines install, around the programs that these tests run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use custodyd_tests::app::said;
use custodyd_tests::token;

use super::root;

/// Made once in a run of the tests, which are processes of their own, and once again in the next run.
pub(crate) fn built() -> PathBuf {
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
