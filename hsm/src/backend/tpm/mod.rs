//! The TPM 2.0 backend, over libtss2.
//!
//! A storage key of the owner hierarchy, at a persistent handle and pinned by its name, is the parent of
//! all others. Signing keys stay in the TPM. The two roots of HMACs are either sealed there and
//! unsealed into this process at the start (chips do 5 to 40 operations a second), or HMAC keys that
//! never leave and are asked for each operation. Every object has 32 bytes of authorization made from the
//! configured secret, and none is under the TPM's lockout, which anybody on the host could cause.
//! Anchors are records in files of which an NV index says which one is true (`anchor`).
//!
//! All commands go through one session, salted to the storage key, that encrypts what is secret: a
//! bus, a daemon or a host of virtual machines in between learns and changes nothing. What it can do is to be silent.

mod anchor;
mod attest;
mod attributes;
mod clock;
mod epoch;
mod esys;
mod files;
mod import;
mod index;
mod keys;
mod mechanism;
mod pcr;
mod policy;
mod provision;
mod response;
mod session;
mod token;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    attest::{Attested, verify},
    pcr::{PcrState, Pcrs},
    policy::Wanted as Reseal,
};
use self::{epoch::Shared, session::TpmCustody, token::Connection};
use crate::{
    backend::origin,
    custody::{Backend, Custody},
    error::{Error, Result},
    report::{Imported, KeyReport, ProvisionReport, TokenDescription},
    root_keys::{KeyOrigin, RootKeys},
    secret::{Secret, SecretBytes},
};

/// Where keys are unless something else is configured.
pub const DEFAULT_HANDLES: u32 = 0x8101_8100;
/// Where the anchors' index is unless something else is configured.
pub const DEFAULT_NV_INDEX: u32 = 0x0181_8100;
/// A hundred thousand writes then last for a hundred days of a daemon that always spends them all.
pub const DEFAULT_NV_WRITES_PER_DAY: u32 = 1000;

/// Where the two roots of HMACs are while the daemon serves. Decided when they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unsealed into memory at the start of an epoch.
    PerStart,
    /// In the TPM, which computes each HMAC.
    PerOperation,
}

/// Which TPM, and how patient to be with it.
#[derive(Debug)]
pub struct Options {
    /// How libtss2 reaches it, in full: `device:/dev/tpmrm0`, `swtpm:path=...`.
    pub tcti: String,
    /// What every authorization is made from: at least 32 random characters.
    pub secret: SecretBytes,
    /// The password of the owner hierarchy, for provisioning; empty in most TPMs, and in every daemon.
    pub owner_password: SecretBytes,
    /// What keys are bound to, beside the secret. Decided when they are made.
    pub pcrs: Option<Pcrs>,
    /// What approves another state of the PCRs, for provisioning and `token reseal`; never on this host.
    pub recovery_key: Option<SecretBytes>,
    /// The first of 256 persistent handles that belong to the realm.
    pub handles: u32,
    /// The NV index of the anchors.
    pub nv_index: u32,
    /// The name of the storage key, in hexadecimal. Without it only provisioning works.
    pub storage_key: Option<String>,
    /// Where the records of anchors are.
    pub state_directory: PathBuf,
    pub mode: Mode,
    /// Where the keys were made. Pairs of the other kind are refused.
    pub origin: KeyOrigin,
    /// How often the NV index may be written in a day.
    pub nv_writes_per_day: u32,
    /// How long a start may wait for a TPM that answers with passing errors.
    pub start_patience: Duration,
    /// The longest pause between two attempts to reach it again.
    pub recovery_pause: Duration,
    /// How long anybody waits for it to be opened. It may hang for longer, and then nobody waits.
    pub opens_within: Duration,
}

impl Options {
    /// A TPM with everything where it usually is, and the usual patience.
    #[must_use]
    pub fn new(tcti: &str, secret: SecretBytes, state_directory: impl Into<PathBuf>) -> Self {
        Self {
            tcti: tcti.to_owned(),
            secret,
            owner_password: SecretBytes::from(Vec::new()),
            pcrs: None,
            recovery_key: None,
            handles: DEFAULT_HANDLES,
            nv_index: DEFAULT_NV_INDEX,
            storage_key: None,
            state_directory: state_directory.into(),
            mode: Mode::PerStart,
            origin: KeyOrigin::Token,
            nv_writes_per_day: DEFAULT_NV_WRITES_PER_DAY,
            start_patience: Duration::from_secs(3),
            recovery_pause: Duration::from_secs(2),
            opens_within: Duration::from_secs(15),
        }
    }

