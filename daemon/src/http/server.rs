//! The accept loop: from a listening socket to requests on a router, and back to a closed socket.
//!
//! Called by start-up, once for each listener. Everybody who reaches the port controls
//! the bytes, their pace and the number of connections here, before any proof of
//! anything. So each resource has a bound: connections (a semaphore; one address never has more than stay free,
//! so that others find some, and where none is free those give way that do nothing), the handshake with the header of a balancer before it, the
//! head of a request, headers, streams, and idle time. It knows nothing of routes; the
//! time for a request's body and answer is bounded by the router's own layers.
//!
//! Every connection is a task of one `JoinSet`: when [`serve`] returns, or is dropped, no
//! task of it is left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{self, Around, ConnectionLimits, Crowd};
use super::proxy::{self, Proxies};
use super::tls::Tls;
use crate::places::{Place, Places};
use crate::service::network;

/// After an accept failed for want of a resource. Long enough not to spin, short enough
/// that nobody notices once descriptors are free again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// While all places are taken, those who do nothing with theirs are told this often.
const TOLD: Duration = Duration::from_millis(250);

/// A handshake that takes longer than this gives way to whoever waits for a place.
const CROWDED_HANDSHAKE: Duration = Duration::from_secs(2);

/// So many connections one address may have, whatever stays free.
const ANYBODYS: usize = 64;

/// The bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once. Further ones stay in the kernel's queue.
    pub max_connections: usize,
    /// From the accepted connection to the end of the TLS handshake, the header of a balancer included.
    pub handshake: Duration,
    /// How long a stop waits for the answers under way.
    pub drain: Duration,
    pub connection: ConnectionLimits,
}

impl Limits {
    /// The usual bounds, with the two that an operator configures.
    pub fn new(max_connections: usize, drain: Duration) -> Self {
        Self {
            max_connections,
            handshake: Duration::from_secs(10),
            drain,
            connection: ConnectionLimits::default(),
        }
    }
}

/// The other end of a connection, as a request extension; behind a balancer that is believed, what that says it is.
/// It is for logs and for quotas of strangers; nothing may be *allowed* because of an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerAddress(pub SocketAddr);

/// How a listener ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// Connections that did not end within the drain time and were cut.
    pub cut: usize,
}

/// What a connection begins with, where it is not plain HTTP on a loopback address.
#[derive(Clone, Debug)]
pub struct Entrance {
    pub tls: Arc<Tls>,
    /// Who has to say before the handshake whose connection it is.
    pub proxies: Arc<Proxies>,
}

