//! What is under older MAC keys: which accounts such a key is needed for.
//!
//! Called by `service` for `custodyd key list|retire`. An envelope says which MAC key its record's identifier, its aliases
//! and its PIN come from, and is believed once it has opened: so each account is opened, of a list that is the newest. What
//! does not verify, and what no served app opens, may be under any key, and is counted by itself. It writes nothing.

use std::collections::BTreeMap;

use custodyd_hsm::{AppId, RecordKind};

use super::{FIRST_SLICE, Listed, next_slice, patiently, weight};
use crate::ledger::tree::BUCKETS;
use crate::ledger::{Ledger, LedgerError};

/// The accounts by each MAC key that something of theirs is under: one may count under several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MacCensus {
    pub under: BTreeMap<u16, BTreeMap<AppId, u64>>,
    /// Accounts that no served app opens.
    pub unopened: u64,
    /// Lists and rows that do not verify.
    pub damaged: u64,
}

impl MacCensus {
    /// The accounts that need this key.
    #[must_use]
    pub fn of(&self, version: u16) -> u64 {
        self.under
            .get(&version)
            .map_or(0, |apps| apps.values().sum())
    }
}

impl Ledger {
    /// Counts the accounts of these apps by the MAC keys that they need.
    ///
    /// # Errors
    /// Token or store unavailable.
    pub async fn mac_census(&self, mut apps: Vec<AppId>) -> Result<MacCensus, LedgerError> {
        let mut census = MacCensus::default();
        let (mut from, mut slice) = (0, FIRST_SLICE);
        while from < BUCKETS {
            let upto = (from + slice).min(BUCKETS);
            let part = patiently(|| self.reader.verified(from, upto)).await?;
            slice = next_slice(slice, part.records.len(), weight(&part.records));
            census.damaged += part.damaged;
            let accounts = part.records.into_iter();
            for listed in accounts.filter(|of| of.record.member.kind == RecordKind::Account) {
                self.count(listed, &mut apps, &mut census).await?;
            }
            from = part.upto;
        }
        Ok(census)
    }

    /// Most accounts belong to one app: the one that opened the last is tried first.
    async fn count(
        &self,
        listed: Listed,
        apps: &mut [AppId],
        census: &mut MacCensus,
    ) -> Result<(), LedgerError> {
        let known = std::sync::Arc::new(listed.record);
        for at in 0..apps.len() {
            let Some(app) = apps.get(at) else { break };
            match patiently(|| self.reader.unseal(app, std::sync::Arc::clone(&known))).await {
                Ok(plaintext) => {
                    let Ok(loaded) = self.reader.loaded(app, &known.member, &plaintext) else {
                        break;
                    };
                    for version in loaded.account.mac_keys() {
                        let under = census.under.entry(version).or_default();
                        *under.entry(app.clone()).or_default() += 1;
                    }
                    apps.swap(0, at);
                    return Ok(());
                }
                // Another app's, or damaged.
                Err(LedgerError::Tampered(_)) => {}
                Err(error) => return Err(error),
            }
        }
        census.unopened += 1;
        Ok(())
    }
}
