//! The anchors of a realm that several nodes serve: each anchors what it has written, in one token that all
//! of them see.
//!
//! Called by the parent for a store that is shared. What another node has anchored is compared with the line of
//! heads that this one knows, and where it knows nothing of it, with the log: an older one must be named there,
//! a newer one must descend, and the database has to show how (`ledger::newer`). One that does neither is
//! evidence of a fork. Which of the two lines goes on is decided by the committer (`committer::following`).
//!
//! Since a head is made only upon one that is covered, the nodes' token is at most one behind the head that the database shows. One
//! that is further behind is another: a clone with the same keys, whose word a node would be confirmed by while it is shown a copy of
//! the database, and whose guesses count for themselves. It is refused at the start, and by a node that serves.
//! Two clones of one moment are told apart only once one node has anchored twice before the other looks.
//!
//! Another node's anchor is destroyed in two cases alone: as the ancestor of one that stands, and as an *orphan*. A node
//! makes a head only upon one that is covered; and from then on every list has an object of that line, by which any
//! other head of the same number is refused to whoever would cover it. So an anchor of number n never counted, and never
//! will, where this node itself has found another head of that number covered, or where a head of this token's making
//! stands in the log that names another one as number n. Its maker was frozen before it created it, or has died after.
//! And where one of a newer log epoch stands that is of this line, every anchor of an older epoch is one: a restore alone begins
//! an epoch, and has given up all that was anchored before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use custodyd_hsm::anchor::Anchor;
use custodyd_hsm::anchor::nodes::{self, Covered, Line};
use custodyd_hsm::{Pool, RealmName};

use super::{LedgerError, anchor_of, descent, hash};
use crate::ledger::head::Head;
use crate::ledger::log::LogEnd;
use crate::ledger::memory::Believed;
use crate::ledger::newer::{Shown, Source};
use crate::store::Store;

/// How often the database is asked for what another node has anchored: it was durable before.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(5);
/// How long a node waits until the writer of a head has anchored it, before it does so itself.
const WRITERS: Duration = Duration::from_millis(25);
/// Between two looks at the token meanwhile: everybody waits for whoever has the turn, and a token may need no longer than that.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// How long a node looks for a head's place, and at how many lists, while others anchor newer ones.
const LONGEST: Duration = Duration::from_secs(1);
const LISTS: u32 = 64;
/// A token may need longer than that for a few of them, and those are what it takes where nobody else writes.
const FEWEST: u32 = 4;

/// What the token's anchors say of a head.
#[derive(Debug)]
pub(crate) enum Ruling {
    /// No fork can take it back. `newest`: and no anchor is of a later one.
    Covered { newest: bool },
    /// Others were quicker each time, and nothing is wrong: whoever has the turn finds a list that stands still.
    Outrun,
    /// An anchor is of another line, or of one that the database does not show.
    Contradicted { theirs: Anchor },
}

/// Which node has made the head that is to be covered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Anothers,
}

#[derive(Debug)]
pub(super) struct Nodes {
    source: Source,
    /// Shared with the token's jobs, which look at it as it was.
    line: Arc<Line>,
    /// Serial number and batch of an anchor of the line: the others follow from it.
    base: (u64, u64),
    /// The head whose anchor this node is known to have made, where that was not the end of it.
    made: Option<[u8; 32]>,
    /// The head that this node has found covered last.
    covered: Option<[u8; 32]>,
}

/// What a job of the token takes with it, which may outlive whoever waits for it.
struct Question {
    realm: RealmName,
    anchor: Anchor,
    /// As it was when the question was asked.
    line: Arc<Line>,
    /// The versions of the MAC key under which anchors of the line may be tagged.
    keys: Vec<u16>,
}

