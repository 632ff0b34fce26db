//! Giving the committer an order, and waiting for its answer.
//!
//! Called by what changes keys, tokens or the keys that records are under, and by readiness. An order whose answer was lost may have
//! been carried out: whoever gave it looks at what the head says then.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Ledger, LedgerError, Order, Request, shared};

impl Ledger {
    /// Whether changes are written, by how the last ones ended; for readiness. Waits for nobody: where the last one failed, what
    /// is found out now is told the next time.
    ///
    /// # Errors
    /// `Refused` with the reason.
    pub fn can_write(&self) -> Result<(), LedgerError> {
        let writes = self.reader.writes();
        if writes.wants_probe() && self.send(Request::Order(Order::Probe)).is_err() {
            // What fills the queue finds out as well.
            writes.is_probed();
        }
        writes
            .trouble()
            .map_or(Ok(()), |why| Err(LedgerError::Refused(why)))
    }

    /// # Errors
    /// `Stopped` where the committer has ended; else why it was not carried out.
    pub(super) async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Arc<LedgerError>>>) -> Order,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Order(order(reply)))?;
        answer
            .await
            .map_err(|_| LedgerError::Stopped)?
            .map_err(shared)
    }
}
