//! The PKCS#11 backend: any token behind a module, SoftHSM2 included.
//!
//! What it relies on is the small set that modules agree on: CKM_SHA256_HMAC
//! with a 32-byte secret, raw CKM_ECDSA over a host digest, C_GenerateRandom, and
//! data objects that can be made and destroyed; for a public log CKM_EDDSA as well.
//! What it does not rely on are return codes: they differ between modules, so
//! health is decided by known answers alone.
//!
//! The life of a token session is an *epoch*: initialize, log in once, find
//! the keys, check them, take known answers. A failing operation gets one fresh
//! session; if the known answer is wrong there too, one thread ends the epoch
//! and begins the next, and everybody else is told at once to come back later.
//!
//! PKCS#11 state belongs to the process: tokens in two slots of one module share it (`module`). One
//! token has one backend per process.

mod anchor;
mod attributes;
mod copies;
mod epoch;
mod import;
mod keys;
mod mechanism;
mod module;
mod pin;
mod provision;
mod session;
mod survey;
mod token;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::survey::{PinState, SlotSeen, Survey, TokenSeen, survey};
use self::{epoch::Shared, session::Pkcs11Custody};
use crate::{
    backend::origin,
    custody::{Backend, Custody},
    error::Result,
    report::{Imported, KeyReport, ProvisionReport, TokenDescription},
    root_keys::{KeyOrigin, RootKeys},
    secret::{Secret, SecretBytes},
};

/// Which token, and how patient to be with it.
#[derive(Debug)]
pub struct Options {
    /// The PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// The token's label. Exactly one token may have it.
    pub token_label: String,
    /// The token's serial number, where labels alone are ambiguous.
    pub token_serial: Option<String>,
    /// The user PIN.
    pub pin: SecretBytes,
    /// Where its keys were made. Keys of the other kind are refused.
    pub origin: KeyOrigin,
    /// How long a start may wait for a token that answers with passing errors.
    pub start_patience: Duration,
    /// The longest pause between two attempts to recover.
    pub recovery_pause: Duration,
    /// How long anybody waits for it to be opened. It may hang for longer, and then nobody waits.
    pub opens_within: Duration,
    /// How long a PIN that was taken before rests, after the token has answered three times that it is neither right nor
    /// wrong.
    pub pin_rest: Duration,
}

impl Options {
    /// A token by label, with the usual patience.
    #[must_use]
    pub fn new(module: impl Into<PathBuf>, token_label: &str, pin: SecretBytes) -> Self {
        Self {
            module: module.into(),
            token_label: token_label.to_owned(),
            token_serial: None,
            pin,
            origin: KeyOrigin::Token,
            start_patience: Duration::from_secs(3),
            // Readiness is back within five seconds of the token's return.
            recovery_pause: Duration::from_secs(2),
            opens_within: Duration::from_secs(15),
            pin_rest: Duration::from_secs(3600),
        }
    }
}

/// A token behind a PKCS#11 module. Nothing is loaded before the first use.
#[derive(Debug)]
pub struct Pkcs11Backend(Arc<Shared>);

impl Pkcs11Backend {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Shared::new(options)))
    }

    /// How often this process has presented the PIN: once per epoch, never
    /// again after a refusal, and only so often where the answers are unclear.
    #[must_use]
    pub fn login_attempts(&self) -> u64 {
        self.0.login_attempts()
    }
}

impl Backend for Pkcs11Backend {
    fn open(&self) -> Result<Box<dyn Custody>> {
        self.0.ensure_up()?;
        Ok(Box::new(Pkcs11Custody::new(Arc::clone(&self.0))))
    }

    fn describe(&self) -> TokenDescription {
        self.0.describe()
    }

    fn inspect(&self) -> Result<Vec<KeyReport>> {
        let origin = self.0.options.origin;
        self.0.exclusively(|connection| {
            connection.with_session("inspect", |session| {
                Ok(keys::Scan::of(session, origin)?.reports())
            })
        })
    }

    fn provision(&self, dry_run: bool) -> Result<ProvisionReport> {
        let origin = self.0.options.origin;
        self.0.exclusively(|connection| {
            let place = anchor::Place::of(&connection.description);
            connection.with_session("provision", |session| {
                provision::run(session, place, origin, dry_run)
            })
        })
    }

    fn provision_public_log(&self, dry_run: bool) -> Result<ProvisionReport> {
        let origin = self.0.options.origin;
        self.0.exclusively(|connection| {
            let place = anchor::Place::of(&connection.description);
            connection.with_session("provision", |session| {
                provision::public_log(session, place, origin, dry_run)
            })
        })
    }

    fn entropy(&self) -> Result<Secret<32>> {
        self.0.exclusively(|connection| {
            connection.with_session("random", |session| {
                Secret::try_init(|place| mechanism::random(session, place))
            })
        })
    }

    fn import(&self, keys: &RootKeys, dry_run: bool) -> Result<Imported> {
        origin::refuse_made(self.0.options.origin)?;
        let report = self.0.exclusively(|connection| {
            connection.with_session("import", |session| import::run(session, keys, dry_run))
        })?;
        Ok(Imported {
            report,
            storage_key: None,
        })
    }

    fn import_missing(&self, keys: &RootKeys, dry_run: bool) -> Result<Imported> {
        origin::refuse_made(self.0.options.origin)?;
        let report = self.0.exclusively(|connection| {
            connection.with_session("import", |session| import::missing(session, keys, dry_run))
        })?;
        Ok(Imported {
            report,
            storage_key: None,
        })
    }

    fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    fn opening(&self) -> Option<Duration> {
        self.0.opening()
    }

    fn left_behind(&self) -> usize {
        self.0.left_behind()
    }
}
