//! For whom the token works: the lane in which a call waits its turn.
//!
//! Named by whoever begins a piece of work (the daemon's door for a request, its start-up for the
//! committer) and read by the pool when a call comes, from beside the task and not through every
//! signature: so a new call is in the right lane without a word. A lane says who waits for whom and
//! nothing else. Nothing may be *allowed* because of it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::id::AppId;

tokio::task_local! {
    static LANE: Lane;
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The one committer's, for which everybody waits, and what a guess needs between its charge and its outcome. It
    /// goes first, and has room that nobody else can take.
    First,
    /// A request's, by its app.
    Of(u64),
    /// Nobody waits for it, or it is nobody's in particular.
    Behind,
}

impl Lane {
    /// The lane of an app. Apps come from policy files: there are few, and no stranger chooses their names.
    #[must_use]
    pub fn of(app: &AppId) -> Self {
        let mut hasher = DefaultHasher::new();
        app.hash(&mut hasher);
        Self::Of(hasher.finish())
    }

    /// Runs some work in this lane.
    pub async fn during<T>(self, work: impl Future<Output = T>) -> T {
        LANE.scope(self, work).await
    }

    /// The lane of the task that asks; `Behind` where nobody has said anything, as in a thread.
    #[must_use]
    pub fn current() -> Self {
        LANE.try_with(|lane| *lane).unwrap_or(Self::Behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_in_the_lane_that_it_was_begun_in() {
        let app = |name| Lane::of(&AppId::parse(name).unwrap());
        assert_eq!(Lane::current(), Lane::Behind);
        let inside = app("notes").during(async { Lane::current() }).await;
        assert_eq!(inside, app("notes"));
        assert_ne!(inside, app("wallet"));
        // What a task starts is nobody's, unless it says so.
        let started = app("notes").during(async {
            let task = tokio::spawn(async { Lane::current() });
            task.await.unwrap()
        });
        assert_eq!(started.await, Lane::Behind);
    }
}
