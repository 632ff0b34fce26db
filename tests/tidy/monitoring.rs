//! Alert rules and dashboard: Prometheus's own tool reads them, the metrics that they name are those of
//! `docs/METRICS.md`, each alert has its runbook, and some are seen to fire and to stay silent (`alerts.yml`).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::links::anchors;
use super::metrics::documented;
use super::root;

fn rules() -> String {
    std::fs::read_to_string(root().join("docs/monitoring/custodyd-alerts.yml")).unwrap()
}

fn dashboard() -> Value {
    let path = root().join("docs/monitoring/custodyd-dashboard.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The expressions of all panels, with Grafana's own variables filled in.
fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|text| text.replace("$__rate_interval", "5m"))
        .collect()
}

#[track_caller]
fn promtool(arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(file)
        .output()
        .unwrap_or_else(|error| {
            panic!("promtool ({error}): scripts/ensure-tools puts it into target/tools/bin")
        });
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The metrics of ours that a text names, as METRICS.md calls them.
fn named(text: &str) -> BTreeSet<String> {
    let part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !part(letter));
    words
        .filter(|word| word.starts_with("custodyd_"))
        .map(|word| {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| word.strip_suffix(end));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn prometheus_reads_the_rules_and_every_panel() {
    let path = root().join("docs/monitoring/custodyd-alerts.yml");
    let (good, said) = promtool(&["check", "rules", "--lint-fatal"], &path);
    assert!(good, "{said}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("panels.yml");
    let check = |expressions: &[String]| {
        let rule = |(number, text): (usize, &String)| {
            let text = serde_json::to_string(text).unwrap();
            format!("  - {{record: \"panel:{number}\", expr: {text}}}\n")
        };
        let rules: String = expressions.iter().enumerate().map(rule).collect();
        std::fs::write(&file, format!("groups:\n- name: panels\n  rules:\n{rules}")).unwrap();
        promtool(&["check", "rules"], &file)
    };
    let expressions = expressions();
    assert!(expressions.len() > 15, "{expressions:?}");
    let (good, said) = check(&expressions);
    assert!(good, "{said}");
    // The check can fail.
    assert!(!check(&["sum(rate(custodyd_apps[5m])".to_owned()]).0);
}

#[test]
fn alerts_and_panels_name_metrics_that_exist() {
    let documented = documented();
    let all = [rules(), expressions().join("\n")].concat();
    let named = named(&all);
    assert!(named.len() > 20, "{named:?}");
    let invented: Vec<_> = named.difference(&documented).collect();
    assert!(invented.is_empty(), "{invented:?}");
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    let page = std::fs::read_to_string(root().join("docs/handbook/monitor.md")).unwrap();
    let runbooks: BTreeSet<String> = anchors(&page)
        .into_iter()
        .filter(|anchor| anchor.starts_with("custodyd"))
        .collect();
    let rules = rules();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let mut told = BTreeSet::new();
    for alert in alerts {
        let name = alert.lines().next().unwrap().to_lowercase();
        assert!(
            alert.contains(&format!("monitor.md#{name}\n")),
            "{name} has not its own runbook"
        );
        assert!(alert.contains("severity: page") || alert.contains("severity: ticket"));
        told.insert(name);
    }
    assert_eq!(told, runbooks);
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    for file in ["alerts.yml", "alerts-days.yml"] {
        let path = root().join("tests/tidy").join(file);
        let (good, said) = promtool(&["test", "rules"], &path);
        assert!(good, "{said}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "custodyd-overview");
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = &panel["gridPos"];
        let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
        assert!(right <= 24, "{title} is off the page");
        if panel["type"] != "row" {
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(unit.is_some_and(|unit| !unit.is_empty()), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        }
    }
}
