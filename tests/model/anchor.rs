//! What the token's list of anchor objects says: the newest of them, and
//! whether a head may be anchored beside them. Pure functions over a state.

use crate::{
    config::{Ledger, Mutant},
    state::{Anchor, Phase, State},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No object at all: refuse.
    Missing,
    /// An object that is neither ancestor nor descendant, or a newer epoch.
    Fork,
    /// This anchor, or one that descends from it, is there.
    Covered,
    /// All are ancestors: create.
    Older,
}

/// The anchor that a start goes by: none when the objects of the newest log
/// epoch are not one line of descent. Of equal heads the highest boot epoch
/// counts; then dirty wins over not dirty and unclean over clean, because the
/// other may be what a crash left undestroyed.
pub(crate) fn newest(state: &State) -> Option<Anchor> {
    newest_of(state, |_| true)
}

/// The same of those that count.
pub(crate) fn newest_of(state: &State, counts: impl Fn(&Anchor) -> bool) -> Option<Anchor> {
    let counting = || state.token.iter().filter(|a| counts(a));
    let epoch = counting().map(|a| state.epoch(a.head)).max()?;
    let current = || counting().filter(|a| state.epoch(a.head) == epoch);
    let line = current().all(|a| current().all(|b| state.related(a.head, b.head)));
    if !line {
        return None;
    }
    current().copied().max_by_key(|a| rank(state, a))
}

/// The greatest seq, whatever else is there: what a mutant looks at.
fn newest_by_seq(state: &State) -> Option<Anchor> {
    let by_rank = |a: &&Anchor| (state.epoch(a.head), rank(state, a));
    state.token.iter().max_by_key(by_rank).copied()
}

fn rank(state: &State, anchor: &Anchor) -> (u8, u8, bool, bool) {
    let seq = state.head(anchor.head).seq;
    (seq, anchor.boot, anchor.dirty, !anchor.clean)
}

impl Ledger {
    /// The test of the first list, and of the second (`created`: mine is made).
    ///
    /// Every object is looked at: on the second list the newest one is usually
    /// my own. Another node's object is a claim that its maker may take back,
    /// so it covers nothing by itself; but as one confirmed object always
    /// stands, a list of nothing older than `wanted` does.
    pub(crate) fn verdict(&self, state: &State, wanted: Anchor, created: bool) -> Verdict {
        let epoch = state.epoch(wanted.head);
        if state.token.is_empty() {
            return Verdict::Missing;
        }
        if state.token.iter().any(|a| state.epoch(a.head) > epoch) {
            return Verdict::Fork;
        }
        let top = newest_by_seq(state);
        let only_top = created && self.is(Mutant::SecondListNewestOnly);
        let looked_at = |a: &&Anchor| !only_top || top.is_some_and(|t| t == **a);
        let current = state.token.iter().filter(|a| state.epoch(a.head) == epoch);
        let peers: Vec<_> = current.filter(looked_at).collect();
        if peers.iter().any(|a| !state.related(a.head, wanted.head)) {
            return Verdict::Fork;
        }
        let mut covering = peers.iter().filter(|a| self.covers(state, ***a, wanted));
        // Only a confirmed descendant's node destroys mine; alone, nobody else does.
        let claims_count = created || self.nodes == 1 || self.is(Mutant::TrustOthersAnchor);
        let covered = if claims_count {
            covering.next().is_some()
        } else {
            !peers.is_empty() && covering.count() == peers.len()
        };
        if covered {
            Verdict::Covered
        } else {
            Verdict::Older
        }
    }

    /// An object that never counted and never will, beside one of the line of `wanted`. A head is
    /// made only upon one that is covered, and from then on each list has an object of
    /// that line: so no other head of a number below `wanted` can have been covered, nor one of
    /// the same number where this node itself has found `wanted` covered.
    pub(crate) fn orphan(&self, state: &State, n: usize, wanted: Anchor) -> Option<Anchor> {
        let node = &state.nodes[n];
        let own = node.phase == Phase::Serving && node.confirmed == wanted.head;
        let stands = |a: &Anchor| self.same_line(state, *a, wanted.head);
        if self.nodes == 1 || !state.token.iter().any(stands) {
            return None;
        }
        let mut orphans = state.token.iter().filter(|a| {
            self.is_disproved(
                state,
                **a,
                wanted.head,
                own || self.is(Mutant::OrphansByNumber),
            )
        });
        orphans.next().copied()
    }

    fn same_line(&self, state: &State, anchor: Anchor, head: u8) -> bool {
        state.epoch(anchor.head) == state.epoch(head) && state.related(anchor.head, head)
    }

    /// Whether the line of `head` has another head of the anchor's number; `equal`: its own counts.
    pub(crate) fn is_disproved(
        &self,
        state: &State,
        anchor: Anchor,
        head: u8,
        equal: bool,
    ) -> bool {
        let (theirs, ours) = (state.head(anchor.head).seq, state.head(head).seq);
        state.epoch(anchor.head) == state.epoch(head)
            && !state.related(anchor.head, head)
            && (theirs < ours || (equal && theirs == ours))
    }

    fn covers(&self, state: &State, anchor: Anchor, wanted: Anchor) -> bool {
        if anchor.head == wanted.head {
            // The flags count: a start must take the clean flag away.
            return same_flags(anchor, wanted)
                || (anchor.clean && self.is(Mutant::CleanFlagStands));
        }
        state.descends(anchor.head, wanted.head)
    }

    /// What may be destroyed once `wanted` stands: verified ancestors, older log
    /// epochs, and the same head under other flags (one node). The same anchor
    /// by another maker stays, or each of two nodes destroys the other's.
    pub(crate) fn superseded(&self, state: &State, wanted: Anchor) -> Option<Anchor> {
        let epoch = state.epoch(wanted.head);
        let same = |a: &Anchor| {
            a.head == wanted.head && same_flags(*a, wanted) && !self.is(Mutant::DestroyEquals)
        };
        let old = |a: &&Anchor| {
            let ancestor = **a != wanted && state.descends(wanted.head, a.head);
            state.epoch(a.head) < epoch || (ancestor && !same(a))
        };
        state.token.iter().find(old).copied()
    }
}

fn same_flags(one: Anchor, other: Anchor) -> bool {
    Anchor { maker: 0, ..one } == Anchor { maker: 0, ..other }
}
