//! LEDGER's invariants as properties of a state, and what must be reachable
//! when nobody attacks.

use stateright::{Model, Property};

use crate::{
    actions::Action,
    anchor,
    config::Ledger,
    record::Change,
    state::{Phase, State, mark},
};

pub(crate) const BUDGET: &str = "no guess is won back";
pub(crate) const CHARGE: &str = "an evaluated charge stays under the newest anchor";
pub(crate) const REVOCATION: &str = "a released revocation holds";
pub(crate) const CODE: &str = "a code is consumed by one released outcome";
pub(crate) const CHECKPOINTS: &str = "signed checkpoints are totally ordered";
pub(crate) const ANCHOR: &str = "the anchor never goes back in an epoch";
pub(crate) const DECLARED: &str = "new state is parent state and declared change";
pub(crate) const SERVING: &str = "a serving node descends from its anchor";
pub(crate) const START: &str = "a start that serves is left";
pub(crate) const NO_ALARM: &str = "an honest database raises no alarm";

pub(crate) const WRONG_ANSWERED: &str = "a wrong guess is answered";
pub(crate) const RIGHT_ANSWERED: &str = "a right guess is answered";
pub(crate) const REVOKED: &str = "a revocation is answered";
pub(crate) const USED: &str = "a use is answered";
pub(crate) const CONSUMED: &str = "a code is accepted";
pub(crate) const RESTARTED: &str = "a node serves after a crash";
pub(crate) const STOPPED: &str = "a clean stop is anchored";
pub(crate) const LEFT: &str = "a guess that a restore has left is evaluated";

impl Model for Ledger {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.possible(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(BUDGET, |m: &Ledger, s: &State| {
                // Each restore may win back what its approvers leave, and no more.
                s.seen.evaluations <= m.budget + m.left * s.spent.restores
            }),
            Property::always(CHARGE, charges_are_covered),
            Property::always(REVOCATION, |_, s: &State| !s.seen.used_after_revocation),
            Property::always(CODE, |_, s: &State| s.seen.consumptions <= 1),
            Property::always(CHECKPOINTS, checkpoints_are_ordered),
            Property::always(ANCHOR, anchor_goes_forward),
            Property::always(DECLARED, only_declared_changes),
            Property::always(SERVING, serving_descends),
            Property::always(START, start_is_left),
            Property::always(NO_ALARM, |m: &Ledger, s: &State| {
                !(m.honest && s.seen.alarm)
            }),
            Property::sometimes(WRONG_ANSWERED, |_, s: &State| answered(s, is_wrong)),
            Property::sometimes(RIGHT_ANSWERED, |_, s: &State| answered(s, is_right)),
            Property::sometimes(REVOKED, |_, s: &State| s.seen.revoked),
            Property::sometimes(USED, |_, s: &State| answered(s, |c| c == Change::Use)),
            Property::sometimes(CONSUMED, |_, s: &State| s.seen.consumptions > 0),
            Property::sometimes(RESTARTED, |_, s: &State| {
                s.spent.crashes > 0 && all_serve(s)
            }),
            Property::sometimes(STOPPED, stopped_clean),
            Property::sometimes(LEFT, |m: &Ledger, s: &State| s.seen.evaluations > m.budget),
        ]
    }
}

fn charges_are_covered(m: &Ledger, s: &State) -> bool {
    // Two lines, or none at all: every start and every anchoring refuses.
    let Some(newest) = anchor::newest(s) else {
        return true;
    };
    let evaluated = s.all_heads().filter(|h| s.seen.evaluated & mark(*h) != 0);
    evaluated.into_iter().all(|charge| {
        let sealed = s.head(charge);
        let penalty = newest.boot > sealed.boot || (newest.boot == sealed.boot && newest.dirty);
        s.descends(newest.head, charge)
            || s.epoch(newest.head) > sealed.epoch
            || (m.bounded() && penalty)
    })
}

fn checkpoints_are_ordered(_: &Ledger, s: &State) -> bool {
    let signed = || s.all_heads().filter(|h| s.seen.signed & mark(*h) != 0);
    signed().all(|a| signed().all(|b| s.epoch(a) != s.epoch(b) || s.related(a, b)))
}

fn anchor_goes_forward(_: &Ledger, s: &State) -> bool {
    let seen = s.seen.newest;
    let forward = anchor::newest(s)
        .is_none_or(|a| s.descends(a.head, seen) || s.epoch(a.head) > s.epoch(seen));
    forward && !s.seen.forked
}

fn only_declared_changes(m: &Ledger, s: &State) -> bool {
    // Earlier heads were looked at when they were the last.
    s.heads.last().is_none_or(|head| {
        let parent = s.head(head.parent);
        head.record == m.apply(&parent.record, head.change, head.boot)
    })
}

fn serving_descends(_: &Ledger, s: &State) -> bool {
    let mut serving = s.nodes.iter().filter(|node| node.phase == Phase::Serving);
    serving.all(|node| s.descends(node.memory, node.confirmed))
}

/// With an honest database: whatever has happened, a process that starts now
/// comes to serve, before and after a reboot. With one that lies: it can still
/// undo what it did (one node; two nodes may leave a fork in the token).
fn start_is_left(m: &Ledger, s: &State) -> bool {
    if s.spent.token_lost || (m.nodes > 1 && !m.honest) {
        return true;
    }
    s.nodes.iter().all(|node| {
        [node.warm, None].into_iter().all(|warm| {
            if m.honest {
                m.can_start(s, s.database, warm)
            } else {
                s.all_heads().rev().any(|shown| m.can_start(s, shown, warm))
            }
        })
    })
}

fn answered(s: &State, wanted: fn(Change) -> bool) -> bool {
    s.nodes.iter().any(|node| {
        s.all_heads()
            .any(|h| wanted(s.head(h).change) && s.descends(node.confirmed, h))
    })
}

fn is_wrong(change: Change) -> bool {
    matches!(change, Change::Outcome { right: false, .. })
}

fn is_right(change: Change) -> bool {
    matches!(change, Change::Outcome { right: true, .. })
}

fn all_serve(s: &State) -> bool {
    s.nodes.iter().all(|node| node.phase == Phase::Serving)
}

fn stopped_clean(_: &Ledger, s: &State) -> bool {
    anchor::newest(s).is_some_and(|a| a.clean)
        && s.nodes.iter().all(|node| node.phase == Phase::Down)
}
