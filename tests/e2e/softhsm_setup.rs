//! The scripts of `softhsm-setup`, as an operator runs them: made once, checked, destroyed only when meant.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use custodyd_tests::TestApp;
use custodyd_tests::app::said;
use custodyd_tests::token::{self, LABEL};

fn script(name: &str, arguments: &[&str]) -> Output {
    let path = token::repository().join("softhsm-setup").join(name);
    Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn softhsm_setup_destroys_only_what_is_named_and_its_own() {
    let folder = token::in_memory("custodyd-setup-");
    let dir = folder.path().join("token");
    let at = dir.to_str().unwrap();
    let named = |label: &'static str| ["--dir", at, "--label", label];
    assert!(script("provision", &named("one")).status.success());
    let fingerprint = || files(&dir);
    let before = fingerprint();
    // Again: nothing is initialised a second time.
    assert!(said(&script("provision", &named("one"))).contains("nothing was changed"));
    for arguments in [vec![], vec!["--yes-destroy", "two"], vec!["--yes-destroy"]] {
        let output = script("destroy", &[&named("one")[..], &arguments].concat());
        assert!(!output.status.success(), "{arguments:?}: {}", said(&output));
    }
    let other = script(
        "destroy",
        &[&named("two")[..], &["--yes-destroy", "two"]].concat(),
    );
    assert!(
        said(&other).contains("not exactly one named two"),
        "{}",
        said(&other)
    );
    assert_eq!(fingerprint(), before);
    // A folder that is somebody else's.
    let foreign = folder.path().join("foreign");
    std::fs::create_dir_all(foreign.join("tokens")).unwrap();
    let foreign = foreign.to_str().unwrap();
    let refused = script(
        "destroy",
        &["--dir", foreign, "--label", "one", "--yes-destroy", "one"],
    );
    assert!(
        said(&refused).contains("was not made by provision"),
        "{}",
        said(&refused)
    );
    assert!(Path::new(foreign).join("tokens").is_dir());
    let done = script(
        "destroy",
        &[&named("one")[..], &["--yes-destroy", "one"]].concat(),
    );
    assert!(done.status.success(), "{}", said(&done));
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_token_that_a_daemon_uses_is_not_destroyed() {
    let mut app = TestApp::start().await;
    let dir = app.token.dir().to_owned();
    let named = [
        "--dir",
        dir.to_str().unwrap(),
        "--label",
        LABEL,
        "--yes-destroy",
        LABEL,
    ];
    let refused = script("destroy", &named);
    assert!(
        said(&refused).contains("stop it first"),
        "{}",
        said(&refused)
    );
    assert!(app.token.tokens().is_dir());
    // The control: the daemon was the only reason.
    assert!(app.stop());
    let done = script("destroy", &named);
    assert!(done.status.success(), "{}", said(&done));
    assert!(!app.token.tokens().exists());
}

/// Names and contents below a folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}
