//! Wiring: from a configuration to a realm that serves, and back down.
//!
//! Called by `cli`. Everything that can refuse is asked before the first socket opens: the
//! policies, the certificate, the token's keys, the database and that the three belong to one
//! realm. What is true after a crash during `init`: either there is no database, or one that
//! holds a whole realm; keys that were made in the token are found again.

mod agreement;
mod on_a_server;
mod readiness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::{KeyPurpose, Lane, Pool, ProvisionReport};
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch as watch_for_stop;

use self::agreement::Agreement;
use crate::backend::{pool, provision};
use crate::clock::Clock;
use crate::config::{self, Config, Database};
use crate::delivery::{self, Courier, Delivering};
use crate::escrow::{self, Escrowed, ManifestError};
use crate::factors::dpop::Proofs;
use crate::factors::pin_argon2::PinHasher;
use crate::factors::pin_opaque::OpaqueServer;
use crate::factors::token::EpochKeys;
use crate::handed::{Handed, HandedError};
use crate::http::server::{self, Limits};
use crate::http::state::Context;
use crate::http::tls::Tls;
use crate::http::{certificate, operator, operator_socket, router, tls};
use crate::ledger::{self, Cache, LedgerError, Settings};
use crate::listening::Listeners;
use crate::reload::Reloader;
use crate::service::{
    Apps, Auditors, Bindings, Callers, Door, Ends, EnrolmentQuota, PublicKeys, Recipients,
    Rotation, Service, Strangers, Unfinished,
};
use crate::store::{Exclusive, Held, Sqlite, Store, StoreError};
use crate::witness::{self, Cosigned, Witnesses};
use crate::{retention, scrub, spare, supervised, telemetry, unheard, watch};

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

/// Makes the missing keys in the token and a new realm in an empty database. Where a realm
/// stands already it is opened and left as it is; with `finish` one that was begun a while ago is made whole, too.
///
/// # Errors
/// When another realm's database stands there, or token or disk refuse.
/// Returns what was done, a line each.
pub async fn init(config: &Config, finish: bool) -> Result<Vec<String>, StartError> {
    match &config.store.database {
        Database::Sqlite(place) => in_a_file(config, place, finish).await,
        Database::Postgres(place) => on_a_server::init(config, place, finish).await,
    }
}

async fn in_a_file(config: &Config, place: &Path, finish: bool) -> Result<Vec<String>, StartError> {
    let lock = Exclusive::take(place)?;
    if place.exists() {
        return already_there(config, Held::File(lock), finish).await;
    }
    let keys = provision(config)?;
    let pool = pool(config, None)?;
    let escrow = of_new_realm(config, &pool).await?;
    // Written beside its place and moved there whole, so that a crash leaves no half realm.
    let draft = draft_of(place);
    remove_draft(&draft)?;
    {
        let store: Arc<dyn Store> = Arc::new(Sqlite::create(Exclusive::take(&draft)?).await?);
        let now = Clock::default().now();
        ledger::realm::create(&store, &pool, &config.realm.name, escrow, now).await?;
        store.close().await;
    }
    publish(&draft, place).map_err(system(format!("move the database to {}", place.display())))?;
    remove_draft(&draft)?;
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(lock).await?);
    let anchored = ledger::realm::anchor_first(&store, &pool, &config.realm.name).await;
    store.close().await;
    pool.shutdown();
    anchored?;
    Ok(vec![made(&keys), made_realm(config)])
}

/// What its record says of its escrow: where the token knows of no realm of this name.
async fn of_new_realm(config: &Config, pool: &Pool) -> Result<Option<Escrowed>, StartError> {
    if ledger::realm::is_anchored(pool, &config.realm.name).await? {
        pool.shutdown();
        return Err(StartError::Ledger(LedgerError::Refused(format!(
            "the token remembers the realm {}, and there is no database in {}: put the realm's \
             newest database in place; for a new realm, choose another name or another token",
            config.realm.name, config.store.database
        ))));
    }
    escrowed(config, pool).await
}

fn made_realm(config: &Config) -> String {
    format!(
        "made the realm {} in {}",
        config.realm.name, config.store.database
    )
}

/// What the realm's record says of its escrow: of one that is of the keys in the token, or it would be
/// believed until the day on which it does not help.
async fn escrowed(config: &Config, pool: &Pool) -> Result<Option<Escrowed>, StartError> {
    let Some(path) = &config.token.escrow else {
        return Ok(None);
    };
    let manifests = escrow::read(path, &config.realm.name)?;
    let note = Escrowed::of(&manifests);
    pool.call("check-escrow", move |custody| {
        Ok(escrow::holds_all(custody, &manifests))
    })
    .await??;
    Ok(Some(note))
}

