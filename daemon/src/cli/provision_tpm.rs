//! `custodyd token provision-tpm`: storage key, keys and NV index in a TPM, and what to configure.
//!
//! Called by the command line, by a person, once for each realm; again it changes nothing. It is the
//! only command that wants the owner's password, which the daemon never needs and should not be able to
//! read. It makes the secret file where there is none, since a TPM's secret is nothing to remember.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use custodyd_hsm::SecretBytes;
use zeroize::Zeroizing;

use super::output::{Line, Output};
use crate::backend;
use crate::config::{Token, TokenKind};
use crate::private_file::{self, Access, PrivateFileError};

const COMMAND: &str = "token provision-tpm";
/// No password of a TPM is longer than a digest.
const LONGEST: usize = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Provision {
    /// Say what is missing and make nothing
    #[arg(long)]
    dry_run: bool,
    /// A file (mode 0600) with the password of the TPM's owner hierarchy, where it has one
    #[arg(long, value_name = "FILE")]
    owner_password_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProvisionError {
    #[error(
        "token.kind is not \"tpm\": this command is for TPMs; `custodyd init` makes the keys of a PKCS#11 token"
    )]
    NotATpm,
    #[error("{0}")]
    File(#[from] PrivateFileError),
    #[error("{}: cannot be written ({source})", path.display())]
    Unwritten {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Secret(#[from] crate::config::PinError),
    #[error("{0}")]
    Random(#[from] crate::factors::RandomFailed),
    #[error("{0}")]
    Token(#[from] custodyd_hsm::Error),
}

pub(super) fn run(output: &Output, token: &Token, arguments: &Provision) -> ExitCode {
    match provision(token, arguments) {
        Ok(lines) => output.checks(COMMAND, &lines),
        Err(error) => output.failure(COMMAND, &super::chain(&error)),
    }
}

fn provision(token: &Token, arguments: &Provision) -> Result<Vec<Line>, ProvisionError> {
    let TokenKind::Tpm(tpm) = &token.kind else {
        return Err(ProvisionError::NotATpm);
    };
    let mut lines = Vec::new();
    if let Some(path) = &token.pin_file
        && !path.exists()
    {
        if arguments.dry_run {
            let detail = format!("would make {} first, with a new secret", path.display());
            return Ok(vec![Line::ok("secret", detail)]);
        }
        make_secret(path)?;
        lines.push(Line::ok("secret", format!("made {}", path.display())));
    }
    let password = password(arguments.owner_password_file.as_deref())?;
    let tpm_backend = backend::tpm(token, tpm, password)?;
    let (report, storage_key) = tpm_backend.provision_storage(arguments.dry_run)?;
    for label in &report.existing {
        lines.push(Line::ok("there", label));
    }
    let made = match report.dry_run {
        true => "would make",
        false => "made",
    };
    for label in &report.created {
        lines.push(Line::ok(made, label));
    }
    if let Some(name) = storage_key {
        let detail = format!("storage_key = \"{name}\"");
        let line = match &tpm.storage_key {
            // It was compared before anything was made.
            Some(_) => Line::ok("configured", detail),
            None => Line::warn(
                "configure",
                detail,
                "put this line into [token], then run custodyd init",
            ),
        };
        lines.push(line);
    }
    Ok(lines)
}

/// Makes the file of the secret where the configuration names one that is not there.
pub(super) fn ensure_secret(token: &Token) -> Result<(), ProvisionError> {
    match &token.pin_file {
        Some(path) if !path.exists() => make_secret(path),
        _ => Ok(()),
    }
}

/// The owner's password in a file, or none.
pub(super) fn password(path: Option<&Path>) -> Result<SecretBytes, ProvisionError> {
    match path {
        Some(path) => owner_password(path),
        None => Ok(SecretBytes::from(Vec::new())),
    }
}

/// Sixty-four hexadecimal digits, so that it passes through any tool.
fn make_secret(path: &Path) -> Result<(), ProvisionError> {
    let random = Zeroizing::new(crate::factors::random::<32>()?);
    let text = Zeroizing::new(hex::encode(*random));
    let mut file = private_file::create(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|source| ProvisionError::Unwritten {
        path: path.to_owned(),
        source,
    })
}

fn owner_password(path: &Path) -> Result<SecretBytes, ProvisionError> {
    let mut content = private_file::read(path, Access::Owner, LONGEST)?;
    if content.last() == Some(&b'\n') {
        content.pop();
    }
    Ok(SecretBytes::from(std::mem::take(&mut *content)))
}
