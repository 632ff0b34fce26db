//! `custodyd token`: finding tokens, provisioning one, and what a token and every key in it is.
//!
//! Called by the command line; `check` also by `doctor`. A token module can hang for minutes or crash:
//! whatever asks one has a deadline, and a stranger's module is only looked at in a process of its own.

mod apart;
mod fragment;
mod list;
pub(super) mod members;
mod modules;
mod pkcs11;
mod proof;
pub(super) mod provision;
mod reseal;
mod secret;
pub(super) mod tpm;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Subcommand;
use custodyd_hsm::{
    Backend, Custody, Error, KeyReport, RealmName, TokenDescription, Verdict, anchor,
};
use serde_json::{Value, json};

use super::output::{Line, Output};
use crate::backend;
use crate::config::{self, Token, TokenKind};

/// Login and two dozen operations; a network HSM answers within a few seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same with proofs, on a TPM that needs a fifth of a second for each operation.
const WITH_PROOFS: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Show modules, slots and tokens, what each can do, and which keys of custodyd it holds
    List(list::List),
    /// Make what is missing in a token, prove it, and say what to configure; repeating it changes nothing
    Provision(Box<provision::Provision>),
    /// Log in, judge every key, and prove keys and anchors; all that is written is a scratch anchor, which goes again
    Check,
    /// Say which boots may use the keys of a TPM, where they are bound to its PCRs (token.pcrs)
    Reseal(reseal::Reseal),
    /// Where a realm has several tokens: show how each stands
    Members,
    /// Take a token into the realm's set: one that was given up, or a new one with the same keys
    Readmit(members::Which),
    /// Take a token out of the realm's set; without a daemon, say that it is lost
    Expel(members::Expel),
}

pub(super) fn run(output: &Output, config: &Path, command: &TokenCommand) -> ExitCode {
    match command {
        TokenCommand::List(list) => list::run(output, config, list),
        TokenCommand::Members => members::members(output, config),
        TokenCommand::Readmit(which) => members::readmit(output, config, which),
        TokenCommand::Expel(expel) => members::expel(output, config, expel),
        TokenCommand::Provision(provision) => provision::run(output, config, provision),
        TokenCommand::Reseal(reseal) => reseal::run(output, config, reseal),
        TokenCommand::Check => match config::load(config) {
            Ok(config) => {
                let lines = check_and_prove(&config.token, config.realm.name);
                output.checks("token check", &lines)
            }
            Err(errors) => output.failure("token check", &errors.to_string()),
        },
    }
}

/// Every line of the examination, for `doctor`: nothing is written. The first that fails ends it.
pub(super) fn check(token: &Token) -> Vec<Line> {
    of_each(token, check_one)
}

/// One token after another, each under its name where there are several.
fn of_each(token: &Token, work: impl Fn(&Token) -> Vec<Line>) -> Vec<Line> {
    let all = token.each();
    let several = all.len() > 1;
    let mut lines = Vec::new();
    for (name, token) in all {
        if several {
            lines.push(Line::ok("replica", format!("{name}:")));
        }
        lines.extend(work(&token));
    }
    lines
}

fn check_one(token: &Token) -> Vec<Line> {
    match backend::configured(token) {
        Ok(backend) => {
            let token = token.clone();
            within(DEADLINE, move || {
                let mut lines = examine(&backend);
                lines.extend(super::escrow::standing(&token, backend.as_ref()));
                lines
            })
        }
        Err(error) => vec![Line::red_told("token", super::chain(&error))],
    }
}

fn check_and_prove(token: &Token, realm: RealmName) -> Vec<Line> {
    of_each(token, |token| check_and_prove_one(token, realm.clone()))
}

fn check_and_prove_one(token: &Token, realm: RealmName) -> Vec<Line> {
    let backend = match backend::configured(token) {
        Ok(backend) => backend,
        Err(error) => return vec![Line::red_told("token", super::chain(&error))],
    };
    let writes = proof::writes(&token.kind, false);
    let token = token.clone();
    within(WITH_PROOFS, move || {
        let mut lines = examine(&backend);
        lines.extend(super::escrow::standing(&token, backend.as_ref()));
        if lines.iter().any(Line::is_red) {
            return lines;
        }
        match backend.open() {
            Ok(mut custody) => {
                lines.push(realms_anchor(custody.as_mut(), &realm));
                lines.extend(proof::all(custody.as_mut(), writes).0);
            }
            Err(error) => lines.push(failed("token", &error)),
        }
        lines
    })
}

/// Runs what asks a token, in a thread; a thread that hangs inside a module cannot be ended, only left behind.
fn within(deadline: Duration, work: impl FnOnce() -> Vec<Line> + Send + 'static) -> Vec<Line> {
    let (sender, receiver) = mpsc::channel();
    // Whatever the work holds is dropped before its lines are sent: this process may be over
    // as soon as they are.
    std::thread::spawn(move || {
        let lines = work();
        let _ = sender.send(lines);
    });
    receiver.recv_timeout(deadline).unwrap_or_else(|error| {
        let detail = match error {
            RecvTimeoutError::Timeout => format!("no answer within {} s", deadline.as_secs()),
            RecvTimeoutError::Disconnected => "the module ended the examination".to_owned(),
        };
        vec![Line::red(
            "token",
            detail,
            "see whether the HSM and its client software are up",
        )]
    })
}

