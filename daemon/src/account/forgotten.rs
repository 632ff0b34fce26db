//! What an account is charged for after a start at which its last guesses may have been forgotten.
//!
//! Called by the ledger whenever it reads an envelope. Only bounded anchoring can forget: the
//! host lost its power, and an administrator put the database back to the last anchor in the
//! token. At most one charge of each account was not covered by it (`ledger::anchoring`), so
//! each such start costs every budget one attempt, whether it was used or not. Codes that were
//! sent before are void, because their being used up may have been forgotten, too.

use custodyd_policies::{Budget, Timestamp};

use super::Account;

/// Charges of one account that may stand between two anchors in the token.
const UNANCHORED_CHARGES: u32 = 1;

impl Account {
    /// Brings the account up to this boot epoch. Says whether anything has changed.
    pub(super) fn charge_forgotten(&mut self, boot_epoch: u64, now: Timestamp) -> bool {
        let missed = boot_epoch.saturating_sub(self.boot_epoch);
        if missed == 0 {
            return false;
        }
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        let attempts = missed.saturating_mul(UNANCHORED_CHARGES);
        for budget in self.budgets() {
            budget.forgotten(attempts, now);
        }
        for contact in &mut self.contacts.list {
            contact.codes.void();
        }
        self.boot_epoch = boot_epoch;
        true
    }

    /// Everything that can be guessed.
    pub(super) fn budgets(&mut self) -> Vec<&mut Budget> {
        let mut budgets = vec![&mut self.contacts.guesses];
        budgets.extend(self.contacts.list.iter_mut().map(|c| &mut c.guesses));
        if let Some(pin) = &mut self.pin {
            budgets.extend([&mut pin.budget, &mut pin.strangers, &mut pin.after_code]);
        }
        budgets.extend(self.totp.as_mut().map(|totp| &mut totp.budget));
        budgets.extend(self.pending_totp.as_mut().map(|totp| &mut totp.budget));
        budgets.extend(self.recovery_codes.as_mut().map(|codes| &mut codes.budget));
        budgets
    }
}
