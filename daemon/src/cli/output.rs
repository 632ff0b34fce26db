//! How the command line answers: one line for each check, for people; one object, for machines.
//!
//! Called by the commands. Results go to standard output, failures to standard error; in
//! JSON form both go to standard output. Texts may hold what a token or a file said, so
//! control characters are made visible before they reach a terminal.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    Ok,
    /// Works, but the operator should know something.
    Warn,
    /// Does not work, or must not be used so.
    Red,
}

impl Status {
    fn for_people(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Red => "RED",
        }
    }

    fn for_machines(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warning",
            Self::Red => "red",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub check: String,
    pub status: Status,
    pub detail: String,
    /// What to do about it.
    pub action: Option<String>,
    /// More for machines, such as the attributes of a key.
    pub data: Option<Value>,
}

impl Line {
    pub fn ok(check: &str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, detail.into(), None)
    }

    pub fn warn(check: &str, detail: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(check, Status::Warn, detail.into(), Some(action.into()))
    }

    pub fn red(check: &str, detail: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(check, Status::Red, detail.into(), Some(action.into()))
    }

    /// Red, where the detail already says what to do.
    pub fn red_told(check: &str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Red, detail.into(), None)
    }

    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    pub fn is_red(&self) -> bool {
        self.status == Status::Red
    }

    fn new(check: &str, status: Status, detail: String, action: Option<String>) -> Self {
        Self {
            check: check.to_owned(),
            status,
            detail,
            action,
            data: None,
        }
    }

    /// What [`Output::checks`] of another process of this program wrote.
    pub fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let status = [Status::Ok, Status::Warn, Status::Red]
            .into_iter()
            .find(|status| text("status") == Some(status.for_machines()))?;
        Some(Self {
            check: text("check")?.to_owned(),
            status,
            detail: text("detail")?.to_owned(),
            action: text("action").map(ToOwned::to_owned),
            data: value.get("data").cloned(),
        })
    }

    fn human(&self) -> String {
        let mut text = format!(
            "{:<4} {:<14} {}",
            self.status.for_people(),
            self.check,
            self.detail
        );
        if let Some(action) = &self.action {
            text.push_str(" -> ");
            text.push_str(action);
        }
        visible(&text)
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "check": self.check,
            "status": self.status.for_machines(),
            "detail": self.detail,
            "action": self.action,
        });
        if let (Some(object), Some(data)) = (value.as_object_mut(), &self.data) {
            object.insert("data".to_owned(), data.clone());
        }
        value
    }
}

/// Where and in which form a command answers.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the checks; fails where one is red.
    pub fn checks(&self, command: &str, lines: &[Line]) -> ExitCode {
        let good = !lines.iter().any(Line::is_red);
        if self.json {
            let checks: Vec<Value> = lines.iter().map(Line::json).collect();
            print(&json!({ "command": command, "ok": good, "checks": checks }).to_string());
        } else {
            for line in lines {
                print(&line.human());
            }
        }
        if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Prints what a command found or did: the lines for people, the value for machines.
    pub fn done(&self, command: &str, value: &Value, lines: &[String]) -> ExitCode {
        if self.json {
            print(&json!({ "command": command, "ok": true, "result": value }).to_string());
        } else {
            for line in lines {
                print(&visible(line));
            }
        }
        ExitCode::SUCCESS
    }

    /// Text for people to copy, as it is but for control characters. Machines find it in a check's data.
    pub fn copy(&self, text: &str) {
        if !self.json {
            text.lines().for_each(|line| print(&visible(line)));
        }
    }

    /// Whether the answer is for machines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one of many answers as it comes: a line, or an object in a line.
    pub fn entry(&self, value: &Value, line: &str) {
        if self.json {
            print(&value.to_string());
        } else {
            print(&visible(line));
        }
    }

    /// Prints why a command did not do its work.
    pub fn failure(&self, command: &str, message: &str) -> ExitCode {
        if self.json {
            print(&json!({ "command": command, "ok": false, "error": message }).to_string());
        } else {
            let mut stderr = io::stderr().lock();
            for line in message.lines() {
                let _ = writeln!(stderr, "custodyd {command}: {}", visible(line));
            }
        }
        ExitCode::FAILURE
    }
}

/// A reader that went away (`custodyd doctor | head -1`) is no reason to panic, as `println!` would.
fn print(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Control characters escaped: neither a second line nor a terminal command.
fn visible(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = (!character.is_control()).then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people() {
        assert_eq!(
            Line::ok("token", "SoftHSM").human(),
            "ok   token          SoftHSM"
        );
        assert_eq!(
            Line::red("store", "not writable", "chown it").human(),
            "RED  store          not writable -> chown it"
        );
    }

    #[test]
    fn a_token_cannot_write_to_the_terminal() {
        let line = Line::ok("token", "evil\u{1b}[2J\nlabel").human();
        assert_eq!(line, "ok   token          evil\\u{1b}[2J\\nlabel");
    }

    #[test]
    fn the_json_form_has_every_field() {
        let line = Line::warn("token", "files", "use an HSM")
            .with_data(json!(7))
            .json();
        let expected = json!({
            "check": "token", "status": "warning", "detail": "files", "action": "use an HSM", "data": 7
        });
        assert_eq!(line, expected);
        assert_eq!(Line::read(&line).map(|line| line.json()), Some(expected));
        assert!(Line::read(&json!({ "check": "token", "status": "blue", "detail": "" })).is_none());
    }
}
