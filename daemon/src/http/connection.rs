//! One connection: HTTP/1.1 or HTTP/2, its bounds, and its two ways to end.
//!
//! Called by `server` and `unix_socket`. The peer controls every byte and its pace. Requests go to the
//! router; this file watches that a connection with nothing to do does not stay for
//! ever, that answers are taken, and that a stop lets those under way finish.

mod activity;
mod unread;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::Service;

use self::activity::{Activity, UnderWay};
pub(super) use self::activity::{BodyIsHere, Crowd};
use self::unread::Unread;
use super::router::REQUEST_LIMIT;
use super::server::{PeerAddress, stopped};

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// For the head of a request, and on HTTP/1.1 for the pause between two requests.
    pub head: Duration,
    /// Without a request under way, the connection is closed after this.
    pub idle: Duration,
    /// The same at the least, where others wait for a place.
    pub crowded: Duration,
    /// After an idle connection was told to close, it is cut.
    pub closing: Duration,
    /// An answer that is not taken by then costs its connection ...
    pub unread: Duration,
    /// ... and by then, where others wait for a place.
    pub unread_crowded: Duration,
    /// Bytes of a request's head. A DPoP proof has at most 4 KiB and a session token 2 KiB.
    pub head_bytes: u32,
    pub headers: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// A silent HTTP/2 peer is asked this often whether it is still there ...
    pub ping: Duration,
    /// ... and has this long to answer.
    pub pong: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            crowded: Duration::from_secs(1),
            closing: Duration::from_secs(5),
            unread: Duration::from_secs(60),
            unread_crowded: Duration::from_secs(15),
            head_bytes: 16 * 1024,
            headers: 64,
            streams: 64,
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(10),
        }
    }
}

/// What goes on around a connection.
#[derive(Clone, Debug)]
pub(super) struct Around {
    pub(super) shutdown: watch::Receiver<bool>,
    pub(super) crowd: Arc<Crowd>,
}

/// Serves requests until the peer is done, the connection was idle too long, an answer was not taken, or a stop was
/// asked for and the answers under way are out.
pub(super) async fn run<S>(
    stream: S,
    peer: PeerAddress,
    router: Router,
    limits: ConnectionLimits,
    Around {
        mut shutdown,
        crowd,
    }: Around,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (activity, unread) = (Arc::new(Activity::new()), Arc::new(Unread::default()));
    let (seen, given) = (Arc::clone(&activity), Arc::clone(&unread));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let under_way = UnderWay::begin(&seen);
        request.extensions_mut().insert(peer);
        let (method, body) = (request.method().clone(), under_way.body());
        match request.body().is_end_stream() {
            true => body.tell(),
            false => drop(request.extensions_mut().insert(body)),
        }
        // A router is always ready; a clone for each request is a pointer.
        let answer = router.clone().call(request);
        let given = Arc::clone(&given);
        async move {
            let answer = answer.await?;
            under_way.answered(&method, answer.status());
            Ok::<_, std::convert::Infallible>(answer.map(|body| given.counted(body)))
        }
    });
    let builder = builder(&limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut shutdown) => None,
        () = unread.older_than(limits.unread) => {
            tracing::debug!(peer = %peer.0, "an answer was not taken in time");
            return;
        }
        crowded = activity.idle_for(limits.idle, limits.crowded, &crowd) => {
            connection.as_mut().graceful_shutdown();
            let longest = if crowded { limits.unread_crowded } else { limits.unread };
            tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = done(&activity, &unread, limits.closing) => None,
                // A peer that keeps an unread answer open would otherwise hold its place for ever ...
                () = unread.older_than(longest) => None,
                // ... and so would one that asks for more, whatever it was told.
                () = tokio::time::sleep(longest + REQUEST_LIMIT) => None,
            }
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        // Cut by dropping it, unless this is a stop: then the drain time is the bound.
        None if *shutdown.borrow() || shutdown.has_changed().is_err() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        None => return,
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.0, error, "connection ended with an error");
    }
}

/// Resolves when a connection that was told to close has done so for some time without anything that is served or taken.
async fn done(activity: &Activity, unread: &Unread, closing: Duration) {
    loop {
        tokio::time::sleep(closing).await;
        if !activity.works() && unread.is_nothing() {
            return;
        }
    }
}

fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.headers)
        .max_buf_size(usize::try_from(limits.head_bytes).unwrap_or(16 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        // Windows bound what a peer can make us buffer: request bodies are 64 KiB at most.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(512 * 1024)
        .max_send_buf_size(128 * 1024)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong);
    builder
}
