//! What becomes of an account that a restore has put back to what it was earlier.
//!
//! Called by the ledger whenever it reads an envelope. What happened to the account after the
//! state that was adopted is not known any more, and an administrator may have brought the restore
//! about to have it forgotten: guesses, codes that were used, a device or a contact that was
//! removed. So nothing that can be used up counts as unused: guesses are what the approvers of the
//! restore left, codes are void, waiting changes are cancelled. And until its owner has shown who
//! they are by the strongest factor that the account has, no weaker one opens it
//! (`service::quarantine`).

use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use super::Account;

/// The history that the realm is in, and how it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Raised by each restore.
    pub log_epoch: u64,
    /// The restore that began it; the first history began with nothing.
    pub restored: Option<Restored>,
}

/// What a restore left to every account of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    pub at: Timestamp,
    /// Guesses at each factor, until its owner has shown who they are.
    pub guesses_left: u32,
    /// The boot epoch it was accepted in: what may have been forgotten before is covered by it.
    pub boot_epoch: u64,
}

impl Account {
    /// Brings the account up to the history and the boot epoch that this daemon serves in. Guesses
    /// that were forgotten since the restore count against what it left; those of before do not.
    pub fn catch_up(&mut self, history: History, boot_epoch: u64, now: Timestamp) {
        if let Some(restored) = history.restored {
            self.charge_forgotten(restored.boot_epoch.min(boot_epoch), now);
        }
        self.put_back(history);
        self.charge_forgotten(boot_epoch, now);
    }

    /// Brings the account up to this history. Says whether anything has changed.
    fn put_back(&mut self, history: History) -> bool {
        let Some(restored) = history
            .restored
            .filter(|_| self.log_epoch < history.log_epoch)
        else {
            return false;
        };
        for budget in self.budgets() {
            budget.leave_at_most(restored.guesses_left);
        }
        for contact in &mut self.contacts.list {
            contact.codes.void();
        }
        if let Some(totp) = &mut self.totp {
            totp.record.use_up_to(restored.at);
        }
        self.pending_totp = None;
        self.recovery_codes = None;
        self.recoveries.clear();
        self.quarantined = true;
        self.log_epoch = history.log_epoch;
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use custodyd_hsm::{AccountId, AppId, RealmName, SecretBytes};
    use custodyd_policies::{Round, Rounds};

    use super::*;

    fn fresh() -> Account {
        let realm = RealmName::parse("realm.example").unwrap();
        let app = AppId::parse("notes").unwrap();
        let key = SecretBytes::from(vec![7; 32]);
        let mut account = Account::new(realm, app, AccountId([1; 16]), Timestamp(1000), key);
        account.log_epoch = 1;
        account
    }

    #[test]
    fn an_account_is_put_back_once_for_each_restore() {
        let mut account = fresh();
        let ten = Round {
            attempts: 10,
            wait: std::time::Duration::ZERO,
        };
        let rounds = Rounds::new(vec![ten]).unwrap();
        let left = |account: &Account, now| {
            let standing = account.contacts.guesses.standing(&rounds, now);
            standing.total_left
        };
        let history = |log_epoch| History {
            log_epoch,
            restored: Some(Restored {
                at: Timestamp(2000),
                guesses_left: 3,
                boot_epoch: 4,
            }),
        };
        assert!(!account.put_back(history(1)));
        assert!(!account.quarantined);
        assert!(account.put_back(history(2)));
        assert!(account.quarantined);
        account.quarantined = false;
        assert!(!account.put_back(history(2)));
        assert!(!account.quarantined, "its owner has confirmed it");
        assert!(account.put_back(history(3)));
        assert!(account.quarantined);

        // What was forgotten before a restore is covered by it, and what is forgotten after it
        // is not won back.
        let now = Timestamp(9000);
        let mut account = fresh();
        account.catch_up(history(4), 4, now);
        assert_eq!(left(&account, now), 3);
        account.catch_up(history(4), 6, now);
        assert_eq!(left(&account, now), 1);
    }
}
