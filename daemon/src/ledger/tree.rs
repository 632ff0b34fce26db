//! The state tree: one digest for each bucket of records, and one root over all of them.
//!
//! Held in memory (4 MiB) by whoever believes a head: a member list that the database shows is
//! compared with the digest here, never with anything else that the database shows. The tree has
//! a fixed shape, 2^16 buckets, so that no leaf can be taken for a node. Pure: no I/O.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use custodyd_hsm::RealmName;

use super::BUCKET_BITS;
use super::members::MemberList;

pub(crate) type Digest = [u8; 32];

/// How many buckets there are.
pub(crate) const BUCKETS: u32 = 1 << BUCKET_BITS;
const BUCKET: &[u8] = b"custodyd/bucket/v1";
const NODE: &[u8] = &[0x01];

/// The digest of one bucket: of its realm, its place and its member list. One that holds nothing
/// has all zeros, which no list hashes to, so that a realm costs what is in it.
pub(crate) fn bucket_digest(realm: &RealmName, bucket: u32, list: &[u8]) -> Digest {
    if list == MemberList::EMPTY {
        return [0; 32];
    }
    let name = realm.as_str().as_bytes();
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    hash(&[
        BUCKET,
        &length.to_be_bytes(),
        name,
        &bucket.to_be_bytes(),
        list,
    ])
}

fn hash(parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// All digests of a state. Node 1 is the root, node `n` has the children `2n` and `2n + 1`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StateTree {
    nodes: Vec<Digest>,
}

/// What some buckets' change does to a tree. Applied once the change is durable.
#[derive(Debug)]
pub(crate) struct Update {
    root: Digest,
    nodes: Vec<(usize, Digest)>,
}

impl Update {
    pub(crate) fn root(&self) -> Digest {
        self.root
    }
}

impl StateTree {
    /// The tree whose buckets are all empty but for these.
    pub(crate) fn fold(buckets: &BTreeMap<u32, Digest>) -> Self {
        let size = BUCKETS as usize;
        let mut tree = Self {
            nodes: vec![[0; 32]; 2 * size],
        };
        // All nodes of a level are alike as long as nothing is in any bucket.
        let mut first = size / 2;
        while first > 0 {
            let digest = tree.above(first, &[]);
            if let Some(level) = tree.nodes.get_mut(first..2 * first) {
                level.fill(digest);
            }
            first /= 2;
        }
        let update = tree.with(buckets);
        tree.apply(update);
        tree
    }

    pub(crate) fn root(&self) -> Digest {
        self.at(1)
    }

    /// What the bucket's member list must hash to.
    pub(crate) fn bucket(&self, bucket: u32) -> Digest {
        self.at(place(bucket))
    }

    /// The tree as it will be with these buckets changed.
    pub(crate) fn with(&self, buckets: &BTreeMap<u32, Digest>) -> Update {
        // Each level by rising place, so that the changed children of a node stand side by side.
        let mut level: Vec<(usize, Digest)> = buckets
            .iter()
            .map(|(bucket, digest)| (place(*bucket), *digest))
            .collect();
        let mut nodes: Vec<(usize, Digest)> = Vec::new();
        while level.first().is_some_and(|(node, _)| *node > 1) {
            let parents = level
                .chunk_by(|(one, _), (other, _)| one / 2 == other / 2)
                .filter_map(|children| {
                    let node = children.first()?.0 / 2;
                    Some((node, self.above(node, children)))
                })
                .collect();
            nodes.append(&mut level);
            level = parents;
        }
        nodes.append(&mut level);
        let root = nodes.last().map_or(self.root(), |(_, root)| *root);
        Update { root, nodes }
    }

    /// Those of these digests that are not here already.
    pub(crate) fn changed_by(&self, mut digests: BTreeMap<u32, Digest>) -> BTreeMap<u32, Digest> {
        digests.retain(|bucket, digest| self.bucket(*bucket) != *digest);
        digests
    }

    /// The digests that are others in another state, as they are there.
    pub(crate) fn changed_to(&self, other: &Self) -> BTreeMap<u32, Digest> {
        let mut nodes = vec![1];
        let mut buckets = BTreeMap::new();
        while let Some(node) = nodes.pop() {
            if self.at(node) == other.at(node) {
                continue;
            }
            match u32::try_from(node)
                .ok()
                .and_then(|n| n.checked_sub(BUCKETS))
            {
                Some(bucket) => drop(buckets.insert(bucket, other.bucket(bucket))),
                None => nodes.extend([2 * node, 2 * node + 1]),
            }
        }
        buckets
    }

    pub(crate) fn apply(&mut self, update: Update) {
        for (node, digest) in update.nodes {
            self.set(node, digest);
        }
    }

    /// The digest of a node, from its children here or among those that change.
    fn above(&self, node: usize, changed: &[(usize, Digest)]) -> Digest {
        let child = |child: usize| {
            let changed = changed.iter().find(|(node, _)| *node == child);
            changed.map_or_else(|| self.at(child), |(_, digest)| *digest)
        };
        hash(&[NODE, &child(2 * node), &child(2 * node + 1)])
    }

    fn at(&self, node: usize) -> Digest {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    fn set(&mut self, node: usize, digest: Digest) {
        if let Some(slot) = self.nodes.get_mut(node) {
            *slot = digest;
        }
    }
}

impl std::fmt::Debug for StateTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateTree({})", hex::encode(self.root()))
    }
}

fn place(bucket: u32) -> usize {
    (BUCKETS + bucket % BUCKETS) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn realm() -> RealmName {
        RealmName::parse("realm.example").unwrap()
    }

    #[test]
    fn every_input_of_a_bucket_digest_counts() {
        let other = RealmName::parse("realm.exampl").unwrap();
        assert_eq!(bucket_digest(&realm(), 1, MemberList::EMPTY), [0; 32]);
        let digests = [
            bucket_digest(&realm(), 1, b"list"),
            bucket_digest(&realm(), 2, b"list"),
            bucket_digest(&realm(), 1, b"lis"),
            bucket_digest(&other, 1, b"list"),
            bucket_digest(&other, 0x65, b"\0\0\x01list"),
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }

    #[test]
    fn the_place_of_a_bucket_counts() {
        let one = StateTree::fold(&BTreeMap::from([(1, [9; 32])]));
        let two = StateTree::fold(&BTreeMap::from([(2, [9; 32])]));
        let nothing = StateTree::fold(&BTreeMap::new());
        assert_ne!(one.root(), two.root());
        assert_ne!(one.root(), nothing.root());
        assert_eq!(nothing.with(&BTreeMap::new()).root(), nothing.root());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However a state was reached, its tree is the one that is folded from its digests.
        #[test]
        fn changes_lead_where_folding_leads(
            steps in proptest::collection::vec(proptest::collection::btree_map(
                prop_oneof![0..BUCKETS, 0..4u32, Just(BUCKETS - 1)], any::<Digest>(), 0..6), 1..4)
        ) {
            let mut tree = StateTree::fold(&BTreeMap::new());
            let mut all = BTreeMap::new();
            for step in steps {
                let update = tree.with(&step);
                let root = update.root();
                tree.apply(update);
                prop_assert_eq!(tree.root(), root);
                all.extend(step);
            }
            prop_assert_eq!(&tree, &StateTree::fold(&all));
            for (bucket, digest) in all {
                prop_assert_eq!(tree.bucket(bucket), digest);
            }
        }
    }
}
