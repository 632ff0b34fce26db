//! `custodyd token provision`: keys in a token, proof that they are good, and what to configure.
//!
//! Called by the command line, by a person, once for each realm; again it changes nothing. It refuses
//! before anything is changed: a token that is not the one meant, a key that is double or not as it must
//! be, a configuration file that is there. It never initialises, deletes or overwrites; which token
//! and how it is reached differ by kind (`pkcs11`, `tpm`), the rest is the same.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use custodyd_hsm::{Backend, ProvisionReport};
use serde_json::json;

use super::super::output::{Line, Output};
use super::fragment::{self, FragmentError};
use super::proof::{self, Proposal};
use super::secret::{PinSource, SecretError};
use super::{WITH_PROOFS, pkcs11, tpm, within};
use crate::config::{self, ConfigErrors, Ledger, Token, TokenKind};
use crate::private_file::PrivateFileError;

pub(super) const COMMAND: &str = "token provision";

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Provision {
    /// Say what is missing and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Make the Ed25519 key for ledger.public_log as well
    #[arg(long, conflicts_with = "tpm")]
    public_log: bool,
    /// Write what to configure into a new file, too
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    write: Option<PathBuf>,
    /// A PKCS#11 module by its absolute path, in place of the configured token
    #[arg(long, value_name = "PATH", requires = "label")]
    module: Option<PathBuf>,
    /// The label of the token behind that module
    #[arg(long, value_name = "LABEL", requires = "module")]
    label: Option<String>,
    /// Its serial number, where several have the label
    #[arg(long, value_name = "SERIAL", conflicts_with = "tpm")]
    serial: Option<String>,
    /// Refuse unless it is in this slot
    #[arg(long, value_name = "ID", conflicts_with = "tpm")]
    slot: Option<u64>,
    /// A TPM 2.0, in place of the configured token
    #[arg(long, conflicts_with = "module")]
    tpm: bool,
    #[command(flatten)]
    tpm_options: tpm::TpmOptions,
    #[command(flatten)]
    pin: PinSource,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ProvisionError {
    #[error(
        "{0}\nor name a token that is not configured yet: --module PATH --label LABEL, or --tpm"
    )]
    Config(ConfigErrors),
    #[error("{0}")]
    Usage(&'static str),
    #[error("{0}")]
    Tcti(custodyd_hsm::Error),
    #[error("{0}")]
    File(#[from] PrivateFileError),
    #[error("{}: cannot be written ({source})", path.display())]
    Unwritten {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Secret(#[from] SecretError),
    #[error("{0}")]
    Random(#[from] crate::factors::RandomFailed),
    #[error("{0}")]
    Fragment(#[from] FragmentError),
}

/// The token that is meant, and how it was named.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) token: Token,
    pub(super) serial: Option<String>,
    pub(super) slot: Option<u64>,
    pub(super) dry_run: bool,
    pub(super) public_log: bool,
    /// What is configured, where that names the token.
    ledger: Option<Ledger>,
}

pub(super) fn run(output: &Output, config: &Path, arguments: &Provision) -> ExitCode {
    match provision(config, arguments) {
        Ok((lines, fragment)) => {
            let code = output.checks(COMMAND, &lines);
            if let Some(fragment) = fragment {
                output.copy(&format!("\n{fragment}"));
            }
            code
        }
        Err(error) => output.failure(COMMAND, &super::super::chain(&error)),
    }
}

type Outcome = (Vec<Line>, Option<String>);

fn provision(config: &Path, arguments: &Provision) -> Result<Outcome, ProvisionError> {
    if let Some(file) = &arguments.write {
        fragment::check_free(file)?;
    }
    let mut target = target(config, arguments)?;
    let (mut lines, done) = match target.token.kind.clone() {
        TokenKind::Pkcs11 { .. } if arguments.tpm_options.names_what_is_kept_apart() => {
            return Err(ProvisionError::Usage(
                "--owner-password-file and --recovery-key are for a TPM, and this token is a PKCS#11 one",
            ));
        }
        TokenKind::Pkcs11 { .. } => pkcs11::provision(&mut target)?,
        TokenKind::Tpm(tpm) => tpm::provision(&mut target, tpm, &arguments.tpm_options)?,
    };
    let good = !lines.iter().any(Line::is_red);
    let Some(proposal) = done.filter(|_| good && !target.dry_run) else {
        return Ok((lines, None));
    };
    lines.extend(contradiction(&target, proposal));
    let text = fragment::text(&target.token, proposal);
    let detail = match &arguments.write {
        Some(file) => {
            fragment::write(file, &text)?;
            format!(
                "written to {}: make it part of the configuration, then run custodyd init",
                file.display()
            )
        }
        None => "make the lines below part of the configuration, then run custodyd init".to_owned(),
    };
    let data = json!({ "toml": text, "file": arguments.write });
    lines.push(Line::ok("configure", detail).with_data(data));
    Ok((lines, Some(text)))
}

fn target(path: &Path, arguments: &Provision) -> Result<Target, ProvisionError> {
    let given = given_kind(arguments)?;
    let (mut token, ledger) = match given {
        Some(kind) => (named(kind, &arguments.pin), None),
        None => {
            let config = config::load(path).map_err(ProvisionError::Config)?;
            (config.token, Some(config.ledger))
        }
    };
    // A PIN that is named here stands in the place of the configured one.
    if arguments.pin.pin_file.is_some() || arguments.pin.pin_credential.is_some() {
        token.pin_file = arguments.pin.pin_file.as_deref().map(absolute);
        token
            .pin_credential
            .clone_from(&arguments.pin.pin_credential);
    }
    Ok(Target {
        token,
        serial: arguments.serial.clone(),
        slot: arguments.slot,
        dry_run: arguments.dry_run,
        public_log: arguments.public_log || ledger.as_ref().is_some_and(|ledger| ledger.public_log),
        ledger,
    })
}

fn given_kind(arguments: &Provision) -> Result<Option<TokenKind>, ProvisionError> {
    match (&arguments.module, &arguments.label) {
        _ if arguments.tpm => arguments.tpm_options.kind().map(Some),
        (Some(module), Some(label)) => Ok(Some(TokenKind::Pkcs11 {
            module: module.clone(),
            label: label.clone(),
            serial: None,
        })),
        _ => Ok(None),
    }
}

fn named(kind: TokenKind, pin: &PinSource) -> Token {
    Token {
        kind,
        pin_file: pin.pin_file.as_deref().map(absolute),
        pin_credential: pin.pin_credential.clone(),
        escrow: None,
        threads: 1,
        queue: 1,
        deadline: Duration::from_secs(5),
        replicas: config::Replicas::default(),
    }
}

/// As it must stand in a configuration that may be in another folder.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What was there and what was made, or would be.
pub(super) fn report_lines(report: &ProvisionReport) -> Vec<Line> {
    let made = match report.dry_run {
        true => "would make",
        false => "made",
    };
    let existing = report.existing.iter().map(|label| Line::ok("there", label));
    let created = report.created.iter().map(|label| Line::ok(made, label));
    existing.chain(created).collect()
}

/// Everything that shows that the keys are good: their attributes read back, and the proofs.
pub(super) fn proven(kind: TokenKind, backend: Arc<dyn Backend>) -> (Vec<Line>, Option<Proposal>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let lines = within(WITH_PROOFS, move || {
        let mut lines = super::examine(&backend);
        if lines.iter().any(Line::is_red) {
            return lines;
        }
        match backend.open() {
            Ok(mut custody) => {
                let (proofs, cost) = proof::all(custody.as_mut(), proof::writes(&kind, true));
                lines.extend(proofs);
                if let Some(cost) = cost {
                    let (proposal, line) = proof::propose(&kind, &cost);
                    lines.push(line);
                    let _ = sender.send(proposal);
                }
            }
            Err(error) => lines.push(super::failed("token", &error)),
        }
        lines
    });
    (lines, receiver.try_recv().ok())
}

/// Where the configuration says otherwise than the measurement.
fn contradiction(target: &Target, proposal: Proposal) -> Option<Line> {
    let configured = target.ledger.as_ref()?.anchor;
    match (configured, proposal) {
        (config::Anchor::Strict, Proposal::Bounded(_)) => Some(Line::warn(
            "anchoring",
            "ledger.anchor is \"strict\", and this token is slow",
            "keep it if people can wait; otherwise see \"bounded\" in custodyd.example.toml",
        )),
        (config::Anchor::Bounded, Proposal::Strict) => Some(Line::warn(
            "anchoring",
            "ledger.anchor is \"bounded\", and this token is fast enough for \"strict\", which refuses every older \
             database",
            "consider strict, unless the token's memory wears out",
        )),
        _ => None,
    }
}
