//! A bounded memory in two generations: what is used stays, what is not is dropped in bulk.
//!
//! For values that can be had again from their source, so dropping any of them at any moment is
//! right: verified signatures, sealed envelopes, member lists. It must never be the only place
//! where something is known.

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    /// Each generation holds at most this weight.
    capacity: usize,
    weight: usize,
    current: HashMap<K, V>,
    previous: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> Generations<K, V> {
    /// `capacity` is the weight of all values together.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity / 2,
            weight: 0,
            current: HashMap::new(),
            previous: HashMap::new(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.current.get(key).or_else(|| self.previous.get(key))
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.previous.remove(key);
        self.current.remove(key);
    }

    /// Drops the values whose keys are not to be kept. They weigh on until their generation goes.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.previous.retain(|key, _| keep(key));
        self.current.retain(|key, _| keep(key));
    }

    /// A value heavier than a generation is not kept, and neither is what it replaces.
    pub(crate) fn put(&mut self, key: K, value: V, weight: usize) {
        self.previous.remove(&key);
        if weight > self.capacity {
            self.current.remove(&key);
            return;
        }
        if self.weight.saturating_add(weight) > self.capacity {
            self.previous = std::mem::take(&mut self.current);
            self.previous.remove(&key);
            self.weight = 0;
        }
        // A replaced value keeps its weight until its generation goes: the bound holds all the
        // same, and no weight has to be remembered.
        self.weight = self.weight.saturating_add(weight);
        self.current.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_put_last_is_what_is_had() {
        let mut memory = Generations::new(10);
        memory.put("a", 1, 2);
        memory.put("a", 2, 2);
        assert_eq!(memory.get(&"a"), Some(&2));
        memory.put("a", 3, 100);
        assert_eq!(memory.get(&"a"), None, "too heavy, and the old one is gone");
    }

    proptest! {
        #[test]
        fn it_forgets_and_never_remembers_wrongly(puts in proptest::collection::vec((0u8..8, any::<Option<u32>>(), 0usize..6), 1..200)) {
            let mut memory = Generations::new(20);
            let mut newest = HashMap::new();
            for (key, value, weight) in puts {
                match value {
                    Some(value) => memory.put(key, value, weight),
                    None => memory.remove(&key),
                }
                newest.insert(key, value);
                for (key, value) in &newest {
                    prop_assert!(memory.get(key).is_none_or(|had| Some(*had) == *value));
                }
                prop_assert!(memory.current.len() + memory.previous.len() <= newest.len());
            }
        }
    }
}
