//! A reload: certificate, key and policies read again while the daemon serves.
//!
//! Called on SIGHUP and by the operator's socket. All files are read and judged before anything
//! is replaced; with any error everything stays as it was, and the operator is told. The
//! configuration file itself is not read again: what it says takes a restart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;

use crate::config::{self, Config};
use crate::factors::passkey::PasskeyError;
use crate::http::certificate;
use crate::http::tls::{self, Tls, TlsError};
use crate::private_file::Place;
use crate::service::{Changes, Served, Service};

/// Why a reload changed nothing. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error("{}", list(.0))]
    Policies(Vec<custodyd_policies::PolicyError>),
    #[error("policy: {0}")]
    RelyingParty(#[from] PasskeyError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("the reload was ended by a defect of this program")]
    Panicked,
}

fn list(errors: &[custodyd_policies::PolicyError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// What a reload did.
#[derive(Debug, Serialize)]
pub(crate) struct Reloaded {
    pub(crate) apps: Changes,
}

#[derive(Debug)]
pub(crate) struct Reloader {
    service: Arc<Service>,
    tls: Arc<Tls>,
    /// Who tells other nodes what this one decides under.
    reloaded: Arc<Notify>,
    policies: PathBuf,
    certificate: PathBuf,
    private_key: Place,
    /// Two at once could leave the older files in place.
    one_at_a_time: Mutex<()>,
}

impl Reloader {
    pub(crate) fn new(
        config: &Config,
        service: Arc<Service>,
        tls: Arc<Tls>,
        reloaded: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            tls,
            reloaded,
            policies: config.policies.directory.clone(),
            certificate: config.listen.certificate.clone(),
            private_key: config.listen.private_key.clone(),
            one_at_a_time: Mutex::new(()),
        })
    }

    /// # Errors
    /// What is wrong with the files; then nothing has changed.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Reloaded, ReloadError> {
        let this = Arc::clone(self);
        let outcome = tokio::task::spawn_blocking(move || this.read_and_replace())
            .await
            .unwrap_or(Err(ReloadError::Panicked));
        let label = if outcome.is_ok() { "done" } else { "refused" };
        metrics::counter!("custodyd_reload_total", "outcome" => label).increment(1);
        match &outcome {
            Ok(done) => tracing::info!(
                added = ?done.apps.added,
                changed = ?done.apps.changed,
                retired = ?done.apps.retired,
                "reloaded the certificate and the policies"
            ),
            Err(error) => tracing::error!(%error, "not reloaded; everything stays as it was"),
        }
        outcome
    }

    fn read_and_replace(&self) -> Result<Reloaded, ReloadError> {
        let _one = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let policies = config::load_policies(&self.policies).map_err(ReloadError::Policies)?;
        let served = Served::new(self.service.realm(), policies.apps)?;
        let tls = tls::server_config(&self.certificate, &self.private_key)?;
        // From here on nothing can fail.
        self.tls.replace(tls);
        certificate::show(&self.certificate);
        let apps = self.service.apps().replace(served);
        self.service.ledger.decides_under(policies.digest);
        self.reloaded.notify_one();
        Ok(Reloaded { apps })
    }
}
