//! So many places, counted by who holds them, so that nobody can hold them all.
//!
//! Used by whatever is scarce and has no queue of its own: requests under way, bytes of bodies that are being
//! read, connections, evaluations of Argon2id. Whoever asks may hold as much as stays free: alone half of it, of
//! two each a third, and so on; the next one always finds as much as the greediest holds. It must never give
//! out more than there is, and never keep anything of somebody who holds nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Places<K> {
    capacity: usize,
    /// So much anybody may hold as long as there is any, however little stays free.
    least: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// Only of those who hold something.
    by: HashMap<K, usize>,
}

/// What somebody holds. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash> {
    of: Arc<Places<K>>,
    key: K,
    size: usize,
}

impl<K: Eq + Hash + Clone> Places<K> {
    pub(crate) fn new(capacity: usize, least: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            least,
            taken: Mutex::new(Taken {
                all: 0,
                by: HashMap::new(),
            }),
        })
    }

    /// `size` more for `key`, unless that were more than stays free for others.
    pub(crate) fn take(self: &Arc<Self>, key: K, size: usize) -> Option<Place<K>> {
        self.take_if(key, size, |own, _, free| own <= free || own <= self.least)
    }

    /// The same where `allows` says yes to what the key would hold, what all would, and what would stay free
    /// before this is taken off.
    pub(crate) fn take_if(
        self: &Arc<Self>,
        key: K,
        size: usize,
        allows: impl FnOnce(usize, usize, usize) -> bool,
    ) -> Option<Place<K>> {
        let mut taken = self.locked();
        let free = self.capacity.saturating_sub(taken.all);
        let own = taken.by.get(&key).copied().unwrap_or(0);
        let (own, all) = (own.saturating_add(size), taken.all.saturating_add(size));
        if size > free || !allows(own, all, free) {
            return None;
        }
        taken.all = all;
        taken.by.insert(key.clone(), own);
        drop(taken);
        Some(Place {
            of: Arc::clone(self),
            key,
            size,
        })
    }
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// `size` more for `key`, even beyond what there is, where `allows` says yes to what the key holds and what stays free.
    pub(crate) fn hold_if(
        self: &Arc<Self>,
        key: K,
        size: usize,
        allows: impl FnOnce(usize, usize) -> bool,
    ) -> Option<Place<K>> {
        let mut taken = self.locked();
        let free = self.capacity.saturating_sub(taken.all);
        let own = taken.by.get(&key).copied().unwrap_or(0);
        if !allows(own, free) {
            return None;
        }
        taken.by.insert(key.clone(), own.saturating_add(size));
        taken.all = taken.all.saturating_add(size);
        drop(taken);
        Some(Place {
            of: Arc::clone(self),
            key,
            size,
        })
    }
}

impl<K: Eq + Hash + Clone> Place<K> {
    /// Holds so much from now on: what is here already has to be counted.
    pub(crate) fn resize(&mut self, size: usize) {
        let mut taken = self.of.locked();
        let own = taken.by.get(&self.key).copied().unwrap_or(0);
        let own = own.saturating_sub(self.size).saturating_add(size);
        taken.all = taken.all.saturating_sub(self.size).saturating_add(size);
        taken.by.insert(self.key.clone(), own);
        drop(taken);
        self.size = size;
    }
}

impl<K: Eq + Hash> Places<K> {
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// What is held, by all together.
    pub(crate) fn taken(&self) -> usize {
        self.locked().all
    }

    /// Counts are whole at every moment, whatever panicked elsewhere.
    fn locked(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, key: &K, size: usize) {
        let mut taken = self.locked();
        taken.all = taken.all.saturating_sub(size);
        let left = match taken.by.get_mut(key) {
            Some(own) => {
                *own = own.saturating_sub(size);
                *own
            }
            None => return,
        };
        if left == 0 {
            taken.by.remove(key);
        }
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        self.of.give_back(&self.key, self.size);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_takes_all_they_can_leaves_as_much_for_the_next() {
        let places = Places::new(60, 0);
        let all = |key: &'static str| -> Vec<_> {
            std::iter::from_fn(|| places.take(key, 1))
                .take(1000)
                .collect()
        };
        let notes = all("notes");
        assert_eq!(notes.len(), 30);
        let wallet = all("wallet");
        assert_eq!(wallet.len(), 15);
        assert!(places.take("third", 1).is_some());
        drop(notes);
        assert_eq!(places.taken(), 15);
        assert_eq!(all("wallet").len(), 15, "now a half, in all");
        drop(wallet);
        assert_eq!(places.taken(), 0);
        assert!(places.locked().by.is_empty());
        // The control: where nobody is told apart, the first one takes everything.
        let one: Vec<_> = std::iter::from_fn(|| places.take_if("all", 1, |_, _, _| true)).collect();
        assert_eq!(one.len(), 60);
        assert!(places.take("third", 1).is_none());
    }

    #[test]
    fn a_little_is_anybodys_while_there_is_any() {
        let places = Places::new(8, 3);
        let held: Vec<_> = (0..4).map(|_| places.take("a", 1).unwrap()).collect();
        assert!(places.take("a", 1).is_none());
        let _other: Vec<_> = (0..3).map(|_| places.take("b", 1).unwrap()).collect();
        assert!(
            places.take("b", 1).is_none(),
            "one is left, and it has had three"
        );
        assert!(places.take("c", 1).is_some());
        assert!(places.take("c", 2).is_none(), "never more than there is");
        drop(held);
    }

    proptest! {
        #[test]
        fn never_more_than_there_is_and_all_comes_back(
            steps in prop::collection::vec((0u8..6, 1usize..9, any::<bool>()), 1..200)
        ) {
            let places = Places::new(40, 2);
            let mut held: Vec<Place<u8>> = Vec::new();
            for (key, size, gives_back) in steps {
                if gives_back && !held.is_empty() {
                    held.remove(size % held.len());
                } else if let Some(place) = places.take(key, size) {
                    held.push(place);
                }
                let sum: usize = held.iter().map(|place| place.size).sum();
                prop_assert_eq!(places.taken(), sum);
                prop_assert!(sum <= 40);
            }
            held.clear();
            prop_assert_eq!(places.taken(), 0);
        }
    }
}
