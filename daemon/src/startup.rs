//! Wiring: from a configuration to a realm that serves, and back down.
//!
//! Called by `cli`. Everything that can refuse is asked before the first socket opens: the
//! policies, the certificate, the token's keys, the database and that the three belong to one
//! realm.

mod agreement;
mod init;
mod readiness;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::{Lane, Pool};

use self::agreement::Agreement;
pub use self::init::init;
pub use self::serve::serve;
use crate::backend::pool;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::delivery::{self, Courier, Delivering};
use crate::escrow::ManifestError;
use crate::factors::dpop::Proofs;
use crate::factors::pin_argon2::PinHasher;
use crate::factors::pin_opaque::OpaqueServer;
use crate::factors::token::EpochKeys;
use crate::handed::HandedError;
use crate::http::tls;
use crate::ledger::{self, Cache, LedgerError, Settings};
use crate::service::{
    Apps, Auditors, Bindings, Callers, Door, Ends, EnrolmentQuota, PublicKeys, Recipients,
    Rotation, Service, Strangers, Unfinished,
};
use crate::store::{Held, Store, StoreError};
use crate::telemetry;
use crate::witness::{Cosigned, Witnesses};

/// Why the daemon did not start, or stopped. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Pin(#[from] config::PinError),
    #[error("{}", list(.0))]
    Policies(Vec<custodyd_policies::PolicyError>),
    #[error("policy: {0}")]
    RelyingParty(#[from] crate::factors::passkey::PasskeyError),
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    #[error("token: {0}")]
    Token(#[from] custodyd_hsm::Error),
    #[error("{0}")]
    Delivery(#[from] delivery::SetupError),
    #[error("{0}")]
    Escrow(#[from] ManifestError),
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Telemetry(#[from] telemetry::TelemetryError),
    #[error("{what}: {source}")]
    System {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Random(#[from] crate::factors::RandomFailed),
    #[error("{0}")]
    Handed(#[from] HandedError),
    #[error(
        "the socket \"operator\" that systemd hands over listens on {0}: it asks for no credential, so that only \
         a loopback address is accepted; see ListenStream= in its .socket unit"
    )]
    OperatorInTheOpen(std::net::SocketAddr),
    #[error("the committer stopped, so nothing can be written; see the log, then start again")]
    CommitterStopped,
}

fn list(errors: &[custodyd_policies::PolicyError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::System { what, source }
}

/// The configured token, for a command that asks it about the ledger.
///
/// # Errors
/// When it can not be reached, or its PIN not be read.
pub(crate) fn token(config: &Config) -> Result<Pool, StartError> {
    pool(config, None)
}

/// A realm that is open: the service, and what has to be stopped after it.
#[derive(Debug)]
pub struct Realm {
    pub service: Arc<Service>,
    pub pool: Pool,
    pub store: Arc<dyn Store>,
    agreement: Agreement,
    witnesses: Witnesses,
    delivering: Delivering,
    drain: Duration,
    committer: tokio::task::JoinHandle<Result<(), LedgerError>>,
}

/// Opens token and database, proves that they belong together, and starts the committer.
///
/// # Errors
/// Every reason not to serve.
pub async fn open(config: &Config) -> Result<Realm, StartError> {
    open_without(config, None).await
}

/// As `open`, where an operator says that the token of this serial number is lost: its head names it no more.
///
/// # Errors
/// As `open`; `Refused` where no head names such a token.
pub(crate) async fn open_without(config: &Config, lost: Option<&str>) -> Result<Realm, StartError> {
    let name = &config.realm.name;
    let policies =
        config::load_policies(&config.policies.directory).map_err(StartError::Policies)?;
    let apps = Apps::new(name, policies.apps)?;
    let held = Held::to_serve(&config.store.database).await?;
    let pool = pool(config, lost)?;
    if let (Some(lost), Some(set)) = (lost, pool.set()) {
        set.is_lost(lost.to_owned());
    }
    let store = held.open().await?;
    // Before anything is written.
    let agreement = Agreement::reach(config, &pool, policies.digest, &store).await?;
    let clock = Arc::new(Clock::default());
    let settings = Settings {
        cache: Cache::new(config.store.cache_mib << 20),
        mode: config.ledger.mode(),
        configuration: policies.digest,
        public_log: config.ledger.public_log,
        escrowed: config.token.escrow.is_some(),
    };
    let opened = ledger::open(&store, &pool, name, &clock, settings).await?;
    // Now that it is known which versions are in use.
    let keys = pool.call("load-public-keys", PublicKeys::load).await?;
    let (courier, delivering) = Courier::start(&config.delivery, &pool, name, &clock)?;
    let witnesses = Witnesses::new(&config.witnesses)?;
    let (ledger, writing) = opened.serve(clock);
    let cosigned = Cosigned::open(
        &config.witnesses,
        Cosigned::file_of(&config.store.database.beside()),
        &ledger.origin(),
        &keys.checkpoint,
    );
    // Whatever waits for the token: everybody waits for the committer.
    let committer = tokio::spawn(Lane::First.during(writing));
    let seed = ledger.opaque_seed().await?;
    let service = Service {
        apps,
        keys: EpochKeys::new(pool.clone(), name.clone(), ledger.era()),
        ledger,
        proofs: Proofs::new()?,
        hasher: PinHasher::new(config.pin.threads, config.pin.queue)
            .map_err(system("start the PIN hasher"))?,
        opaque: OpaqueServer::from_seed(seed.expose()).map_err(|error| {
            StartError::Ledger(LedgerError::Refused(format!("the realm's record: {error}")))
        })?,
        unfinished: Unfinished::default(),
        bindings: Bindings::new(pool.clone(), name.clone(), keys.bindings, keys.webhook),
        auditors: Auditors::new(
            config.auditors.clone(),
            (keys.checkpoint, keys.checkpoint_ed25519),
        ),
        cosigned,
        enrolments: EnrolmentQuota::default(),
        courier,
        recipients: Arc::new(Recipients::new(&config.limits)),
        strangers: Strangers::new(&config.limits),
        callers: Callers::new(&config.limits),
        door: Door::new(&config.limits),
        ends: Ends::default(),
        rotation: Rotation::of(config.token.escrow.clone()),
    };
    Ok(Realm {
        service: Arc::new(service),
        pool,
        store,
        agreement,
        witnesses,
        delivering,
        drain: config.listen.drain,
        committer,
    })
}

impl Realm {
    /// Closes everything in order: what was accepted is looked up and sent, or cut after the
    /// drain time; no more changes, the last batch written, the database and the token's
    /// sessions closed.
    pub async fn close(self) {
        self.delivering.drain(self.drain).await;
        self.service.rotation.stop().await;
        drop(self.service);
        if let Ok(Err(error)) = self.committer.await {
            tracing::error!(%error, "the committer had stopped");
        }
        self.store.close().await;
        let pool = self.pool;
        let _ = tokio::task::spawn_blocking(move || pool.shutdown()).await;
    }
}
