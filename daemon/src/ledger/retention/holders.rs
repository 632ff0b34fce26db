//! How many accounts hold something, counted part by part.
//!
//! Called by `service/server_slots.rs`, for an operator who waits until none does. Records do not say in clear whose they
//! are, so each account is opened, as retention's pass does it. It writes nothing. Must never tell which ones.

use custodyd_hsm::AppId;

use super::super::{Ledger, LedgerError};
use super::pass::{Pass, SLICE, SLICES};
use crate::account::Account;

/// All accounts are in so many parts, of about the same size.
pub const PARTS: u32 = SLICES;

/// What was found of one app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub accounts: u64,
    /// Those of them that hold it.
    pub holding: u64,
}

impl Ledger {
    /// Counts the accounts of these apps in one of the `PARTS`, in the order of `apps`; and how many rows there no one of
    /// them opens, or do not verify.
    ///
    /// # Errors
    /// Token or store unavailable.
    pub async fn count_in(
        &self,
        part: u32,
        apps: &[AppId],
        holds: impl Fn(&Account) -> bool,
    ) -> Result<(Vec<Counted>, u64), LedgerError> {
        let mut pass = Pass::default();
        let mut counted = vec![Counted::default(); apps.len()];
        let mut apps: Vec<(AppId, usize)> = (apps.iter().cloned()).zip(0..).collect();
        let start = (part % PARTS) * SLICE;
        for record in self.accounts_in(start..start + SLICE, &mut pass).await? {
            let (loaded, at) = match self.reader.open_as(&apps, record, &mut pass).await {
                Ok(Some(opened)) => opened,
                Ok(None) | Err(LedgerError::Stale | LedgerError::Erased) => continue,
                Err(LedgerError::Tampered(what)) => {
                    tracing::error!(what, "an account could not be counted");
                    pass.damaged += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Most accounts belong to one app: it is tried first.
            apps.swap(0, at);
            let place = apps.first().and_then(|(_, place)| counted.get_mut(*place));
            if let Some(count) = place {
                count.accounts += 1;
                count.holding += u64::from(holds(&loaded.account));
            }
        }
        Ok((counted, pass.unopened + pass.damaged))
    }
}
