//! Which MAC keys a head and an anchor are tagged by, while keys are rotated and retired: a model of its own, since it
//! asks nothing of budgets and records. Its heads are of two kinds: those that a daemon made, and those of an adversary
//! who has the database and a key that was rotated because somebody may know it.
//!
//! Two rules are meant to hold together. Nobody serves what such an adversary made; and whatever a crash leaves behind,
//! the newest head of the daemon's own is one to start on.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// A set of key versions: version v is the bit v - 1.
type Keys = u8;

const FORGED: &str = "what an older key alone has tagged is never served";
const START: &str = "the newest head of its own can be started on";
const RETIRED: &str = "the first key is retired, and another rotated to";
const BETWEEN: &str = "a start between a rotation and its anchor";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// A start does not ask which key has tagged the anchor.
    NewestNotAsked,
    /// It asks for the oldest of them.
    OldestAsked,
    /// What is made after a rotation is tagged by the new key alone.
    CurrentTagsAlone,
    /// A key is changed before the change before it is anchored.
    ChangedBeforeAnchored,
    /// The key that is used for what is new can be retired.
    CurrentRetired,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Head {
    parent: Option<usize>,
    accepted: Keys,
    tagged_by: Keys,
    forged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// All that were ever made: the database shows any of them.
    heads: Vec<Head>,
    anchor: usize,
    /// Of a process that serves: the head that it has anchored, and the one that it has committed since.
    memory: Option<usize>,
    pending: Option<usize>,
    /// The newest that a daemon has committed.
    own: usize,
    known: Keys,
    crashes: u8,
    started_between: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A batch that leaves the accepted keys as they are, or changes them by one.
    Commit(Keys),
    Anchor,
    Crash,
    Leak(Keys),
    Forge(usize, Keys),
    Start(usize),
}

#[derive(Clone, Debug)]
struct Realm {
    heads: usize,
    crashes: u8,
    mutant: Option<Mutant>,
}

fn newest(keys: Keys) -> Keys {
    match keys {
        0 => 0,
        keys => 1 << keys.ilog2(),
    }
}

fn oldest(keys: Keys) -> Keys {
    keys & keys.wrapping_neg()
}

impl State {
    fn descends(&self, from: usize, ancestor: usize) -> bool {
        let mut at = Some(from);
        while let Some(head) = at {
            if head == ancestor {
                return true;
            }
            at = self.heads[head].parent;
        }
        false
    }

    fn anchored_by(&self) -> Keys {
        self.heads[self.anchor].tagged_by
    }
}

impl Realm {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn sealed(&self, parent: usize, accepted: Keys) -> Head {
        let tagged_by = match self.is(Mutant::CurrentTagsAlone) {
            true => newest(accepted),
            false => accepted,
        };
        Head {
            parent: Some(parent),
            accepted,
            tagged_by,
            forged: false,
        }
    }

    /// What a rotation or a retirement makes of the accepted keys, or any other batch.
    fn changes(&self, accepted: Keys) -> impl Iterator<Item = Keys> {
        let next = newest(accepted) << 1;
        let rotated = (next <= 0b100).then_some(accepted | next);
        let current_stays = !self.is(Mutant::CurrentRetired);
        let retired = (0..3).map(|bit| 1 << bit).filter(move |key: &Keys| {
            accepted & key != 0 && accepted != *key && !(current_stays && *key == newest(accepted))
        });
        let retired = retired.map(move |key| accepted & !key);
        std::iter::once(accepted).chain(rotated).chain(retired)
    }

    fn may_start(&self, state: &State, head: usize) -> bool {
        let shown = &state.heads[head];
        // An anchor by keys of which none is accepted is nobody's.
        let believed = state.anchored_by() & shown.accepted != 0;
        let wanted = match self.mutant {
            Some(Mutant::NewestNotAsked) => 0,
            Some(Mutant::OldestAsked) => oldest(state.anchored_by()),
            _ => newest(state.anchored_by()),
        };
        believed && state.descends(head, state.anchor) && shown.tagged_by & wanted == wanted
    }
}

