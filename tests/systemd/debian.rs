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

/// As a version before could have been: fewer lines in the daemon's unit, and a timer that is none any more. The program is
/// the same one.
pub(crate) fn older(folder: &Path) -> PathBuf {
    let (tree, package) = (folder.join("older"), folder.join("older.deb"));
    let deb = |arguments: &[&std::ffi::OsStr]| {
        let ran = Command::new("dpkg-deb").args(arguments).output().unwrap();
        assert!(ran.status.success(), "dpkg-deb: {}", said(&ran));
    };
    deb(&["-R".as_ref(), built().as_ref(), tree.as_ref()]);
    let instead = |file: &str, start: &str, line: &str| {
        let path = tree.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|own| match own.starts_with(start) {
            true => line,
            false => own,
        });
        let older = lines.collect::<Vec<_>>().join("\n") + "\n";
        assert_ne!(older, text, "{file}");
        std::fs::write(path, older).unwrap();
    };
    instead("DEBIAN/control", "Version:", "Version: 0.0.9-1");
    let units = "usr/lib/systemd/system";
    instead(&format!("{units}/custodyd.service"), "MemorySwapMax=", "");
    let timer = "[Timer]\nOnCalendar=daily\nUnit=custodyd-doctor.service\n";
    std::fs::write(tree.join(units).join("custodyd-tidy.timer"), timer).unwrap();
    // Of the files as they were; a package that was made in haste has none.
    let _ = std::fs::remove_file(tree.join("DEBIAN/md5sums"));
    deb(&[
        "--root-owner-group".as_ref(),
        "-Znone".as_ref(),
        "-b".as_ref(),
        tree.as_ref(),
        package.as_ref(),
    ]);
    package
}
