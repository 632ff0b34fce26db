//! The layering of ARCHITECTURE.md, and habits that a reader relies on, held by a test.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod dependencies;
mod links;
mod metrics;
mod monitoring;

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every Rust file below a folder of the checkout, with its text.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{below} holds no Rust files");
    found
}

/// The files below `below` that mention one of `words`.
fn mentions(below: &str, words: &[&str]) -> Vec<String> {
    sources(below)
        .into_iter()
        .flat_map(|(path, text)| {
            let hits = words.iter().filter(|word| text.contains(**word));
            hits.map(|word| format!("{}: {word}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[track_caller]
fn never(below: &str, words: &[&str]) {
    let found = mentions(below, words);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_check_itself_can_fail() {
    assert!(!mentions("daemon/src/ledger", &["crate::store::"]).is_empty());
}

#[test]
fn policies_decide_without_clock_io_or_the_other_crates() {
    never(
        "policies/src",
        &[
            "custodyd_hsm",
            "custodyd::",
            "std::fs",
            "std::net",
            "SystemTime",
            "Instant::now",
            "tokio",
        ],
    );
}

#[test]
fn hsm_knows_no_http_no_sql_and_no_policy() {
    never(
        "hsm/src",
        &["custodyd_policies", "custodyd::", "axum", "hyper", "sqlx"],
    );
}

#[test]
fn a_backend_never_sees_what_is_built_on_it() {
    never(
        "hsm/src/backend",
        &[
            "crate::seal",
            "crate::mac",
            "crate::binding",
            "crate::anchor",
            "crate::checkpoint",
            "seal::",
            "binding::",
        ],
    );
}

#[test]
fn inside_the_daemon_nothing_imports_upwards() {
    never(
        "daemon/src/store",
        &[
            "crate::service",
            "crate::http",
            "crate::factors",
            "crate::account",
        ],
    );
    never(
        "daemon/src/ledger",
        &["crate::service", "crate::http", "crate::factors", "sqlx::"],
    );
    never(
        "daemon/src/factors",
        &[
            "crate::service",
            "crate::http",
            "crate::ledger",
            "crate::store",
            "sqlx",
        ],
    );
    never(
        "daemon/src/delivery",
        &[
            "crate::service",
            "crate::http",
            "crate::ledger",
            "crate::store",
            "sqlx",
        ],
    );
    never(
        "daemon/src/witness",
        &[
            "crate::http",
            "crate::store",
            "crate::startup",
            "sqlx",
            "axum",
        ],
    );
    never(
        "daemon/src/service",
        &[
            "crate::http",
            "crate::store",
            "crate::startup",
            "sqlx",
            "axum",
        ],
    );
    never(
        "daemon/src/http/routes",
        &["crate::ledger", "crate::store", "crate::factors"],
    );
}

#[test]
fn only_the_ledger_looks_into_what_the_database_says() {
    for folder in [
        "daemon/src/service",
        "daemon/src/http",
        "daemon/src/factors",
        "daemon/src/cli",
    ] {
        never(folder, &[".examine()"]);
    }
}

#[test]
fn every_file_introduces_itself_and_can_be_read_in_one_sitting() {
    for folder in ["policies/src", "hsm/src", "daemon/src", "tests"] {
        for (path, text) in sources(folder) {
            assert!(
                text.starts_with("//!"),
                "{} does not say what it is for",
                path.display()
            );
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines", path.display());
        }
    }
}

/// A wrapper that does not hand a method with a default body on hides the token's own, and nothing else tells.
#[test]
fn whoever_stands_before_a_token_says_so_of_each_method() {
    // Tokens themselves, for whom a default is an answer.
    const TOKENS: [&str; 6] = [
        "Backend for Pkcs11Backend",
        "Backend for TpmBackend",
        "Custody for Pkcs11Custody",
        "Custody for TpmCustody",
        "Custody for SoftCustody",
        // Beside the tests of `proof`, which spoil a token.
        "Custody for Faulty",
    ];
    let mut wrappers = 0;
    for (path, text) in sources("hsm/src") {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        let mut before: Vec<&str> = Vec::new();
        for line in text.lines() {
            let line = line.trim();
            let begins = line.strip_prefix("impl ").filter(|rest| {
                rest.starts_with("Custody for ") || rest.starts_with("Backend for ")
            });
            if let Some(rest) = begins
                && !TOKENS.iter().any(|token| rest.starts_with(token))
            {
                let held = before.iter().rev().take(5);
                let held = held.copied().collect::<String>();
                let held = held.contains("clippy::missing_trait_methods");
                assert!(
                    held,
                    "{}: {line} needs #[deny(clippy::missing_trait_methods)]",
                    path.display()
                );
                wrappers += 1;
            }
            before.push(line);
        }
    }
    assert_eq!(wrappers, 4);
}
