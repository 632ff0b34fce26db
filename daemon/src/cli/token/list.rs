//! `custodyd token list`: the modules of this host, their slots and tokens, without a login.
//!
//! Called by the command line; it wants no configuration. Loading a module runs its code, so each is
//! looked at by a process of its own, this same command with `--module`: one that crashes or hangs costs a
//! line. It logs in only where asked to, to one token, once, and it never changes anything.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use custodyd_hsm::backend::pkcs11::{self, PinState, SlotSeen, Survey, TokenSeen};
use serde_json::json;

use super::super::output::{Line, Output};
use super::secret::{self, PinSource};
use super::{apart, modules, within};
use crate::backend;
use crate::config::{self, Token, TokenKind};

/// A network HSM that is down takes its client library this long to say so.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const COMMAND: &str = "token list";
const TPM: &str = "/dev/tpmrm0";

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Look at this module alone, by its absolute path
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Log in to the token of this label, once, and show every key of custodyd with its attributes
    #[arg(long, value_name = "LABEL", requires = "module")]
    login: Option<String>,
    #[command(flatten)]
    pin: PinSource,
}

pub(super) fn run(output: &Output, config: &Path, list: &List) -> ExitCode {
    let lines = match (&list.module, &list.login) {
        (Some(module), Some(label)) => keys(module, label, &list.pin),
        (Some(module), None) => {
            let module = module.clone();
            within(PATIENCE, move || look(&module))
        }
        (None, _) => everything(config),
    };
    output.checks(COMMAND, &lines)
}

/// Every module that is found, and a TPM.
fn everything(config: &Path) -> Vec<Line> {
    let mut modules = modules::find(Path::new("/"));
    // The configured ones may be anywhere; a configuration is not needed here.
    if let Ok(config) = config::load(config) {
        for (_, token) in config.token.each() {
            if let TokenKind::Pkcs11 { module, .. } = token.kind
                && !modules.iter().any(|found| is_same(found, &module))
            {
                modules.push(module);
            }
        }
    }
    let mut lines: Vec<Line> = modules
        .iter()
        .flat_map(|module| apart::look(module))
        .collect();
    if Path::new(TPM).exists() {
        let detail =
            format!("{TPM} is there; `custodyd token provision --tpm` uses it (docs/TPM.md)");
        lines.push(Line::ok("tpm", detail));
    }
    if lines.is_empty() {
        lines.push(Line::red(
            "module",
            "no PKCS#11 module was found, and no TPM",
            "install the client software of the HSM, or give its module as --module PATH; for development: apt \
             install softhsm2, then softhsm-setup/provision",
        ));
    }
    lines
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Looks at a module in this process.
fn look(module: &Path) -> Vec<Line> {
    match pkcs11::survey(module) {
        Ok(survey) => lines(module, &survey),
        Err(error) => vec![Line::red_told("module", error.to_string())],
    }
}

fn lines(module: &Path, survey: &Survey) -> Vec<Line> {
    let detail = format!("{}: {}", module.display(), survey.library);
    let data = json!({ "module": module, "library": survey.library, "slots": survey.slots.len() });
    let mut lines = vec![Line::ok("module", detail).with_data(data)];
    lines.extend(survey.slots.iter().map(|slot| match &slot.token {
        Ok(Some(token)) => token_line(module, slot, token),
        Ok(None) => Line::ok(
            "slot",
            format!("slot {}: empty ({})", slot.id, slot.description),
        ),
        Err(why) => Line::warn(
            "slot",
            format!(
                "slot {}: the token does not tell what it is ({why})",
                slot.id
            ),
            "see its maker's log",
        ),
    }));
    if survey.slots.is_empty() {
        lines.push(Line::warn("slot", "it has no slots", nothing_there(module)));
    }
    lines
}

fn nothing_there(module: &Path) -> &'static str {
    match is_softhsm(module) {
        true => {
            "set SOFTHSM2_CONF to the softhsm2.conf of the token (softhsm-setup/provision prints it)"
        }
        false => "see the configuration of its maker's client software: it reaches no HSM",
    }
}

pub(super) fn is_softhsm(module: &Path) -> bool {
    module.to_string_lossy().contains("softhsm")
}

