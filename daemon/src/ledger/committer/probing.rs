//! A batch about nothing, to find out whether anything is written again.
//!
//! Called by the committer's loop where readiness wants to know and the last batch was not written: no change comes to a node that is
//! not ready. What it writes is a head and its entry in the log, once for each time that the database was mended.

use std::sync::Arc;

use super::{Committer, Failure};
use crate::ledger::LedgerError;
use crate::ledger::anchoring::Demand;
use crate::ledger::writes::Step;

/// No batch has so many entries.
const FAR: u64 = 4096;

impl Committer {
    /// # Errors
    /// `Stopped`, where nobody knows what was written.
    pub(super) async fn probe(&mut self) -> Result<(), LedgerError> {
        let reader = Arc::clone(self.reader());
        reader.writes().is_probed();
        // A change came first.
        if !reader.writes().has_failed() {
            return Ok(());
        }
        match self.write_nothing().await {
            Ok(()) => {
                tracing::info!("batches are written again");
                Ok(())
            }
            Err(failure) if failure.fatal => Err(LedgerError::Stopped),
            Err(failure) => {
                if let LedgerError::Tampered(_) = failure.error {
                    metrics::counter!("custodyd_tampered_total").increment(1);
                }
                tracing::error!(error = %failure.error, "nothing can be written still");
                Ok(())
            }
        }
    }

    async fn write_nothing(&mut self) -> Result<(), Failure> {
        self.turn().await?;
        let (batch, size, _) = self.begin()?;
        // A batch of one entry may find its place free where none of several does.
        let beyond = self.reader.store().leaves(size, FAR).await;
        let beyond = beyond.map_err(LedgerError::from)?.examine().len();
        if beyond > 0 {
            let error = LedgerError::Tampered(format!(
                "{beyond} rows of log_entries stand beyond the end of the log at {size}, where the next ones belong"
            ));
            let error = self.judged(error).await;
            self.reader.writes().end(Step::Commit, Some(&error));
            return Err(error.into());
        }
        self.demand = Demand::default();
        self.commit(batch, (None, None), self.clock.now()).await?;
        self.settled().await
    }
}