async fn already_there(
    config: &Config,
    held: Held<'_>,
    finish: bool,
) -> Result<Vec<String>, StartError> {
    let pool = pool(config, None)?;
    let store = held.open().await?;
    let name = &config.realm.name;
    let finished = match ledger::realm::is_begun(&store, &pool, name).await {
        // `init` was stopped before every token remembered what it has made.
        Ok(true) if finish => ledger::realm::anchor_first(&store, &pool, name).await,
        Ok(true) => {
            let now = Clock::default().now();
            ledger::realm::finish(&store, &pool, name, now).await
        }
        Ok(false) => {
            let (mode, escrowed) = (config.ledger.mode_to_look(), config.token.escrow.is_some());
            ledger::check(&store, &pool, name, mode, escrowed).await
        }
        Err(error) => Err(error),
    };
    store.close().await;
    pool.shutdown();
    finished?;
    Ok(vec![format!(
        "the realm {} is in {} already; nothing was changed",
        config.realm.name, config.store.database
    )])
}

fn made(keys: &ProvisionReport) -> String {
    if keys.created.is_empty() {
        "every key is in the token already".to_owned()
    } else {
        format!("made the keys {}", keys.created.join(", "))
    }
}

/// Where the database stands until it is whole. Its stem is its own, so that its lock is
/// another file than the real one, which `init` holds all the while.
fn draft_of(place: &Path) -> PathBuf {
    let mut name = place.file_stem().unwrap_or_default().to_owned();
    name.push("-init.sqlite");
    place.with_file_name(name)
}

