//! The PIN for commands that may ask a person for it: from a file, a systemd credential, or a prompt.
//!
//! Called by `token list --login` and `token provision`. Never from the command line or the environment,
//! which other users of the host can see. It is not shown, not repeated in an error and not kept.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use custodyd_hsm::SecretBytes;

use crate::config::{PinError, Token, read_token_pin};

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct PinSource {
    /// A file (mode 0600) with the token's user PIN, or a TPM's secret, which is made where it is not there
    #[arg(long, value_name = "FILE", conflicts_with = "pin_credential")]
    pub(super) pin_file: Option<PathBuf>,
    /// A systemd credential with it
    #[arg(long, value_name = "NAME", value_parser = credential)]
    pub(super) pin_credential: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum SecretError {
    #[error("{0}")]
    Named(#[from] PinError),
    #[error(
        "token PIN: give --pin-file FILE (mode 0600) or --pin-credential NAME; only on a terminal it is asked for"
    )]
    NotNamed,
    #[error("token PIN: it cannot be read from the terminal ({0})")]
    Terminal(io::Error),
    #[error("token PIN: nothing was entered")]
    Empty,
}

/// The name becomes the last part of a path, so it must not leave its folder.
fn credential(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match text.starts_with('.') || text.len() > 255 || !text.bytes().all(allowed) || text.is_empty()
    {
        false => Ok(text.to_owned()),
        true => Err("expected the name of a systemd credential, such as token-pin".to_owned()),
    }
}

/// The PIN that the token's section names, or else what a person enters.
pub(super) fn of(token: &Token, label: &str) -> Result<SecretBytes, SecretError> {
    if token.pin_file.is_some() || token.pin_credential.is_some() {
        return Ok(read_token_pin(token)?);
    }
    if !io::stdin().is_terminal() {
        return Err(SecretError::NotNamed);
    }
    // The label is the token's word: shown escaped.
    let entered = rpassword::prompt_password(format!("User PIN of the token {label:?}: "))
        .map_err(SecretError::Terminal)?;
    match entered.is_empty() {
        true => Err(SecretError::Empty),
        // The bytes move; nothing is copied.
        false => Ok(SecretBytes::from(entered.into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_stays_in_its_folder() {
        assert!(credential("token-pin").is_ok());
        for bad in ["", ".", "..", "../x", "a/b", "a b"] {
            assert!(credential(bad).is_err(), "{bad}");
        }
    }
}