    fn check(&self) -> Result<()> {
        check_handles(self.handles)?;
        check_nv_index(self.nv_index)?;
        if self.pcrs.is_some() && policy::index_of(self.handles) == self.nv_index {
            return Err(Error::Misconfigured(format!(
                "token.nv_index 0x{:08x} is where these token.handles have their approved PCRs; give another one",
                self.nv_index
            )));
        }
        Ok(())
    }
}

/// Refuses a way to the TPM that leaves the choice to libtss2.
///
/// # Errors
/// [`Error::Misconfigured`].
pub fn check_tcti(tcti: &str) -> Result<()> {
    token::name_conf(tcti).map(|_| ())
}

/// Refuses a first handle that is not the owner's, or not the first of 256.
///
/// # Errors
/// [`Error::Misconfigured`].
pub fn check_handles(first: u32) -> Result<()> {
    // The registry of reserved handles: persistent objects of the owner.
    if first.is_multiple_of(0x100) && (0x8100_0000..=0x817f_ff00).contains(&first) {
        return Ok(());
    }
    Err(Error::Misconfigured(format!(
        "0x{first:08x} is not the first of 256 persistent handles of the owner: expected a multiple of 0x100 \
         from 0x81000000 to 0x817fff00"
    )))
}

/// Refuses a handle that is none of the owner's NV indices.
///
/// # Errors
/// [`Error::Misconfigured`].
pub fn check_nv_index(index: u32) -> Result<()> {
    // The registry of reserved handles: NV indices of the owner.
    if (0x0180_0000..=0x01bf_ffff).contains(&index) {
        return Ok(());
    }
    Err(Error::Misconfigured(format!(
        "0x{index:08x} is none of the owner's NV indices, 0x01800000 to 0x01bfffff"
    )))
}

/// A TPM 2.0. Nothing is reached before the first use.
#[derive(Debug)]
pub struct TpmBackend(Arc<Shared>);

impl TpmBackend {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Shared::new(options)))
    }

    /// How often this process has presented the secret: once per epoch, and never
    /// again after a refusal.
    #[must_use]
    pub fn login_attempts(&self) -> u64 {
        self.0.attempts()
    }

    /// As [`Backend::provision`], with the name of the storage key to pin; none in a dry run that
    /// found none.
    ///
    /// # Errors
    /// As [`Backend::provision`].
    pub fn provision_storage(&self, dry_run: bool) -> Result<(ProvisionReport, Option<String>)> {
        self.0.options.check()?;
        let done = self.0.provisioning(dry_run, |store| {
            provision::run(&self.0.options, store, None, dry_run)
        })?;
        Ok((done.report, done.storage_key))
    }
}

impl TpmBackend {
    /// Approves what may be booted from now on, and proves that the keys answer then. Returns a line
    /// for each approved state.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] where keys are not bound, or the recovery key is missing or wrong.
    pub fn reseal(&self, wanted: &Reseal, dry_run: bool) -> Result<Vec<String>> {
        let options = &self.0.options;
        options.check()?;
        self.0.exclusively(|_| {
            let mut connection = Connection::begin(options)?;
            let lines = policy::reseal(&mut connection, options, wanted, dry_run)?;
            if !dry_run {
                let scan = keys::Scan::of(&mut connection, options)?;
                scan.table(&mut connection, options)?
                    .answers(&mut connection)?;
            }
            Ok(lines)
        })
    }
}

impl Backend for TpmBackend {
    fn open(&self) -> Result<Box<dyn Custody>> {
        self.0.options.check()?;
        self.0.settle("open", |_| Ok(()))?;
        Ok(Box::new(TpmCustody::new(Arc::clone(&self.0))))
    }

    fn describe(&self) -> TokenDescription {
        self.0.describe()
    }

    fn inspect(&self) -> Result<Vec<KeyReport>> {
        self.0.options.check()?;
        self.0.scan()
    }

    fn provision(&self, dry_run: bool) -> Result<ProvisionReport> {
        Ok(self.provision_storage(dry_run)?.0)
    }

    fn entropy(&self) -> Result<Secret<32>> {
        provision::entropy(&self.0.options).map_err(|trouble| trouble.into_error("random"))
    }

    fn import(&self, keys: &RootKeys, dry_run: bool) -> Result<Imported> {
        self.0.options.check()?;
        origin::refuse_made(self.0.options.origin)?;
        let done = self.0.provisioning(dry_run, |store| {
            provision::run(&self.0.options, store, Some(keys), dry_run)
        })?;
        Ok(Imported {
            report: done.report,
            storage_key: done.storage_key,
        })
    }

    fn import_missing(&self, keys: &RootKeys, dry_run: bool) -> Result<Imported> {
        self.0.options.check()?;
        origin::refuse_made(self.0.options.origin)?;
        let report = self
            .0
            .exclusively(|_| provision::missing(&self.0.options, keys, dry_run))?;
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
}
