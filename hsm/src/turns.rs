//! A bounded queue in which lanes take turns, so that who waits with much does not hold up who waits with little.
//!
//! The pool has one, and so have the daemon's queues whose work apps compete for. Each lane is first in, first
//! out; of several the next item is taken in turn. An app's lane may hold as much as stays free: alone it gets
//! half of the room, of two that take all they can each gets a third, and there is always as much left for the
//! next one that comes (dynamic thresholds, Choudhury and Hahne 1998). It must never grow past its capacity,
//! and never let a lane wait while others have two turns. Pure: no lock, no clock.

use std::collections::{HashMap, VecDeque};

use crate::lane::Lane;

/// Room of [`Lane::First`], which it has for itself: what is in it was let in, and each does one thing at a time.
pub const FIRST: usize = 2048;

/// The queue.
#[derive(Debug)]
pub struct Turns<T> {
    capacity: usize,
    /// In all lanes but the first.
    waiting: usize,
    first: VecDeque<T>,
    /// Only lanes in which something waits.
    lanes: HashMap<Lane, VecDeque<T>>,
    /// The same lanes, the one whose turn is next in front.
    order: VecDeque<Lane>,
}

impl<T> Turns<T> {
    /// Room for so many, beside that of the first lane.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: 0,
            first: VecDeque::new(),
            lanes: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether the lane may put one more.
    #[must_use]
    pub fn has_room(&self, lane: Lane) -> bool {
        let free = self.capacity.saturating_sub(self.waiting);
        match lane {
            Lane::First => self.first.len() < FIRST,
            Lane::Of(_) => self.lanes.get(&lane).map_or(0, VecDeque::len) < free,
            Lane::Behind => free > 0,
        }
    }

    /// # Errors
    /// The item, where the lane has no room.
    pub fn push(&mut self, lane: Lane, item: T) -> Result<(), T> {
        if !self.has_room(lane) {
            return Err(item);
        }
        if lane == Lane::First {
            self.first.push_back(item);
            return Ok(());
        }
        let queue = self.lanes.entry(lane).or_default();
        if queue.is_empty() {
            self.order.push_back(lane);
        }
        queue.push_back(item);
        self.waiting += 1;
        Ok(())
    }

    /// What is next: the first lane's, or that of the lane whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        if let Some(item) = self.first.pop_front() {
            return Some(item);
        }
        let lane = self.order.pop_front()?;
        let queue = self.lanes.get_mut(&lane)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.lanes.remove(&lane);
        } else {
            self.order.push_back(lane);
        }
        self.waiting = self.waiting.saturating_sub(1);
        item
    }

    /// Drops what is of no use any more.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.first.retain(&keep);
        for queue in self.lanes.values_mut() {
            queue.retain(&keep);
        }
        self.lanes.retain(|_, queue| !queue.is_empty());
        let lanes = &self.lanes;
        self.order.retain(|lane| lanes.contains_key(lane));
        self.waiting = self.lanes.values().map(VecDeque::len).sum();
    }

    /// Everything that waits, in no particular order; nothing does after it.
    pub fn take_all(&mut self) -> Vec<T> {
        let first = std::mem::take(&mut self.first);
        let lanes = std::mem::take(&mut self.lanes);
        self.order.clear();
        self.waiting = 0;
        first
            .into_iter()
            .chain(lanes.into_values().flatten())
            .collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.waiting
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Lane = Lane::Of(1);
    const B: Lane = Lane::Of(2);

    #[test]
    fn lanes_take_turns_whoever_came_first() {
        let mut turns = Turns::new(100);
        for item in ["a1", "a2", "a3", "a4"] {
            turns.push(A, item).unwrap();
        }
        turns.push(B, "b1").unwrap();
        turns.push(Lane::First, "committer").unwrap();
        turns.push(B, "b2").unwrap();
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, ["committer", "a1", "b1", "a2", "b2", "a3", "a4"]);
        // The control: one lane for all is first come, first served.
        for item in ["a1", "a2", "b1"] {
            turns.push(Lane::Behind, item).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, ["a1", "a2", "b1"]);
    }

    #[test]
    fn who_floods_leaves_as_much_as_they_hold() {
        let mut turns = Turns::new(60);
        let fill = |turns: &mut Turns<u8>, lane| {
            (0..10_000)
                .take_while(|_| turns.push(lane, 0).is_ok())
                .count()
        };
        assert_eq!(fill(&mut turns, A), 30);
        // With a second one each could have a third; what the first has beyond that it keeps.
        assert_eq!(fill(&mut turns, B), 15);
        assert!(turns.has_room(Lane::Of(3)));
        // The first lane has room however full the others are, and no end of it either.
        assert_eq!(fill(&mut turns, Lane::Behind), 15);
        assert!(!turns.has_room(Lane::Of(3)) && !turns.has_room(Lane::Behind));
        assert_eq!(fill(&mut turns, Lane::First), FIRST);
        assert_eq!(turns.len(), 60 + FIRST);
        assert_eq!(turns.take_all().len(), 60 + FIRST);
        assert!(turns.is_empty() && turns.pop().is_none());
    }

    #[test]
    fn what_is_of_no_use_makes_room() {
        let mut turns = Turns::new(4);
        for item in 0..4 {
            turns.push(Lane::Behind, item).unwrap();
        }
        assert_eq!(turns.push(Lane::Behind, 4), Err(4));
        turns.retain(|item| item % 2 == 1);
        assert_eq!(turns.len(), 2);
        turns.push(A, 5).unwrap();
        let left: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(left, [1, 5, 3]);
    }

    proptest! {
        /// Whatever is put and taken: never past the capacity, nothing lost, each lane in its order, and between
        /// two turns of a lane every other that waits has one.
        #[test]
        fn it_is_bounded_whole_and_fair(
            steps in prop::collection::vec(prop::option::weighted(0.6, 0u64..5), 1..400),
            capacity in 1usize..40,
        ) {
            let mut turns = Turns::new(capacity);
            let mut model: Vec<(u64, usize)> = Vec::new();
            let mut served: HashMap<u64, usize> = HashMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(lane) => {
                        if turns.push(Lane::Of(lane), (lane, number)).is_ok() {
                            if !model.iter().any(|(other, _)| *other == lane) {
                                served.insert(lane, 0);
                            }
                            model.push((lane, number));
                        }
                        prop_assert!(turns.waiting <= capacity);
                        // There is room for whoever has nothing yet, as long as there is any.
                        prop_assert_eq!(turns.has_room(Lane::Of(99)), turns.waiting < capacity);
                    }
                    None => {
                        let Some((lane, number)) = turns.pop() else {
                            prop_assert!(model.is_empty());
                            continue;
                        };
                        let at = model.iter().position(|(other, _)| *other == lane);
                        prop_assert_eq!(model.remove(at.unwrap()), (lane, number));
                        for (other, passed) in &mut served {
                            if *other == lane {
                                *passed = 0;
                            } else if model.iter().any(|(waits, _)| waits == other) {
                                *passed += 1;
                                prop_assert!(*passed < 5, "lane {} was passed over", other);
                            }
                        }
                    }
                }
                prop_assert_eq!(turns.len(), model.len());
            }
        }
    }
}
