//! Provisioning a TPM 2.0: its secret, storage key, keys and NV index.
//!
//! Called by `provision`. This, `reseal`, the ceremonies of `escrow`, and `key` where it makes or destroys one, are the only
//! commands that want what is kept off the host, which no file of the daemon's should hold. It makes the secret file where there is none, since
//! a TPM's secret is nothing to remember.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use clap::Args;
use custodyd_hsm::SecretBytes;
use custodyd_hsm::backend::tpm::{self, Pcrs, TpmBackend};
use zeroize::Zeroizing;

use super::super::output::Line;
use super::pkcs11::Done;
use super::provision::{ProvisionError, Target, absolute, proven, report_lines};
use super::{WITH_PROOFS, failed, secret, within};
use crate::backend::{self, Apart};
use crate::config::{DEFAULT_STATE, Token, TokenKind, Tpm};
use crate::private_file::{self, Access};

/// No password of a TPM is longer than a digest, and a recovery key has as many digits.
const LONGEST: usize = 65;

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
    /// Bind the keys to what was booted: PCRs of the SHA-256 bank, such as 7; not to be added or left out later
    #[arg(long, value_name = "PCRS", requires = "tpm", value_parser = pcrs)]
    pcrs: Option<Pcrs>,
    /// With PCRs: a file for the recovery key, without which another boot is never approved; made where it is not there
    #[arg(long, value_name = "FILE", conflicts_with = "module")]
    recovery_key: Option<PathBuf>,
    /// A file (mode 0600) with the password of the TPM's owner hierarchy, where it has one
    #[arg(long, value_name = "FILE", conflicts_with = "module")]
    owner_password_file: Option<PathBuf>,
}

impl TpmOptions {
    pub(super) fn names_what_is_kept_apart(&self) -> bool {
        self.owner_password_file.is_some() || self.recovery_key.is_some()
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
            pcrs: self.pcrs.clone(),
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
    if options.recovery_key.is_some() && tpm.pcrs.is_none() {
        return Err(ProvisionError::Usage(
            "--recovery-key goes with --pcrs or token.pcrs: without them every boot may use the keys",
        ));
    }
    let mut lines = Vec::new();
    match (&token.pin_file, &token.pin_credential) {
        (Some(path), _) if !path.exists() => {
            // What the TPM or its owner refuses is told before there is a secret that nobody needs.
            let detail = format!("would make {} first, with a new secret", path.display());
            let look = looked_at(&tpm, token, options, Line::ok("secret", detail))?;
            if target.dry_run || look.iter().any(Line::is_red) {
                return Ok((look, None));
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
    let recovery = recovery_key(options, target.dry_run, &mut lines)?;
    let apart = apart(options.owner_password_file.as_deref(), recovery)?;
    let secret = secret::of(token, "TPM")?;
    let tpm_backend = backend::tpm(&tpm, secret, apart, backend::origin(token));
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

/// What provisioning would do where neither the secret nor, perhaps, the recovery key is there yet.
fn looked_at(
    tpm: &Tpm,
    token: &Token,
    options: &TpmOptions,
    first: Line,
) -> Result<Vec<Line>, ProvisionError> {
    let mut lines = vec![first];
    let recovery = recovery_key(options, true, &mut lines)?;
    let apart = apart(options.owner_password_file.as_deref(), recovery)?;
    let secret = match passing_secret(token)? {
        Some(secret) => secret,
        None => secret::of(token, "TPM")?,
    };
    let backend = backend::tpm(tpm, secret, apart, backend::origin(token));
    lines.extend(make(backend, true).0);
    Ok(lines)
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

/// Makes the file of the recovery key where it is not there, and says what becomes of it.
fn recovery_key<'o>(
    options: &'o TpmOptions,
    dry_run: bool,
    lines: &mut Vec<Line>,
) -> Result<Option<&'o Path>, ProvisionError> {
    let Some(path) = options.recovery_key.as_deref() else {
        return Ok(None);
    };
    match (path.exists(), dry_run) {
        (true, _) => return Ok(Some(path)),
        (false, true) => {
            let detail = format!("would make {} first, with a new key", path.display());
            lines.push(Line::ok("recovery key", detail));
            return Ok(None);
        }
        (false, false) => ensure_recovery_key(path)?,
    }
    lines.push(Line::warn(
        "recovery key",
        format!(
            "made {}: whoever has it approves what this machine may boot, and without it a change of firmware loses \
             the keys",
            path.display()
        ),
        "keep it off this machine, such as encrypted to a custodian (age -r), then remove it here",
    ));
    Ok(Some(path))
}

/// Makes the file where it is not there.
pub(in crate::cli) fn ensure_recovery_key(path: &Path) -> Result<(), ProvisionError> {
    match path.exists() {
        true => Ok(()),
        false => make_secret(path),
    }
}

/// What is kept off this host, from files; each may be missing.
pub(in crate::cli) fn apart(
    owner_password: Option<&Path>,
    recovery_key: Option<&Path>,
) -> Result<Apart, ProvisionError> {
    Ok(Apart {
        owner_password: owner_password.map(secret_in).transpose()?,
        recovery_key: recovery_key.map(secret_in).transpose()?,
    })
}

fn new_secret() -> Result<Zeroizing<String>, ProvisionError> {
    let random = Zeroizing::new(crate::factors::random::<32>()?);
    Ok(Zeroizing::new(hex::encode(*random)))
}

/// Whether a secret is still to be made; for a look at a TPM that has none, there is one that nobody keeps.
pub(in crate::cli) fn passing_secret(token: &Token) -> Result<Option<SecretBytes>, ProvisionError> {
    match &token.pin_file {
        Some(path) if !path.exists() => {
            let text = std::mem::take(&mut *new_secret()?);
            Ok(Some(SecretBytes::from(text.into_bytes())))
        }
        _ => Ok(None),
    }
}

/// Sixty-four hexadecimal digits, so that it passes through any tool.
fn make_secret(path: &Path) -> Result<(), ProvisionError> {
    let text = new_secret()?;
    let mut file = private_file::create(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|source| ProvisionError::Unwritten {
        path: path.to_owned(),
        source,
    })
}

fn pcrs(text: &str) -> Result<Pcrs, String> {
    Pcrs::parse(text).map_err(|error| error.to_string())
}

/// What is kept off this host, from the file that it is in for as long as it is needed.
pub(in crate::cli) fn secret_in(path: &Path) -> Result<SecretBytes, ProvisionError> {
    let mut content = private_file::read(path, Access::Owner, LONGEST)?;
    if content.last() == Some(&b'\n') {
        content.pop();
    }
    Ok(SecretBytes::from(std::mem::take(&mut *content)))
}