fn examine(backend: &Arc<dyn Backend>) -> Vec<Line> {
    let keys = match backend.inspect() {
        Ok(keys) => keys,
        Err(error) => return vec![failed("token", &error)],
    };
    let description = backend.describe();
    let mut lines = vec![described(&description)];
    lines.extend(software_warning(&description));
    lines.extend(keys.iter().map(key));
    lines.push(probe(backend.as_ref()));
    lines
}

fn described(token: &TokenDescription) -> Line {
    let detail = format!(
        "{} {}, label {}, serial {}",
        token.manufacturer, token.model, token.label, token.serial
    );
    Line::ok("token", detail).with_data(json!({
        "module": token.module,
        "manufacturer": token.manufacturer,
        "model": token.model,
        "label": token.label,
        "serial": token.serial,
        "software": token.software_token,
    }))
}

fn software_warning(token: &TokenDescription) -> Option<Line> {
    token.software_token.then(|| {
        Line::warn(
            "token kind",
            "a token made of files gives no protection against whoever copies its files, or puts them back to an \
             older state together with the database; fine for development",
            "use a hardware token in production",
        )
    })
}

/// One line for a key: the worst verdict decides, every attribute is shown.
fn key(key: &KeyReport) -> Line {
    let shown: Vec<String> = key
        .attributes
        .iter()
        .map(|(name, value, _)| format!("{name}={value}"))
        .collect();
    let detail = format!("{} {}: {}", key.label, key.kind.name(), shown.join(" "));
    let warning = key
        .attributes
        .iter()
        .find_map(|(name, _, verdict)| match verdict {
            Verdict::Warning(why) => Some((*name, why.as_str())),
            Verdict::Good | Verdict::Bad(_) => None,
        });
    let line = match (key.first_bad(), warning) {
        (Some((name, why)), _) => Line::red("key", detail, format!("{name}: {why}")),
        (None, Some((name, why))) => Line::warn("key", detail, format!("{name}: {why}")),
        (None, None) => Line::ok("key", detail),
    };
    line.with_data(key_data(key))
}

fn key_data(key: &KeyReport) -> Value {
    let attributes: Vec<Value> = key
        .attributes
        .iter()
        .map(|(name, value, verdict)| {
            let (verdict, reason) = match verdict {
                Verdict::Good => ("good", None),
                Verdict::Warning(why) => ("warning", Some(why)),
                Verdict::Bad(why) => ("bad", Some(why)),
            };
            json!({ "name": name, "value": value, "verdict": verdict, "reason": reason })
        })
        .collect();
    json!({ "label": key.label, "kind": key.kind.name(), "attributes": attributes })
}

/// Opening demands that every key is there once with the right attributes; the probe that they work.
fn probe(backend: &dyn Backend) -> Line {
    let begun = Instant::now();
    match backend.open().and_then(|mut custody| custody.probe()) {
        Ok(()) => Line::ok(
            "known answer",
            format!(
                "all keys are there and answer ({} ms, login included)",
                begun.elapsed().as_millis()
            ),
        ),
        Err(error) => failed("known answer", &error),
    }
}

/// What the token remembers of the realm; only looked at.
fn realms_anchor(custody: &mut dyn Custody, realm: &RealmName) -> Line {
    match anchor::newest(custody, realm) {
        Ok(Some(newest)) => Line::ok("realm", format!("{realm}: {newest}")),
        Ok(None) => Line::ok(
            "realm",
            format!("{realm}: no anchor in this token yet; `custodyd init` makes the first"),
        ),
        Err(error) => Line::red(
            "realm",
            format!("{realm}: {error}"),
            "see docs/handbook/disagree.md, \"The database and the token disagree\"",
        ),
    }
}

fn failed(check: &str, error: &Error) -> Line {
    match error {
        Error::Unavailable { .. } | Error::Deadline { .. } | Error::Busy { .. } => Line::red(
            check,
            error.to_string(),
            "see token.module and token.label, or token.tcti, in the configuration, whether the token's files or \
             device are there (`custodyd token list` shows what is), and for SoftHSM2 whether SOFTHSM2_CONF is set",
        ),
        // These say themselves what to do.
        _ => Line::red_told(check, error.to_string()),
    }
}

fn is_tpm(kind: &TokenKind) -> bool {
    matches!(kind, TokenKind::Tpm(_))
}

#[cfg(test)]
mod tests {
    use custodyd_hsm::{KeyId, KeyKind, KeyPurpose};

    use super::super::output::Status;
    use super::*;

    fn report(verdicts: Vec<Verdict>) -> KeyReport {
        KeyReport {
            id: KeyId::new(KeyPurpose::Wrap, 1),
            label: "custodyd-wrap-v1".to_owned(),
            kind: KeyKind::Secret,
            attributes: verdicts
                .into_iter()
                .map(|verdict| ("EXTRACTABLE", "false".to_owned(), verdict))
                .collect(),
        }
    }

    #[test]
    fn the_worst_verdict_decides() {
        let warning = Verdict::Warning("made elsewhere".to_owned());
        let bad = Verdict::Bad("can be exported".to_owned());
        let status = |verdicts| key(&report(verdicts)).status;
        assert_eq!(status(vec![Verdict::Good]), Status::Ok);
        assert_eq!(status(vec![Verdict::Good, warning.clone()]), Status::Warn);
        assert_eq!(status(vec![warning, bad]), Status::Red);
    }

    #[test]
    fn a_software_token_is_called_one() {
        let mut token = TokenDescription::default();
        assert!(software_warning(&token).is_none());
        token.software_token = true;
        assert!(
            software_warning(&token).is_some_and(|line| line.detail.contains("copies its files"))
        );
    }
}
