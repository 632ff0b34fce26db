//! Giving the committer an order, and waiting for its answer.
//!
//! Called by what changes keys, tokens or the keys that records are under. An order whose answer was lost may have
//! been carried out: whoever gave it looks at what the head says then.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Ledger, LedgerError, Order, Request, shared};

impl Ledger {
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
