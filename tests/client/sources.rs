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

/// As it is published: it builds, an app that imports everything loads so much, and installed into an empty project without a
/// network it is what an app can use: types, the examples of the READMEs, a bundle, and a run. One test, since there is one
/// folder that it is built into.
#[test]
fn the_sdk_builds_is_small_and_is_what_an_app_can_use() {
    let said = succeeds(node(&["scripts/size.mjs"]));
    for (name, most) in [
        ("sdk_gzip_bytes ", 20_000),
        ("sdk_on_demand_gzip_bytes ", 200_000),
        ("sdk_threshold_gzip_bytes ", 10_000),
    ] {
        let bytes = said.lines().find_map(|line| {
            let number = line.strip_prefix(name)?;
            number.trim().parse::<usize>().ok()
        });
        let bytes = bytes.unwrap_or_else(|| panic!("{said}"));
        assert!((1..=most).contains(&bytes), "{said}");
    }
    let said = succeeds(node(&["scripts/package.mjs"]));
    assert!(said.contains("package_files "), "{said}");
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

/// The server in Node that the bench measures beside the daemon. It is formatted as the client is, and is JavaScript
/// that parses; the bench tries whether it works.
#[test]
fn the_benchs_peer_is_formatted_and_parses() {
    let folder = client().join("../bench/peers/src");
    succeeds(node(&[
        "node_modules/prettier/bin/prettier.cjs",
        "--config",
        ".prettierrc.json",
        "--check",
        "../bench/peers/src",
        "../bench/peers/package.json",
    ]));
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        succeeds(node(&["--check", path.to_str().unwrap()]));
        files += 1;
    }
    assert!(files > 5, "{files}");
}

/// The registry is whoever installs' own: lock files have hashes, and name no host.
#[test]
fn no_lock_file_names_a_registry() {
    for lock in ["package-lock.json", "../bench/peers/package-lock.json"] {
        let lock = std::fs::read_to_string(client().join(lock)).unwrap();
        assert!(lock.contains("\"integrity\""));
        assert!(!lock.contains("://") || !lock.contains("\"resolved\": \"http"));
    }
}

const ALLOWED: &[&str] = &[
    "(BSD-2-Clause OR MIT OR Apache-2.0)",
    "(MIT OR CC0-1.0)",
    "(MIT OR WTFPL)",
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BlueOak-1.0.0",
    "ISC",
    "MIT",
    "MIT OR Apache-2.0",
    "MPL-2.0",
    "Python-2.0",
];

/// Of the bench's peer; nothing of it is shipped.
#[test]
fn every_package_of_the_benchs_peer_has_a_licence_that_is_allowed() {
    let lock = client().join("../bench/peers/package-lock.json");
    let lock: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(lock).unwrap()).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert!(packages.len() > 10, "{}", packages.len());
    for (name, package) in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(ALLOWED.contains(&licence), "{name}: {licence}");
    }
}

/// What an app ships is three packages; the rest are tools of ours.
#[test]
fn every_package_has_a_licence_that_is_allowed() {
    let lock = std::fs::read_to_string(client().join("package-lock.json")).unwrap();
    let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
    let packages = lock["packages"].as_object().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    let mut shipped = Vec::new();
    for (name, package) in packages {
        let (link, dev) = (&package["link"], &package["dev"]);
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(
            link == true || ALLOWED.contains(&licence),
            "{name}: {licence}"
        );
        if name.starts_with("node_modules/") && link != true && dev != true {
            shipped.push((name.as_str(), licence));
        }
    }
    let wanted = [
        ("node_modules/@serenity-kit/opaque", "MIT"),
        ("node_modules/hash-wasm", "MIT"),
        ("node_modules/shamir-secret-sharing", "Apache-2.0"),
    ];
    assert_eq!(shipped, wanted);
}

#[test]
fn the_policy_of_the_demo_is_one() {
    let file = client().join("../policies/apps/notebook.toml");
    let policy = custodyd_policies::parse("notebook.toml", &std::fs::read_to_string(file).unwrap());
    assert_eq!(policy.unwrap().origins, ["http://localhost:8081"]);
}
