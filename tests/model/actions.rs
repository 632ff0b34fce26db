//! What can happen next: requests, the steps of each node, faults, and the
//! adversary. A database that lies may show any head ever sealed at each read,
//! so it needs no state and no bound.

use crate::{
    anchor,
    committer::down,
    config::{Ledger, Mutant},
    record::{Change, bit},
    state::{Anchor, Head, Node, Phase, Purpose, Stage, State, mark},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Begin(usize, Change, u8),
    Committed(usize),
    CommitLost(usize),
    CommitDoneAnswerLost(usize),
    ReadHead(usize, u8),
    WriteWarmAnchor(usize),
    AnchorMemory(usize, Purpose),
    List(usize),
    Create(usize),
    ListAgain(usize),
    DestroyOld(usize),
    DestroyMine(usize),
    Evaluate(usize, u8, bool),
    ReadRevoked(usize),
    CatchUp(usize, u8),
    Expire(u8),
    Kill(usize),
    Reboot(usize),
    Start(usize, u8),
    Restore(u8),
    LoseAnchors,
}

impl Ledger {
    pub(crate) fn first_state(&self) -> State {
        let genesis = Head {
            parent: 0,
            seq: 0,
            epoch: 0,
            boot: 0,
            change: Change::Genesis,
            record: crate::record::FRESH,
        };
        let serving = Node {
            phase: Phase::Serving,
            ..crate::state::DOWN
        };
        State {
            heads: vec![genesis],
            database: 0,
            token: vec![Anchor {
                head: 0,
                boot: 0,
                clean: false,
                dirty: false,
                maker: 0,
            }],
            nodes: vec![serving; self.nodes],
            expired: 0,
            spent: Default::default(),
            seen: Default::default(),
        }
    }

    pub(crate) fn possible(&self, s: &State, actions: &mut Vec<Action>) {
        for (n, node) in s.nodes.iter().enumerate() {
            match node.phase {
                Phase::Down => actions.extend(self.shown(s).map(|x| Action::Start(n, x))),
                Phase::Starting | Phase::Serving => self.node_actions(s, n, actions),
            }
            if s.spent.crashes < self.bounds.crashes {
                if node.phase != Phase::Down {
                    actions.push(Action::Kill(n));
                }
                if self.bounded() && (node.phase != Phase::Down || node.warm.is_some()) {
                    actions.push(Action::Reboot(n));
                }
            }
        }
        self.outside(s, actions);
    }

    /// The heads that the database may show now.
    fn shown(&self, s: &State) -> impl Iterator<Item = u8> + use<> {
        let (from, to) = if self.honest {
            (s.database, s.database + 1)
        } else {
            (0, s.heads.len() as u8)
        };
        from..to
    }

    fn node_actions(&self, s: &State, n: usize, actions: &mut Vec<Action>) {
        match s.nodes[n].job.stage {
            Stage::Idle => self.idle_actions(s, n, actions),
            Stage::Sent => {
                actions.extend([Action::Committed(n), Action::CommitLost(n)]);
                if self.honest {
                    actions.push(Action::CommitDoneAnswerLost(n));
                }
            }
            Stage::Unknown => actions.extend(self.shown(s).map(|x| Action::ReadHead(n, x))),
            Stage::Warm => actions.push(Action::WriteWarmAnchor(n)),
            Stage::List => actions.push(Action::List(n)),
            Stage::Create => actions.push(Action::Create(n)),
            Stage::ListAgain => actions.push(Action::ListAgain(n)),
            Stage::Destroy => actions.push(Action::DestroyOld(n)),
            Stage::Abandon => actions.push(Action::DestroyMine(n)),
        }
        for guess in (0..s.spent.guesses).filter(|g| s.nodes[n].charged & bit(*g) != 0) {
            // Time is the only thing that ends a charge without its outcome.
            if s.expired & bit(guess) == 0 || self.is(Mutant::EvaluateExpired) {
                actions.push(Action::Evaluate(n, guess, false));
                if s.spent.rights < self.bounds.rights {
                    actions.push(Action::Evaluate(n, guess, true));
                }
            }
        }
        if !s.seen.revoked && self.may_answer_revoked(s, n) {
            actions.push(Action::ReadRevoked(n));
        }
    }

    /// A read that tells somebody "revoked": from a head that an anchor covers.
    fn may_answer_revoked(&self, s: &State, n: usize) -> bool {
        let node = &s.nodes[n];
        let fresh = if self.nodes == 1 {
            node.confirmed == node.memory
        } else {
            s.token.iter().all(|a| a.head == node.memory)
        };
        node.phase == Phase::Serving
            && s.head(node.memory).record.revoked
            && (fresh || self.is(Mutant::ReadUncovered))
    }

    fn idle_actions(&self, s: &State, n: usize, actions: &mut Vec<Action>) {
        let node = s.nodes[n];
        if self.nodes > 1 {
            let newer = |x: &u8| *x != node.memory && s.descends(*x, node.memory);
            let same_epoch = |x: &u8| s.epoch(*x) == s.epoch(node.memory);
            let shown = self.shown(s).filter(newer).filter(same_epoch);
            actions.extend(shown.map(|x| Action::CatchUp(n, x)));
        } else {
            self.flag_actions(s, n, actions);
        }
        if s.heads.len() >= self.bounds.heads || (self.honest && s.database != node.memory) {
            return;
        }
        let reread = if self.is(Mutant::NeighboursReread) {
            s.heads.len() as u8
        } else {
            1
        };
        for change in self.changes(s, n) {
            actions.extend((0..reread).map(|x| Action::Begin(n, change, x)));
        }
    }

