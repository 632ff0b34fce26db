//! From decided accounts to the rows of a batch: sealed records and member lists.
//!
//! Called by the committer only. Must never read a member list again: the list that was
//! verified is the list that is changed and written.

use std::collections::BTreeMap;

use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{Error, RecordId, RecordKind};

use super::working::Working;
use super::{Failure, Lists};
use crate::ledger::members::Member;
use crate::ledger::record::Reader;
use crate::ledger::{BUCKET_BITS, LedgerError};
use crate::store::Batch;

/// Seals every account of the batch in one job and gives back those that can not be sealed. What
/// is wrong with one account is that account's alone; a token that is away is everybody's.
pub(super) async fn seal_all(
    reader: &Reader,
    working: &mut BTreeMap<RecordId, Working>,
    batch: &mut Batch,
) -> Result<Vec<(RecordId, LedgerError)>, Failure> {
    let mut plaintexts = Vec::with_capacity(working.len());
    for (record, entry) in working {
        let plaintext = entry
            .encode()
            .map_err(|_| Failure::internal("encode an envelope"))?;
        let account = &entry.account;
        plaintexts.push((*record, account.app.clone(), account.generation, plaintext));
    }
    let realm = reader.realm().clone();
    let sealed = reader
        .pool()
        .call("seal-batch", move |custody| {
            let mut all = Vec::with_capacity(plaintexts.len());
            for (record, app, generation, plaintext) in &plaintexts {
                let context = Context {
                    realm: &realm,
                    app,
                    kind: RecordKind::Account,
                    record,
                    generation: *generation,
                };
                let sealed = match seal::seal(custody, &context, plaintext) {
                    Err(error @ Error::Invalid { .. }) => Err(error),
                    sealed => Ok(sealed?),
                };
                all.push((*record, *generation, sealed));
            }
            Ok(all)
        })
        .await
        .map_err(|e| Failure::from(LedgerError::Token(e)))?;
    let mut unfit = Vec::new();
    for (record, generation, sealed) in sealed {
        match sealed {
            Ok(sealed) => batch.records.push((record, generation, sealed)),
            Err(error) => unfit.push((record, LedgerError::Token(error))),
        }
    }
    Ok(unfit)
}

/// Enters the batch's records into their buckets' lists, and the lists into the batch. Returns
/// the records' entries, in their order.
pub(super) fn list_members(batch: &mut Batch, lists: &mut Lists) -> Vec<Member> {
    let mut members = Vec::with_capacity(batch.records.len());
    let mut touched = Vec::with_capacity(batch.records.len());
    for (record, generation, sealed) in &batch.records {
        let member = Member {
            kind: RecordKind::Account,
            id: *record,
            generation: *generation,
            digest: seal::digest(sealed),
        };
        members.push(member);
        let bucket = record.bucket(BUCKET_BITS);
        // The list that was verified is the list that is written: reading it again here
        // would let an administrator slip an old neighbour in between.
        if let Some(Ok(list)) = lists.get_mut(&bucket) {
            list.put(member);
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
    members
}
