//! Whether this daemon is still the one that goes on with the realm, by the word of its tokens.
//!
//! Called by the committer's loop when a reader wants to know, and before anything is told that was anchored on this host
//! alone. Somebody else's anchor is the end of this daemon: whatever the database says of locks, another one serves.

use std::sync::Arc;

use super::Committer;
use crate::ledger::LedgerError;
use crate::ledger::anchoring::Lost;

impl Committer {
    /// Answers the readers.
    ///
    /// # Errors
    /// `Stopped` where a token remembers what another daemon has anchored.
    pub(super) async fn confirm(&mut self) -> Result<(), LedgerError> {
        let reader = Arc::clone(&self.reader);
        if reader.store().is_shared() {
            return self.confirm_among().await;
        }
        if reader.freshness().holds() {
            return Ok(());
        }
        // What waits to be anchored is the better question; under bounded anchoring it is not asked.
        let pending = match reader.memory().pending() {
            Some(_) => self.anchor_pending().await,
            None => Ok(()),
        };
        let confirmed = match pending {
            Ok(()) => match self.look().await {
                Ok(lost) if lost.is_empty() => Ok(()),
                Ok(lost) => self.expel(lost).await.map_err(|failure| failure.error),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.tell_readers(confirmed)
    }

    /// That it is not known whether this is the newest state; that it is, they have been told.
    pub(super) fn tell_readers(
        &self,
        confirmed: Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        match confirmed {
            Ok(()) => Ok(()),
            Err(LedgerError::Stopped) => Err(LedgerError::Stopped),
            Err(error) => {
                tracing::warn!(%error, "nobody can say whether this is the newest state, so nothing is read for anybody");
                self.reader.freshness().fails(&error);
                Ok(())
            }
        }
    }

    /// Asks every token whether it remembers what this daemon has anchored last, where that is not known. Says which
    /// do not.
    ///
    /// # Errors
    /// `Stopped` as above; `Token` and `Refused` where none does.
    pub(super) async fn look(&mut self) -> Result<Vec<Lost>, LedgerError> {
        if self.reader.freshness().holds() {
            return Ok(Vec::new());
        }
        let begun = self.reader.freshness().now();
        let lost = self.anchoring.look_at_all().await?;
        if lost.is_empty() {
            self.reader.freshness().confirm(begun);
        }
        Ok(lost)
    }
}