/// What SQLite and the lock put beside a draft goes with it; the real lock is never touched.
fn remove_draft(draft: &Path) -> Result<(), StartError> {
    let beside = |suffix: &str| {
        let mut name = draft.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock = Exclusive::lock_of(draft);
    for path in [draft.to_owned(), beside("-wal"), beside("-shm"), lock] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(system(format!("remove {}", path.display()))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// After a crash here: the database is at its place or it is not, and once this has returned
/// it stays there, because the folder's own entry was written, too.
fn publish(draft: &Path, place: &Path) -> std::io::Result<()> {
    std::fs::rename(draft, place)?;
    let folder = match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::File::open(folder)?.sync_all()
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

/// Only of a daemon that is to serve: the command that makes the key opens the realm, too.
fn has_the_keys(config: &Config, realm: &Realm) -> Result<(), StartError> {
    let purpose = KeyPurpose::CheckpointEd25519;
    if !config.ledger.public_log || realm.service.ledger.keys().has(purpose) {
        return Ok(());
    }
    Err(StartError::Ledger(LedgerError::Refused(format!(
        "ledger.public_log wants an Ed25519 signature on every checkpoint, and the realm has no key for it: run \
         `custodyd key rotate {}`, which makes one in the token and names it in the log; or take ledger.public_log out",
        purpose.name()
    ))))
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

/// Serves until SIGTERM or SIGINT, then drains. SIGHUP reloads. `handed` are the sockets that a service
/// manager has opened.
///
/// # Errors
/// Every reason not to start, and a committer that stopped.
pub async fn serve(config: &Config, handed: Handed) -> Result<(), StartError> {
    // First: one that came while nobody listens for it would end the process.
    let hangup = signal(SignalKind::hangup()).map_err(system("listen for SIGHUP"))?;
    let metrics = telemetry::install_metrics()?;
    let upkeep = tokio::spawn(telemetry::upkeep(metrics.clone()));
    let tls = Tls::new(tls::server_config(
        &config.listen.certificate,
        &config.listen.private_key,
    )?);
    let mut realm = open(config).await?;
    if let Err(error) = has_the_keys(config, &realm) {
        realm.close().await;
        return Err(error);
    }
    // Before a socket opens: whoever sees that it serves may tell it to stop. Until here the signals
    // end the process, which is as good as a crash and no worse.
    let signals = Signals {
        terminate: signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?,
        interrupt: signal(SignalKind::interrupt()).map_err(system("listen for SIGINT"))?,
        hangup,
    };
    watch::measure_token(&realm.pool);
    let watching = tokio::spawn(watch::run(
        Arc::clone(&realm.service),
        realm.pool.clone(),
        config.store.database.beside(),
    ));
    certificate::show(&config.listen.certificate);
    let retiring = tokio::spawn(retention::run(Arc::clone(&realm.service)));
    let scrubbing = tokio::spawn(scrub::run(
        Arc::clone(&realm.service),
        config.ledger.scrub_period,
    ));
    let shortening = tokio::spawn(spare::run(Arc::clone(&realm.store)));
    let hearing = tokio::spawn(unheard::run(Arc::clone(&realm.service)));
    let reloaded = realm.agreement.reloaded();
    let agreement = realm.agreement.clone();
    let comparing = tokio::spawn(agreement.watch(Arc::clone(&realm.service)));
    let witnessing = tokio::spawn(witness::run(
        Arc::clone(&realm.service),
        std::mem::take(&mut realm.witnesses),
        config.witnesses.period,
    ));
    let (service, shown) = (Arc::clone(&realm.service), Arc::clone(&tls));
    let reloader = Reloader::new(config, service, shown, reloaded);
    let (stop, stopping) = watch_for_stop::channel(false);
    let limits = Limits::new(config.listen.max_connections, config.listen.drain);
    let mut serving = tokio::task::JoinSet::new();
    let mut listeners = Listeners::open(config, handed).await?;
    let made = listeners.made();
    let mut listen = |listener: TcpListener, entrance, router| {
        serving.spawn(server::serve(
            listener,
            entrance,
            router,
            limits,
            stopping.clone(),
        ));
    };
    let public = |url: &str| {
        router::router(Arc::new(Context {
            service: Arc::clone(&realm.service),
            base_url: url.to_owned(),
        }))
    };
    let entrance = server::Entrance {
        tls,
        proxies: Arc::new(config.listen.proxy_protocol.clone()),
    };
    for listener in listeners.public {
        tracing::info!(address = ?listener.local_addr().ok(), url = %config.listen.url, "serving");
        listen(listener, Some(entrance.clone()), public(&config.listen.url));
    }
    if let (Some(listener), Some(development)) = (listeners.development, &config.listen.development)
    {
        tracing::warn!(url = %development.url, "serving without TLS, for development on this machine");
        listen(listener, None, public(&development.url));
    }
    let checks = readiness::checks(&realm.pool, &realm.store, &realm.service);
    let health = operator::Operator::new(checks, metrics);
    let operators = operator::router(&health);
    for listener in listeners.operator {
        tracing::info!(address = ?listener.local_addr().ok(), "serving operators");
        listen(listener, None, operators.clone());
    }
    if let Some(socket) = listeners.socket {
        let actions = operator_socket::Actions {
            service: Arc::clone(&realm.service),
            reload: reload_action(&reloader),
            listening: listeners.shown,
        };
        let actions = operator_socket::router(actions, &health);
        serving.spawn(operator_socket::serve(socket, actions, limits, stopping));
    }
    let watchdog = supervised::ready();

    let outcome = until_told_to_stop(signals, &mut realm.committer, &reloader).await;
    tracing::info!("stopping");
    supervised::stopping();
    let _ = stop.send(true);
    while let Some(drained) = serving.join_next().await {
        if let Ok(drained) = drained
            && drained.cut > 0
        {
            tracing::warn!(connections = drained.cut, "cut after the drain time");
        }
    }
    if let Some(path) = made {
        let _ = std::fs::remove_file(path);
    }
    watchdog.abort();
    upkeep.abort();
    // The committer ends when the last handle to the service is gone; these hold one each.
    for task in [
        watching, retiring, scrubbing, shortening, hearing, comparing, witnessing,
    ] {
        task.abort();
        let _ = task.await;
    }
    drop(reloader);
    if outcome.is_ok() {
        realm.close().await;
    }
    outcome
}

fn reload_action(reloader: &Arc<Reloader>) -> Arc<operator_socket::Reload> {
    let reloader = Arc::clone(reloader);
    Arc::new(move || {
        let reloader = Arc::clone(&reloader);
        async move {
            let done = reloader.reload().await.map_err(|error| error.to_string())?;
            serde_json::to_value(done).map_err(|error| error.to_string())
        }
        .boxed()
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

async fn until_told_to_stop(
    mut signals: Signals,
    committer: &mut tokio::task::JoinHandle<Result<(), LedgerError>>,
    reloader: &Arc<Reloader>,
) -> Result<(), StartError> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            // It ends only when the database's state is not known any more, or by a defect.
            _ = &mut *committer => return Err(StartError::CommitterStopped),
            // It has told the log how that went.
            _ = signals.hangup.recv() => drop(reloader.reload().await),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_draft_and_its_lock_are_other_files_than_the_realms() {
        for place in ["/var/lib/custodyd.sqlite", "custodyd", "a.b/c.d.db"] {
            let place = Path::new(place);
            let draft = draft_of(place);
            assert_ne!(draft, place);
            assert_eq!(draft.parent(), place.parent());
            assert_ne!(Exclusive::lock_of(&draft), Exclusive::lock_of(place));
        }
    }

    #[tokio::test]
    async fn removing_a_draft_leaves_the_held_lock_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("custodyd.sqlite");
        let held = Exclusive::take(&place).unwrap();
        let draft = draft_of(&place);
        Sqlite::create(Exclusive::take(&draft).unwrap())
            .await
            .unwrap()
            .close()
            .await;
        publish(&draft, &place).unwrap();
        remove_draft(&draft).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["custodyd.lock", "custodyd.sqlite"]);
        // A second process finds the same file, and finds it held.
        assert!(Exclusive::take(&place).is_err());
        drop(held);
        Sqlite::open(Exclusive::take(&place).unwrap())
            .await
            .unwrap();
    }
}
