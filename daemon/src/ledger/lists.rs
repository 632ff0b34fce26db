//! The member lists of many buckets, none of which is believed unless it is the newest.
//!
//! Called by whoever goes over all records while the realm serves: retention, counts, moves to another key. A bucket that the
//! database shows nothing of is an empty one's only if the state tree says so. What does not verify is left out and counted;
//! what it names stays as it is.

use std::collections::BTreeMap;

use custodyd_hsm::RecordId;

use super::LedgerError;
use super::members::MemberList;
use super::memory::Shown;
use super::record::Reader;
use super::verify::first_of;

/// Of some buckets, those that name any record.
pub(super) struct Lists {
    pub(super) lists: Vec<(u32, MemberList)>,
    /// Buckets whose list does not verify.
    pub(super) damaged: u64,
    /// The bucket after the last one.
    pub(super) upto: u32,
}

impl Reader {
    /// The lists of some buckets, or of the first of them: as many as the store gives at once.
    ///
    /// # Errors
    /// As a request's; `Tampered` only where the rows can not be told apart at all.
    pub(super) async fn newest_lists(&self, from: u32, to: u32) -> Result<Lists, LedgerError> {
        let rows = self.store().lists(from, to).await?.examine();
        let last = rows
            .last()
            .map_or(to, |(bucket, _)| bucket.saturating_add(1));
        let upto = last.clamp(from + 1, to);
        let mut rows: BTreeMap<u32, Option<Vec<u8>>> = rows.into_iter().collect();
        let mut newest = Lists {
            lists: Vec::new(),
            damaged: 0,
            upto,
        };
        for bucket in from..upto {
            match self.newest_list(bucket, rows.remove(&bucket)).await {
                Ok(list) if list.all().is_empty() => {}
                Ok(list) => newest.lists.push((bucket, list)),
                Err(LedgerError::Tampered(what)) => {
                    tracing::error!(what, "a bucket is left out");
                    metrics::counter!("custodyd_tampered_total").increment(1);
                    newest.damaged += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(newest)
    }

    async fn newest_list(
        &self,
        bucket: u32,
        row: Option<Option<Vec<u8>>>,
    ) -> Result<MemberList, LedgerError> {
        let shown = row.unwrap_or_else(|| Some(MemberList::EMPTY.to_vec()));
        if let Some(shown) = shown
            && let Ok(Shown::Newest(list)) = self.memory().judge(self.realm(), bucket, Some(&shown))
        {
            return Ok(list);
        }
        // Maybe a batch came between: as a request reads it.
        let mut any = [0; 32];
        let prefix = first_of(bucket);
        if let Some(start) = any.get_mut(..prefix.len()) {
            start.copy_from_slice(&prefix);
        }
        Ok(self.newest_row(&RecordId(any), bucket).await?.0)
    }
}
