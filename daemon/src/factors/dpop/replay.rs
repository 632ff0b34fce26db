//! Which proofs were accepted already: in memory, bounded, and complete for as
//! long as any nonce of this process is valid.
//!
//! Called by `dpop` only, and only with proofs that verified, so that strangers
//! cannot fill it without paying a signature for each entry. Whoever they are remembered for may have
//! as many as stay free: the flood of one app leaves room for another's. It must never
//! forget an entry whose nonce may still be accepted, and never grow past its
//! bound: when full it says so, and the request is refused.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use custodyd_policies::Timestamp;

use super::NONCE_LIFETIME;

/// What the cache said about a proof.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    New,
    Before,
    Full,
}

/// The proofs of one nonce lifetime, and how many of them are whose.
#[derive(Debug)]
struct Generation<K> {
    proofs: HashSet<[u8; 16]>,
    by: HashMap<K, usize>,
}

impl<K: Eq + Hash> Generation<K> {
    fn new() -> Self {
        Self {
            proofs: HashSet::new(),
            by: HashMap::new(),
        }
    }

    fn of(&self, whose: &K) -> usize {
        self.by.get(whose).copied().unwrap_or(0)
    }
}

/// Two generations. A generation is closed after one nonce lifetime, and dropped
/// when the next one closes. An entry made at T has a nonce made at or before T,
/// which is dead after T + lifetime. The entry is dropped two rotations later,
/// which is never before T + lifetime.
#[derive(Debug)]
pub(super) struct ReplayCache<K> {
    capacity: usize,
    since: Timestamp,
    current: Generation<K>,
    previous: Generation<K>,
}

impl<K: Eq + Hash> ReplayCache<K> {
    pub(super) fn new(capacity: usize) -> Self {
        ReplayCache {
            capacity,
            since: Timestamp(0),
            current: Generation::new(),
            previous: Generation::new(),
        }
    }

    /// Note `proof`, a hash of key and `jti`, among those of `whose`: there may be few of these, and no
    /// stranger chooses them. `now` must never go back: the caller keeps it monotonic. `admit` is asked for what
    /// is new and finds room, and what it refuses is not noted.
    pub(super) fn insert<E>(
        &mut self,
        now: Timestamp,
        whose: K,
        proof: [u8; 16],
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Seen, E> {
        self.rotate(now);
        if self.contains(&proof) {
            return Ok(Seen::Before);
        }
        let (current, previous) = (&self.current, &self.previous);
        let own = current.of(&whose) + previous.of(&whose);
        if own >= self.capacity.saturating_sub(self.len()) {
            return Ok(Seen::Full);
        }
        admit()?;
        self.current.proofs.insert(proof);
        *self.current.by.entry(whose).or_default() += 1;
        Ok(Seen::New)
    }

    pub(super) fn contains(&self, proof: &[u8; 16]) -> bool {
        self.current.proofs.contains(proof) || self.previous.proofs.contains(proof)
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.current.proofs.len() + self.previous.proofs.len()
    }

    fn rotate(&mut self, now: Timestamp) {
        // Strictly more than a lifetime: a nonce is still good at exactly one.
        if now.since(self.since) > NONCE_LIFETIME {
            self.previous = std::mem::replace(&mut self.current, Generation::new());
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl<K: Eq + Hash> ReplayCache<K> {
        fn note(&mut self, now: Timestamp, whose: K, proof: [u8; 16]) -> Seen {
            let seen = self.insert(now, whose, proof, || Ok::<_, std::convert::Infallible>(()));
            seen.unwrap_or_else(|never| match never {})
        }
    }

    #[test]
    fn what_is_not_admitted_takes_no_place_and_what_is_known_asks_nobody() {
        let mut cache = ReplayCache::new(4);
        let now = Timestamp(1_000_000);
        for _ in 0..100 {
            assert_eq!(cache.insert(now, "a", [1; 16], || Err("no")), Err("no"));
        }
        assert_eq!(cache.len(), 0);
        assert_eq!(cache.note(now, "a", [1; 16]), Seen::New);
        let unasked = cache.insert(now, "a", [1; 16], || Err("asked"));
        assert_eq!(unasked, Ok(Seen::Before));
        assert_eq!(cache.note(now, "a", [2; 16]), Seen::New);
        let unasked = cache.insert(now, "a", [3; 16], || Err("asked"));
        assert_eq!(unasked, Ok(Seen::Full));
    }

    #[test]
    fn full_refuses_and_recovers() {
        let mut cache = ReplayCache::new(4);
        let start = 1_000_000;
        assert_eq!(cache.note(Timestamp(start), "a", [1; 16]), Seen::New);
        assert_eq!(cache.note(Timestamp(start), "a", [2; 16]), Seen::New);
        assert_eq!(cache.note(Timestamp(start), "a", [3; 16]), Seen::Full);
        assert_eq!(cache.note(Timestamp(start), "a", [1; 16]), Seen::Before);
        let later = start + 2 * NONCE_LIFETIME.as_secs() + 2;
        assert_eq!(
            cache.note(
                Timestamp(start + NONCE_LIFETIME.as_secs() + 1),
                "a",
                [4; 16]
            ),
            Seen::Full
        );
        assert_eq!(cache.note(Timestamp(later), "a", [4; 16]), Seen::New);
    }

    #[test]
    fn each_finds_as_much_as_the_greediest_holds() {
        let mut cache = ReplayCache::new(12);
        let mut number = 0u8;
        let mut fill = |whose| {
            let before = number;
            loop {
                number += 1;
                if cache.note(Timestamp(1_000_000), whose, [number; 16]) == Seen::Full {
                    return number - before - 1;
                }
            }
        };
        assert_eq!((fill("a"), fill("b"), fill("c")), (6, 3, 2));
        assert_eq!(fill("a"), 0);
    }

    proptest! {
        /// Whatever the pace of requests, no entry is forgotten within a lifetime.
        #[test]
        fn nothing_is_forgotten_within_a_lifetime(
            steps in proptest::collection::vec((0u64..200, 0u8..12), 1..200),
        ) {
            let mut cache = ReplayCache::new(1000);
            let mut accepted: Vec<(u64, u8)> = Vec::new();
            let mut now = 1_000_000;
            for (wait, id) in steps {
                now += wait;
                let seen = cache.note(Timestamp(now), id % 3, [id; 16]);
                let recent = accepted.iter()
                    .any(|(at, other)| *other == id && now - at <= NONCE_LIFETIME.as_secs());
                if recent {
                    prop_assert_eq!(&seen, &Seen::Before);
                }
                if seen == Seen::New {
                    accepted.push((now, id));
                }
            }
        }
    }
}
