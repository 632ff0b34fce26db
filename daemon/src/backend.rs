//! From the `[token]` section to the backend that speaks to the token.
//!
//! Called by start-up and by the commands that look at the token. It reads the PIN and
//! hands it over; only `pool` and `provision` open the token and log in.

use std::sync::Arc;

use custodyd_hsm::backend::pkcs11::{self, Pkcs11Backend};
use custodyd_hsm::backend::tpm::{self, Mode, TpmBackend};
use custodyd_hsm::{Backend, KeyOrigin, Pool, PoolOptions, ProvisionReport, SecretBytes};

use crate::config::{Config, PinError, Token, TokenKind, Tpm, read_token_pin};
use crate::startup::StartError;

/// The configured backend, not yet opened.
///
/// # Errors
/// When the PIN can not be read safely.
pub(crate) fn configured(token: &Token) -> Result<Arc<dyn Backend>, PinError> {
    Ok(with_secret(
        &token.kind,
        read_token_pin(token)?,
        origin(token),
    ))
}

/// A token by its name in the configuration.
pub(crate) type Named = (String, Arc<dyn Backend>);

/// Every configured token by its name, none of them opened yet.
///
/// # Errors
/// When a PIN can not be read safely.
pub(crate) fn each(token: &Token) -> Result<Vec<Named>, PinError> {
    let tokens = token.each().into_iter();
    tokens
        .map(|(name, token)| Ok((name, configured(&token)?)))
        .collect()
}

/// The token, or the set of several, opened. One that is said to be lost makes a set of a single token, too.
///
/// # Errors
/// When no token can be reached, or a PIN not be read.
pub(crate) fn pool(config: &Config, lost: Option<&str>) -> Result<Pool, StartError> {
    let options = PoolOptions {
        threads: config.token.threads,
        // A request has one call at a time. With room for twice as many as there are requests, none of one app's
        // finds it full, so that what was charged does not end there.
        queue: config.token.queue.max(2 * config.limits.requests_at_once),
        deadline: config.token.deadline,
    };
    if lost.is_none() && config.token.replicas.known.is_empty() {
        let backend = configured(&config.token)?;
        return Ok(Pool::start(backend, options)?);
    }
    let tokens = each(&config.token)?;
    Ok(Pool::start_set(
        tokens,
        options,
        config.token.replicas.patience,
    )?)
}

/// Makes the keys that are missing; where there are several tokens, none is made, for each would have others.
///
/// # Errors
/// When a token refuses, or one of several lacks a key.
pub(crate) fn provision(config: &Config) -> Result<ProvisionReport, StartError> {
    let tokens = each(&config.token)?;
    let several = tokens.len() > 1;
    let mut done = ProvisionReport::default();
    for (name, backend) in tokens {
        let mut keys = backend.provision(several)?;
        if config.ledger.public_log {
            let more = backend.provision_public_log(several)?;
            keys.created.extend(more.created);
        }
        if several && !keys.created.is_empty() {
            return Err(StartError::Token(custodyd_hsm::Error::Misconfigured(
                format!(
                    "the token {name} lacks {}: several tokens have the same keys, which none of them can make for the \
                 others. Make them by `custodyd escrow create`, which brings them into all (docs/ESCROW.md), or \
                 copy them by the maker's own means",
                    keys.created.join(", ")
                ),
            )));
        }
        done.created.extend(keys.created);
    }
    Ok(done)
}

/// A backend with a PIN, or a TPM's secret, that the caller has.
pub(crate) fn with_secret(
    kind: &TokenKind,
    secret: SecretBytes,
    origin: KeyOrigin,
) -> Arc<dyn Backend> {
    match kind {
        TokenKind::Pkcs11 {
            module,
            label,
            serial,
        } => {
            let mut options = pkcs11::Options::new(module, label, secret);
            options.token_serial.clone_from(serial);
            options.origin = origin;
            Arc::new(Pkcs11Backend::new(options))
        }
        // Most TPMs' owner hierarchies have no password; where there is one, what makes or destroys
        // a key is told it for that, and the backend of a daemon never.
        TokenKind::Tpm(tpm) => Arc::new(self::tpm(tpm, secret, Apart::default(), origin)),
    }
}

/// A realm with an escrow has keys that were imported, and every other one has none such.
pub(crate) fn origin(token: &Token) -> KeyOrigin {
    match token.escrow {
        Some(_) => KeyOrigin::Imported,
        None => KeyOrigin::Token,
    }
}

/// What only provisioning a TPM, and approving another boot, needs. It is kept off this host.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// None for the empty one.
    pub(crate) owner_password: Option<SecretBytes>,
    pub(crate) recovery_key: Option<SecretBytes>,
}

/// A TPM, with what provisioning it needs.
pub(crate) fn tpm(tpm: &Tpm, secret: SecretBytes, apart: Apart, origin: KeyOrigin) -> TpmBackend {
    let mut options = tpm::Options::new(&tpm.tcti, secret, &tpm.state_directory);
    if let Some(password) = apart.owner_password {
        options.owner_password = password;
    }
    options.recovery_key = apart.recovery_key;
    options.pcrs.clone_from(&tpm.pcrs);
    options.origin = origin;
    options.handles = tpm.handles;
    options.nv_index = tpm.nv_index;
    options.storage_key.clone_from(&tpm.storage_key);
    options.nv_writes_per_day = tpm.nv_writes_per_day;
    options.mode = match tpm.per_operation {
        true => Mode::PerOperation,
        false => Mode::PerStart,
    };
    TpmBackend::new(options)
}
