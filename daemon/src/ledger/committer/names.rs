//! What a change of a batch brings: under which key, and aliases, who may list which.
//!
//! Called by the committer for each decision. What is new is under the MAC key that is current in the batch. The
//! verified member lists say which aliases are there, not what a handler has read before; and the
//! other accounts of the same batch count, too: of two that claim one name, one gets it.

use std::collections::{BTreeMap, HashSet};

use custodyd_hsm::{KeyPurpose, RecordId, RecordKind};

use super::working::{Proposal, Working};
use super::{BUCKET_BITS, Committer, LedgerError, Lists, list_of};
use crate::account::MAX_ALIASES;

impl Committer {
    /// Whether what the proposed account brings may be there, and the records of its aliases can follow its list.
    ///
    /// A name that another account gives up in this very batch is still taken: whatever becomes
    /// of that account's change, the others of the batch do not depend on it.
    pub(super) async fn check_new(
        &self,
        working: &BTreeMap<RecordId, Working>,
        lists: &mut Lists,
        record: &RecordId,
        proposal: &Proposal,
    ) -> Result<(), LedgerError> {
        let Some(entry) = working.get(record) else {
            return Err(LedgerError::internal("find an account on the bench"));
        };
        let account = &proposal.account;
        let mac_key = {
            let believed = self.reader.memory().read();
            believed.head.state.keys.current(KeyPurpose::Mac).version
        };
        let current = entry.is_made_under(mac_key, account);
        #[cfg(test)]
        let current = current || self.reader.store().weakness().made_under_any_key;
        if !current {
            return Err(LedgerError::Stale);
        }
        let ids = |aliases: Vec<&crate::account::Alias>| -> Vec<RecordId> {
            aliases.into_iter().map(|alias| *alias.record()).collect()
        };
        let claims = ids(entry.claims(account).collect());
        let releases = ids(entry.releases(account).collect());
        if claims.is_empty() && releases.is_empty() {
            return Ok(());
        }
        if account.aliases.len() > MAX_ALIASES {
            return Err(LedgerError::TooLarge);
        }
        let mut distinct = HashSet::new();
        if !account
            .aliases
            .iter()
            .all(|alias| distinct.insert(*alias.record()))
        {
            return Err(LedgerError::internal("list an alias twice"));
        }
        let elsewhere = entry
            .claims(account)
            .flat_map(|alias| alias.elsewhere().to_vec());
        let elsewhere: Vec<RecordId> = elsewhere.collect();
        let buckets = claims.iter().chain(&releases).chain(&elsewhere);
        let unknown = buckets
            .map(|id| id.bucket(BUCKET_BITS))
            .filter(|bucket| !lists.contains_key(bucket))
            .collect();
        lists.extend(self.member_lists(unknown).await);
        // A name that is taken under another MAC key is taken.
        for id in claims.iter().chain(&elsewhere) {
            let claimed = working
                .iter()
                .filter(|(other, _)| *other != record)
                .any(|(_, other)| other.account.aliases.iter().any(|a| a.record() == id));
            let taken = claimed || list_of(lists, id)?.get(id).is_some();
            #[cfg(test)]
            let taken = taken && !self.reader.store().weakness().any_name;
            if taken {
                return Err(LedgerError::AliasTaken);
            }
        }
        for id in &releases {
            let listed = list_of(lists, id)?.get(id);
            if listed.is_none_or(|member| member.kind != RecordKind::Alias) {
                return Err(LedgerError::Tampered(
                    "an alias that its account lists is gone".into(),
                ));
            }
        }
        Ok(())
    }
}

/// The other account of the batch that has a name which this change wants; else the change's own.
pub(super) fn claimant(
    working: &BTreeMap<RecordId, Working>,
    record: &RecordId,
    proposal: &Proposal,
) -> RecordId {
    let wanted = &proposal.account.aliases;
    let mut others = working.iter().filter(|(other, _)| *other != record);
    let claimant = others.find(|(_, other)| {
        let mut listed = other.account.aliases.iter();
        listed.any(|alias| wanted.iter().any(|name| name.record() == alias.record()))
    });
    claimant.map_or(*record, |(other, _)| *other)
}
