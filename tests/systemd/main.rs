//! The shipped units and the Debian package: how exposed they are, and that they work.
//!
//! The package is built from the programs that the tests run, and installed in a machine of its own: a
//! container in which systemd is PID 1 (systemd-nspawn) over a copy-on-write view of this host. So its
//! filters, namespaces and credentials are systemd's own. It needs root, and a host that lets it mount;
//! where that cannot be had, `CUSTODYD_WITHOUT_MACHINE=1` leaves these tests out, and says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod debian;
mod exposure;
mod handbook;
mod inside;
mod machine;
mod package;
mod tpm_device;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap().to_owned()
}

/// The shipped units by kind: `service`, `socket`, `timer`.
fn units(kind: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(root().join("systemd"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == kind))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no .{kind} in systemd/");
    found
}
