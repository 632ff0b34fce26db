//! From decided accounts to the rows of a batch: sealed records and member lists.
//!
//! Called by the committer only. Must never read a member list again: the list that was
//! verified is the list that is changed and written.

use std::collections::BTreeMap;
use std::time::Instant;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{AppId, Error, RecordId, RecordKind, SecretBytes};
use custodyd_policies::Timestamp;

use super::pace::Pace;
use super::working::Working;
use super::{Failure, Lists, Members};
use crate::ledger::aliases;
use crate::ledger::members::Member;
use crate::ledger::record::Reader;
use crate::ledger::{BUCKET_BITS, LedgerError};
use crate::store::Batch;

/// A record before it is sealed.
pub(super) struct Row {
    /// The account whose change writes it.
    owner: RecordId,
    app: AppId,
    kind: RecordKind,
    id: RecordId,
    generation: u64,
    plaintext: SecretBytes,
}

/// Everything that a batch seals: each account, or what stays of it, and its new aliases. An
/// alias may come, go and come again, so its generation is the batch's number, used but once.
pub(super) fn rows(
    working: &mut BTreeMap<RecordId, Working>,
    seq: u64,
    now: Timestamp,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::with_capacity(working.len());
    for (record, entry) in working {
        let (kind, plaintext) = entry
            .encode(now)
            .map_err(|_| Failure::internal("encode an envelope"))?;
        let account = &entry.account;
        let row = |kind, id, generation, plaintext| Row {
            owner: *record,
            app: account.app.clone(),
            kind,
            id,
            generation,
            plaintext,
        };
        rows.push(row(kind, *record, account.generation, plaintext));
        for alias in entry.claims(account) {
            let plaintext = aliases::body(alias, account.id)
                .map_err(|_| Failure::internal("encode an alias"))?;
            let plaintext = SecretBytes::from(plaintext);
            rows.push(row(RecordKind::Alias, *alias.record(), seq, plaintext));
        }
    }
    Ok(rows)
}

/// Seals every record of the batch in one job, and gives back the new entries of all and the
/// accounts that can not be sealed. What is wrong with one account is that account's alone; a
/// token that is away is everybody's.
pub(super) async fn seal_all(
    reader: &Reader,
    rows: Vec<Row>,
    batch: &mut Batch,
    pace: &mut Pace,
) -> Result<(Members, Vec<(RecordId, LedgerError)>), Failure> {
    let realm = reader.realm().clone();
    let records = rows.len();
    let sealed = reader
        .pool()
        .call("seal-batch", move |custody| {
            let began = Instant::now();
            let mut all = Vec::with_capacity(rows.len());
            for row in rows {
                let context = Context {
                    realm: &realm,
                    app: &row.app,
                    kind: row.kind,
                    record: &row.id,
                    generation: row.generation,
                };
                let sealed = match seal::seal(custody, &context, row.plaintext.expose()) {
                    Err(error @ Error::Invalid { .. }) => Err(error),
                    sealed => Ok(sealed?),
                };
                all.push((row.owner, row.kind, row.id, row.generation, sealed));
            }
            Ok((all, began.elapsed()))
        })
        .await;
    let (sealed, took) = sealed.map_err(|error| {
        if matches!(error, Error::Deadline { .. }) {
            pace.missed(records);
        }
        Failure::from(LedgerError::Token(error))
    })?;
    pace.sealed(records, took);
    let mut members = Members::with_capacity(sealed.len());
    let mut unfit = Vec::new();
    for (owner, kind, id, generation, sealed) in sealed {
        match sealed {
            Ok(sealed) => {
                let digest = seal::digest(&sealed);
                let member = Member {
                    kind,
                    id,
                    generation,
                    digest,
                };
                members.insert(id, member);
                batch.records.push((id, generation, sealed));
            }
            Err(error) => unfit.push((owner, LedgerError::Token(error))),
        }
    }
    Ok((members, unfit))
}

/// Enters the batch's records into their buckets' lists, takes out the aliases that were given
/// up, and enters the lists into the batch.
pub(super) fn list_members(
    working: &BTreeMap<RecordId, Working>,
    members: &Members,
    batch: &mut Batch,
    lists: &mut Lists,
) {
    let released = working
        .values()
        .flat_map(|entry| entry.releases(&entry.account));
    batch.removed = released.map(|alias| *alias.record()).collect();
    let mut touched = Vec::with_capacity(members.len());
    // The list that was verified is the list that is written: reading it again here would let an
    // administrator slip an old neighbour in between.
    for member in members.values() {
        let bucket = member.id.bucket(BUCKET_BITS);
        if let Some(Ok(list)) = lists.get_mut(&bucket) {
            list.put(*member);
            touched.push(bucket);
        }
    }
    for id in &batch.removed {
        let bucket = id.bucket(BUCKET_BITS);
        if let Some(Ok(list)) = lists.get_mut(&bucket) {
            list.remove(id);
            touched.push(bucket);
        }
    }
    touched.sort_unstable();
    touched.dedup();
    for bucket in touched {
        if let Some(Ok(list)) = lists.get(&bucket) {
            batch.members.push((bucket, list.encode()));
        }
    }
}
