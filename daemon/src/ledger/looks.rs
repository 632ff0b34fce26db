//! Looks at the head's row, for readers beside other nodes: one at a time, and one for all who ask at once.
//!
//! Asked by `record` before it reads an account for anybody. What is looked at has to be of after the question: who comes
//! while a look is under way shares the next one with all who came meanwhile. So a flood of readers has one connection for
//! it, which none of them holds for anything else, and waits for two answers at the most.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::store::{Asker, HeadRow, Store};

/// How long one waits for its answer: everybody waits with it, and a connection may have fallen silent.
const ANSWER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Looks {
    begun: AtomicU64,
    /// Held by who looks.
    last: Mutex<Look>,
}

#[derive(Debug, Default)]
struct Look {
    number: u64,
    /// The connections that there had been when it was over.
    readers: u64,
    shown: Option<Arc<HeadRow>>,
}

impl Looks {
    /// What the database shows after this call. Nothing where it does not answer, has no head, or may be another one than
    /// has answered the look before: a standby that was promoted, and lacks what another node has told of.
    pub(super) async fn look(&self, store: &dyn Store) -> Option<Arc<HeadRow>> {
        let asked = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if last.number > asked {
            return last.shown.clone();
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        // Nothing is kept of a look that is given up here: the next one looks.
        let row = match timeout(ANSWER, Asker::Look.during(store.head())).await {
            Ok(Ok(row)) => row.examine(),
            Ok(Err(_)) | Err(_) => None,
        };
        let readers = store.readers();
        let same = last.readers == readers;
        let shown = row.filter(|_| same).map(Arc::new);
        *last = Look {
            number,
            readers,
            shown,
        };
        last.shown.clone()
    }
}

#[cfg(test)]
impl Looks {
    /// How often somebody has looked.
    pub(super) fn many(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }
}
