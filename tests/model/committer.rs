//! The committer of one node: take the head, seal, commit, anchor, release.
//! Each function is one step, and the process may die between any two.

use crate::{
    anchor::Verdict,
    config::{Ledger, Mutant},
    record::{Change, bit},
    state::{Anchor, DOWN, Head, IDLE, Job, Phase, Purpose, Stage, State, mark},
};

impl Ledger {
    /// Seals a change on top of the verified memory. `neighbour` is what the
    /// database shows for the neighbour now; only the mutant believes it.
    pub(crate) fn seal(&self, s: &mut State, n: usize, change: Change, neighbour: u8) {
        let node = s.nodes[n];
        let parent = *s.head(node.memory);
        let mut record = self.apply(&parent.record, change, node.boot);
        if self.is(Mutant::NeighboursReread) && change != Change::Revoke {
            record.revoked = s.head(neighbour).record.revoked;
        }
        let head = s.heads.len() as u8;
        s.heads.push(Head {
            parent: node.memory,
            seq: parent.seq + 1,
            epoch: parent.epoch,
            boot: node.boot,
            change,
            record,
        });
        match change {
            Change::Charge(_) => s.spent.guesses += 1,
            Change::Use => s.spent.uses += 1,
            Change::Consume => s.spent.consumptions += 1,
            Change::Outcome { guess, .. } => {
                s.nodes[n].wrong &= !bit(guess);
                s.nodes[n].right &= !bit(guess);
            }
            Change::Genesis | Change::Revoke | Change::Restore => {}
        }
        s.nodes[n].job = Job {
            stage: Stage::Sent,
            purpose: Purpose::Batch,
            head,
            late: s.seen.revoked,
        };
    }

    /// COMMIT was acknowledged.
    pub(crate) fn committed(&self, s: &mut State, n: usize) {
        let job = s.nodes[n].job;
        if self.is(Mutant::SignBeforeAnchor) {
            s.seen.signed |= mark(job.head);
        }
        if self.is(Mutant::LazyAnchor) {
            s.nodes[n].memory = job.head;
            self.release(s, n, job);
            s.nodes[n].job.purpose = Purpose::Interval;
        }
        let at_once = s.head(job.head).change == Change::Revoke;
        s.nodes[n].job.stage = if self.bounded() && !at_once {
            Stage::Warm
        } else {
            Stage::List
        };
    }

    /// No answer to COMMIT. Nothing is evaluated, nothing answered.
    pub(crate) fn unanswered(&self, s: &mut State, n: usize) {
        s.nodes[n].job.stage = Stage::Unknown;
        if self.is(Mutant::EvaluateUnknown) {
            let job = s.nodes[n].job;
            self.release(s, n, job);
        }
    }

    /// Reconnected, and the database shows `shown`.
    pub(crate) fn resolve_unknown(&self, s: &mut State, n: usize, shown: u8) {
        let node = s.nodes[n];
        let mine = node.job.head;
        if s.epoch(shown) != s.epoch(mine) {
            self.stop(s, n);
        } else if s.descends(shown, mine) {
            // Mine, or one that another node has put on mine already.
            self.committed(s, n);
        } else if shown == node.memory {
            s.nodes[n].job.stage = Stage::Sent;
        } else if s.descends(shown, node.memory) && self.others_write() {
            if self.nodes == 1 {
                s.nodes[n].memory = shown;
            }
            s.nodes[n].job = IDLE;
        } else {
            self.stop(s, n);
        }
    }

    /// Bounded mode: the warm anchor stands, so the batch is released.
    pub(crate) fn warmed(&self, s: &mut State, n: usize) {
        let job = s.nodes[n].job;
        let node = &mut s.nodes[n];
        node.warm = Some(job.head);
        node.memory = job.head;
        node.confirmed = job.head;
        node.job = IDLE;
        if matches!(s.head(job.head).change, Change::Charge(_)) {
            s.nodes[n].unanchored += 1;
        }
        forget(s, job.head);
        self.release(s, n, job);
    }

    /// Starts an anchoring of the memory's head for another reason than a batch.
    pub(crate) fn anchor_memory(&self, s: &mut State, n: usize, purpose: Purpose) {
        s.nodes[n].job = Job {
            stage: Stage::List,
            purpose,
            head: s.nodes[n].memory,
            late: false,
        };
    }

    /// Another node has written this: it is believed, and written upon, once it is covered.
    pub(crate) fn catch_up(&self, s: &mut State, n: usize, shown: u8) {
        if self.is(Mutant::ReadUncovered) || self.is(Mutant::CatchUpUncovered) {
            s.nodes[n].memory = shown;
            return;
        }
        s.nodes[n].job = Job {
            stage: Stage::List,
            purpose: Purpose::CatchUp,
            head: shown,
            late: false,
        };
    }

    fn wanted(&self, s: &State, n: usize) -> Anchor {
        let node = &s.nodes[n];
        Anchor {
            head: node.job.head,
            boot: node.boot,
            clean: node.job.purpose == Purpose::Stop,
            dirty: node.job.purpose == Purpose::Dirty,
            maker: n as u8,
        }
    }