/// Serves until `shutdown` holds `true` or its sender is gone, then drains. With an
/// `entrance` each connection begins with a handshake; without one the caller vouches that the
/// listener is on a loopback address.
pub async fn serve(
    listener: TcpListener,
    entrance: Option<Entrance>,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Drained {
    let permits = Arc::new(Semaphore::new(
        limits.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let addresses = Places::new(limits.max_connections, ANYBODYS);
    // Of proxies, by their own addresses, until each has said whose its connection is.
    let untold = Places::new(limits.max_connections, ANYBODYS);
    let crowd = Arc::new(Crowd::default());
    let nobody = Proxies::default();
    let proxies = entrance.as_ref().map_or(&nobody, |by| &*by.proxies);
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = tasks.join_next() => continue,
            accepted = accept(&listener, (&permits, &crowd), (&addresses, &untold), proxies) => accepted,
        };
        let Some((stream, peer, (permit, whose))) = accepted else {
            continue;
        };
        let task = Accepted {
            stream,
            peer,
            whose,
            addresses: Arc::clone(&addresses),
            tls: entrance
                .as_ref()
                .map(|by| TlsAcceptor::from(by.tls.current())),
            router: router.clone(),
            limits,
            around: Around {
                shutdown: shutdown.clone(),
                crowd: Arc::clone(&crowd),
            },
        };
        tasks.spawn(async move {
            task.run().await;
            drop(permit);
        });
    }
    // Closed first, so that a balancer or a successor on the same port sees it at once.
    drop(listener);
    drain(tasks, limits.drain).await
}

/// Resolves once a stop was asked for. A sender that is gone can never ask: that counts too.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Held while a connection lasts: one of all, and one of an address's.
type Permit = (OwnedSemaphorePermit, Whose);

/// Among whose connections one counts.
enum Whose {
    Clients(Place<IpAddr>),
    /// A proxy's, among those whose header has not come: one that sends none takes its share and no other's.
    ToBeTold(Place<IpAddr>),
}

/// One connection with its permit, or `None` after an error that was dealt with. It may be
/// cancelled at any point: a connection is only taken from the queue when it is returned.
async fn accept(
    listener: &TcpListener,
    (permits, crowd): (&Arc<Semaphore>, &Crowd),
    (addresses, untold): (&Arc<Places<IpAddr>>, &Arc<Places<IpAddr>>),
    proxies: &Proxies,
) -> Option<(TcpStream, SocketAddr, Permit)> {
    let permit = permit(permits, crowd).await?;
    match listener.accept().await {
        // Its client's address is the one that counts, once it is known.
        Ok((stream, peer)) if proxies.lists(peer.ip()) => {
            let whose = Whose::ToBeTold(place(untold, peer)?);
            Some((stream, peer, (permit, whose)))
        }
        Ok((stream, peer)) => {
            let whose = Whose::Clients(place(addresses, peer)?);
            Some((stream, peer, (permit, whose)))
        }
        Err(error) if of_one_connection(&error) => None,
        Err(error) => {
            tracing::warn!(%error, "no connection could be accepted; raise LimitNOFILE if this stays");
            metrics::counter!("custodyd_accept_failures_total").increment(1);
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// A place for one more connection. As long as there is none, those who could give up theirs hear of it.
async fn permit(permits: &Arc<Semaphore>, crowd: &Crowd) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        crowd.has_room();
        return Some(permit);
    }
    metrics::counter!("custodyd_busy_total", "at" => "places").increment(1);
    loop {
        crowd.has_no_room();
        let permit = Arc::clone(permits).acquire_owned();
        if let Ok(permit) = tokio::time::timeout(TOLD, permit).await {
            return permit.ok();
        }
    }
}

/// One of the connections that the address may have.
fn place(addresses: &Arc<Places<IpAddr>>, peer: SocketAddr) -> Option<Place<IpAddr>> {
    let place = addresses.take(network(peer.ip()), 1);
    if place.is_none() {
        // Closed without a word: to say one takes a handshake, which is what it costs.
        metrics::counter!("custodyd_busy_total", "at" => "connections").increment(1);
    }
    place
}

/// Errors of a connection that broke while it waited; the next accept may work at once.
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

pub(super) async fn drain(mut tasks: JoinSet<()>, bound: Duration) -> Drained {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(bound, all).await.is_ok() {
        return Drained { cut: 0 };
    }
    while tasks.try_join_next().is_some() {}
    let cut = tasks.len();
    tasks.shutdown().await;
    Drained { cut }
}

struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    whose: Whose,
    addresses: Arc<Places<IpAddr>>,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    around: Around,
}

impl Accepted {
    async fn run(mut self) {
        // Answers are small and whole; waiting for more bytes only adds latency.
        let _ = self.stream.set_nodelay(true);
        let (limits, router) = (self.limits, self.router.clone());
        let around = self.around.clone();
        let Some(tls) = self.tls.take() else {
            let peer = PeerAddress(self.peer);
            connection::run(self.stream, peer, router, limits.connection, around).await;
            return;
        };
        let address = self.peer;
        let entered = tokio::time::timeout(limits.handshake, self.enter(tls));
        let (mut shutdown, crowd) = (around.shutdown.clone(), Arc::clone(&around.crowd));
        let gives_way = async {
            tokio::time::sleep(CROWDED_HANDSHAKE).await;
            crowd.waits().await;
        };
        let (stream, peer, _place) = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return,
            () = gives_way => return refused(PeerAddress(address), "not finished while others wait"),
            entered = entered => match entered {
                Ok(Some(entered)) => entered,
                Ok(None) => return,
                Err(_) => return refused(PeerAddress(address), "not finished in time"),
            },
        };
        connection::run(stream, peer, router, limits.connection, around).await;
    }

    /// Whose connection it is, and the handshake with them; what was refused has been counted.
    async fn enter(mut self, tls: TlsAcceptor) -> Option<Entered> {
        let place = match self.whose {
            Whose::Clients(place) => place,
            Whose::ToBeTold(untold) => {
                self.peer = told(&mut self.stream, self.peer).await?;
                drop(untold);
                place(&self.addresses, self.peer)?
            }
        };
        let peer = PeerAddress(self.peer);
        match tls.accept(self.stream).await {
            Ok(stream) => Some((stream, peer, place)),
            Err(error) => {
                refused(peer, &error.to_string());
                None
            }
        }
    }
}

type Entered = (TlsStream<TcpStream>, PeerAddress, Place<IpAddr>);

/// Whose connection it is that a listed proxy has brought.
async fn told(stream: &mut TcpStream, proxy: SocketAddr) -> Option<SocketAddr> {
    let count = |outcome: &'static str| {
        metrics::counter!("custodyd_proxied_connections_total", "outcome" => outcome).increment(1);
    };
    match proxy::told(stream, proxy).await {
        Ok(peer) => {
            count(if peer == proxy { "own" } else { "told" });
            tracing::debug!(%peer, %proxy, "a connection by a proxy");
            Some(peer)
        }
        Err(error) => {
            count("refused");
            // Only who stands where a proxy is expected can cause it.
            tracing::warn!(%proxy, %error, "a connection from an address in listen.proxy_protocol was closed");
            None
        }
    }
}

/// Anybody can cause these, so they are counted and not worth a line of their own.
fn refused(peer: PeerAddress, reason: &str) {
    metrics::counter!("custodyd_tls_handshake_failures_total").increment(1);
    tracing::debug!(peer = %peer.0, reason, "TLS handshake failed");
}

#[cfg(test)]
mod tests;
