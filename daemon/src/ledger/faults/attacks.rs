//! The administrator's attacks on one node and its ledger, each refused, and each with its control.
//!
//! A control is the same attack with the defence off, and then it succeeds; or the same tools with
//! the honest contents, and then all is served. What is counted are guesses: an account has
//! `BUDGET` of them between two successes, and an evaluation is what a guess was answered with.

mod anchoring;
mod records;
mod rollback;
mod start;
mod token;
mod trails;
mod writing;

use std::time::Duration;

use custodyd_hsm::{AccountId, AppId, RecordId, RecordKind, mac};

use super::broken::Script;
use super::names::name;
use super::rig::{Rig, account, app, charge};
use super::tables::Tables;
use crate::account::Account;
use crate::ledger::weakness::Weakness;
use crate::ledger::{BUCKET_BITS, EventKind, Journal, LedgerError, Moment, NewEvent};

/// Guesses between two successes.
pub(in crate::ledger) const BUDGET: u64 = 3;
/// A reader that does not wait long for what can not come.
pub(super) const HURRIED: Option<(Duration, Duration)> =
    Some((Duration::from_millis(1), Duration::from_millis(60)));

/// What the budget refuses a guess with.
pub(super) fn exhausted() -> LedgerError {
    LedgerError::Refused("exhausted".into())
}

pub(in crate::ledger) fn is_exhausted<T>(answer: &Result<T, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Refused(why)) if why == "exhausted")
}

pub(super) fn is_tampered<T>(answer: &Result<T, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Tampered(_)))
}

/// Charges a guess, if the budget allows it.
pub(in crate::ledger) fn guess(
    account: &mut Account,
    moment: Moment,
    journal: &mut Journal,
) -> Result<u64, LedgerError> {
    if account.session_epoch >= BUDGET {
        return Err(exhausted());
    }
    charge(account, moment, journal)
}

/// The outcome of a right guess: none is counted any more.
pub(in crate::ledger) fn succeed(
    account: &mut Account,
    _: Moment,
    journal: &mut Journal,
) -> Result<u64, LedgerError> {
    account.session_epoch = 0;
    journal.note(NewEvent::new(EventKind::SessionStarted));
    Ok(0)
}

pub(in crate::ledger) fn creating(
    _: &mut Account,
    _: Moment,
    journal: &mut Journal,
) -> Result<(), LedgerError> {
    journal.note(NewEvent::new(EventKind::AccountCreated));
    Ok(())
}

impl Rig {
    /// Evaluates a guess: `Ok` is an evaluation.
    pub(super) async fn guess(&self, id: AccountId) -> Result<u64, LedgerError> {
        let loaded = self.ledger().load(&app(), id).await?;
        let loaded = loaded.ok_or(LedgerError::Erased)?;
        Ok(self.ledger().commit(loaded, guess).await?.0)
    }

    pub(super) async fn succeed(&self, id: AccountId) -> Result<u64, LedgerError> {
        let loaded = self.ledger().load(&app(), id).await?;
        let loaded = loaded.ok_or(LedgerError::Erased)?;
        Ok(self.ledger().commit(loaded, succeed).await?.0)
    }

    /// Guesses that were charged since the last success; `None` where there is no account.
    pub(super) async fn charged(&self, id: AccountId) -> Result<Option<u64>, LedgerError> {
        let loaded = self.ledger().load(&app(), id).await?;
        Ok(loaded.map(|loaded| loaded.account.session_epoch))
    }

    pub(super) async fn found(&self, alias: &str) -> Result<Option<AccountId>, LedgerError> {
        let found = self.ledger().find_alias(&app(), &name(alias)).await?;
        Ok(found.map(|loaded| loaded.account.id))
    }

    pub(super) async fn create(&self, id: AccountId) {
        self.ledger()
            .create(account(id), &[], creating)
            .await
            .unwrap();
    }

    pub(super) async fn erase(&self, id: AccountId) -> Result<(), LedgerError> {
        let loaded = self.ledger().load(&app(), id).await?;
        let loaded = loaded.ok_or(LedgerError::Erased)?;
        let erased = self.ledger().erase(loaded, |_, _| Ok::<_, LedgerError>(()));
        erased.await.map(drop)
    }

    pub(super) async fn record(&self, id: AccountId) -> RecordId {
        self.ledger().reader.record_id(&app(), id).await.unwrap()
    }

    pub(super) async fn alias_record(&self, alias: &str) -> RecordId {
        let reader = &self.ledger().reader;
        reader.alias_id(&app(), &name(alias)).await.unwrap()
    }

    /// Pairs of accounts whose records share a bucket.
    pub(super) async fn neighbours(&self, pairs: usize) -> Vec<[AccountId; 2]> {
        let realm = self.ledger().realm().clone();
        self.pool()
            .call("search", move |custody| {
                let mut seen = std::collections::HashMap::new();
                let mut found = Vec::new();
                for n in 1000u64.. {
                    let mut id = [3; 16];
                    id[..8].copy_from_slice(&n.to_be_bytes());
                    let id = AccountId(id);
                    let of = AppId::parse("notes")?;
                    let record =
                        mac::record_id(custody, &realm, &of, RecordKind::Account, id.as_bytes())?;
                    if let Some(other) = seen.insert(record.bucket(BUCKET_BITS), id) {
                        found.push([other, id]);
                    }
                    if found.len() == pairs {
                        break;
                    }
                }
                Ok(found)
            })
            .await
            .unwrap()
    }

    /// A start with these defences off.
    pub(super) async fn start(&mut self, weakness: Weakness) -> Result<(), LedgerError> {
        self.crash().await;
        self.weakness = Weakness {
            patience: HURRIED,
            ..weakness
        };
        self.try_serve(Script::default()).await
    }

    /// A start upon these tables; the daemon of before is killed.
    pub(super) async fn start_upon(
        &mut self,
        tables: &Tables,
        weakness: Weakness,
    ) -> Result<(), LedgerError> {
        self.crash().await;
        self.put(tables, &super::tables::ALL).await;
        self.start(weakness).await
    }
}

/// The start failed, and said this.
fn says<T: std::fmt::Debug>(answer: &Result<T, LedgerError>, what: &str) {
    match answer {
        Err(error) if error.to_string().contains(what) => {}
        other => panic!("{other:?} does not say: {what}"),
    }
}

/// Nothing is off.
pub(super) fn strong() -> Weakness {
    Weakness::default()
}