    /// One exclusive node: clean stop, and bounded mode's token anchors.
    fn flag_actions(&self, s: &State, n: usize, actions: &mut Vec<Action>) {
        let node = s.nodes[n];
        actions.push(Action::AnchorMemory(n, Purpose::Stop));
        if !self.bounded() {
            return;
        }
        if !node.dirty || node.unanchored >= self.unanchored {
            actions.push(Action::AnchorMemory(n, Purpose::Dirty));
        }
        if anchor::newest(s).is_some_and(|a| a.head != node.memory) {
            actions.push(Action::AnchorMemory(n, Purpose::Interval));
        }
    }

    /// The requests that this node would accept on its memory.
    fn changes(&self, s: &State, n: usize) -> Vec<Change> {
        let (node, bounds, spent) = (s.nodes[n], &self.bounds, &s.spent);
        let record = s.head(node.memory).record;
        // Whatever power failure may lose and must not give back waits for the flag.
        let flagged = !self.bounded() || node.dirty || self.is(Mutant::NoDirtyFlag);
        let room = !self.bounded() || node.unanchored < self.unanchored;
        let mut changes = Vec::new();
        if spent.guesses < bounds.guesses
            && self.attempts(&record, node.boot) < self.budget
            && flagged
            && room
        {
            changes.push(Change::Charge(spent.guesses));
        }
        for guess in 0..spent.guesses {
            let right = node.right & bit(guess) != 0;
            if (right || node.wrong & bit(guess) != 0) && s.expired & bit(guess) == 0 {
                changes.push(Change::Outcome {
                    guess,
                    right,
                    cleared: bit(guess) | s.expired,
                });
            }
        }
        if bounds.revoke && !record.revoked {
            changes.push(Change::Revoke);
        }
        if spent.uses < bounds.uses && !record.revoked {
            changes.push(Change::Use);
        }
        let live = node.boot == 0 || self.is(Mutant::CodesOutliveBoot);
        if spent.consumptions < bounds.consumptions && !record.consumed && live && flagged {
            changes.push(Change::Consume);
        }
        changes
    }

    fn outside(&self, s: &State, actions: &mut Vec<Action>) {
        if self.bounds.expiry {
            let open = (0..s.spent.guesses).filter(|g| s.expired & bit(*g) == 0);
            actions.extend(open.map(Action::Expire));
        }
        let operator = s.nodes.iter().any(|node| node.phase == Phase::Down);
        if s.spent.restores < self.bounds.restores && operator && s.heads.len() < self.bounds.heads
        {
            actions.extend(self.shown(s).map(Action::Restore));
        }
        if self.bounds.token_loss && !s.spent.token_lost {
            actions.push(Action::LoseAnchors);
        }
    }

    pub(crate) fn step(&self, s: &mut State, action: Action) {
        match action {
            Action::Begin(n, change, neighbour) => self.seal(s, n, change, neighbour),
            Action::Committed(n) => self.commit(s, n),
            Action::CommitLost(n) => self.unanswered(s, n),
            Action::CommitDoneAnswerLost(n) => {
                self.store(s, n);
                self.unanswered(s, n);
            }
            Action::ReadHead(n, shown) => self.resolve_unknown(s, n, shown),
            Action::WriteWarmAnchor(n) => self.warmed(s, n),
            Action::AnchorMemory(n, purpose) => self.anchor_memory(s, n, purpose),
            Action::List(n) => self.list(s, n),
            Action::Create(n) => self.create(s, n),
            Action::ListAgain(n) => self.list_again(s, n),
            Action::DestroyOld(n) => self.destroy_one(s, n),
            Action::DestroyMine(n) => self.abandon(s, n),
            Action::Evaluate(n, guess, right) => evaluate(s, n, guess, right),
            Action::ReadRevoked(_) => s.seen.revoked = true,
            Action::CatchUp(n, shown) => self.catch_up(s, n, shown),
            Action::Expire(guess) => s.expired |= bit(guess),
            Action::Kill(n) => {
                s.spent.crashes += 1;
                s.nodes[n] = down(s, n);
            }
            Action::Reboot(n) => {
                s.spent.crashes += 1;
                s.nodes[n] = crate::state::DOWN;
            }
            Action::Start(n, shown) => self.start(s, n, shown),
            Action::Restore(chosen) => self.restore(s, chosen),
            Action::LoseAnchors => {
                s.spent.token_lost = true;
                s.token.clear();
            }
        }
    }

    /// `UPDATE head ... WHERE seq = n`: an honest database lets one of two win.
    fn commit(&self, s: &mut State, n: usize) {
        if self.store(s, n) {
            self.committed(s, n);
        } else {
            s.nodes[n].job = crate::state::IDLE;
        }
    }

    fn store(&self, s: &mut State, n: usize) -> bool {
        let job = s.nodes[n].job;
        if !self.honest {
            return true;
        }
        let won = s.database == s.head(job.head).parent;
        if won {
            s.database = job.head;
        }
        won
    }
}

fn evaluate(s: &mut State, n: usize, guess: u8, right: bool) {
    s.nodes[n].charged &= !bit(guess);
    if right {
        s.nodes[n].right |= bit(guess);
        s.spent.rights += 1;
    } else {
        s.nodes[n].wrong |= bit(guess);
    }
    s.seen.evaluations += 1;
    let charge = Change::Charge(guess);
    let head = s.all_heads().find(|h| s.head(*h).change == charge);
    s.seen.evaluated |= head.map_or(0, mark);
}
