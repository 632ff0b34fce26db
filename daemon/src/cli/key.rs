//! `custodyd key`: which keys are in use, a newer one, the move to it, the end of the older one.
//!
//! Called by the command line's table. Where a daemon runs it is asked, by its socket; where none
//! does, the realm is opened here and the same use cases are called (`service::rotation`). Nothing
//! here decides anything about a key.

use std::io::IsTerminal as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use custodyd_hsm::{AppId, KeyId, KeyPurpose, SecretBytes};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::output::Output;
use super::socket::ask_with;
use super::token::tpm;
use super::{chain, log_quietly};
use crate::config::{Config, TokenKind};
use crate::ledger::rewrap::Share;
use crate::service::Service;
use crate::startup::{self, Realm};

const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Show every key, what it is used for, and how many records are under it
    List,
    /// Make the next version of a key in the token, or take the one that `escrow add-version` has brought into all of
    /// them, and use it at once for what is new
    Rotate(Rotate),
    /// Move all records to the newest wrap key, while the daemon serves; again where it was stopped
    Rewrap(Rewrap),
    /// Take an older key out of those that are believed, once nothing is under it
    Retire(Retire),
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    purpose: Purpose,
    /// Publish the next signing key without using it; the next rotation takes it
    #[arg(long)]
    announce: bool,
    /// In a realm with an escrow: the manifest's fingerprint, as the custodians of the new version read it out
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    manifest: Option<String>,
    /// A file (mode 0600) with the password of the TPM's owner hierarchy, where it has one and makes the key
    #[arg(long, value_name = "FILE", conflicts_with = "manifest")]
    owner_password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Purpose {
    Wrap,
    Mac,
    Bind,
    Checkpoint,
    CheckpointEd25519,
    Webhook,
}

impl From<Purpose> for KeyPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Wrap => Self::Wrap,
            Purpose::Mac => Self::Mac,
            Purpose::Bind => Self::Bind,
            Purpose::Checkpoint => Self::Checkpoint,
            Purpose::CheckpointEd25519 => Self::CheckpointEd25519,
            Purpose::Webhook => Self::Webhook,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Rewrap {
    /// Percent of the time that the move may take from the requests; 50 where nothing is said
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    share: Option<u32>,
    /// An app that is not served any more and still has records; may be repeated
    #[arg(long = "app", value_name = "NAME", value_parser = |text: &str| AppId::parse(text).map_err(|error| error.to_string()))]
    apps: Vec<AppId>,
}

#[derive(Debug, Args)]
pub(super) struct Retire {
    /// Such as wrap-v1
    #[arg(value_name = "KEY", value_parser = key)]
    key: KeyId,
    /// Destroy it in the token as well: nobody can open a backup from before any more
    #[arg(long)]
    destroy: bool,
    /// Do destroy it: nothing brings a key back
    #[arg(long, requires = "destroy")]
    yes: bool,
    /// A file (mode 0600) with the password of the TPM's owner hierarchy, where it has one
    #[arg(long, value_name = "FILE", requires = "destroy")]
    owner_password_file: Option<PathBuf>,
}

/// A key by its short or its long name.
pub(super) fn key(text: &str) -> Result<KeyId, String> {
    let full = match text.starts_with("custodyd-") {
        true => text.to_owned(),
        false => format!("custodyd-{text}"),
    };
    KeyId::parse_label(&full).ok_or_else(|| "expected a key such as wrap-v1".to_owned())
}

/// Who does it: the daemon that runs, or this process.
pub(super) enum Hands<'a> {
    Daemon(&'a Config),
    Own(Runtime, Option<Box<Realm>>),
}

impl<'a> Hands<'a> {
    pub(super) fn daemon_runs(config: &Config) -> bool {
        let socket = config.operator.socket.as_deref();
        socket.is_some_and(|path| UnixStream::connect(path).is_ok())
    }

