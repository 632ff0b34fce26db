//! Provisioning a TPM 2.0: its secret, storage key, keys and NV index.
//!
//! Called by `provision`. This is the only command that wants the owner's password, which the daemon
//! never needs and should not be able to read. It makes the secret file where there is none, since
//! a TPM's secret is nothing to remember.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use clap::Args;
use custodyd_hsm::SecretBytes;
use custodyd_hsm::backend::tpm::{self, TpmBackend};
use zeroize::Zeroizing;

use super::super::output::Line;
use super::pkcs11::Done;
use super::provision::{ProvisionError, Target, absolute, proven, report_lines};
use super::{WITH_PROOFS, failed, secret, within};
use crate::backend;
use crate::config::{DEFAULT_STATE, Token, TokenKind, Tpm};
use crate::private_file::{self, Access};

/// No password of a TPM is longer than a digest.
const LONGEST: usize = 64;

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct TpmOptions {
    /// How the TPM is reached, in full
    #[arg(
        long,
        value_name = "TCTI",
        requires = "tpm",
        default_value = "device:/dev/tpmrm0"
    )]
    tcti: String,
    /// Where the records of anchors shall be
    #[arg(long, value_name = "FOLDER", requires = "tpm", default_value = DEFAULT_STATE)]
    state_directory: PathBuf,
    /// The roots never leave the TPM, which then computes each HMAC; not to be changed later
    #[arg(long, requires = "tpm")]
    per_operation: bool,
    /// A file (mode 0600) with the password of the TPM's owner hierarchy, where it has one
    #[arg(long, value_name = "FILE", conflicts_with = "module")]
    owner_password_file: Option<PathBuf>,
}

impl TpmOptions {
    pub(super) fn names_an_owner(&self) -> bool {
        self.owner_password_file.is_some()
    }

    /// With everything else as it usually is; a configuration can say more.
    pub(super) fn kind(&self) -> Result<TokenKind, ProvisionError> {
        tpm::check_tcti(&self.tcti).map_err(ProvisionError::Tcti)?;
        Ok(TokenKind::Tpm(Tpm {
            tcti: self.tcti.clone(),
            storage_key: None,
            state_directory: absolute(&self.state_directory),
            handles: tpm::DEFAULT_HANDLES,
            nv_index: tpm::DEFAULT_NV_INDEX,
            per_operation: self.per_operation,
            nv_writes_per_day: tpm::DEFAULT_NV_WRITES_PER_DAY,
        }))
    }
}

pub(super) fn provision(
    target: &mut Target,
    mut tpm: Tpm,
    options: &TpmOptions,
) -> Result<Done, ProvisionError> {
    let token = &mut target.token;
    if target.serial.is_some() || target.slot.is_some() {
        return Err(ProvisionError::Usage(
            "--serial and --slot are for PKCS#11 tokens, and token.kind is \"tpm\"",
        ));
    }
    if target.public_log {
        return Err(ProvisionError::Usage(
            "a TPM has no Ed25519 keys: leave out --public-log and ledger.public_log, or take a PKCS#11 token",
        ));
    }
    let password = password(options.owner_password_file.as_deref())?;
    let mut lines = Vec::new();
    match (&token.pin_file, &token.pin_credential) {
        (Some(path), _) if !path.exists() => {
            if target.dry_run {
                let detail = format!("would make {} first, with a new secret", path.display());
                return Ok((vec![Line::ok("secret", detail)], None));
            }
            make_secret(path)?;
            lines.push(Line::ok("secret", format!("made {}", path.display())));
        }
        (None, None) => {
            return Err(ProvisionError::Usage(
                "give --pin-file FILE: where the TPM's secret is, or shall be made",
            ));
        }
        _ => {}
    }
    let tpm_backend = backend::tpm(
        &tpm,
        secret::of(token, "TPM")?,
        password,
        backend::origin(token),
    );
    let (made, name) = make(tpm_backend, target.dry_run);
    let refused = made.iter().any(Line::is_red);
    lines.extend(made);
    if refused || target.dry_run {
        return Ok((lines, None));
    }
    // It was compared with the configured one before anything was made.
    tpm.storage_key = name;
    token.kind = TokenKind::Tpm(tpm);
    let again = backend::with_secret(
        &token.kind,
        secret::of(token, "TPM")?,
        backend::origin(token),
    );
    let (proofs, proposal) = proven(token.kind.clone(), again);
    lines.extend(proofs);
    Ok((lines, proposal))
}

/// What was made, and the name to pin. The TPM is free again afterwards.
fn make(backend: TpmBackend, dry_run: bool) -> (Vec<Line>, Option<String>) {
    let (sender, receiver) = mpsc::channel();
    let lines = within(WITH_PROOFS, move || {
        match backend.provision_storage(dry_run) {
            Ok((report, name)) => {
                let _ = sender.send(name);
                report_lines(&report)
            }
            Err(error) => vec![failed("keys", &error)],
        }
    });
    (lines, receiver.try_recv().ok().flatten())
}

/// Makes the file of the secret where the configuration names one that is not there.
pub(in crate::cli) fn ensure_secret(token: &Token) -> Result<(), ProvisionError> {
    match &token.pin_file {
        Some(path) if !path.exists() => make_secret(path),
        _ => Ok(()),
    }
}

/// The owner's password in a file, or none.
pub(in crate::cli) fn password(path: Option<&Path>) -> Result<SecretBytes, ProvisionError> {
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
