//! Node with the client's packages, as `scripts/ensure-tools` has installed them.

use std::process::{Command, Output};

pub(crate) use custodyd_tests::stories::{client, node};

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