    /// The first list.
    pub(crate) fn list(&self, s: &mut State, n: usize) {
        if let Some(orphan) = self.orphan(s, n, self.wanted(s, n)) {
            s.destroy(orphan);
            return;
        }
        match self.verdict(s, self.wanted(s, n), false) {
            Verdict::Older => s.nodes[n].job.stage = Stage::Create,
            Verdict::Covered => self.confirm(s, n),
            Verdict::Missing if self.is(Mutant::MissingAnchorIsZero) => {
                s.nodes[n].job.stage = Stage::Create;
            }
            Verdict::Missing => self.stop(s, n),
            Verdict::Fork => self.lost(s, n),
        }
    }

    pub(crate) fn create(&self, s: &mut State, n: usize) {
        let wanted = self.wanted(s, n);
        s.put(wanted);
        if self.is(Mutant::NoSecondList) {
            self.confirm(s, n);
        } else {
            s.nodes[n].job.stage = Stage::ListAgain;
        }
    }

    /// The second list: of two nodes that created at once, one at least sees
    /// the other.
    pub(crate) fn list_again(&self, s: &mut State, n: usize) {
        if let Some(orphan) = self.orphan(s, n, self.wanted(s, n)) {
            s.destroy(orphan);
            return;
        }
        match self.verdict(s, self.wanted(s, n), true) {
            Verdict::Covered => self.confirm(s, n),
            Verdict::Fork => s.nodes[n].job.stage = Stage::Abandon,
            // Mine is gone and nothing that descends from it stands.
            Verdict::Missing | Verdict::Older => self.stop(s, n),
        }
    }

    /// The anchor holds: only now sign, and let out what waited.
    fn confirm(&self, s: &mut State, n: usize) {
        let job = s.nodes[n].job;
        let node = &mut s.nodes[n];
        node.confirmed = job.head;
        if !self.is(Mutant::LazyAnchor) {
            node.memory = job.head;
        }
        node.phase = Phase::Serving;
        node.dirty = job.purpose == Purpose::Dirty;
        node.unanchored = 0;
        s.seen.signed |= mark(job.head);
        self.note_confirmed(s, job.head);
        forget(s, job.head);
        if job.purpose == Purpose::Batch {
            self.release(s, n, job);
        }
        s.nodes[n].job.stage = Stage::Destroy;
        self.finish(s, n);
    }

    /// Destroys one superseded object.
    pub(crate) fn destroy_one(&self, s: &mut State, n: usize) {
        if let Some(old) = self.superseded(s, self.wanted(s, n)) {
            s.destroy(old);
        }
        self.finish(s, n);
    }

    fn finish(&self, s: &mut State, n: usize) {
        let wanted = self.wanted(s, n);
        let covered_by_another = !s.token.contains(&wanted);
        if covered_by_another || self.superseded(s, wanted).is_none() {
            let stopped = s.nodes[n].job.purpose == Purpose::Stop;
            s.nodes[n].job = IDLE;
            if stopped {
                s.nodes[n] = down(s, n);
            }
        }
    }

    /// Another head won before mine was created.
    fn lost(&self, s: &mut State, n: usize) {
        let node = s.nodes[n];
        let epoch = s.epoch(node.confirmed);
        let against_released = s
            .token
            .iter()
            .any(|a| s.epoch(a.head) > epoch || !s.related(a.head, node.confirmed));
        if against_released || node.phase == Phase::Starting {
            self.stop(s, n);
        } else {
            s.nodes[n].job = IDLE;
        }
    }

    pub(crate) fn abandon(&self, s: &mut State, n: usize) {
        s.destroy(self.wanted(s, n));
        self.lost(s, n);
    }

    /// Evidence: not ready, alert.
    pub(crate) fn stop(&self, s: &mut State, n: usize) {
        s.seen.alarm = self.honest;
        s.nodes[n] = down(s, n);
    }

    fn release(&self, s: &mut State, n: usize, job: Job) {
        match s.head(job.head).change {
            Change::Charge(guess) => s.nodes[n].charged |= bit(guess),
            Change::Revoke => s.seen.revoked = true,
            Change::Use => s.seen.used_after_revocation |= job.late,
            Change::Consume => s.seen.consumptions += 1,
            Change::Genesis | Change::Outcome { .. } | Change::Restore => {}
        }
    }

    /// The newest confirmed head, and whether two confirmed ones ever forked.
    fn note_confirmed(&self, s: &mut State, head: u8) {
        let newest = s.seen.newest;
        if s.epoch(head) > s.epoch(newest) || s.descends(head, newest) {
            s.seen.newest = head;
        } else if !s.descends(newest, head) {
            s.seen.forked = true;
        }
    }
}

/// The dead process leaves nothing but its warm anchor.
pub(crate) fn down(s: &State, n: usize) -> crate::state::Node {
    crate::state::Node {
        warm: s.nodes[n].warm,
        ..DOWN
    }
}

/// A success that an anchor covers starts the count anew, once.
fn forget(s: &mut State, head: u8) {
    let mut at = head;
    while at > 0 {
        let success = matches!(s.head(at).change, Change::Outcome { right: true, .. });
        if success && s.seen.successes & mark(at) == 0 {
            s.seen.successes |= mark(at);
            s.seen.evaluations = 0;
        }
        at = s.head(at).parent;
    }
}
