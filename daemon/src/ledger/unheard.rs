//! Tokens of the configuration that the head does not name, and that did not answer when the daemon started.
//!
//! Called by the daemon's own task, over and over, until each has answered once, and before one is taken in. A token that
//! was given up may be away for good, so no start waits for it. But who knows the MAC key of before a rotation, and has the
//! database, can have made the head that leaves it out, because it alone has heard of the newer key. Then that head is served
//! for as long as they keep the token away. Once it is back it is asked what a start would have asked it, and what it says counts as
//! much: the committer ends, and with it the daemon. The next start asks it first, and refuses.
//!
//! It is held against what the start believed, and not against the newest head: a rotation under a forged head would make a
//! key of the same number as the one that the token has heard of.

use custodyd_hsm::Member;

use super::anchoring::mac_keys;
use super::{Ledger, LedgerError, Order};

impl Ledger {
    /// Asks each that is there and was not asked yet; opens none.
    ///
    /// # Errors
    /// As `hear`, but for such as say nothing.
    pub async fn hear_the_unheard(&self) -> Result<(), LedgerError> {
        let set = self.pool().set();
        for member in set.into_iter().flat_map(|set| set.members()) {
            match self.hear(member).await {
                Err(LedgerError::Token(error)) => {
                    tracing::debug!(token = member.name(), %error, "it says nothing still");
                }
                heard => heard?,
            }
        }
        Ok(())
    }

    /// Asks one, if nobody knows what it remembers.
    ///
    /// # Errors
    /// `Token` where it says nothing; `Tampered` where it knows better than the realm that is served, which is served no more
    /// then; `Busy` where that has to be tried again.
    pub(super) async fn hear(&self, member: &Member) -> Result<(), LedgerError> {
        #[cfg(test)]
        if self.store().weakness().older_mac_keys {
            return Ok(());
        }
        if !member.is_unheard() {
            return Ok(());
        }
        match mac_keys::hear(member, self.realm(), self.believed).await {
            Ok(()) => {
                tracing::info!(
                    token = member.name(),
                    "a token outside of the set has answered, and knows nothing that the realm does not"
                );
                Ok(())
            }
            Err(LedgerError::Token(error)) => Err(error.into()),
            Err(why) => {
                tracing::error!(
                    token = member.name(),
                    error = %why,
                    "a token that did not answer when the daemon started knows better than the head that is served"
                );
                self.order(|reply| Order::End { why, reply }).await
            }
        }
    }
}
