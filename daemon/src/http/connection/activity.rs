//! When a connection last had a request that was served: what has none gives up its place after a while, and sooner
//! where others wait for one.
//!
//! What a rate bounds keeps a connection, and nothing else does: neither a request that was refused, nor one whose body does
//! not come, nor a preflight, for which nobody is asked for anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Whether connections are scarce, and how much: the longer somebody waits for a place, the sooner an idle one gives way.
#[derive(Debug, Default)]
pub(in crate::http) struct Crowd {
    told: Notify,
    steps: AtomicU32,
}

/// By each the time is halved that a connection may do nothing.
const STEPS: u32 = 6;

impl Crowd {
    /// There is no place, and somebody may wait for one.
    pub(in crate::http) fn has_no_room(&self) {
        let more = |steps: u32| (steps < STEPS).then_some(steps + 1);
        let _ = self
            .steps
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        self.told.notify_waiters();
    }

    /// There was one at once.
    pub(in crate::http) fn has_room(&self) {
        let fewer = |steps: u32| steps.checked_sub(1);
        let _ = self
            .steps
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
    }

    /// Resolves the next time that somebody waits.
    pub(in crate::http) async fn waits(&self) {
        self.told.notified().await;
    }

    fn patience(&self, idle: Duration, least: Duration) -> Duration {
        let steps = self.steps.load(Ordering::Acquire).min(STEPS);
        (idle / (1 << steps)).max(least)
    }
}

pub(super) struct Activity {
    begun: Instant,
    under_way: AtomicUsize,
    /// Those of `under_way` whose bodies are here.
    working: AtomicUsize,
    /// Milliseconds after `begun` at which the last answer was ready.
    last: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            under_way: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Release);
    }

    /// Whether a request is being served.
    pub(super) fn works(&self) -> bool {
        self.working.load(Ordering::Acquire) > 0
    }

    /// Resolves when nothing has been under way for `bound`, with `false`; or, with `true`, when nothing was served for as long
    /// as the crowd has patience, `least` at the least.
    pub(super) async fn idle_for(&self, bound: Duration, least: Duration, crowd: &Crowd) -> bool {
        loop {
            let last = self.begun + Duration::from_millis(self.last.load(Ordering::Acquire));
            let busy = self.under_way.load(Ordering::Acquire) > 0;
            let end = if busy {
                Instant::now() + bound
            } else {
                last + bound
            };
            if !busy && Instant::now() >= end {
                return false;
            }
            let waits = tokio::select! {
                () = tokio::time::sleep_until(end) => false,
                () = crowd.waits() => true,
            };
            if waits && self.has_done_nothing_for(crowd.patience(bound, least)) {
                return true;
            }
        }
    }

    fn has_done_nothing_for(&self, bound: Duration) -> bool {
        let last = self.begun + Duration::from_millis(self.last.load(Ordering::Acquire));
        !self.works() && last.elapsed() >= bound
    }
}

/// Counts one request while it lives, also when its future is dropped half-way.
pub(super) struct UnderWay {
    body: Arc<Body>,
    served: bool,
}

struct Body {
    of: Arc<Activity>,
    is_here: AtomicBool,
}

impl UnderWay {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.under_way.fetch_add(1, Ordering::AcqRel);
        let body = Body {
            of: Arc::clone(activity),
            is_here: AtomicBool::new(false),
        };
        Self {
            body: Arc::new(body),
            served: false,
        }
    }

    /// For whoever reads the body.
    pub(super) fn body(&self) -> BodyIsHere {
        BodyIsHere(Arc::clone(&self.body))
    }

    pub(super) fn answered(mut self, asked: &Method, status: StatusCode) {
        let refused = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        self.served = !refused && asked != Method::OPTIONS;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let activity = &self.body.of;
        if self.served {
            activity.touch();
        }
        if self.body.is_here.load(Ordering::Acquire) {
            activity.working.fetch_sub(1, Ordering::AcqRel);
        }
        activity.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Goes beside a request whose body is still to come.
#[derive(Clone)]
pub(in crate::http) struct BodyIsHere(Arc<Body>);

impl BodyIsHere {
    /// From now on the request is worked on. Called once, while it is under way.
    pub(in crate::http) fn tell(self) {
        if !self.0.is_here.swap(true, Ordering::AcqRel) {
            self.0.of.working.fetch_add(1, Ordering::AcqRel);
        }
    }
}
