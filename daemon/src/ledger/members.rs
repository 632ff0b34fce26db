//! A bucket's member list: which records exist in the bucket, in which generation and content.
//!
//! Layout: magic "CDM" and version 1, BE32 count, then entries of 73 bytes sorted by record id:
//! kind (1), record id (32), BE64 generation (8), digest of the sealed record (32). Order,
//! uniqueness and length are demanded on parsing, so one list has one encoding.

use custodyd_hsm::{RecordId, RecordKind};

const MAGIC: &[u8; 4] = b"CDM\x01";
const ENTRY: usize = 1 + 32 + 8 + 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub kind: RecordKind,
    pub id: RecordId,
    pub generation: u64,
    pub digest: [u8; 32],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberList(Vec<Member>);

impl MemberList {
    /// The encoding of a list of nothing, which stands for a bucket that was never written, too.
    pub(crate) const EMPTY: &[u8] = b"CDM\x01\0\0\0\0";

    /// # Errors
    /// What is wrong with the list, for the log.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let body = bytes
            .strip_prefix(MAGIC)
            .ok_or("member list has no header")?;
        let (count, body) = body
            .split_first_chunk::<4>()
            .ok_or("member list has no count")?;
        let (entries, rest) = body.as_chunks::<ENTRY>();
        if !rest.is_empty() || u32::from_be_bytes(*count) as usize != entries.len() {
            return Err("member list's count does not match its length");
        }
        let mut members = Vec::with_capacity(entries.len());
        for entry in entries {
            let member = parse_entry(entry).ok_or("member list has an entry of unknown kind")?;
            if members
                .last()
                .is_some_and(|last: &Member| last.id >= member.id)
            {
                return Err("member list is not in order or holds a record twice");
            }
            members.push(member);
        }
        Ok(Self(members))
    }

    #[must_use]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.0.len() * ENTRY);
        bytes.extend_from_slice(MAGIC);
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for member in &self.0 {
            bytes.push(member.kind as u8);
            bytes.extend_from_slice(member.id.as_bytes());
            bytes.extend_from_slice(&member.generation.to_be_bytes());
            bytes.extend_from_slice(&member.digest);
        }
        bytes
    }

    #[must_use]
    pub(crate) fn get(&self, id: &RecordId) -> Option<&Member> {
        let at = self.0.binary_search_by_key(id, |m| m.id).ok()?;
        self.0.get(at)
    }

    /// All of them, in order.
    pub(crate) fn all(&self) -> &[Member] {
        &self.0
    }

    /// The records of one kind, in order.
    pub(crate) fn ids_of(&self, kind: RecordKind) -> impl Iterator<Item = RecordId> {
        let of_kind = self.0.iter().filter(move |member| member.kind == kind);
        of_kind.map(|member| member.id)
    }

    pub(crate) fn put(&mut self, member: Member) {
        match self.0.binary_search_by_key(&member.id, |m| m.id) {
            Ok(at) => {
                if let Some(old) = self.0.get_mut(at) {
                    *old = member;
                }
            }
            Err(at) => self.0.insert(at, member),
        }
    }

    pub(crate) fn remove(&mut self, id: &RecordId) {
        if let Ok(at) = self.0.binary_search_by_key(id, |m| m.id) {
            self.0.remove(at);
        }
    }
}

fn parse_entry(entry: &[u8; ENTRY]) -> Option<Member> {
    let (kind, rest) = entry.split_first()?;
    let (id, rest) = rest.split_first_chunk::<32>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let (digest, _) = rest.split_first_chunk::<32>()?;
    Some(Member {
        kind: RecordKind::try_from(*kind).ok()?,
        id: RecordId(*id),
        generation: u64::from_be_bytes(*generation),
        digest: *digest,
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(seed: u8, generation: u64) -> Member {
        Member {
            kind: RecordKind::Account,
            id: RecordId([seed; 32]),
            generation,
            digest: [seed ^ 1; 32],
        }
    }

    #[test]
    fn a_list_survives_its_encoding() {
        let mut list = MemberList::default();
        for seed in [9, 3, 200, 3] {
            list.put(member(seed, u64::from(seed)));
        }
        assert_eq!(list.0.len(), 3);
        assert_eq!(MemberList::parse(&list.encode()).unwrap(), list);
        assert_eq!(list.get(&RecordId([9; 32])).unwrap().generation, 9);
        list.remove(&RecordId([9; 32]));
        list.remove(&RecordId([9; 32]));
        assert_eq!(list.get(&RecordId([9; 32])), None);
        assert_eq!(MemberList::parse(&list.encode()).unwrap(), list);
    }

    #[test]
    fn the_empty_list_is_what_it_is_said_to_be() {
        assert_eq!(MemberList::default().encode(), MemberList::EMPTY);
    }

    #[test]
    fn disorder_and_doubles_are_refused() {
        for members in [
            vec![member(2, 1), member(1, 1)],
            vec![member(1, 1), member(1, 2)],
        ] {
            assert!(MemberList::parse(&MemberList(members).encode()).is_err());
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(list) = MemberList::parse(&bytes) {
                prop_assert_eq!(list.encode(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_is_refused_or_another_list(at in 0usize..154, flip in 1u8..) {
            let list = MemberList(vec![member(1, 1), member(2, 2)]);
            let mut bytes = list.encode();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert_ne!(MemberList::parse(&bytes).ok(), Some(list));
        }
    }
}
