//! For tests: defences that are switched off, to see that what each stops then succeeds.
//!
//! A test's store says which (`Store::weakness`); the place of each defence asks it in one line
//! that exists in test builds only. An attack that is refused proves a defence only together with
//! its control, in which that defence is off and the attack wins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use custodyd_hsm::anchor::Anchor;

use super::LedgerError;
use super::head::Head;
use super::members::MemberList;
use crate::store::Store;

/// What a ledger does wrongly; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is one defence, and a test may switch off several"
)]
pub struct Weakness {
    /// Member lists are not compared with the state tree in memory.
    pub any_list: bool,
    /// A record's content is not compared with its member list.
    pub any_content: bool,
    /// An event's entry is not looked for in the log.
    pub any_event: bool,
    /// A server that does not answer a reader leaves what the token has said before.
    pub unseen: bool,
    /// Another node's batch that has the number of an own one is taken for that.
    pub any_pending: bool,
    /// What an own batch replaces is shown until its outcome is known.
    pub shows_replaced: bool,
    /// An own batch that another node has built on is acknowledged while others write.
    pub out_of_turn: bool,
    /// What was read while a batch came between is taken for evidence.
    pub any_read: bool,
    /// A head's MAC is not checked.
    pub any_head: bool,
    /// The log is not compared with the head at the start.
    pub any_log: bool,
    /// The cached digests are not compared with the head at the start.
    pub any_state: bool,
    /// The head is not compared with the token's anchor at the start.
    pub any_anchor: bool,
    /// A token that holds no anchor is taken for one that holds the right one.
    pub no_anchor: bool,
    /// The approvals of a restore are not over what the token remembers.
    pub any_approval: bool,
    /// Batches are told before they are anchored: as if the anchor came later, and a crash before.
    pub lazy: bool,
    /// Decisions are made upon the state that their author has read, whatever has been committed since.
    pub any_base: bool,
    /// An alias is given to whoever claims it, whoever has it.
    pub any_name: bool,
    /// An account is made although it stands under another MAC key.
    pub any_mac_key: bool,
    /// What is new may be under a MAC key that is not the current one.
    pub made_under_any_key: bool,
    /// A head is believed by older MAC keys than tag what it goes on from: an anchor, or a head that is believed.
    pub older_mac_keys: bool,
    /// A batch's time is the host's, also where the newest head is of a later one.
    pub host_time: bool,
    /// What is deleted for good is judged by the realm's time, whoever's clock that is from.
    pub realm_time: bool,
    /// The committer writes upon member lists that it reads once more, instead of upon those that
    /// it has verified.
    pub rereads: bool,
    /// A commit whose outcome is not known is taken for done.
    pub unknown_is_done: bool,
    /// A node takes the word of a token that lacks what other nodes have anchored.
    pub any_lag: bool,
    /// Anchors of other nodes are not looked for in the log.
    pub any_node: bool,
    /// A node does not ask what others have anchored before it reads.
    pub no_look: bool,
    /// A batch whose outcome is not known is given up where another head stands, though it may be beneath it.
    pub forgets_own: bool,
    /// A node looks for the place of its anchor for as long as others write.
    pub endless: bool,
    /// A node's turn ends with its commit, before that is anchored.
    pub hurries: bool,
    /// A node writes upon what the database shows in its turn without asking what the token remembers.
    pub unasked: bool,
    /// A node takes another server for the one that it had.
    pub any_server: bool,
    /// A node that has caught up does not ask whether that was all.
    pub any_newer: bool,
    /// A head that others have gone on from is taken for the one that the database shows.
    pub stands: bool,
    /// A batch that waits for its anchor is anchored without a look whether the database shows it still.
    pub tries_blindly: bool,
    /// An anchor of another line is evidence, though it is known that it never counted.
    pub keeps_orphans: bool,
    /// A batch takes all that wait, however slow the token is.
    pub any_size: bool,
    /// While writers wait for a turn that is not had, nobody looks whether readers want to know what is the newest.
    pub writers_first: bool,
    /// A start takes its turn once, however long it verifies.
    pub lapses: bool,
    /// Not a weakness: the schema of this node, and the oldest whose custodyd serves it: of a version that is to come.
    pub schema: Option<(u32, u32)>,
    /// Not a weakness: how long each part of all member lists takes to be read.
    pub slow_lists: Option<Duration>,
    /// Not a weakness: how long a reader pauses between two reads, and waits for an anchor.
    pub patience: Option<(Duration, Duration)>,
}

impl Weakness {
    /// What is taken for the token's anchor.
    pub(crate) fn anchor(self, found: Option<Anchor>, head: &Head) -> Option<Anchor> {
        found.or_else(|| {
            let hash = head.hash().ok()?;
            self.no_anchor.then_some(Anchor {
                serial: 1,
                log_epoch: head.state.log_epoch,
                seq: head.state.seq,
                head: hash,
                boot_epoch: head.state.boot_epoch,
                clean: false,
                dirty: false,
            })
        })
    }
}

/// Replaces verified lists by what the database shows now.
pub(crate) async fn reread(
    store: &Arc<dyn Store>,
    lists: &mut HashMap<u32, Result<MemberList, Arc<LedgerError>>>,
) {
    if !store.weakness().rereads {
        return;
    }
    let buckets: Vec<u32> = lists.keys().copied().collect();
    let Ok(rows) = store.members(&buckets).await else {
        return;
    };
    for (bucket, list) in rows.examine() {
        if let Ok(list) = MemberList::parse(&list) {
            lists.insert(bucket, Ok(list));
        }
    }
}
