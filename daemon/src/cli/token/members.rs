//! `custodyd token members`, `readmit` and `expel`: the tokens of a realm that has several.
//!
//! Called by the command line's table. Where a daemon runs it is asked, by its socket; where none does, the
//! realm is opened here and the same use cases are called (`service::tokens`). A start that lacks a token
//! refuses, so that saying that one is lost is the one thing here that opens the realm differently.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::super::key::Hands;
use super::super::output::Output;
use super::super::{chain, log_quietly};
use crate::config::{self, Config};
use crate::startup;

#[derive(Debug, Args)]
pub(in crate::cli) struct Which {
    /// Its name in the configuration ("primary" for that of [token] itself), or its serial number
    #[arg(value_name = "TOKEN")]
    token: String,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Expel {
    #[command(flatten)]
    which: Which,
    /// Do it: without a daemon, this says that the token has not served without the others
    #[arg(long)]
    yes: bool,
}

type Done = Result<(Value, Vec<String>), String>;

pub(super) fn members(output: &Output, path: &Path) -> ExitCode {
    run(output, path, "token members", |config| {
        let answer =
            Hands::of(config)?.ask(
                ("GET", "/tokens"),
                |service| async move { Ok(service.tokens()) },
            )?;
        let lines = lines(&answer);
        Ok((answer, lines))
    })
}

pub(super) fn readmit(output: &Output, path: &Path, which: &Which) -> ExitCode {
    run(output, path, "token readmit", |config| {
        let name = name(&which.token)?;
        let asked = format!("/tokens/{name}/readmit");
        let answer = Hands::of(config)?.ask(("POST", &asked), |service| async move {
            let done = service.readmit_token(&name).await;
            done.map_err(|error| chain(&error))
        })?;
        let line = format!(
            "{} ({}) holds the same keys and is anchored in from now on",
            text(&answer, "name"),
            text(&answer, "serial")
        );
        Ok((answer, vec![line]))
    })
}

pub(super) fn expel(output: &Output, path: &Path, wanted: &Expel) -> ExitCode {
    run(output, path, "token expel", |config| {
        expelled(config, wanted)
    })
}

fn expelled(config: &Config, wanted: &Expel) -> Done {
    let name = name(&wanted.which.token)?;
    if !wanted.yes {
        let lines = vec![
            format!("nothing was changed; with --yes the realm goes on without the token {name}"),
            "where no daemon runs: the tokens that are left can not know whether that one has served without them, \
             and if it has, everything since then is undone. Ask before: was it the one that served last? Do \
             witnesses or auditors hold a newer checkpoint than `custodyd ledger tail` shows?"
                .to_owned(),
        ];
        return Ok((json!({ "expelled": false }), lines));
    }
    if Hands::daemon_runs(config) {
        let asked = format!("/tokens/{name}/expel");
        let answer = Hands::of(config)?.ask(("POST", &asked), |_| async { Ok(Value::Null) })?;
        let line = format!(
            "the realm goes on without {} ({})",
            text(&answer, "name"),
            text(&answer, "serial")
        );
        return Ok((answer, vec![line]));
    }
    log_quietly(config).map_err(|error| chain(&error))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let named = runtime.block_on(async {
        let realm = startup::open_without(config, Some(&name)).await;
        let realm = realm.map_err(|error| chain(&error))?;
        let named = realm.service.ledger.tokens();
        realm.close().await;
        Ok::<_, String>(named)
    })?;
    let line = format!(
        "the realm goes on with {}; start the daemon",
        named.join(", ")
    );
    Ok((json!({ "expelled": true, "named": named }), vec![line]))
}

/// It becomes a part of a path.
fn name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match !text.is_empty() && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("expected a token's name or serial number".to_owned()),
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or("?")
}

/// How each token stands, a line each.
pub(in crate::cli) fn lines(answer: &Value) -> Vec<String> {
    let Some(tokens) = answer.get("tokens").and_then(Value::as_array) else {
        return vec!["the realm has one token".to_owned()];
    };
    tokens.iter().map(line).collect()
}

pub(in crate::cli) fn line(token: &Value) -> String {
    let stands = match text(token, "state") {
        "well" => "in use",
        "sick" => "does not answer, and is given up unless it comes back",
        _ if token.get("unheard") == Some(&Value::Bool(true)) => {
            "not in use, and has not answered since the daemon started: should it know a newer MAC key, the daemon stops \
             once it is back"
        }
        _ => "not in use: given up, or never taken in (`custodyd token readmit`)",
    };
    let mut line = format!(
        "{:<12} {:<18} {stands}",
        text(token, "name"),
        text(token, "serial")
    );
    if let Some(reason) = token.get("reason").and_then(Value::as_str) {
        line.push_str(&format!("; {reason}"));
    }
    line
}

fn run(output: &Output, path: &Path, name: &str, work: impl FnOnce(&Config) -> Done) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(errors) => return output.failure(name, &errors.to_string()),
    };
    match work(&config) {
        Ok((answer, lines)) => output.done(name, &answer, &lines),
        Err(error) => output.failure(name, &error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        for good in ["primary", "b", "0123456789abcdef"] {
            assert_eq!(name(good).unwrap(), good);
        }
        for bad in ["", "a/b", "a b", "a?b", "%2e"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_standing_has_its_words() {
        let token = |state| json!({"name": "b", "serial": "1", "state": state, "reason": null});
        let tokens = ["well", "sick", "outside"].map(token);
        let all = json!({ "tokens": tokens });
        let [well, sick, outside] = lines(&all).try_into().unwrap();
        assert!(well.ends_with("in use") && sick.contains("given up unless"));
        assert!(outside.contains("readmit"), "{outside}");
        let unheard = json!({ "name": "b", "state": "outside", "unheard": true });
        assert!(line(&unheard).contains("has not answered since"));
        assert_eq!(
            lines(&json!({ "tokens": null })),
            ["the realm has one token"]
        );
    }
}
