//! Several real daemons of one realm, on one PostgreSQL server and one SoftHSM2 token.
//!
//! Called by the tests of nodes (`tests/postgres`), and by those of who administers their server (`malicious_admin`).

use std::path::Path;

use crate::app::DATABASE;
use crate::token::SoftToken;
use crate::{Device, Setup, TestApp};

/// A daemon that lets others beside itself.
///
/// # Panics
/// When it does not serve.
pub async fn first(setup: Setup) -> TestApp {
    let mut app = TestApp::prepared(setup.on_postgres(), SoftToken::fresh());
    app.share_database();
    app.found().await;
    app
}

/// Two of them.
///
/// # Panics
/// When they do not serve.
pub async fn two(setup: Setup) -> (TestApp, TestApp) {
    let one = first(setup.clone()).await;
    let mut other = one.another(setup, DATABASE);
    other.launch().await;
    (one, other)
}

/// The same device, of the same account, at another node.
#[must_use]
pub fn at(device: &Device, node: &TestApp) -> Device {
    let mut there = Device::new(&node.url, &node.ca, &device.app);
    there.key = device.key.clone();
    there.app_key = device.app_key.clone();
    there.account.clone_from(&device.account);
    there.token.clone_from(&device.token);
    there
}

/// The node looks for its server's socket in another folder, from its next start on.
///
/// # Panics
/// Where it does not look in the first one.
pub fn looks_in(node: &TestApp, folder: &Path, instead_of: &Path) {
    let file = node.path("custodyd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let host = |folder: &Path| format!("?host={}\"", folder.display());
    let led = text.replacen(&host(instead_of), &host(folder), 1);
    assert_ne!(led, text);
    std::fs::write(file, led).unwrap();
}
