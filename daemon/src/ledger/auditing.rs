//! The log as auditors read it: a checkpoint, and tiles and entries below it.
//!
//! Called by `service::auditors`. Nothing of an entry is about a person in clear, so this gives
//! out the log as it is. What the newest checkpoint does not cover is not there yet.

use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::log::TileReader;
use super::{Ledger, LedgerError};

impl Ledger {
    /// A checkpoint of the newest head that is anchored in the token. Who has seen one at another node sees none that is
    /// smaller.
    ///
    /// # Errors
    /// `Token` where it does not sign; as `load` where another node has written; `Late` where an own batch is not anchored in time.
    pub async fn checkpoint(&self) -> Result<Arc<Checkpoint>, LedgerError> {
        let reader = &self.reader;
        reader.has_the_whole_log().await?;
        reader
            .checkpoints()
            .newest(reader.memory(), reader.pool())
            .await
    }

    /// The first `width` hashes of a tile, if the newest checkpoint covers them.
    ///
    /// # Errors
    /// `Tampered` where the database shows another tile than the checkpoint's root names.
    pub async fn tile(
        &self,
        level: u8,
        index: u64,
        width: usize,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        let checkpoint = self.published().await?;
        let part = self.tiles(&checkpoint).tile(level, index, width).await?;
        match self.beyond(&checkpoint, part.is_none()).await? {
            Some(newer) => self.tiles(&newer).tile(level, index, width).await,
            None => Ok(part),
        }
    }

    /// The first `width` entries of a bundle, if the newest checkpoint covers them.
    ///
    /// # Errors
    /// `Tampered` where an entry or its tile is not the one that the checkpoint's root names.
    pub async fn entries(&self, index: u64, width: usize) -> Result<Option<Vec<u8>>, LedgerError> {
        let checkpoint = self.published().await?;
        let part = self.tiles(&checkpoint).entries(index, width).await?;
        match self.beyond(&checkpoint, part.is_none()).await? {
            Some(newer) => self.tiles(&newer).entries(index, width).await,
            None => Ok(part),
        }
    }

    /// A newer checkpoint, for a part that this one does not cover: among nodes another one may have signed it, and told
    /// whoever asks.
    async fn beyond(
        &self,
        checkpoint: &Checkpoint,
        missing: bool,
    ) -> Result<Option<Arc<Checkpoint>>, LedgerError> {
        if !missing || !self.store().is_shared() {
            return Ok(None);
        }
        let newest = self.checkpoint().await?;
        Ok(Some(newest).filter(|newest| newest.size() > checkpoint.size()))
    }

    async fn published(&self) -> Result<Arc<Checkpoint>, LedgerError> {
        let reader = &self.reader;
        reader
            .checkpoints()
            .published(reader.memory(), reader.pool())
            .await
    }

    fn tiles<'a>(&'a self, checkpoint: &'a Checkpoint) -> TileReader<'a> {
        TileReader {
            store: self.store(),
            end: &checkpoint.end,
        }
    }
}
