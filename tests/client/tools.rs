//! Node with the client's packages, as `scripts/ensure-tools` has installed them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder `client` of the checkout.
pub(crate) fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("client")
}

/// A run of Node inside `client`.
///
/// # Panics
/// With what to run, where the packages are not those of the lock file.
pub(crate) fn node(arguments: &[&str]) -> Command {
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

/// Runs to the end; says everything if it fails.
pub(crate) fn succeeds(mut command: Command) -> String {
    let output = command
        .output()
        .expect("node is needed: run scripts/ensure-tools test");
    let said = said(&output);
    assert!(output.status.success(), "{command:?}:\n{said}");
    said
}

pub(crate) fn said(output: &Output) -> String {
    custodyd_tests::app::said(output)
}

/// How many tests Node's runner closed on, and that none was skipped.
pub(crate) fn passed(said: &str) -> usize {
    let closing = |what: &str| -> usize {
        let line = said.lines().rev().find_map(|line| {
            let line = line.trim_start_matches(['#', 'ℹ', ' ']);
            line.strip_prefix(what)?.trim().parse().ok()
        });
        line.unwrap_or_else(|| panic!("no line `{what}`:\n{said}"))
    };
    assert_eq!(
        (closing("fail "), closing("skipped "), closing("todo ")),
        (0, 0, 0),
        "{said}"
    );
    closing("pass ")
}
