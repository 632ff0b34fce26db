//! Starting, and the restore ceremony: the two ways in which a head is taken
//! over from the database.

use crate::{
    anchor::{self, Verdict},
    config::{Ledger, Mutant},
    record::Change,
    state::{Anchor, Head, IDLE, Job, Node, Phase, Purpose, Stage, State},
};

impl Ledger {
    /// The boot epoch in which a node may adopt `shown`, or nothing: refuse.
    fn adopts(&self, s: &State, shown: u8, warm: Option<u8>) -> Option<u8> {
        let counts = |a: &Anchor| self.nodes == 1 || !self.is_disproved(s, *a, shown, false);
        let Some(newest) = anchor::newest_of(s, counts) else {
            return self.is(Mutant::MissingAnchorIsZero).then_some(0);
        };
        let descends = s.epoch(shown) == s.epoch(newest.head) && s.descends(shown, newest.head);
        let stopped_here = !newest.clean || shown == newest.head;
        // A warm anchor of an older log epoch binds nothing any more.
        let warm = warm.filter(|w| s.epoch(*w) == s.epoch(newest.head));
        let warm_holds = warm.is_none_or(|w| s.descends(shown, w));
        if !(descends && stopped_here && warm_holds) {
            return None;
        }
        let lost = self.bounded() && warm.is_none() && newest.dirty && !newest.clean;
        let raised = lost && !self.is(Mutant::NoBootEpoch);
        Some(newest.boot + u8::from(raised))
    }

    /// Reads the anchor, adopts what the database shows and anchors that.
    pub(crate) fn start(&self, s: &mut State, n: usize, shown: u8) {
        let warm = s.nodes[n].warm;
        let Some(boot) = self.adopts(s, shown, warm) else {
            return;
        };
        let unanchored = self.is(Mutant::NoAnchorAtStart);
        s.nodes[n] = Node {
            phase: if unanchored {
                Phase::Serving
            } else {
                Phase::Starting
            },
            memory: shown,
            confirmed: shown,
            boot,
            warm,
            job: Job {
                stage: Stage::List,
                purpose: Purpose::Start,
                head: shown,
                late: false,
            },
            ..crate::state::DOWN
        };
        if unanchored {
            s.nodes[n].job = IDLE;
        }
    }

    /// Would a start with this head, and this warm anchor, come to serve?
    pub(crate) fn can_start(&self, s: &State, shown: u8, warm: Option<u8>) -> bool {
        let Some(boot) = self.adopts(s, shown, warm) else {
            return false;
        };
        let wanted = Anchor {
            head: shown,
            boot,
            clean: false,
            dirty: false,
            maker: 0,
        };
        matches!(
            self.verdict(s, wanted, false),
            Verdict::Covered | Verdict::Older
        )
    }

    /// `accept-restore`: the approved head under a new log epoch, and an
    /// anchor of that epoch. What the token held before stays until a node of
    /// the new epoch destroys it.
    pub(crate) fn restore(&self, s: &mut State, chosen: u8) {
        let parent = *s.head(chosen);
        let same_epoch = self.is(Mutant::RestoreKeepsEpoch);
        let head = s.heads.len() as u8;
        let boot = s.token.iter().map(|a| a.boot).max().unwrap_or_default();
        let current = s.all_heads().map(|h| s.epoch(h)).max().unwrap_or_default();
        s.heads.push(Head {
            parent: chosen,
            seq: parent.seq + 1,
            epoch: current + u8::from(!same_epoch),
            boot,
            change: Change::Restore,
            record: self.apply(&parent.record, Change::Restore, boot),
        });
        if same_epoch {
            s.token.clear();
        }
        s.put(Anchor {
            head,
            boot,
            clean: false,
            dirty: false,
            maker: 0,
        });
        s.spent.restores += 1;
        s.database = head;
    }
}
