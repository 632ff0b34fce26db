//! One pass over all accounts, to take what has ended from each.
//!
//! Called by the daemon's background task. Records do not say in clear whose they are, so the
//! pass goes by the buckets' member lists and tries the served apps on each account. It reaches
//! those, too, that nobody uses any more: retention on the occasion of other changes would leave
//! a dormant account's traces for ever. Must never trust a list or a row more than a request does,
//! nor delete anything by the realm's time, which one wrong clock can have put years ahead.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use custodyd_hsm::{AppId, RecordId, RecordKind};
use custodyd_policies::{Retention, Timestamp, event_ends, is_inactive};

use super::super::record::{Loaded, Reader};
use super::super::{BUCKET_BITS, Ledger, LedgerError};
use super::leisure::{CLOCK, Leisure, Patience};
use crate::account::Account;

/// Buckets whose lists are read at once.
pub(super) const SLICE: u32 = 256;
pub(super) const SLICES: u32 = (1 << BUCKET_BITS) / SLICE;

/// What a pass has found and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Accounts that were opened.
    pub accounts: u64,
    /// Event bodies that went.
    pub bodies: u64,
    /// Accounts that went because nobody has used them for long enough.
    pub erased: u64,
    /// Accounts that no served app opens: those of a retired app, or damaged ones.
    pub unopened: u64,
    /// Lists, rows and trails that do not verify. What they should hold stays as it is.
    pub damaged: u64,
    /// Accounts and slices that the pass has left, because something was away for too long, or for another reason that it
    /// names in the log. The next one comes by again.
    pub left: u64,
}

impl Ledger {
    /// Goes over all accounts once, one after another and at `leisure`, and takes the
    /// event bodies that have ended by the policy of their app; erases the accounts that nobody has
    /// used for as long as it says, and tells `erased` of each. `apps` is asked for each slice of
    /// the accounts; `first` says with which of them to begin. Where token, store or committer are
    /// away, it waits where it is.
    ///
    /// # Errors
    /// `Stopped`: nothing is written any more.
    pub async fn retire_all(
        &self,
        first: u32,
        leisure: Leisure,
        apps: impl Fn() -> Vec<(AppId, Retention)>,
        erased: impl Fn(&Loaded),
    ) -> Result<Pass, LedgerError> {
        let mut pass = Pass::default();
        for nth in 0..SLICES {
            let start = (first.wrapping_add(nth) % SLICES) * SLICE;
            let records = self.slice(start..start + SLICE, &mut pass).await?;
            let mut apps = apps();
            for record in &records {
                let began = Instant::now();
                self.visit(&mut apps, *record, &mut pass, &erased).await?;
                let pause = leisure.pause(records.len(), began.elapsed());
                tokio::time::sleep(pause).await;
            }
        }
        Ok(pass)
    }

    async fn slice(
        &self,
        buckets: Range<u32>,
        pass: &mut Pass,
    ) -> Result<Vec<RecordId>, LedgerError> {
        let mut patience = Patience::default();
        loop {
            match self.accounts_in(buckets.clone(), pass).await {
                Err(error) if patience.waits_for(&error).await => {}
                Err(error) => return left(error, pass).map(|()| Vec::new()),
                found => return found,
            }
        }
    }

    /// One account, until it is done or there is no sense in waiting.
    async fn visit(
        &self,
        apps: &mut [(AppId, Retention)],
        record: RecordId,
        pass: &mut Pass,
        erased: impl Fn(&Loaded),
    ) -> Result<(), LedgerError> {
        let (mut patience, before) = (Patience::default(), *pass);
        loop {
            match self.retire_one(apps, record, pass, &erased).await {
                Ok(()) => return Ok(()),
                // Something happened to it meanwhile: the next pass comes by again.
                Err(LedgerError::Stale | LedgerError::Erased) => return Ok(()),
                Err(LedgerError::Tampered(what)) => {
                    tracing::error!(what, "retention leaves an account alone");
                    metrics::counter!("custodyd_tampered_total").increment(1);
                    pass.damaged += 1;
                    return Ok(());
                }
                Err(error) if patience.waits_for(&error).await => *pass = before,
                Err(error) => return left(error, pass),
            }
        }
    }