fn token_line(module: &Path, slot: &SlotSeen, token: &TokenSeen) -> Line {
    let data = json!({
        "module": module, "slot": slot.id, "label": token.label, "serial": token.serial,
        "manufacturer": token.manufacturer, "model": token.model, "initialized": token.initialized,
        "software": token.software, "pin": token.pin.name(), "pin_pad": token.pin_pad,
        "write_protected": token.write_protected, "login_required": token.login_required,
        "missing_mechanisms": token.missing, "public_keys": token.public_keys,
    });
    if !token.initialized {
        let detail = format!(
            "slot {}: a token that is not initialised ({})",
            slot.id, token.manufacturer
        );
        return Line::ok("slot", detail).with_data(data);
    }
    let keys = match token.public_keys.as_slice() {
        [] => "no keys of custodyd are seen without a login".to_owned(),
        keys => format!("public keys {}", keys.join(" ")),
    };
    let detail = format!(
        "slot {}: label {}, serial {}, {} {}; {}; {keys}",
        slot.id,
        token.label,
        token.serial,
        token.manufacturer,
        token.model,
        token.pin.name(),
    );
    match unfit(token) {
        Some((why, action)) => Line::warn("token", format!("{detail}; {why}"), action),
        None => Line::ok("token", detail),
    }
    .with_data(data)
}

/// Why custodyd could not use a token as it is now, and what to do about it.
pub(super) fn unfit(token: &TokenSeen) -> Option<(String, &'static str)> {
    let (why, action) = match token.pin {
        PinState::Locked => (
            "it accepts no PIN".to_owned(),
            "let its security officer set a new user PIN; its keys are still there",
        ),
        PinState::FinalTry => (
            "one more wrong PIN locks it".to_owned(),
            "log in once by hand with the right PIN, for example `pkcs11-tool --module M --token-label L --login \
             --list-objects`",
        ),
        PinState::NotSet => (
            "nobody can log in".to_owned(),
            "let its security officer set a user PIN, for example `pkcs11-tool --module M --token-label L --login \
             --login-type so --init-pin`",
        ),
        PinState::Set | PinState::CountLow if !token.missing.is_empty() => (
            format!("it does not offer {}", token.missing.join(", ")),
            "enable these in the HSM's policy, or take another token; docs/TOKENS.md has what custodyd needs",
        ),
        PinState::Set | PinState::CountLow if token.pin_pad => (
            "its PIN is entered at the device".to_owned(),
            "a daemon cannot do that at a start: configure the token to take the PIN from the host",
        ),
        PinState::Set | PinState::CountLow if token.write_protected => (
            "it is write-protected".to_owned(),
            "anchors are written while custodyd serves: lift the protection, or use another token",
        ),
        PinState::Set | PinState::CountLow => return None,
    };
    Some((why, action))
}

/// Logs in, once, and judges what is there.
fn keys(module: &Path, label: &str, pin: &PinSource) -> Vec<Line> {
    let token = Token {
        kind: TokenKind::Pkcs11 {
            module: module.to_owned(),
            label: label.to_owned(),
            serial: None,
        },
        pin_file: pin.pin_file.clone(),
        pin_credential: pin.pin_credential.clone(),
        escrow: None,
        threads: 1,
        queue: 1,
        deadline: PATIENCE,
        replicas: crate::config::Replicas::default(),
    };
    let secret = match secret::of(&token, label) {
        Ok(secret) => secret,
        Err(error) => return vec![Line::red_told("token", error.to_string())],
    };
    within(PATIENCE, move || {
        let backend = backend::with_secret(&token.kind, secret, backend::origin(&token));
        match backend.inspect() {
            Ok(keys) => {
                let mut lines = vec![super::described(&backend.describe())];
                lines.extend(keys.iter().map(super::key));
                if keys.is_empty() {
                    lines.push(Line::ok(
                        "key",
                        "no key of custodyd; `custodyd token provision` makes them",
                    ));
                }
                lines
            }
            Err(error) => vec![super::failed("token", &error)],
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> TokenSeen {
        TokenSeen {
            label: "l".to_owned(),
            manufacturer: "m".to_owned(),
            model: "o".to_owned(),
            serial: "s".to_owned(),
            initialized: true,
            software: false,
            write_protected: false,
            login_required: true,
            pin_pad: false,
            pin: PinState::Set,
            missing: Vec::new(),
            public_keys: Vec::new(),
        }
    }

    #[test]
    fn what_makes_a_token_unfit_is_told_with_what_to_do() {
        assert_eq!(unfit(&token()), None);
        let wrong = TokenSeen {
            pin: PinState::CountLow,
            ..token()
        };
        assert_eq!(unfit(&wrong), None);
        let said = |change: fn(&mut TokenSeen)| {
            let mut token = token();
            change(&mut token);
            unfit(&token)
                .map(|(why, action)| format!("{why}: {action}"))
                .unwrap_or_default()
        };
        assert!(said(|t| t.pin = PinState::Locked).contains("security officer"));
        assert!(said(|t| t.pin = PinState::FinalTry).contains("by hand"));
        assert!(said(|t| t.pin = PinState::NotSet).contains("init-pin"));
        assert!(said(|t| t.missing = vec!["CKM_ECDSA"]).contains("CKM_ECDSA"));
        assert!(said(|t| t.pin_pad = true).contains("at the device"));
        assert!(said(|t| t.write_protected = true).contains("write-protected"));
    }
}