    pub(super) fn of(config: &'a Config) -> Result<Self, String> {
        if Self::daemon_runs(config) {
            return Ok(Self::Daemon(config));
        }
        log_quietly(config).map_err(|error| chain(&error))?;
        let runtime = Runtime::new().map_err(|error| format!("start the runtime: {error}"))?;
        let realm = runtime.block_on(startup::open(config));
        let realm = realm.map_err(|error| match config.operator.socket {
            Some(_) => chain(&error),
            None => format!(
                "{} (a running daemon is asked by operator.socket, which is not set)",
                chain(&error)
            ),
        })?;
        Ok(Self::Own(runtime, Some(Box::new(realm))))
    }

    pub(super) fn ask<F: Future<Output = Result<Value, String>>>(
        &self,
        request: (&str, &str),
        own: impl FnOnce(Arc<Service>) -> F,
    ) -> Result<Value, String> {
        self.ask_with(request, None, own)
    }

    /// The same with a secret for the daemon.
    fn ask_with<F: Future<Output = Result<Value, String>>>(
        &self,
        request: (&str, &str),
        secret: Option<&SecretBytes>,
        own: impl FnOnce(Arc<Service>) -> F,
    ) -> Result<Value, String> {
        match self {
            Self::Daemon(config) => ask_with(config, request, secret),
            Self::Own(runtime, Some(realm)) => runtime.block_on(own(Arc::clone(&realm.service))),
            Self::Own(_, None) => Err("the realm is closed".to_owned()),
        }
    }
}

impl Drop for Hands<'_> {
    fn drop(&mut self) {
        if let Self::Own(runtime, realm) = self
            && let Some(realm) = realm.take()
        {
            runtime.block_on(realm.close());
        }
    }
}

pub(super) fn run(output: &Output, config: &Config, command: &KeyCommand) -> ExitCode {
    let (name, done) = match command {
        KeyCommand::List => ("key list", list(config)),
        KeyCommand::Rotate(rotate) => ("key rotate", rotated(config, rotate)),
        KeyCommand::Rewrap(rewrap) => ("key rewrap", rewrapped(output, config, rewrap)),
        KeyCommand::Retire(retire) => ("key retire", retired(config, retire)),
    };
    match done {
        Ok((answer, lines)) => output.done(name, &answer, &lines),
        Err(error) => output.failure(name, &error),
    }
}

type Done = Result<(Value, Vec<String>), String>;

fn list(config: &Config) -> Done {
    let answer = Hands::of(config)?.ask(("GET", "/keys"), |service| async move {
        service.keys().await.map_err(|error| chain(&error))
    })?;
    let keys = answer.get("keys").and_then(Value::as_array);
    let mut lines: Vec<String> = keys.into_iter().flatten().map(line).collect();
    let damaged = answer.get("damaged").and_then(Value::as_u64).unwrap_or(0);
    if damaged > 0 {
        lines.push(format!(
            "{damaged} rows do not verify and are not counted; see `custodyd ledger verify`"
        ));
    }
    let unopened = answer.get("unopened").and_then(Value::as_u64).unwrap_or(0);
    if unopened > 0 {
        lines.push(format!(
            "{unopened} accounts are opened by no served app, and may be under any MAC key"
        ));
    }
    Ok((answer, lines))
}

fn line(key: &Value) -> String {
    let text = |name| key.get(name).and_then(Value::as_str).unwrap_or("?");
    let state = match (text("state"), text("purpose")) {
        ("current", _) => "used for what is new",
        ("announced", _) => "published, and signs nothing yet",
        ("accepted", "mac") => "older: what was enrolled under it is found by it",
        ("accepted", "wrap") => "older: still opens what is under it",
        ("accepted", _) => "older: what it has signed still verifies",
        _ => "not in use, by this realm's log",
    };
    let mut line = format!("{:<24} {state}", text("key"));
    if let Some(records) = key.get("records").and_then(Value::as_u64) {
        line.push_str(&format!("; {records} records"));
    }
    if let Some(accounts) = key.get("accounts").and_then(Value::as_u64) {
        line.push_str(&format!("; {accounts} accounts"));
        let apps = key.get("apps").and_then(Value::as_object);
        let each = apps.into_iter().flatten();
        let each: Vec<String> = each
            .map(|(app, count)| format!("{count} of {app}"))
            .collect();
        if text("state") == "accepted" && !each.is_empty() {
            line.push_str(&format!(
                ": {}, whose owners have to enrol again",
                each.join(", ")
            ));
        }
    }
    line
}

