//! `custodyd escrow`: keys that k of n custodians can bring back, from their making to the day of need.
//!
//! Called by the command line's table. `create`, `add-version` and `restore` are for the host of the realm and change
//! its tokens; `receive` makes the address to which custodians send on that day; `reencrypt` and `verify` are the
//! custodians' own, on their own machines, and need no configuration. No command shows a share or a key.

mod adding;
mod custodian;
mod files;
mod realm;
mod restoring;
mod standing;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use custodyd_hsm::escrow::{EscrowError, Identity, MAX_SHARE_FILE, Share};

pub(super) use self::standing::{line as standing, named};
use super::output::Output;
use crate::config::Config;
use crate::escrow::ManifestError;
use crate::private_file::{self, Access, PrivateFileError};
use crate::startup::StartError;

#[derive(Debug, Subcommand)]
pub(super) enum EscrowCommand {
    /// Make the keys of a new realm, import them into its token, and write a share for each custodian
    Create(realm::Create),
    /// Make the next version of keys, share it among custodians, and bring it into every token of the realm
    AddVersion(adding::AddVersion),
    /// Make the key to which custodians re-encrypt their shares for a restore, and print its recipient
    Receive(custodian::Receive),
    /// Re-encrypt a share to the recipient that `receive` printed; for custodians
    Reencrypt(custodian::Reencrypt),
    /// Show that a share still opens and belongs to its manifest; for custodians, every year
    Verify(custodian::Verify),
    /// Bring the keys back into another token, from as many shares as it takes
    Restore(restoring::Restore),
}

/// Why a ceremony did not take place.
#[derive(Debug, thiserror::Error)]
enum CeremonyError {
    #[error("{0}")]
    Escrow(#[from] EscrowError),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("{0}")]
    File(#[from] PrivateFileError),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    Share { path: PathBuf, source: EscrowError },
    #[error("{0}")]
    Refused(String),
    #[error(
        "the token {token}: {source}. Nothing uses new keys; once that is mended, run the same command again"
    )]
    Stopped {
        token: String,
        source: Box<CeremonyError>,
    },
    #[error("token: {0}")]
    Token(#[from] custodyd_hsm::Error),
    #[error("{0}")]
    Pin(#[from] crate::config::PinError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Provision(#[from] super::token::provision::ProvisionError),
}

/// The commands that a custodian runs, without a configuration.
pub(super) fn of_custodian(output: &Output, command: &EscrowCommand) -> Option<ExitCode> {
    let (name, done) = match command {
        EscrowCommand::Receive(wanted) => ("escrow receive", custodian::receive(wanted)),
        EscrowCommand::Reencrypt(wanted) => ("escrow reencrypt", custodian::reencrypt(wanted)),
        EscrowCommand::Verify(wanted) => ("escrow verify", custodian::verify(wanted)),
        EscrowCommand::Create(_) | EscrowCommand::AddVersion(_) | EscrowCommand::Restore(_) => {
            return None;
        }
    };
    Some(match done {
        Ok(done) => output.done(name, &done.value, &done.lines),
        Err(error) => output.failure(name, &super::chain(&error)),
    })
}

/// The commands that change the realm's token.
pub(super) fn of_realm(output: &Output, config: &Config, command: &EscrowCommand) -> ExitCode {
    if let Err(error) = super::log_quietly(config) {
        return output.failure("escrow", &super::chain(&error));
    }
    let (name, done) = match command {
        EscrowCommand::Create(wanted) => ("escrow create", realm::create(config, wanted)),
        EscrowCommand::AddVersion(wanted) => ("escrow add-version", adding::run(config, wanted)),
        EscrowCommand::Restore(wanted) => ("escrow restore", restoring::restore(config, wanted)),
        _ => return of_custodian(output, command).unwrap_or(ExitCode::FAILURE),
    };
    match done {
        Ok(done) => output.done(name, &done.value, &done.lines),
        Err(error) => output.failure(name, &super::chain(&error)),
    }
}

/// What a command did.
struct Done {
    value: serde_json::Value,
    lines: Vec<String>,
}

fn identity(path: &Path) -> Result<Identity, CeremonyError> {
    let file = private_file::read(path, Access::Owner, MAX_SHARE_FILE)?;
    Identity::from_file(&file).map_err(|source| CeremonyError::Share {
        path: path.to_owned(),
        source,
    })
}

/// The share in a file; it may be lying about for everybody to see.
fn share(path: &Path, identity: &Identity) -> Result<Share, CeremonyError> {
    let io = |source| CeremonyError::Io {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    let most = MAX_SHARE_FILE.saturating_add(1) as u64;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, most), &mut bytes).map_err(io)?;
    Share::decrypt(&bytes, identity).map_err(|source| CeremonyError::Share {
        path: path.to_owned(),
        source,
    })
}

/// Writes a new file, durably. One that is there already is left alone.
fn write(path: &Path, content: &[u8]) -> Result<(), CeremonyError> {
    let mut file = private_file::create(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|source| CeremonyError::Io {
        path: path.to_owned(),
        source,
    })
}
