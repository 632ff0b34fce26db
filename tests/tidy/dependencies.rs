//! The rules of `deny.toml` that need no network: licences, and crates that must not come back.
//! (Advisories are `cargo deny check`'s, which fetches their list.)

use std::collections::BTreeSet;
use std::process::Command;

use super::root;

/// Name and licence of every crate that is built, with the features that are on.
fn packages() -> BTreeSet<(String, String)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let asked = Command::new(cargo)
        .args(["tree", "--workspace", "--locked", "--offline"])
        .args(["--edges", "normal,build,dev", "--prefix", "none"])
        .args(["--no-dedupe", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "cargo tree: {said}");
    let listed = String::from_utf8(asked.stdout).unwrap();
    let package = |line: &str| {
        let (package, licence) = line.split_once('|').unwrap();
        let name = package.split(' ').next().unwrap();
        (name.to_owned(), licence.to_owned())
    };
    let lines = listed.lines().filter(|line| !line.is_empty());
    lines.map(package).collect()
}

fn rules() -> toml::Table {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    text.parse().unwrap()
}

/// Whether one way to read a crate's licence is among those that are allowed.
fn allowed(expression: &str, allow: &[&str]) -> bool {
    let parsed = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX);
    parsed
        .is_ok_and(|parsed| parsed.evaluate(|wanted| allow.contains(&wanted.to_string().as_str())))
}

#[test]
fn every_licence_is_an_allowed_one() {
    let rules = rules();
    let allow: Vec<&str> = rules["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|licence| licence.as_str().unwrap())
        .collect();
    let packages = packages();
    assert!(packages.len() > 100, "the graph is {}", packages.len());
    let refused: Vec<_> = packages
        .iter()
        .filter(|(_, licence)| !allowed(licence, &allow))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    // The check can fail.
    assert!(!allowed("GPL-3.0-only", &allow));
    assert!(!allowed("MIT AND GPL-3.0-only", &allow));
    assert!(!allowed("", &allow));
}

#[test]
fn no_second_library_for_tls_or_cryptography_comes_in() {
    let rules = rules();
    let banned: Vec<&str> = rules["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    assert!(banned.contains(&"ring"));
    let packages = packages();
    assert!(packages.iter().any(|(name, _)| name == "aws-lc-rs"));
    let found: Vec<_> = packages
        .iter()
        .filter(|(name, _)| banned.contains(&name.as_str()))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}