/// As people read it out: in groups, perhaps.
fn fingerprint(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let digits = digits.to_ascii_lowercase();
    match digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        true => Ok(digits),
        false => Err("expected the 64 hexadecimal digits that `escrow verify` shows".to_owned()),
    }
}

/// The password of a TPM's owner, read before anything is asked of anybody.
fn owner(config: &Config, file: Option<&Path>) -> Result<Option<Arc<SecretBytes>>, String> {
    let Some(file) = file else {
        return Ok(None);
    };
    let mut tokens = config.token.each().into_iter();
    if !tokens.any(|(_, token)| matches!(token.kind, TokenKind::Tpm(_))) {
        return Err(
            "--owner-password-file is for a TPM, and no token of the configuration is one; nothing was changed"
                .to_owned(),
        );
    }
    let password = tpm::secret_in(file).map_err(|error| chain(&error))?;
    Ok(Some(Arc::new(password)))
}

fn rotated(config: &Config, rotate: &Rotate) -> Done {
    let owner = owner(config, rotate.owner_password_file.as_deref())?;
    let (purpose, announce) = (KeyPurpose::from(rotate.purpose), rotate.announce);
    let manifest = rotate.manifest.clone();
    let mut path = format!("/keys/rotate/{}?announce={announce}", purpose.name());
    if let Some(manifest) = &manifest {
        path.push_str(&format!("&manifest={manifest}"));
    }
    let secret = owner.clone();
    let answer =
        Hands::of(config)?.ask_with(("POST", &path), secret.as_deref(), |service| async move {
            let key = service
                .rotate_key(purpose, announce, manifest.as_deref(), owner)
                .await;
            let key = key.map_err(|error| chain(&error))?;
            Ok(json!({ "key": key.to_string() }))
        })?;
    let key = answer.get("key").and_then(Value::as_str).unwrap_or("?");
    if announce {
        let line = format!(
            "{key} is in /.well-known/jwks.json and signs nothing yet; once everybody who pins keys has \
             it, `custodyd key rotate {}` takes it",
            purpose.name()
        );
        return Ok((answer, vec![line]));
    }
    let next = match purpose {
        KeyPurpose::Wrap => {
            "older records stay under the key before until they change; `custodyd key rewrap` moves them all"
        }
        KeyPurpose::Checkpoint => {
            "tell auditors and witnesses: the new key is in /.well-known/jwks.json; both verify"
        }
        KeyPurpose::CheckpointEd25519 => {
            "it signs where ledger.public_log is set; auditors and witnesses find it in /.well-known/jwks.json"
        }
        KeyPurpose::Webhook => {
            "receivers find the new key in /.well-known/jwks.json; then retire the one before"
        }
        KeyPurpose::Bind => "what the key before has signed still verifies",
        KeyPurpose::Mac => {
            "everybody signs in again. Accounts of before are found by the key before until their owners enrol again; \
             `custodyd key list` counts them by app"
        }
    };
    let lines = vec![format!("{key} is used from now on"), next.to_owned()];
    Ok((answer, lines))
}