    async fn retire_one(
        &self,
        apps: &mut [(AppId, Retention)],
        record: RecordId,
        pass: &mut Pass,
        erased: impl Fn(&Loaded),
    ) -> Result<(), LedgerError> {
        let Some((loaded, at)) = self.reader.open_as(apps, record, pass).await? else {
            return Ok(());
        };
        pass.accounts += 1;
        // Most accounts belong to one app: it is tried first.
        apps.swap(0, at);
        let Some((_, policy)) = apps.first() else {
            return Ok(());
        };
        let now = self.for_good().await;
        let unused = move |account: &Account, policy: &Retention| {
            let last = account.trail.last_at;
            last.is_some_and(|last| is_inactive(policy, last, now))
        };
        if unused(&loaded.account, policy) {
            let policy = policy.clone();
            // Decided once more on the newest state: a use in between keeps the account.
            let last = self.erase(loaded, move |account, _| match unused(account, &policy) {
                true => Ok(()),
                false => Err(LedgerError::Stale),
            });
            erased(&last.await?);
            pass.erased += 1;
            return Ok(());
        }
        let bodies = self
            .retire(loaded, |at| event_ends(policy, at, now))
            .await?;
        pass.bodies += bodies;
        metrics::counter!("custodyd_event_bodies_deleted_total").increment(bodies);
        Ok(())
    }

    /// The time by which something may go; waits for as long as the host's clock is not believed.
    async fn for_good(&self) -> Timestamp {
        #[cfg(test)]
        if self.reader.store().weakness().realm_time {
            return self.now();
        }
        let mut told = false;
        loop {
            if let Some(now) = self.clock().for_good() {
                return now;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::error!(
                    realm = self.now().0,
                    "the host's clock was never set, or was set forward by more than a day since this daemon was started: until \
                     it is right again, or the daemon is started anew with a clock that is right, retention deletes nothing"
                );
            }
            tokio::time::sleep(CLOCK).await;
        }
    }

    /// The accounts of some buckets, as their newest member lists name them.
    pub(super) async fn accounts_in(
        &self,
        buckets: Range<u32>,
        pass: &mut Pass,
    ) -> Result<Vec<RecordId>, LedgerError> {
        let (mut from, mut accounts) = (buckets.start, Vec::new());
        while from < buckets.end {
            let newest = match self.reader.newest_lists(from, buckets.end).await {
                Err(LedgerError::Tampered(what)) => {
                    tracing::error!(what, "retention leaves some buckets alone");
                    metrics::counter!("custodyd_tampered_total").increment(1);
                    pass.damaged += 1;
                    break;
                }
                newest => newest?,
            };
            pass.damaged += newest.damaged;
            for (_, list) in &newest.lists {
                accounts.extend(list.ids_of(RecordKind::Account));
            }
            from = newest.upto;
        }
        Ok(accounts)
    }
}

/// What one account can not be given is that one's alone; a committer that has stopped is everybody's.
fn left(error: LedgerError, pass: &mut Pass) -> Result<(), LedgerError> {
    if matches!(error, LedgerError::Stopped) {
        return Err(error);
    }
    tracing::warn!(%error, "retention goes on without an account or a slice of them");
    pass.left += 1;
    Ok(())
}

impl Reader {
    /// The account of this record, and which of the apps it belongs to. `None` where none of
    /// them opens it, and where it is not an account's any more.
    pub(super) async fn open_as<T>(
        &self,
        apps: &[(AppId, T)],
        record: RecordId,
        pass: &mut Pass,
    ) -> Result<Option<(Loaded, usize)>, LedgerError> {
        let known = match self.cache().envelope(&record) {
            Some(known) => known,
            None => match self.read(&record).await? {
                Some(read) => Arc::new(read),
                None => return Ok(None),
            },
        };
        if known.member.kind != RecordKind::Account {
            return Ok(None);
        }
        for (at, (app, _)) in apps.iter().enumerate() {
            match self.unseal(app, Arc::clone(&known)).await {
                Ok(plaintext) => {
                    let loaded = self.loaded(app, &known.member, &plaintext)?;
                    return Ok(Some((loaded, at)));
                }
                // Another app's. Damage looks alike: the row is the one that the list names.
                Err(LedgerError::Tampered(_)) => {}
                Err(error) => return Err(error),
            }
        }
        pass.unopened += 1;
        Ok(None)
    }
}
