//! `custodyd token reseal`: which boots may use the keys of a TPM, where they are bound to its PCRs.
//!
//! Called by the command line, by a person with the recovery key, before a change of firmware or after it. What
//! is booted now is always approved, so the keys are proven at the end; what is not named any more is
//! approved no longer. It never touches a key.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use custodyd_hsm::backend::tpm::{PcrState, Reseal as Wanted};

use super::super::output::{Line, Output};
use super::provision::ProvisionError;
use super::{WITH_PROOFS, failed, tpm, within};
use crate::backend;
use crate::config::{self, TokenKind, read_token_pin};

const COMMAND: &str = "token reseal";

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Reseal {
    /// The file (mode 0600) with the recovery key that `token provision` made
    #[arg(long, value_name = "FILE")]
    recovery_key: Option<PathBuf>,
    /// Approve another boot as well, by its PCRs such as 7=HEX; may be repeated
    #[arg(long, value_name = "PCR=HEX,...", value_parser = state)]
    also: Vec<PcrState>,
    /// Approve whatever is booted, until the next `token reseal`: for an update whose PCRs nobody knows before
    #[arg(long, conflicts_with = "also")]
    any: bool,
    /// Show what is booted and would be approved, and change nothing
    #[arg(long)]
    dry_run: bool,
}

fn state(text: &str) -> Result<PcrState, String> {
    PcrState::parse(text).map_err(|error| error.to_string())
}

pub(super) fn run(output: &Output, config: &Path, arguments: &Reseal) -> ExitCode {
    match reseal(config, arguments) {
        Ok(lines) => output.checks(COMMAND, &lines),
        Err(error) => output.failure(COMMAND, &super::super::chain(&error)),
    }
}

fn reseal(path: &Path, arguments: &Reseal) -> Result<Vec<Line>, ProvisionError> {
    let config = config::load(path).map_err(ProvisionError::Config)?;
    let TokenKind::Tpm(settings) = &config.token.kind else {
        return Err(ProvisionError::Usage(
            "only a TPM has PCRs, and token.kind is \"pkcs11\"",
        ));
    };
    if arguments.recovery_key.is_none() && !arguments.dry_run {
        return Err(ProvisionError::Usage(
            "give --recovery-key FILE: the key that `custodyd token provision` made, and that is kept off this machine",
        ));
    }
    let apart = tpm::apart(None, arguments.recovery_key.as_deref())?;
    let secret = read_token_pin(&config.token).map_err(super::secret::SecretError::from)?;
    let origin = backend::origin(&config.token);
    let backend = backend::tpm(settings, secret, apart, origin);
    let wanted = match arguments.any {
        true => Wanted::Any,
        false => Wanted::Now(arguments.also.clone()),
    };
    let (any, dry_run) = (arguments.any, arguments.dry_run);
    let told = match dry_run {
        true => "would approve",
        false => "approved",
    };
    Ok(within(WITH_PROOFS, move || {
        match backend.reseal(&wanted, dry_run) {
            Ok(states) => {
                let mut lines: Vec<Line> = states
                    .into_iter()
                    .map(|state| Line::ok(told, state))
                    .collect();
                if any && !dry_run {
                    lines.push(Line::warn(
                    "approved",
                    "until then whoever boots this machine by anything may use the keys, with the secret",
                    "after the update: custodyd token reseal --recovery-key FILE",
                ));
                }
                if !dry_run {
                    lines.push(Line::ok(
                        "known answer",
                        "all keys answer; what was approved before is not any more",
                    ));
                }
                lines
            }
            Err(error) => vec![failed("reseal", &error)],
        }
    }))
}
