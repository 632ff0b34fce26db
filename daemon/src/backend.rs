//! From the `[token]` section to the backend that speaks to the token.
//!
//! Called by start-up and by the commands that look at the token. It reads the PIN and
//! hands it over; it neither opens the token nor logs in.

use std::sync::Arc;

use custodyd_hsm::Backend;
use custodyd_hsm::backend::pkcs11::{Options, Pkcs11Backend};

use crate::config::{PinError, Token, read_token_pin};

/// The configured backend, not yet opened.
///
/// # Errors
/// When the PIN can not be read safely.
pub(crate) fn configured(token: &Token) -> Result<Arc<dyn Backend>, PinError> {
    let options = Options::new(&token.module, &token.label, read_token_pin(token)?);
    Ok(Arc::new(Pkcs11Backend::new(options)))
}
