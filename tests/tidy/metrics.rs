//! `docs/METRICS.md` names every metric of the sources, and nothing else.

use std::collections::BTreeSet;

use super::{root, sources};

/// The names behind the macros of the crate `metrics`; tests' own names are left out.
fn in_sources() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources("daemon/src") {
        for kind in ["counter!(", "gauge!(", "histogram!("] {
            for call in text.split(kind).skip(1) {
                let literal = call.trim_start().strip_prefix('"');
                if let Some((name, _)) = literal.and_then(|rest| rest.split_once('"')) {
                    names.insert(name.to_owned());
                }
            }
        }
    }
    names.retain(|name| !name.starts_with("custodyd_test_"));
    names
}

pub(super) fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/METRICS.md")).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let (sources, documented) = (in_sources(), documented());
    assert!(sources.len() > 15, "{sources:?}");
    let missing: Vec<_> = sources.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/METRICS.md: {missing:?}");
    let invented: Vec<_> = documented.difference(&sources).collect();
    assert!(invented.is_empty(), "in docs/METRICS.md only: {invented:?}");
}
