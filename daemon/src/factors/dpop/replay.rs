//! Which proofs were accepted already: in memory, bounded, and complete for as
//! long as any nonce of this process is valid.
//!
//! Called by `dpop` only, and only with proofs that verified, so that strangers
//! cannot fill it without paying a signature for each entry. It must never
//! forget an entry whose nonce may still be accepted, and never grow past its
//! bound: when full it says so, and the request is refused.

use std::collections::HashSet;

use custodyd_policies::Timestamp;

use super::NONCE_LIFETIME;

/// What the cache said about a proof.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    New,
    Before,
    Full,
}

/// Two generations. A generation is closed after one nonce lifetime, and dropped
/// when the next one closes. An entry made at T has a nonce made at or before T,
/// which is dead after T + lifetime. The entry is dropped two rotations later,
/// which is never before T + lifetime.
#[derive(Debug)]
pub(super) struct ReplayCache {
    capacity: usize,
    since: Timestamp,
    current: HashSet<[u8; 16]>,
    previous: HashSet<[u8; 16]>,
}

impl ReplayCache {
    pub(super) fn new(capacity: usize) -> Self {
        ReplayCache {
            capacity,
            since: Timestamp(0),
            current: HashSet::new(),
            previous: HashSet::new(),
        }
    }

    /// Note `proof`, a hash of key and `jti`. `now` must never go back: the
    /// caller keeps it monotonic.
    pub(super) fn insert(&mut self, now: Timestamp, proof: [u8; 16]) -> Seen {
        self.rotate(now);
        if self.current.contains(&proof) || self.previous.contains(&proof) {
            return Seen::Before;
        }
        if self.current.len() + self.previous.len() >= self.capacity {
            return Seen::Full;
        }
        self.current.insert(proof);
        Seen::New
    }

    fn rotate(&mut self, now: Timestamp) {
        // Strictly more than a lifetime: a nonce is still good at exactly one.
        if now.since(self.since) > NONCE_LIFETIME {
            self.previous = std::mem::take(&mut self.current);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn full_refuses_and_recovers() {
        let mut cache = ReplayCache::new(2);
        let start = 1_000_000;
        assert_eq!(cache.insert(Timestamp(start), [1; 16]), Seen::New);
        assert_eq!(cache.insert(Timestamp(start), [2; 16]), Seen::New);
        assert_eq!(cache.insert(Timestamp(start), [3; 16]), Seen::Full);
        assert_eq!(cache.insert(Timestamp(start), [1; 16]), Seen::Before);
        let later = start + 2 * NONCE_LIFETIME.as_secs() + 2;
        assert_eq!(
            cache.insert(Timestamp(start + NONCE_LIFETIME.as_secs() + 1), [4; 16]),
            Seen::Full
        );
        assert_eq!(cache.insert(Timestamp(later), [4; 16]), Seen::New);
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
                let seen = cache.insert(Timestamp(now), [id; 16]);
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
