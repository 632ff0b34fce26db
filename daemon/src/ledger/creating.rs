//! Making accounts: where a new one stands, and where nothing may.
//!
//! An account has one record, whichever MAC key made its identifier, and what a request brings is good for one account,
//! whichever key made that one's. So a creation names every record that must be absent, and the committer looks at them all, in
//! verified lists, in the commit that makes it, and which refuses it where the current key is another one by then. Called by
//! `service/enrol.rs`.

use custodyd_hsm::{AccountId, AppId, RecordId, RecordKind, mac};

use super::record::{Loaded, Reader};
use super::{Base, Journal, Ledger, LedgerError, Moment};
use crate::account::Account;

/// Where an account is to be made.
pub(crate) struct Nowhere {
    pub(super) mac_key: u16,
    pub(super) record: RecordId,
    /// Where it, or the same one by another identifier, could stand already: under other MAC keys. Those are all while the
    /// current one is the same.
    pub(super) elsewhere: Vec<RecordId>,
}

impl Nowhere {
    /// Every record that must be absent.
    pub(super) fn all(&self) -> impl Iterator<Item = &RecordId> {
        std::iter::once(&self.record).chain(&self.elsewhere)
    }
}

impl Reader {
    /// The identifiers that these accounts' records can have: under each MAC key that is accepted, the current one
    /// first, in the order of the accounts.
    pub(super) async fn account_records(
        &self,
        app: &AppId,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<(u16, Vec<RecordId>)>, LedgerError> {
        let (realm, app) = (self.realm().clone(), app.clone());
        let ids = self.pool().call("record-id", move |custody| {
            let mut all = Vec::new();
            for key in mac::accepted(custody)? {
                let mut ids = Vec::with_capacity(accounts.len());
                for account in &accounts {
                    let (kind, natural) = (RecordKind::Account, account.as_bytes());
                    let id = mac::record_id_under(custody, key, &realm, &app, kind, natural)?;
                    ids.push(id);
                }
                all.push((key.version, ids));
            }
            Ok(all)
        });
        Ok(ids.await?)
    }

    /// The identifier that a new account's record would have.
    #[cfg(test)]
    pub(super) async fn record_id(
        &self,
        app: &AppId,
        account: AccountId,
    ) -> Result<RecordId, LedgerError> {
        let ids = self.account_records(app, vec![account]).await?;
        let current = ids.first().and_then(|(_, ids)| ids.first().copied());
        current.ok_or(LedgerError::internal("name a record"))
    }
}

impl Ledger {
    /// Makes a new account, whose identifier may come from what a request brings, and would be one of `others` under another
    /// MAC key; `LedgerError::Exists` if there is one by any of them, or was.
    ///
    /// # Errors
    /// As `commit`; `Stale` where the MAC key was rotated meanwhile.
    pub async fn create<T, E>(
        &self,
        mut account: Account,
        others: &[AccountId],
        decide: impl FnOnce(&mut Account, Moment, &mut Journal) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Loaded), E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        let absent = self.nowhere(&account, others).await?;
        account.mac_key = absent.mac_key;
        self.submit(Base::Absent(absent, Box::new(account)), None, decide)
            .await?
    }

    /// Where a new account would stand, and where nothing may.
    async fn nowhere(
        &self,
        account: &Account,
        others: &[AccountId],
    ) -> Result<Nowhere, LedgerError> {
        let accounts = std::iter::once(account.id).chain(others.iter().copied());
        let found = self
            .reader
            .account_records(&account.app, accounts.collect());
        let found = found.await?;
        let unnamed = || LedgerError::internal("name a record");
        let (mac_key, of_current) = found.first().ok_or_else(unnamed)?;
        let record = *of_current.first().ok_or_else(unnamed)?;
        let all = found.iter().flat_map(|(_, ids)| ids.iter().copied());
        Ok(Nowhere {
            mac_key: *mac_key,
            record,
            elsewhere: all.filter(|id| *id != record).collect(),
        })
    }
}
