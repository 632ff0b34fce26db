//! What needs no browser: lints, unit tests, generated types, size.

use custodyd_tests::TestApp;

use crate::tools::{client, node, passed, succeeds};

const TSC: &str = "node_modules/typescript/bin/tsc";

#[test]
fn the_sources_are_formatted_typed_and_without_lints() {
    succeeds(node(&[
        "node_modules/prettier/bin/prettier.cjs",
        "--check",
        ".",
    ]));
    succeeds(node(&[TSC, "--noEmit", "-p", "tsconfig.json"]));
    succeeds(node(&[
        "node_modules/eslint/bin/eslint.js",
        ".",
        "--max-warnings",
        "0",
    ]));
}

#[test]
fn unit_tests() {
    let said = succeeds(node(&["scripts/test.mjs"]));
    assert!(passed(&said) >= 40, "{said}");
}

/// As it is published: it builds, and an app that imports everything loads so much.
#[test]
fn the_sdk_builds_and_is_small() {
    let said = succeeds(node(&["scripts/size.mjs"]));
    let bytes = said.lines().find_map(|line| {
        let number = line.strip_prefix("sdk_gzip_bytes ")?;
        number.trim().parse::<usize>().ok()
    });
    let bytes = bytes.unwrap_or_else(|| panic!("{said}"));
    assert!((1..=20_000).contains(&bytes), "{said}");
}

#[tokio::test]
async fn the_types_are_those_of_the_daemon() {
    let app = TestApp::start().await;
    let answer = app.device("notes").call("GET", "/openapi.json", None).await;
    let mut description = answer.expect(200).body;
    let file = app.path("openapi.json");
    std::fs::write(&file, description.to_string()).unwrap();
    let name = file.to_str().unwrap().to_owned();
    // For whoever has changed the daemon: `scripts/client-types`.
    if std::env::var_os("CUSTODYD_WRITE_TYPES").is_some() {
        succeeds(node(&["scripts/types.mjs", &name]));
        return;
    }
    succeeds(node(&["scripts/types.mjs", &name, "--check"]));
    // The control: another shape is noticed.
    let account = "/components/schemas/AccountView/properties/created/type";
    *description.pointer_mut(account).unwrap() = "string".into();
    std::fs::write(&file, description.to_string()).unwrap();
    let wrong = node(&["scripts/types.mjs", &name, "--check"]).output();
    assert!(!wrong.unwrap().status.success());
}

/// The registry is whoever installs' own: the lock file has hashes, and names no host.
#[test]
fn the_lock_file_names_no_registry() {
    let lock = std::fs::read_to_string(client().join("package-lock.json")).unwrap();
    assert!(lock.contains("\"integrity\""));
    assert!(!lock.contains("://") || !lock.contains("\"resolved\": \"http"));
}

#[test]
fn the_policy_of_the_demo_is_one() {
    let file = client().join("../policies/apps/notebook.toml");
    let policy = custodyd_policies::parse("notebook.toml", &std::fs::read_to_string(file).unwrap());
    assert_eq!(policy.unwrap().origins, ["http://localhost:8081"]);
}
