//! One connection: HTTP/1.1 or HTTP/2, its bounds, and its two ways to end.
//!
//! Called by `server` only. The peer controls every byte and its pace. Requests go to the
//! router; this file watches that a connection with nothing to do does not stay for
//! ever, and that a stop lets answers under way finish.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::Service;

use super::server::{PeerAddress, stopped};

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// For the head of a request, and on HTTP/1.1 for the pause between two requests.
    pub head: Duration,
    /// Without a request under way, the connection is closed after this.
    pub idle: Duration,
    /// After an idle connection was told to close, it is cut.
    pub closing: Duration,
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
            closing: Duration::from_secs(5),
            head_bytes: 16 * 1024,
            headers: 64,
            streams: 64,
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(10),
        }
    }
}

/// Serves requests until the peer is done, the connection was idle too long, or a stop was
/// asked for and the answers under way are out.
pub(super) async fn run<S>(
    stream: S,
    peer: PeerAddress,
    router: Router,
    limits: ConnectionLimits,
    mut shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let seen = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let under_way = UnderWay::begin(&seen);
        request.extensions_mut().insert(peer);
        // A router is always ready; a clone for each request is a pointer.
        let answer = router.clone().call(request);
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    });
    let builder = builder(&limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut shutdown) => None,
        () = activity.idle_for(limits.idle) => {
            connection.as_mut().graceful_shutdown();
            // A peer that keeps an unread answer open would otherwise hold its place for ever.
            tokio::time::timeout(limits.closing, connection.as_mut()).await.ok()
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

/// When a connection last had a request under way.
struct Activity {
    begun: Instant,
    under_way: AtomicUsize,
    /// Milliseconds after `begun` at which the last answer was ready.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            under_way: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Release);
    }

    /// Resolves when nothing has been under way for `bound`.
    async fn idle_for(&self, bound: Duration) {
        loop {
            let last = self.begun + Duration::from_millis(self.last.load(Ordering::Acquire));
            let busy = self.under_way.load(Ordering::Acquire) > 0;
            let end = if busy {
                Instant::now() + bound
            } else {
                last + bound
            };
            if !busy && Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// Counts one request while it lives, also when its future is dropped half-way.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}