impl Nodes {
    /// Refuses a database that does not descend from every anchor. Whoever calls has its turn at writing, so that
    /// no other node anchors anything newer than what was found.
    ///
    /// # Errors
    /// `Refused` where the token holds no anchor, one of another way of anchoring, or none that the nodes have made lately;
    /// `Tampered` as `descent::check`.
    pub(super) async fn begin(
        pool: &Pool,
        realm: &RealmName,
        store: &Arc<dyn Store>,
        found: &Believed,
    ) -> Result<(Self, Anchor), LedgerError> {
        let listed = recent(pool, realm, &found.head).await?;
        let Some(last) = listed.last() else {
            return Err(LedgerError::Refused(
                "the token holds no anchor of this realm, so nobody can say whether the database is the newest; is \
                 it the right token?"
                    .into(),
            ));
        };
        let head = &found.head;
        if last.clean || last.dirty {
            return Err(LedgerError::Refused(
                "the token's anchor is one of ledger.anchor = \"bounded\", which a single daemon leaves behind: start \
                 once with store.postgres.nodes = \"one\" and ledger.anchor = \"strict\", stop, then start the nodes"
                    .into(),
            ));
        }
        let mut line = Line::new(head.state.log_epoch);
        let (mut newest, mut orphans) = (None, Vec::new());
        for anchor in listed {
            if is_orphan(&anchor, store, (head, &found.end)).await? {
                orphans.push(anchor);
                continue;
            }
            descent::check("the token", &anchor, store, (head, &found.end)).await?;
            line.knows(anchor.seq, anchor.head);
            newest = Some(anchor);
        }
        let newest = match (newest, orphans.first()) {
            (Some(newest), _) => newest,
            // Of the line that the database shows nothing is left: it can not be told from a copy's.
            (None, Some(other)) => {
                descent::check("the token", other, store, (head, &found.end)).await?;
                return Err(LedgerError::internal("tell anchors apart"));
            }
            (None, None) => return Err(LedgerError::internal("find an anchor")),
        };
        if newest.seq < since(head, store) {
            return Err(lags(newest.seq, head));
        }
        line.knows(head.state.seq, hash(head)?);
        let nodes = Self {
            source: Source {
                store: Arc::clone(store),
                pool: pool.clone(),
                realm: realm.clone(),
            },
            line: Arc::new(line),
            base: (newest.serial, newest.seq),
            made: None,
            covered: None,
        };
        for orphan in &orphans {
            nodes.clear(orphan, head).await?;
        }
        Ok((nodes, newest))
    }

