//! What witnesses need of the log: proofs between two of its checkpoints, and whether one that was
//! cosigned earlier is still an earlier state of it.
//!
//! Called by `witness`. Signs nothing but checkpoints of heads that the token has anchored, and the
//! one of the empty log, which says nothing.

use custodyd_hsm::{Pool, RealmName};

use super::checkpoint;
use super::tree::Digest;
use super::{Checkpoint, Ledger, LedgerError};

/// The checkpoint of a realm's log before its first entry, signed: with it a witness can be asked
/// how much of the log it knows, and learns nothing.
///
/// # Errors
/// `Token` where it does not sign.
pub(crate) async fn empty_checkpoint(
    pool: &Pool,
    realm: &RealmName,
    log_epoch: u64,
) -> Result<String, LedgerError> {
    checkpoint::empty(pool, realm, log_epoch).await
}

/// The first line of the checkpoints of a realm's log.
pub(crate) fn origin(realm: &RealmName, log_epoch: u64) -> String {
    checkpoint::origin(realm, log_epoch)
}

impl Ledger {
    /// The first line of this log's checkpoints.
    #[must_use]
    pub fn origin(&self) -> String {
        checkpoint::origin(self.realm(), self.era().log_epoch)
    }

    /// The proof that a checkpoint's log continues its first `size` entries (RFC 6962, section
    /// 2.1.2); empty for none and for all of them.
    ///
    /// # Errors
    /// `Tampered` where a tile was altered, `Store`.
    pub async fn continuation(
        &self,
        checkpoint: &Checkpoint,
        size: u64,
    ) -> Result<Vec<Digest>, LedgerError> {
        if size == 0 || size == checkpoint.size() {
            return Ok(Vec::new());
        }
        self.prover(checkpoint).consistency(size).await
    }

    /// Whether this log had that root when it had so many entries.
    ///
    /// # Errors
    /// As `continuation`; also where the token does not sign.
    pub async fn had(&self, size: u64, root: &Digest) -> Result<bool, LedgerError> {
        let newest = self.checkpoint().await?;
        if size > newest.size() {
            return Ok(false);
        }
        if size == 0 {
            return Ok(true);
        }
        Ok(self.prover(&newest).root_at(size).await? == *root)
    }
}
