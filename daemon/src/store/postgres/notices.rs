//! What the server says beside the answer to a COMMIT.
//!
//! Called by the writer for every COMMIT. A server that waits for its standby and is told to stop waiting has committed
//! already: it answers as always, and warns before that the standby may lack the commit. What was answered upon
//! it would be gone with the primary. sqlx tells nobody of warnings but the log, so we are the log while it waits
//! for this one answer, with a subscriber that is never the process's. That warning has no code of its own, and its
//! text is in the server's language; nothing else warns at our COMMIT, since neither triggers nor
//! deferred constraints are let into our tables. So each warning counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::instrument::WithSubscriber as _;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// Where sqlx writes what a server notes.
const TARGET: &str = "sqlx::postgres::notice";

#[derive(Debug)]
pub(super) struct Notices {
    warned: Arc<AtomicBool>,
    listening: Dispatch,
}

impl Notices {
    pub(super) fn listen() -> Self {
        let warned = Arc::<AtomicBool>::default();
        let listening = Dispatch::new(Listener(Arc::clone(&warned)));
        Self { warned, listening }
    }

    /// The answer, where no warning came with it.
    ///
    /// # Errors
    /// The answer's, and one for a warning: nobody knows then what the answer is worth.
    pub(super) async fn unwarned(
        &self,
        answer: impl Future<Output = Result<(), sqlx::Error>>,
    ) -> Result<(), sqlx::Error> {
        self.warned.store(false, Ordering::SeqCst);
        answer.with_subscriber(self.listening.clone()).await?;
        if !self.warned.load(Ordering::SeqCst) {
            return Ok(());
        }
        tracing::warn!(
            "the server answered a commit with a warning, as it does where it was told to stop waiting for its standby: \
             the commit counts once another one upon it is answered without"
        );
        let problem = "the server warned as it committed: its standby may lack the commit";
        Err(sqlx::Error::Protocol(problem.into()))
    }
}

/// Hears of warnings and worse, and of nothing else.
struct Listener(Arc<AtomicBool>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, _: &Event<'_>) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // None is enabled; an identifier may not be zero.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