    /// Destroys an anchor that never counted. Says whether it did.
    async fn clear(&self, orphan: &Anchor, head: &Head) -> Result<bool, LedgerError> {
        #[cfg_attr(not(test), allow(unused_mut, reason = "only a test's store is weak"))]
        let mut of = self.question(orphan, head);
        #[cfg(test)]
        if self.source.store.weakness().older_mac_keys {
            of.keys = vec![u16::MAX];
        }
        let cleared = self.source.pool.call("anchor", move |custody| {
            nodes::clear(custody, &of.realm, &of.anchor, (&of.line, &of.keys))
        });
        if !cleared.await? {
            return Ok(false);
        }
        tracing::error!(
            %orphan,
            ?head,
            "the token held the anchor of a batch that nobody was told of, beside those of another history: its node was \
             frozen before it made it, or has died after, or was shown a copy of the database; it is destroyed"
        );
        metrics::counter!("custodyd_orphan_anchors_total").increment(1);
        Ok(true)
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// What a job of the token is asked about `anchor`, beside the head that this node believes.
    fn question(&self, anchor: &Anchor, head: &Head) -> Question {
        Question {
            realm: self.source.realm.clone(),
            anchor: anchor.clone(),
            line: Arc::clone(&self.line),
            keys: head.tagged_by(),
        }
    }

    /// The anchor of a head: the same one, whichever node makes it.
    fn anchor(&self, head: &Head) -> Result<Anchor, LedgerError> {
        let (serial, seq) = self.base;
        let mut anchor = anchor_of(head, None)?;
        anchor.serial = serial.wrapping_add(anchor.seq.wrapping_sub(seq));
        Ok(anchor)
    }

    /// Another node has written this head, and is about to anchor it: waits a little, and then does it.
    ///
    /// # Errors
    /// As `cover`.
    pub(super) async fn cover_anothers(
        &mut self,
        head: &Head,
        end: &LogEnd,
    ) -> Result<Ruling, LedgerError> {
        let started = Instant::now();
        let to = self.anchor(head)?;
        Arc::make_mut(&mut self.line).goes_on(to.seq, to.head);
        loop {
            let of = self.question(&to, head);
            let listed = self.source.pool.call("look-at-anchor", move |custody| {
                nodes::is_covered(custody, &of.realm, (&of.anchor, &of.keys), &of.line)
            });
            match listed.await? {
                Some(Covered::Covered { newest, rotated }) => {
                    return Ok(self.found_covered(Whose::Anothers, &to, (newest, rotated)));
                }
                None if started.elapsed() < WRITERS => tokio::time::sleep(BETWEEN_LOOKS).await,
                _ => return self.cover_as(Whose::Anothers, head, end).await,
            }
        }
    }

    fn found_covered(
        &mut self,
        whose: Whose,
        to: &Anchor,
        (newest, rotated): (bool, bool),
    ) -> Ruling {
        // A rotation came after it, or it was made by who knows the key of before: the newest head says which.
        if rotated && whose == Whose::Anothers {
            return Ruling::Outrun;
        }
        self.covered = Some(to.head);
        Ruling::Covered { newest }
    }

    /// Anchors a head, unless its anchor or those of its descendants stand alone already.
    ///
    /// # Errors
    /// `Token` and `Store` where they do not answer: call again, with the same head. `Refused` where the token is not the one
    /// that other nodes anchor in.
    pub(super) async fn cover(&mut self, head: &Head, end: &LogEnd) -> Result<Ruling, LedgerError> {
        self.cover_as(Whose::Ours, head, end).await
    }

    async fn cover_as(
        &mut self,
        whose: Whose,
        head: &Head,
        end: &LogEnd,
    ) -> Result<Ruling, LedgerError> {
        let started = Instant::now();
        let to = self.anchor(head)?;
        Arc::make_mut(&mut self.line).goes_on(to.seq, to.head);
        let (mut made, mut tries, mut lists) = (self.made == Some(to.head), 0, 0);
        let since = since(head, &self.source.store);
        loop {
            let of = self.question(&to, head);
            let covered = self.source.pool.call("anchor", move |custody| {
                let anchor = (&of.anchor, of.keys.as_slice());
                nodes::cover(custody, &of.realm, anchor, (&of.line, made), since)
            });
            let covered = match covered.await {
                Ok(covered) => covered,
                Err(error) => {
                    metrics::counter!("custodyd_anchor_failures_total", "why" => "token")
                        .increment(1);
                    // Whoever gave up waiting may have been overtaken by the job: then the object stands alone, and
                    // others have told of its head. So it is never taken back.
                    self.made.take_if(|made| *made == to.head);
                    return Err(error.into());
                }
            };
            let strangers = match covered {
                Covered::Covered { newest, rotated } => {
                    metrics::histogram!("custodyd_anchor_seconds")
                        .record(started.elapsed().as_secs_f64());
                    return Ok(self.found_covered(whose, &to, (newest, rotated)));
                }
                Covered::Behind { newest } => {
                    metrics::counter!("custodyd_anchor_failures_total", "why" => "behind")
                        .increment(1);
                    return Err(lags(newest, head));
                }
                Covered::Unknown {
                    strangers,
                    made: by_now,
                } => {
                    made = by_now;
                    // What it has made of another head stays what it may take back.
                    if made {
                        self.made = Some(to.head);
                    } else {
                        self.made.take_if(|made| *made == to.head);
                    }
                    strangers
                }
            };
            #[cfg(test)]
            if self.source.store.weakness().any_node {
                return Ok(Ruling::Covered { newest: true });
            }
            let Some(theirs) = self.stranger(strangers, (head, end)).await? else {
                lists += 1;
                let late = lists >= FEWEST && started.elapsed() >= LONGEST;
                #[cfg(test)]
                let late = late && !self.source.store.weakness().endless;
                if late || lists >= LISTS {
                    metrics::counter!("custodyd_anchor_failures_total", "why" => "outrun")
                        .increment(1);
                    return Ok(Ruling::Outrun);
                }
                continue;
            };
            tries += 1;
            if tries == TRIES {
                metrics::counter!("custodyd_anchor_failures_total", "why" => "raced").increment(1);
                return Ok(Ruling::Contradicted { theirs });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks for these in the log, and destroys the orphans among them. Returns the first that is not of the line.
    async fn stranger(
        &mut self,
        strangers: Vec<Anchor>,
        (head, end): (&Head, &LogEnd),
    ) -> Result<Option<Anchor>, LedgerError> {
        let mut others = Vec::new();
        for theirs in strangers {
            if theirs.log_epoch == head.state.log_epoch && theirs.seq < head.state.seq {
                let named =
                    descent::successor(&self.source.store, (head.size, end), theirs.seq).await?;
                if named == theirs.head {
                    Arc::make_mut(&mut self.line).knows(theirs.seq, theirs.head);
                    continue;
                }
            } else if theirs.log_epoch >= head.state.log_epoch
                && let Shown::Newer(newer) = self.source.look(head, end).await?
            {
                self.knows(&newer.line);
            }
            if !self.line.has(&theirs) {
                others.push(theirs);
            }
        }
        // What is of the line is known by now, and must stand beside them.
        for theirs in others {
            let (number, covered) = (theirs.seq, self.covered == Some(hash(head)?));
            let rival = counts_in(&theirs, head) && number == head.state.seq && covered;
            let orphan = match rival {
                #[cfg(test)]
                true if self.source.store.weakness().keeps_orphans => false,
                true => true,
                false => is_orphan(&theirs, &self.source.store, (head, end)).await?,
            };
            if !orphan || !self.clear(&theirs, head).await? {
                return Ok(Some(theirs));
            }
        }
        Ok(None)
    }

    /// Whether a head is known that follows the one of this number.
    pub(super) fn knows_after(&self, seq: u64) -> bool {
        self.line.at(seq.saturating_add(1)).is_some()
    }

    /// These were found to follow the last head that is known.
    pub(super) fn knows(&mut self, line: &[(u64, [u8; 32])]) {
        if let Some((first, _)) = line.first() {
            Arc::make_mut(&mut self.line).ends_before(*first);
        }
        let known = Arc::make_mut(&mut self.line);
        for (seq, head) in line {
            known.knows(*seq, *head);
        }
    }

    /// The head of this number, if it is remembered.
    pub(super) fn at(&self, seq: u64) -> Option<[u8; 32]> {
        self.line.at(seq)
    }

    /// Gives up a head that was not told to anybody, and everything after what is believed.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub(super) async fn withdraw(&mut self, head: &Head, believed: u64) -> Result<(), LedgerError> {
        let anchor = self.anchor(head)?;
        Arc::make_mut(&mut self.line).ends_at(believed);
        // An equal one is another node's, and may be what that has told of. So ours is destroyed once: where the answer is
        // lost it may be gone, and a second one would be theirs. What stays then is an orphan.
        let Some(made) = self.made.take_if(|made| *made == anchor.head) else {
            return Ok(());
        };
        let (of, state) = (self.source.realm.clone(), Arc::new(AtomicU8::new(OPEN)));
        let job = Arc::clone(&state);
        let withdrawn = self.source.pool.call("anchor", move |custody| {
            nodes::withdraw(custody, &of, &anchor, || moves(&job, BEGUN))
        });
        let withdrawn = withdrawn.await;
        // A job that has not come to it does not any more: so nothing was destroyed, and it may be asked for again.
        if withdrawn.is_err() && moves(&state, GIVEN_UP) {
            self.made = Some(made);
        }
        Ok(withdrawn?)
    }

    /// Whether this node is known to have made the anchor of a head.
    pub(super) fn has_made(&self, head: &Head) -> Result<bool, LedgerError> {
        Ok(self.made == Some(hash(head)?))
    }

    /// Another anchor of a head's number that the token holds.
    ///
    /// # Errors
    /// `Token` where it does not answer.
    pub(super) async fn rival(&self, head: &Head) -> Result<Option<Anchor>, LedgerError> {
        let ours = hash(head)?;
        let listed = recent(&self.source.pool, &self.source.realm, head).await?;
        let rivals = |anchor: &Anchor| {
            counts_in(anchor, head) && anchor.seq == head.state.seq && anchor.head != ours
        };
        Ok(listed.into_iter().find(rivals))
    }
}

/// How far the taking back of an anchor has come.
const OPEN: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// From [`OPEN`], where it is so still.
fn moves(state: &AtomicU8, to: u8) -> bool {
    state
        .compare_exchange(OPEN, to, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
}

/// The number that the newest anchor has at least, in a token that all nodes anchor in, once this head stands in the database.
#[cfg_attr(
    not(test),
    allow(unused_variables, reason = "only a test's store says that it is weak")
)]
fn since(head: &Head, store: &Arc<dyn Store>) -> u64 {
    #[cfg(test)]
    if store.weakness().any_lag {
        return 0;
    }
    head.state.seq.saturating_sub(1)
}

/// What the token lists. From the middle of another node's steps a list may lack what has just come: then it is made again.
async fn recent(pool: &Pool, realm: &RealmName, head: &Head) -> Result<Vec<Anchor>, LedgerError> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let of = realm.clone();
        let listed = pool
            .call("read-anchor", move |custody| nodes::list(custody, &of))
            .await?;
        let late = |anchor: &Anchor| anchor.seq.saturating_add(1) < head.state.seq;
        if tries == 0 || !listed.iter().all(late) {
            return Ok(listed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Refuses another token than the nodes'.
fn lags(newest: u64, head: &Head) -> LedgerError {
    LedgerError::Refused(format!(
        "the token remembers batch {newest} as the newest, and the database shows batch {}, which was made only once batch {} was \
         anchored: this is another token than the one that the realm's nodes share, with the same keys (a clone, or a copy of \
         its files), or it was put back to an older state. Compare the serial numbers and places of both (`custodyd token list` \
         on each host), and give this node the one that the others have. Where this is the only one that is left, or \
         ledger.anchor was \"bounded\" until now: stop every node, start once with store.postgres.nodes = \"one\" and \
         ledger.anchor = \"strict\", stop, then start the nodes",
        head.state.seq,
        head.state.seq.saturating_sub(1)
    ))
}

/// Whether an anchor can be compared with this head by its number: of the same log epoch, and of nodes.
fn counts_in(anchor: &Anchor, head: &Head) -> bool {
    anchor.log_epoch == head.state.log_epoch && !anchor.clean && !anchor.dirty
}

/// Whether the log of this head, which the token has made, names another one of the anchor's number.
async fn is_orphan(
    anchor: &Anchor,
    store: &Arc<dyn Store>,
    (head, end): (&Head, &LogEnd),
) -> Result<bool, LedgerError> {
    #[cfg(test)]
    if store.weakness().any_anchor || store.weakness().keeps_orphans {
        return Ok(false);
    }
    if anchor.log_epoch < head.state.log_epoch {
        return Ok(true);
    }
    if !counts_in(anchor, head) || anchor.seq >= head.state.seq {
        return Ok(false);
    }
    let named = descent::successor(store, (head.size, end), anchor.seq).await?;
    Ok(named != anchor.head)
}