impl Model for Realm {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = Head {
            parent: None,
            accepted: 1,
            tagged_by: 1,
            forged: false,
        };
        vec![State {
            heads: vec![first],
            anchor: 0,
            memory: Some(0),
            pending: None,
            own: 0,
            known: 0,
            crashes: 0,
            started_between: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let all = 0..state.heads.len();
        let room = state.heads.len() < self.heads;
        if let Some(memory) = state.memory {
            let tip = state.pending.unwrap_or(memory);
            let free = state.pending.is_none() || self.is(Mutant::ChangedBeforeAnchored);
            if free && room {
                let changes = self.changes(state.heads[tip].accepted);
                actions.extend(changes.map(Action::Commit));
            }
            if state.pending.is_some() {
                actions.push(Action::Anchor);
            }
            if state.crashes < self.crashes {
                actions.push(Action::Crash);
            }
        } else {
            let starts = all.clone().filter(|head| self.may_start(state, *head));
            actions.extend(starts.map(Action::Start));
        }
        // A key that is known before its successor has tagged an anchor makes heads like the daemon: nothing here helps.
        let older = (0..3).map(|bit| 1 << bit);
        let older = older.filter(|key: &Keys| *key < newest(state.anchored_by()));
        let unknown = older.filter(|key| state.known & key == 0);
        actions.extend(unknown.map(Action::Leak));
        if room {
            for keys in (1..8).filter(|keys: &Keys| keys & !state.known == 0) {
                actions.extend(all.clone().map(|parent| Action::Forge(parent, keys)));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Commit(accepted) => {
                let tip = state.pending.or(state.memory)?;
                state.heads.push(self.sealed(tip, accepted));
                state.pending = Some(state.heads.len() - 1);
                state.own = state.heads.len() - 1;
            }
            Action::Anchor => {
                state.memory = state.pending.take();
                state.anchor = state.memory?;
            }
            Action::Crash => {
                (state.memory, state.pending) = (None, None);
                state.crashes += 1;
            }
            Action::Leak(key) => state.known |= key,
            Action::Forge(parent, keys) => {
                let head = Head {
                    forged: true,
                    tagged_by: keys,
                    ..self.sealed(parent, keys)
                };
                if state.heads.contains(&head) {
                    return None;
                }
                state.heads.push(head);
            }
            // It is anchored before anybody is told of anything.
            Action::Start(head) => {
                state.started_between |= state.heads[head].tagged_by != state.anchored_by();
                (state.memory, state.anchor) = (Some(head), head);
                state.own = head;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FORGED, |_, s: &State| {
                s.memory.is_none_or(|head| !s.heads[head].forged)
            }),
            Property::always(START, |m: &Realm, s: &State| m.may_start(s, s.own)),
            Property::sometimes(RETIRED, |_, s: &State| {
                s.memory.is_some_and(|head| s.heads[head].accepted == 0b110)
            }),
            Property::sometimes(BETWEEN, |_, s: &State| s.started_between),
        ]
    }
}

fn realm(mutant: Option<Mutant>) -> Realm {
    Realm {
        heads: 6,
        crashes: 2,
        mutant,
    }
}

#[test]
fn a_mac_key_is_rotated_and_retired() {
    let model = realm(None);
    let run = model.checker().spawn_bfs().join();
    println!("mac_keys: {} states", run.unique_state_count());
    assert!(run.is_done() && run.unique_state_count() > 1_000);
    let found = run.discoveries();
    for property in [FORGED, START] {
        if let Some(path) = found.get(property) {
            panic!(
                "{property:?} breaks after {:#?}",
                path.clone().into_actions()
            );
        }
    }
    for property in [RETIRED, BETWEEN] {
        assert!(found.contains_key(property), "never {property:?}");
    }
}

#[test]
fn each_rule_of_mac_keys_left_out_breaks_a_property() {
    for (mutant, property) in [
        (Mutant::NewestNotAsked, FORGED),
        (Mutant::OldestAsked, FORGED),
        (Mutant::CurrentTagsAlone, START),
        (Mutant::ChangedBeforeAnchored, START),
        (Mutant::CurrentRetired, START),
    ] {
        let sought = HasDiscoveries::AllOf(BTreeSet::from([property]));
        let run = realm(Some(mutant)).checker().finish_when(sought);
        let run = run.spawn_bfs().join();
        println!("{mutant:?}: {} states", run.unique_state_count());
        assert!(
            run.discoveries().contains_key(property),
            "{mutant:?} survives: {property}"
        );
    }
}