fn rewrapped(output: &Output, config: &Config, rewrap: &Rewrap) -> Done {
    let hands = Hands::of(config)?;
    let names: Vec<String> = rewrap.apps.iter().map(ToString::to_string).collect();
    let mut path = format!("/keys/rewrap?apps={}", names.join(","));
    if let Some(share) = rewrap.share {
        path.push_str(&format!("&share={share}"));
    }
    let (share, apps) = (rewrap.share.and_then(Share::percent), rewrap.apps.clone());
    let mut seen = hands.ask(("POST", &path), |service| async move {
        let begun = service.begin_rewrap(share, apps);
        begun.map_err(|error| chain(&error))
    })?;
    let bar = bar(output);
    let number = |seen: &Value, name| seen.get(name).and_then(Value::as_u64);
    while seen.get("running").and_then(Value::as_bool) == Some(true) {
        if let Some(bar) = &bar {
            bar.set_length(number(&seen, "of").unwrap_or(0));
            bar.set_position(number(&seen, "buckets").unwrap_or(0));
            bar.set_message(format!("{} moved", number(&seen, "moved").unwrap_or(0)));
        }
        seen = hands.ask(("GET", "/keys/rewrap"), |service| async move {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            Ok(service.rewrapping())
        })?;
        if let Hands::Daemon(_) = &hands {
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(error) = seen.get("error").and_then(Value::as_str) {
        return Err(format!("{error}; what was moved stays so: run it again"));
    }
    let strangers = strangers(&seen);
    let Some(left) = number(&seen, "left") else {
        return Err("the pass was stopped; run it again".to_owned());
    };
    let moved = number(&seen, "moved").unwrap_or(0);
    let mut lines = vec![format!("{moved} records were moved to the newest wrap key")];
    if left == 0 {
        lines.push(
            "no record is left under an older one; that was counted on verified state".into(),
        );
        lines.extend(strangers);
        return Ok((seen, lines));
    }
    let unopened = number(&seen, "unopened").unwrap_or(0);
    let strangers = strangers.map_or(String::new(), |text| format!(". {text}"));
    Err(format!(
        "{moved} records were moved, and {left} are left under older keys; {}{strangers}",
        unopened_by(unopened, &seen)
    ))
}

/// An app that is not served may have any name, and no record tells whose it is. That none was of it is known at the end.
fn strangers(seen: &Value) -> Option<String> {
    let names = |what: &str| -> Vec<&str> {
        let named = seen.get(what).and_then(Value::as_array);
        named
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    };
    let strangers = names("of_none");
    (!strangers.is_empty()).then(|| {
        format!(
            "no record that was to be moved is of {}: is that the name? Served are {}",
            strangers.join(", "),
            names("served").join(", ")
        )
    })
}

/// Of which apps the records may be that the pass could not open.
fn unopened_by(unopened: u64, seen: &Value) -> String {
    let named = seen.get("apps").and_then(Value::as_array);
    let named: Vec<&str> = named
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    match named.is_empty() {
        true => format!(
            "{unopened} of them are of apps that are not served any more (name these with --app), or damaged"
        ),
        false => format!(
            "{unopened} of them are neither of an app that is served nor of {}: of another one (name it with --app as \
             well), or damaged",
            named.join(", ")
        ),
    }
}

fn bar(output: &Output) -> Option<ProgressBar> {
    if output.is_json() || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} %  {msg}  {eta} left") {
        bar.set_style(style);
    }
    Some(bar)
}

/// What is lost with a key in the token: said before, and once it is.
fn lost(key: KeyId, escrowed: bool, is_destroyed: bool) -> String {
    let (then, once) = match is_destroyed {
        true => ("", "any more"),
        false => (" then", "once it is destroyed"),
    };
    match (key.purpose, escrowed) {
        (KeyPurpose::Wrap, true) => format!(
            "a backup of the database from before {key} was retired needs it, and only the custodians of its ceremony \
             can bring it back{then}"
        ),
        (KeyPurpose::Wrap, false) => format!(
            "a backup of the database from before {key} was retired needs it, and can not be \
             opened or restored by anybody {once}"
        ),
        (KeyPurpose::Mac, true) => format!(
            "a backup of the database from before {key} was retired can not be restored without it, and only the \
             custodians of its ceremony can bring it back{then}"
        ),
        (KeyPurpose::Mac, false) => format!(
            "a backup of the database from before {key} was retired can not be restored by anybody {once}"
        ),
        _ => format!("nobody can sign with {key} {once}"),
    }
}

