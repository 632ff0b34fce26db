//! The world of one state: every head ever sealed (the database may serve any
//! of them), the token's anchor objects, the nodes, and what the world outside
//! has seen. A head is known by its index, which stands for its hash.

use std::ops::Range;

use crate::record::{Change, Record};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Head {
    pub(crate) parent: u8,
    pub(crate) seq: u8,
    pub(crate) epoch: u8,
    /// Boot epoch of the node that sealed it.
    pub(crate) boot: u8,
    pub(crate) change: Change,
    pub(crate) record: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Anchor {
    pub(crate) head: u8,
    pub(crate) boot: u8,
    pub(crate) clean: bool,
    pub(crate) dirty: bool,
    /// The node that created the object, and so may destroy it again.
    pub(crate) maker: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Down,
    Starting,
    Serving,
}

/// Where the committer stands. Between two of these the process may die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Idle,
    /// COMMIT is on its way.
    Sent,
    /// No answer came: reconnect and read the head.
    Unknown,
    /// Committed; bounded mode writes the warm anchor next.
    Warm,
    List,
    Create,
    ListAgain,
    Destroy,
    /// Lost against another's head: destroy my object.
    Abandon,
}

/// Why the committer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Batch,
    Start,
    /// Another node's head, before it is believed.
    CatchUp,
    /// Bounded: the flag before the first unanchored charge.
    Dirty,
    /// Bounded: the interval has passed.
    Interval,
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) stage: Stage,
    pub(crate) purpose: Purpose,
    pub(crate) head: u8,
    /// The request began after the revocation was released.
    pub(crate) late: bool,
}

pub(crate) const IDLE: Job = Job {
    stage: Stage::Idle,
    purpose: Purpose::Batch,
    head: 0,
    late: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) phase: Phase,
    /// The head in memory.
    pub(crate) memory: u8,
    /// The newest head of this node that an anchor covers.
    pub(crate) confirmed: u8,
    pub(crate) boot: u8,
    pub(crate) dirty: bool,
    /// Charges since the token's anchor.
    pub(crate) unanchored: u8,
    /// In the runtime directory: outlives the process, not the host.
    pub(crate) warm: Option<u8>,
    pub(crate) job: Job,
    /// Guesses charged and released for evaluation, then by their result.
    pub(crate) charged: u8,
    pub(crate) wrong: u8,
    pub(crate) right: u8,
}

pub(crate) const DOWN: Node = Node {
    phase: Phase::Down,
    memory: 0,
    confirmed: 0,
    boot: 0,
    dirty: false,
    unanchored: 0,
    warm: None,
    job: IDLE,
    charged: 0,
    wrong: 0,
    right: 0,
};

/// What has been used of the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Spent {
    pub(crate) guesses: u8,
    pub(crate) rights: u8,
    pub(crate) crashes: u8,
    pub(crate) uses: u8,
    pub(crate) consumptions: u8,
    pub(crate) restores: u8,
    pub(crate) token_lost: bool,
}

/// What the world outside has seen. No rule reads it; the properties do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// Evaluations since the last success that an anchor covers.
    pub(crate) evaluations: u8,
    /// Charges that were evaluated, a bit for each head.
    pub(crate) evaluated: u16,
    /// Successes that have reset the count, a bit for each head.
    pub(crate) successes: u16,
    /// Signed checkpoints, a bit for each head.
    pub(crate) signed: u16,
    pub(crate) revoked: bool,
    pub(crate) used_after_revocation: bool,
    pub(crate) consumptions: u8,
    /// The newest head that any node confirmed in the token.
    pub(crate) newest: u8,
    pub(crate) forked: bool,
    /// A node stopped over evidence.
    pub(crate) alarm: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) heads: Vec<Head>,
    /// What an honest database holds. One that lies has no state of its own.
    pub(crate) database: u8,
    /// A multiset: two nodes may create the same anchor.
    pub(crate) token: Vec<Anchor>,
    pub(crate) nodes: Vec<Node>,
    /// Ceremonies that time has ended, a bit for each guess.
    pub(crate) expired: u8,
    pub(crate) spent: Spent,
    pub(crate) seen: Seen,
}

pub(crate) fn mark(head: u8) -> u16 {
    1 << head
}

impl State {
    pub(crate) fn head(&self, index: u8) -> &Head {
        &self.heads[usize::from(index)]
    }

    /// Descends from, or is.
    pub(crate) fn descends(&self, younger: u8, older: u8) -> bool {
        let mut at = younger;
        while at > older {
            at = self.head(at).parent;
        }
        at == older
    }

    pub(crate) fn related(&self, one: u8, other: u8) -> bool {
        self.descends(one, other) || self.descends(other, one)
    }

    pub(crate) fn epoch(&self, index: u8) -> u8 {
        self.head(index).epoch
    }

    pub(crate) fn all_heads(&self) -> Range<u8> {
        0..self.heads.len() as u8
    }

    pub(crate) fn put(&mut self, anchor: Anchor) {
        self.token.push(anchor);
        self.token.sort_unstable();
    }

    pub(crate) fn destroy(&mut self, anchor: Anchor) {
        if let Some(at) = self.token.iter().position(|a| *a == anchor) {
            self.token.remove(at);
        }
    }
}
