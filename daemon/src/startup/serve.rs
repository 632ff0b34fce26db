//! From an open realm to one that is served, until somebody says that it is enough.

use std::sync::Arc;

use custodyd_hsm::KeyPurpose;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch as watch_for_stop;

use super::{Realm, StartError, open, readiness, system};
use crate::config::Config;
use crate::handed::Handed;
use crate::http::server::{self, Limits};
use crate::http::state::Context;
use crate::http::tls::{self, Tls};
use crate::http::{certificate, operator, operator_socket, router};
use crate::ledger::LedgerError;
use crate::listening::Listeners;
use crate::reload::Reloader;
use crate::{retention, scrub, spare, supervised, telemetry, unheard, watch, witness};

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
