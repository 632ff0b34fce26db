//! Answers that a client has asked for and does not take.
//!
//! A client decides by its window how much of an answer leaves (RFC 9113, section 5.2), and what does not leave lies in
//! memory. So each part of an answer counts from when it was given until nothing of it is held any more, and one that is
//! too old costs its connection. Whoever resets such a stream has given it up.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct Unread(Mutex<Given>);

#[derive(Default)]
struct Given {
    next: u64,
    /// Since when each part is held, in the order in which they were given.
    parts: BTreeMap<u64, Instant>,
}

impl Unread {
    /// The body, each part of it counted from when it is asked for.
    pub(super) fn counted(self: &Arc<Self>, body: Body) -> Counted {
        Counted {
            body,
            of: Arc::clone(self),
        }
    }

    fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let mut given = self.locked();
        let number = given.next;
        given.next = number.wrapping_add(1);
        given.parts.insert(number, Instant::now());
        drop(given);
        Bytes::from_owner(Part {
            bytes,
            number,
            of: Arc::clone(self),
        })
    }

    /// Whether everything was taken that was asked for.
    pub(super) fn is_nothing(&self) -> bool {
        self.locked().parts.is_empty()
    }

    /// Resolves when a part has been held for `bound`.
    pub(super) async fn older_than(&self, bound: Duration) {
        loop {
            let oldest = self.locked().parts.values().next().copied();
            let end = oldest.unwrap_or_else(Instant::now) + bound;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// Whole at every moment, whatever panicked elsewhere.
    fn locked(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Part {
    bytes: Bytes,
    number: u64,
    of: Arc<Unread>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.locked().parts.remove(&self.number);
    }
}

/// As `http_body_util` maps frames, with the length that the body has told.
pub(super) struct Counted {
    body: Body,
    of: Arc<Unread>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, of } = self.get_mut();
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        let held = |frame: Frame<Bytes>| frame.map_data(|bytes| of.hold(bytes));
        Poll::Ready(frame.map(|frame| frame.map(held)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
