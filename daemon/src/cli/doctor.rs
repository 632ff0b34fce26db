//! `custodyd doctor`: everything a working daemon needs, one line each.
//!
//! Called by the command line. It changes nothing: no key, no row, no file. Beside a
//! running daemon it asks that daemon about token and store, over the operator's socket, and
//! does not log into the token a second time. It trusts nothing it hears there beyond
//! showing it; a check never opens the database, which only the daemon may verify.

mod daemon;
mod files;
mod host;
mod listeners;

use std::path::Path;

use self::daemon::{Daemon, Found};
use super::output::Line;
use super::token;
use crate::config::{self, Config, Database};
use crate::hardening;

/// Every line, the configuration first: without it only the host can be judged. `running` is a promise that a daemon
/// runs, so that one which does not answer is red, and the token is left to it in any case.
pub(super) fn run(path: &Path, running: bool, hardening: &hardening::Report) -> Vec<Line> {
    let mut lines = Vec::new();
    match config::load(path) {
        Ok(config) => {
            lines.push(Line::ok(
                "configuration",
                format!("{}, realm {}", path.display(), config.realm.name),
            ));
            lines.extend(configured(&config, running));
        }
        Err(errors) => lines.extend(
            errors
                .iter()
                .map(|error| Line::red("configuration", error.to_string(), "correct the file")),
        ),
    }
    lines.extend(host::hardening(hardening));
    lines
}

fn configured(config: &Config, running: bool) -> Vec<Line> {
    let mut lines = policies(config);
    lines.push(files::certificate(&config.listen));
    lines.push(delivery(&config.delivery));
    lines.push(witnesses(&config.witnesses));
    match daemon::find(&config.operator) {
        Found::Runs(daemon) => {
            lines.extend(listeners::check(config, Some(&daemon)));
            lines.extend(ask(&daemon));
            lines.extend(super::escrow::named(&config.token));
        }
        Found::Silent(told) => lines.push(Line::red(
            "daemon",
            format!("what listens there does not answer: {told}"),
            "see its log; systemctl restart custodyd.service",
        )),
        Found::Nobody(told) if running => lines.push(Line::red(
            "daemon",
            format!("no custodyd answers: {told}"),
            "set operator.socket, as it is in the unit, and see systemctl status custodyd.service",
        )),
        Found::Nobody(_) => {
            lines.extend(listeners::check(config, None));
            lines.extend(token::check(&config.token));
        }
    }
    match &config.store.database {
        Database::Sqlite(file) => lines.extend(files::store(file)),
        Database::Postgres(place) => lines.push(files::server(place)),
    }
    let beside = config.store.database.beside();
    lines.push(host::clock(&beside));
    lines.push(host::disk_space(&beside));
    lines
}

fn policies(config: &Config) -> Vec<Line> {
    let directory = &config.policies.directory;
    match config::load_policies(directory) {
        Ok(policies) => {
            let names: Vec<&str> = policies.apps.keys().map(|app| app.as_str()).collect();
            let detail = format!("{}: {}", directory.display(), names.join(", "));
            vec![Line::ok("policies", detail)]
        }
        Err(errors) => errors
            .iter()
            .map(|error| {
                let detail = match error.line {
                    0 => format!("{}: {}", error.file, error.message),
                    _ => error.to_string(),
                };
                Line::red("policies", detail, "correct the file")
            })
            .collect(),
    }
}

/// The files behind the channels. No mail server is called: doctor changes nothing anywhere.
fn delivery(config: &config::Delivery) -> Line {
    match crate::delivery::check(config) {
        Ok(detail) => Line::ok("delivery", detail),
        Err(error) => Line::red_told("delivery", error.to_string()),
    }
}

/// Nobody is called.
fn witnesses(config: &config::Witnesses) -> Line {
    match crate::witness::check(config) {
        Ok(detail) => Line::ok("witnesses", detail),
        Err(error) => Line::red_told("witnesses", error.to_string()),
    }
}

/// What a running daemon says of its token and store.
fn ask(daemon: &Daemon) -> Vec<Line> {
    match daemon.ready() {
        Ok(answer) => {
            let mut lines = vec![Line::ok(
                "token, store",
                "the running daemon is ready: its token gave the known answer (keys: custodyd token check)",
            )];
            let tokens = answer.get("tokens").and_then(serde_json::Value::as_array);
            lines.extend(tokens.into_iter().flatten().map(one_of_several));
            lines
        }
        Err(detail) => vec![Line::red(
            "token, store",
            format!("the running daemon is not ready: {detail}"),
            "see its log",
        )],
    }
}

/// A token that is not in use protects nobody from losing the next one.
fn one_of_several(token: &serde_json::Value) -> Line {
    let shown = token::members::line(token);
    let state = token.get("state").and_then(serde_json::Value::as_str);
    match state {
        Some("well") => Line::ok("replica", shown),
        _ if token.get("unheard") == Some(&serde_json::Value::Bool(true)) => Line::warn(
            "replica",
            shown,
            "bring it back and look at the log; if it is lost for good, take it out of the configuration \
             (docs/handbook/monitor.md, \"CustodydTokenUnheard\")",
        ),
        _ => Line::warn(
            "replica",
            shown,
            "docs/handbook/lose-hsm.md, \"One of several tokens is lost\"",
        ),
    }
}
