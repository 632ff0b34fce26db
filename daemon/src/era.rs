//! Which history of the realm this process is in.
//!
//! Said by the ledger when it is opened, used by what seals tokens that clients carry. Fixed while
//! a daemon serves: a token that was sealed in another era is dead.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Era {
    /// Raised by a restore.
    pub log_epoch: u64,
    /// Raised by a start after which something that was used up may have been forgotten. Sessions
    /// outlive it, ceremonies do not.
    pub boot_epoch: u64,
}
