//! The head: the newest state of the whole realm, one row.
//!
//! Until the log is authenticated the head only orders batches (compare-and-set on `seq`) and
//! says where the log ends. It carries no MAC yet, so nothing that is *believed* comes from
//! it: no time, no budget, no credential.

use aws_lc_rs::digest;
use custodyd_hsm::RealmName;
use custodyd_policies::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::store::{Batch, HeadRow};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub realm: RealmName,
    /// Raised by every restore.
    pub log_epoch: u64,
    pub seq: u64,
    /// Number of log entries.
    pub size: u64,
    pub time: Timestamp,
    pub schema: u32,
    /// Digest of what was written with this head: by it a writer knows its own batch again.
    pub content: Bytes,
}

const CONTENT: &[u8] = b"custodyd/batch/v1";

impl Head {
    #[must_use]
    pub fn first(realm: RealmName, time: Timestamp) -> Self {
        Self {
            realm,
            log_epoch: 1,
            seq: 1,
            size: 0,
            time,
            schema: 1,
            content: Bytes(Vec::new()),
        }
    }

    /// # Errors
    /// What is wrong with the row, for the log.
    pub fn parse(row: &HeadRow, realm: &RealmName) -> Result<Self, String> {
        let head: Self = serde_json::from_slice(&row.body)
            .map_err(|_| "the head row does not parse".to_owned())?;
        if head.realm != *realm {
            return Err(format!(
                "the database belongs to realm {}, this daemon is configured for {realm}",
                head.realm
            ));
        }
        if head.seq != row.seq || head.schema != 1 {
            return Err("the head row contradicts itself".to_owned());
        }
        Ok(head)
    }

    /// # Errors
    /// Never for the fields above; the signature is serde's.
    pub fn row_over(&mut self, batch: &Batch) -> Result<HeadRow, serde_json::Error> {
        self.content = content(batch);
        Ok(HeadRow {
            seq: self.seq,
            body: serde_json::to_vec(self)?,
            mac: Vec::new(),
        })
    }
}

/// Member lists name every record by its digest, leaves commit to every body: so these two
/// and their places are the whole content.
fn content(batch: &Batch) -> Bytes {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(CONTENT);
    hash.update(&batch.parent.to_be_bytes());
    let members = batch
        .members
        .iter()
        .map(|(at, list)| (u64::from(*at), list));
    let entries = batch.entries.iter().map(|(at, leaf)| (*at, leaf));
    let counts = [batch.members.len(), batch.entries.len()];
    for number in counts.map(|count| count as u64) {
        hash.update(&number.to_be_bytes());
    }
    for (at, bytes) in members.chain(entries) {
        hash.update(&at.to_be_bytes());
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    Bytes(hash.finish().as_ref().to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn two_batches_of_one_number_size_and_second_have_different_heads() {
        let realm = RealmName::parse("realm.example").unwrap();
        let with = |members: &[(u32, &[u8])], entries: &[(u64, &[u8])]| {
            let mut batch = Batch::after(1);
            batch.members = members.iter().map(|(at, m)| (*at, m.to_vec())).collect();
            batch.entries = entries.iter().map(|(at, e)| (*at, e.to_vec())).collect();
            batch
        };
        let batches = [
            with(&[], &[]),
            with(&[(1, &[1])], &[]),
            with(&[(2, &[1])], &[]),
            with(&[], &[(1, &[1])]),
            with(&[(1, &[1, 1])], &[]),
            with(&[(1, &[1])], &[(1, &[1])]),
            with(&[(1, &[1]), (1, &[1])], &[]),
        ];
        let mut heads = std::collections::BTreeSet::new();
        for batch in &batches {
            let mut head = Head::first(realm.clone(), Timestamp(7));
            let row = head.row_over(batch).unwrap();
            assert_eq!(Head::parse(&row, &realm).unwrap(), head);
            assert_eq!(head.row_over(batch).unwrap(), row);
            heads.insert(row.body);
        }
        assert_eq!(heads.len(), batches.len());
    }
}
