//! `custodyd account slots`: how many accounts are left whose secrets the daemon can open.
//!
//! The daemon counts part by part; this adds up, and shows that it moves where somebody looks.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::super::output::Output;
use super::super::socket::ask;
use crate::config::Config;

const COMMAND: &str = "account slots";

/// Of one app.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    policy: String,
    accounts: u64,
    left: u64,
}

#[derive(Debug, Default)]
struct Sums {
    apps: BTreeMap<String, Sum>,
    uncounted: u64,
}

impl Sums {
    fn add(&mut self, part: &Value) {
        let number = |value: &Value, name| value.get(name).and_then(Value::as_u64).unwrap_or(0);
        let text = |value: &Value, name| {
            let text = value.get(name).and_then(Value::as_str);
            text.unwrap_or("?").to_owned()
        };
        let apps = part.get("apps").and_then(Value::as_array);
        for app in apps.into_iter().flatten() {
            let sum = self.apps.entry(text(app, "app")).or_default();
            sum.policy = text(app, "server_slot");
            sum.accounts = sum.accounts.saturating_add(number(app, "accounts"));
            sum.left = sum.left.saturating_add(number(app, "left"));
        }
        self.uncounted = self.uncounted.saturating_add(number(part, "uncounted"));
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = (self.apps.iter())
            .map(|(app, sum)| {
                let Sum {
                    policy,
                    accounts,
                    left,
                } = sum;
                let next = match (policy.as_str(), left) {
                    ("ending", 0) => "; none is left: secrets.server_slot can be \"forbidden\" now",
                    ("forbidden", 1..) => {
                        "; these are withheld: \"ending\" lets their owners move them"
                    }
                    _ => "",
                };
                format!("{app}: {left} of {accounts} accounts have server slots ({policy}){next}")
            })
            .collect();
        if self.uncounted > 0 {
            lines.push(format!(
                "{} accounts are opened by no served app, or do not verify, and are not counted",
                self.uncounted
            ));
        }
        lines
    }
}

pub(super) fn counted(output: &Output, config: &Config) -> ExitCode {
    let mut sums = Sums::default();
    let (mut part, mut parts) = (0, 1);
    let mut screen = std::io::stderr();
    while part < parts {
        let answer = match ask(config, "GET", &format!("/server-slots?part={part}")) {
            Ok(answer) => answer,
            Err(error) => return output.failure(COMMAND, &error),
        };
        parts = answer.get("parts").and_then(Value::as_u64).unwrap_or(1);
        sums.add(&answer);
        part += 1;
        if screen.is_terminal() {
            let _ = write!(screen, "\r{} %", part * 100 / parts.max(1));
        }
    }
    if screen.is_terminal() {
        let _ = write!(screen, "\r      \r");
    }
    let apps: Vec<Value> = (sums.apps.iter())
        .map(|(app, sum)| {
            json!({
                "app": app,
                "server_slot": sum.policy,
                "accounts": sum.accounts,
                "left": sum.left,
            })
        })
        .collect();
    let answer = json!({ "apps": apps, "uncounted": sums.uncounted });
    output.done(COMMAND, &answer, &sums.lines())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_the_next_step_is_told() {
        let part = |policy: &str, left: u64| {
            let app = json!({"app": "notes", "server_slot": policy, "accounts": 2, "left": left});
            json!({"parts": 2, "apps": [app], "uncounted": 1})
        };
        let told = |policy: &str, left: [u64; 2]| {
            let mut sums = Sums::default();
            left.iter().for_each(|left| sums.add(&part(policy, *left)));
            sums.lines()
        };
        let line = "notes: 3 of 4 accounts have server slots (ending)";
        let lines = told("ending", [1, 2]);
        assert_eq!(lines[0], line);
        assert!(lines[1].starts_with("2 accounts are opened by no served app"));
        assert!(told("ending", [0, 0])[0].contains("can be \"forbidden\" now"));
        assert!(told("forbidden", [0, 1])[0].contains("these are withheld"));
        assert!(!told("forbidden", [0, 0])[0].contains(';'));
    }
}
