//! Commands for a daemon that runs: reload, and what an operator does about one account.
//!
//! Called by the command line's table. Everything is done by the daemon, over its operator's
//! socket; this puts the answers into sentences.

mod server_slots;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use custodyd_hsm::{AccountId, AppId};
use serde_json::{Value, json};

use super::output::Output;
use super::socket::ask;
use crate::clock;
use crate::config::Config;
use crate::private_file;

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Show what happened to an account and when, newest first; never names, details or addresses
    Trail(Which),
    /// Write down everything held about an owner who can not sign in, without secrets' contents
    Export(Export),
    /// Count the accounts with secrets that the daemon can open: by app, and what its policy says of that
    Slots,
    /// Erase an account for good: envelope, aliases and events; a tombstone stays
    Erase(Erase),
}

#[derive(Debug, Args)]
pub(super) struct Erase {
    #[command(flatten)]
    which: Which,
    /// Do it: nothing brings the account back
    #[arg(long)]
    yes: bool,
    /// Only show that the account is there, and how much is known of it
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    which: Which,
    /// Into a new file that only its owner reads, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The app of the account
    #[arg(long, value_name = "NAME", value_parser = |text: &str| AppId::parse(text).map_err(|error| error.to_string()))]
    app: AppId,
    /// The account's identifier, as its owner sees it
    #[arg(long, value_name = "ID", value_parser = |text: &str| AccountId::parse(text).map_err(|error| error.to_string()))]
    account: AccountId,
}

/// Reads certificate, key and policies again.
pub(super) fn reload(output: &Output, config: &Config) -> ExitCode {
    let answer = match ask(config, "POST", "/reload") {
        Ok(answer) => answer,
        Err(error) => return output.failure("reload", &error),
    };
    let mut lines = vec!["the certificate and the policies were read again".to_owned()];
    for change in ["added", "changed", "retired"] {
        let apps = answer.pointer(&format!("/apps/{change}"));
        for app in apps.and_then(Value::as_array).into_iter().flatten() {
            lines.push(format!("{change} app {}", app.as_str().unwrap_or("?")));
        }
    }
    output.done("reload", &answer, &lines)
}

pub(super) fn account(output: &Output, config: &Config, command: &AccountCommand) -> ExitCode {
    match command {
        AccountCommand::Trail(which) => trail(output, config, which),
        AccountCommand::Export(export) => exported(output, config, export),
        AccountCommand::Slots => server_slots::counted(output, config),
        AccountCommand::Erase(erase) => erased(output, config, erase),
    }
}

fn exported(output: &Output, config: &Config, export: &Export) -> ExitCode {
    const COMMAND: &str = "account export";
    let Which { app, account } = &export.which;
    // Before anything is asked: an export is an event that the owner sees.
    let file = match export.output.as_deref().map(private_file::create) {
        None => None,
        Some(Ok(file)) => Some(file),
        Some(Err(error)) => return output.failure(COMMAND, &error.to_string()),
    };
    let written = ask(config, "POST", &format!("/accounts/{app}/{account}/export"))
        .and_then(|document| {
            let text = serde_json::to_string_pretty(&document).map_err(|e| e.to_string())?;
            Ok((document, text))
        })
        .and_then(|(document, text)| match file {
            None => Ok((document, text)),
            Some(mut file) => writeln!(file, "{text}")
                .and_then(|()| file.sync_all())
                .map(|()| (document, text))
                .map_err(|error| error.to_string()),
        });
    match (written, &export.output) {
        (Ok((document, text)), None) => {
            let lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
            output.done(COMMAND, &document, &lines)
        }
        (Ok(_), Some(path)) => {
            let line = format!("account {account} of app {app} is in {}", path.display());
            let answer = json!({ "account": account, "file": path });
            output.done(COMMAND, &answer, &[line])
        }
        (Err(error), path) => {
            if let Some(path) = path {
                let _ = std::fs::remove_file(path);
            }
            output.failure(COMMAND, &error)
        }
    }
}

fn erased(output: &Output, config: &Config, erase: &Erase) -> ExitCode {
    let Which { app, account } = &erase.which;
    let base = format!("/accounts/{app}/{account}");
    if !erase.yes {
        // Asked in any case, so that a wrong identifier is told before anybody says yes.
        let page = match ask(config, "GET", &format!("{base}/trail")) {
            Ok(page) => page,
            Err(error) => return output.failure("account erase", &error),
        };
        let newest = page.pointer("/events/0/number").and_then(Value::as_u64);
        let events = newest.unwrap_or(0);
        let line = format!("account {account} of app {app} is there, with {events} events");
        let hint = "nothing was erased; --yes erases it for good".to_owned();
        let answer = json!({ "account": account, "events": events, "erased": false });
        return output.done("account erase", &answer, &[line, hint]);
    }
    match ask(config, "DELETE", &base) {
        Ok(answer) => {
            let line = format!("account {account} of app {app} is erased; its tombstone stays");
            output.done("account erase", &answer, &[line])
        }
        Err(error) => output.failure("account erase", &error),
    }
}

fn trail(output: &Output, config: &Config, which: &Which) -> ExitCode {
    let base = format!("/accounts/{}/{}/trail", which.app, which.account);
    let mut events = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let path = match &from {
            Some(from) => format!("{base}?from={from}"),
            None => base.clone(),
        };
        let mut page = match ask(config, "GET", &path) {
            Ok(page) => page,
            Err(error) => return output.failure("account trail", &error),
        };
        if let Some(found) = page.get_mut("events").and_then(Value::as_array_mut) {
            events.append(found);
        }
        from = page
            .get("next")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        if from.is_none() {
            break;
        }
    }
    let lines: Vec<String> = events.iter().map(line).collect();
    output.done("account trail", &json!({ "events": events }), &lines)
}

fn line(event: &Value) -> String {
    let number = event.get("number").and_then(Value::as_u64).unwrap_or(0);
    let at = event.get("at").and_then(Value::as_u64).unwrap_or(0);
    let at = clock::shown(at);
    let kind = event.get("kind").and_then(Value::as_str).unwrap_or("?");
    format!("{number:>6}  {at}  {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({"number": 3, "at": 1_700_000_000, "kind": "pin-set"});
        assert_eq!(line(&event), "     3  2023-11-14T22:13:20Z  pin-set");
    }
}