fn retired(config: &Config, retire: &Retire) -> Done {
    let (key, escrowed) = (retire.key, config.token.escrow.is_some());
    if retire.destroy && !retire.yes {
        let answer = json!({ "key": key.to_string(), "retired": false, "destroyed": false });
        let hint = "nothing was changed; --yes retires and destroys it for good".to_owned();
        return Ok((answer, vec![lost(key, escrowed, false), hint]));
    }
    let owner = owner(config, retire.owner_password_file.as_deref())?;
    let path = format!("/keys/retire/{key}?destroy={}", retire.destroy);
    let secret = owner.clone();
    let answer =
        Hands::of(config)?.ask_with(("POST", &path), secret.as_deref(), |service| async move {
            let done = service.retire_key(key, retire.destroy, owner).await;
            done.map_err(|error| chain(&error))
        })?;
    let was = |name| answer.get(name).and_then(Value::as_bool) == Some(true);
    let mut lines = vec![match was("retired") {
        true => format!("{key} is retired: what is under it is refused as tampering"),
        false => format!("{key} was not in use"),
    }];
    if was("destroyed") {
        let lost = lost(key, escrowed, true);
        lines.push(format!("{key} is destroyed in the token: {lost}"));
    }
    if let Some(kept) = answer.get("escrow").and_then(Value::as_str) {
        lines.push(kept.to_owned());
    }
    Ok((answer, lines))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_short_and_a_long_name() {
        let wrap = KeyId::new(KeyPurpose::Wrap, 1);
        assert_eq!(key("wrap-v1").unwrap(), wrap);
        assert_eq!(key("custodyd-wrap-v1").unwrap(), wrap);
        for bad in [
            "wrap",
            "wrap-v0",
            "wrap-v01",
            "custodyd-",
            "",
            "custodyd-custodyd-wrap-v1",
        ] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_app_that_was_named_is_not_asked_for_again() {
        let told = |apps: &[&str]| unopened_by(3, &json!({ "apps": apps }));
        assert!(told(&[]).contains("name these with --app"));
        let named = told(&["old", "older"]);
        assert!(
            named.contains("3 of them") && named.contains("old, older"),
            "{named}"
        );
        assert!(!named.contains("name these"), "{named}");
    }

    #[test]
    fn a_name_that_no_record_is_of_is_told_beside_those_that_are_served() {
        let told = strangers(&json!({ "of_none": ["nots"], "served": ["mail", "notes"] }));
        let told = told.unwrap();
        assert!(
            told.contains("is of nots:") && told.ends_with("mail, notes"),
            "{told}"
        );
        assert_eq!(
            strangers(&json!({ "of_none": [], "served": ["notes"] })),
            None
        );
    }

    #[test]
    fn what_is_lost_with_a_key_is_said_as_it_is_then() {
        for purpose in [KeyPurpose::Wrap, KeyPurpose::Mac, KeyPurpose::Bind] {
            for escrowed in [true, false] {
                let key = KeyId::new(purpose, 1);
                let [before, after] = [false, true].map(|is| lost(key, escrowed, is));
                let of_later = |text: &str| text.contains("once it is") || text.ends_with(" then");
                assert!(of_later(&before) && !of_later(&after), "{before}; {after}");
            }
        }
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_read_out() {
        let groups = ["ab12"; 16].join(" ");
        assert_eq!(fingerprint(&groups).unwrap(), "ab12".repeat(16));
        assert_eq!(
            fingerprint(&groups.to_uppercase()).unwrap(),
            "ab12".repeat(16)
        );
        for bad in ["", "ab12", &"ab12".repeat(17), &"xy12".repeat(16)] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
