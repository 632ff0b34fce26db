//! From the `[token]` section to the backend that speaks to the token.
//!
//! Called by start-up and by the commands that look at the token. It reads the PIN and
//! hands it over; it neither opens the token nor logs in.

use std::sync::Arc;

use custodyd_hsm::backend::pkcs11::{self, Pkcs11Backend};
use custodyd_hsm::backend::tpm::{self, Mode, TpmBackend};
use custodyd_hsm::{Backend, KeyOrigin, SecretBytes};

use crate::config::{PinError, Token, TokenKind, Tpm, read_token_pin};

/// The configured backend, not yet opened.
///
/// # Errors
/// When the PIN can not be read safely.
pub(crate) fn configured(token: &Token) -> Result<Arc<dyn Backend>, PinError> {
    match &token.kind {
        TokenKind::Pkcs11 { module, label } => {
            let mut options = pkcs11::Options::new(module, label, read_token_pin(token)?);
            options.origin = origin(token);
            Ok(Arc::new(Pkcs11Backend::new(options)))
        }
        // Most TPMs' owner hierarchies have no password; where there is one, only
        // `token provision-tpm` is told it.
        TokenKind::Tpm(tpm) => Ok(Arc::new(self::tpm(
            token,
            tpm,
            SecretBytes::from(Vec::new()),
        )?)),
    }
}

/// A realm with an escrow has keys that were imported, and every other one has none such.
fn origin(token: &Token) -> KeyOrigin {
    match token.escrow {
        Some(_) => KeyOrigin::Imported,
        None => KeyOrigin::Token,
    }
}

/// A TPM, with what provisioning it needs.
///
/// # Errors
/// When the secret can not be read safely.
pub(crate) fn tpm(
    token: &Token,
    tpm: &Tpm,
    owner_password: SecretBytes,
) -> Result<TpmBackend, PinError> {
    let secret = read_token_pin(token)?;
    let mut options = tpm::Options::new(&tpm.tcti, secret, &tpm.state_directory);
    options.owner_password = owner_password;
    options.origin = origin(token);
    options.handles = tpm.handles;
    options.nv_index = tpm.nv_index;
    options.storage_key.clone_from(&tpm.storage_key);
    options.nv_writes_per_day = tpm.nv_writes_per_day;
    options.mode = match tpm.per_operation {
        true => Mode::PerOperation,
        false => Mode::PerStart,
    };
    Ok(TpmBackend::new(options))
}
