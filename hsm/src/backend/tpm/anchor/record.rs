//! The bytes of a record: all anchors of a TPM, after FORMAT.md, section 10.
//!
//! Called by the parent. The files are whoever's can write there: nothing that is read here counts
//! before it leads to the value in the TPM. There is one encoding for each record.

use super::{Chain, extended, wear::Budget};
use crate::backend::known_answer::sha256;

const MAGIC: [u8; 4] = *b"CDN\x01";
const DOMAIN: &[u8] = b"custodyd/tpm-anchors/v1";
/// More is no record of ours: 64 anchors have half of it.
pub(super) const LONGEST: u64 = 65_536;

/// Every anchor, and what leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::backend::tpm) struct Record {
    /// The value of the index that this record extends.
    pub(in crate::backend::tpm) before: Chain,
    /// How often the index was extended by a record before this one.
    pub(in crate::backend::tpm) writes: u64,
    pub(in crate::backend::tpm) wear: Budget,
    pub(in crate::backend::tpm) next_id: u64,
    pub(in crate::backend::tpm) objects: Vec<(u64, Vec<u8>)>,
}

impl Record {
    /// Of a TPM that was just provisioned.
    pub(in crate::backend::tpm) fn first(before: Chain, wear: Budget) -> Self {
        Self {
            before,
            writes: 0,
            wear,
            next_id: 1,
            objects: Vec::new(),
        }
    }

    /// What the index is extended by.
    pub(in crate::backend::tpm) fn digest(&self) -> [u8; 32] {
        sha256(&[DOMAIN, &self.body()])
    }

    pub(in crate::backend::tpm) fn leads_to(&self, value: &Chain) -> bool {
        extended(&self.before, &self.digest()) == *value
    }

    /// Everything but the value before, which the chain itself holds.
    fn body(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for number in [
            self.writes,
            self.wear.left,
            self.wear.since,
            self.next_id,
            length(self.objects.len()),
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for (id, content) in &self.objects {
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&length(content.len()).to_be_bytes());
            bytes.extend_from_slice(content);
        }
        bytes
    }

    pub(in crate::backend::tpm) fn encode(&self) -> Vec<u8> {
        [&self.before[..], &self.body()].concat()
    }

    pub(in crate::backend::tpm) fn decode(bytes: &[u8]) -> Option<Self> {
        let (before, rest) = bytes.split_first_chunk::<32>()?;
        let (magic, rest) = rest.split_first_chunk::<4>()?;
        if *magic != MAGIC {
            return None;
        }
        let mut rest = Reader(rest);
        let (writes, left, since) = (rest.number()?, rest.number()?, rest.number()?);
        let (next_id, count) = (rest.number()?, rest.number()?);
        let mut objects = Vec::new();
        for _ in 0..count {
            // Ends with the bytes, whatever the count says.
            let id = rest.number()?;
            let length = usize::try_from(rest.number()?).ok()?;
            objects.push((id, rest.take(length)?.to_vec()));
        }
        rest.0.is_empty().then_some(Self {
            before: *before,
            writes,
            wear: Budget { left, since },
            next_id,
            objects,
        })
    }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// What is still to be read.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn number(&mut self) -> Option<u64> {
        let (taken, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*taken))
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let objects = prop::collection::vec(
            (any::<u64>(), prop::collection::vec(any::<u8>(), 0..80)),
            0..5,
        );
        (any::<[u8; 32]>(), any::<[u64; 4]>(), objects).prop_map(
            |(before, [writes, left, since, next_id], objects)| Record {
                before,
                writes,
                wear: Budget { left, since },
                next_id,
                objects,
            },
        )
    }

    proptest! {
        #[test]
        fn each_record_has_one_encoding(record in record()) {
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(&bytes), Some(record));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(record) = Record::decode(&bytes) {
                prop_assert_eq!(record.encode(), bytes);
            }
        }

        #[test]
        fn what_is_changed_leads_elsewhere(record in record(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let value = extended(&record.before, &record.digest());
            prop_assert!(record.leads_to(&value));
            let mut bytes = record.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            if let Some(changed) = Record::decode(&bytes) {
                prop_assert!(!changed.leads_to(&value));
            }
        }
    }

    #[test]
    fn missing_and_trailing_bytes_are_refused() {
        let mut record = Record::first([7; 32], Budget { left: 1, since: 2 });
        record.objects.push((1, b"anchor".to_vec()));
        let bytes = record.encode();
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
