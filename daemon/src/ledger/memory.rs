//! What this node believes: the newest head, and the state and the log that it stands for.
//!
//! One for each open realm, shared by the readers and the committer. It begins as what `start`
//! has verified against the token's anchor, and moves only by batches that are durable and anchored.
//! A database that shows anything else shows something wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use custodyd_hsm::{KeyVersions, RealmName};
use custodyd_policies::Timestamp;
use tokio::sync::watch;

use super::LedgerError;
use super::head::{Head, SCHEMA, State};
use super::log::{LogEnd, StateLeaf, due};
use super::members::MemberList;
use super::moves::Moves;
use super::tree::{Digest, StateTree, Update, bucket_digest};
use crate::account::History;
use crate::store::Batch;

/// A head, and all that it names.
#[derive(Debug)]
pub(crate) struct Believed {
    pub(crate) head: Head,
    pub(crate) tree: StateTree,
    pub(crate) end: LogEnd,
}

/// The head that follows, and what it changes.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) head: Head,
    /// Of the member lists that it changes.
    digests: BTreeMap<u32, Digest>,
    update: Update,
    end: LogEnd,
}

/// What a member list that the database shows is.
#[derive(Debug)]
pub(crate) enum Shown {
    Newest(MemberList),
    /// Of the batch that is durable and not anchored yet: to be read again once it is.
    Pending,
    /// Neither.
    Odd,
}

/// How far the committer has come, for who waits for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    batches: u64,
    /// The committer has ended: what is pending stays so until a start has looked at it.
    pub(crate) ended: bool,
}

/// The head that is to follow a pending one, and its log; nothing but these changes.
#[derive(Debug)]
pub(crate) struct Further {
    head: Head,
    end: LogEnd,
}

impl Further {
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    believed: RwLock<Believed>,
    /// The batch that is on its way: being written, or durable and not anchored yet. Nothing of it is
    /// told to anybody, not even to who only reads: an administrator could still take it back.
    pending: RwLock<Option<Next>>,
    /// What the token remembers, where that is older than what is believed: in bounded mode.
    in_token: RwLock<Option<(Head, LogEnd)>>,
    /// Counts the batches that were anchored, and says when none is any more.
    settled: watch::Sender<Settled>,
    /// Which lists have become others, for whoever reads meanwhile.
    moves: Moves,
    /// Digest of the policies that decisions are made under now. The head may still name others.
    configuration: Mutex<Digest>,
    /// What this daemon serves in: accounts of an earlier one are charged for it when they are read.
    boot_epoch: u64,
    /// The same for accounts that a restore has put back. Neither changes while a daemon serves.
    history: History,
}

impl Believed {
    /// What is believed of a realm before its first batch.
    pub(crate) fn nothing(realm: &RealmName, now: Timestamp) -> Self {
        let tree = StateTree::fold(&BTreeMap::new());
        let end = LogEnd::default();
        let state = State {
            realm: realm.clone(),
            log_epoch: 1,
            restored: None,
            seq: 0,
            state_root: tree.root(),
            previous: [0; 32],
            time: now,
            boot_epoch: 0,
            schema: SCHEMA,
            least_schema: None,
            configuration: [0; 32],
            keys: KeyVersions::first(),
            tokens: Vec::new(),
            realm_record: None,
        };
        let head = Head {
            state,
            size: 0,
            log_root: end.root(),
        };
        Self { head, tree, end }
    }

    /// Completes a batch: its member lists' digests, its state leaf, the tiles that it fills, and
    /// the head over all of that. `head` says what else is new: the
    /// time, the configuration; what follows from the batch is filled in.
    ///
    /// # Errors
    /// Never for a batch whose entries follow the log; the signature is serde's.
    pub(crate) fn next(&self, mut head: Head, batch: &mut Batch) -> Result<Next, LedgerError> {
        let encoding = |_| LedgerError::internal("encode a head");
        let realm = &self.head.state.realm;
        let digests: BTreeMap<u32, Digest> = batch
            .members
            .iter()
            .map(|(bucket, list)| (*bucket, bucket_digest(realm, *bucket, list)))
            .collect();
        batch.digests.extend(&digests);
        let update = self.tree.with(&digests);
        head.state.seq = self.head.state.seq + 1;
        head.state.previous = self.head.hash().map_err(encoding)?;
        head.state.state_root = update.root();
        let mut end = self.end.clone();
        append(&mut end, &mut head, batch)?;
        Ok(Next {
            head,
            digests,
            update,
            end,
        })
    }
}

/// The entries of a batch, the state leaf after them, and what of the head follows from both.
fn append(end: &mut LogEnd, head: &mut Head, batch: &mut Batch) -> Result<(), LedgerError> {
    for (index, leaf) in &batch.entries {
        if *index != end.size() {
            return Err(LedgerError::internal("append to the log"));
        }
        end.append(leaf);
    }
    let leaf = StateLeaf {
        state: head.state.clone(),
        size: end.size(),
        log_root: end.root(),
    };
    let leaf = leaf
        .encode()
        .map_err(|_| LedgerError::internal("encode a head"))?;
    end.append(&leaf);
    batch.entries.push((end.size() - 1, leaf));
    batch.tiles.extend(end.take_rows());
    batch.tiles_before = due(end.size(), &batch.tiles);
    head.size = end.size();
    head.log_root = end.root();
    Ok(())
}

impl Memory {
    pub(crate) fn new(believed: Believed, boot_epoch: u64) -> Self {
        let history = believed.head.state.history();
        Self {
            configuration: Mutex::new(believed.head.state.configuration),
            believed: RwLock::new(believed),
            pending: RwLock::new(None),
            in_token: RwLock::new(None),
            settled: watch::Sender::new(Settled::default()),
            moves: Moves::default(),
            boot_epoch,
            history,
        }
    }

    pub(crate) fn boot_epoch(&self) -> u64 {
        self.boot_epoch
    }

    pub(crate) fn history(&self) -> History {
        self.history
    }

    pub(crate) fn decides_under(&self, configuration: Digest) {
        *self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = configuration;
    }

    pub(crate) fn configuration(&self) -> Digest {
        *self
            .configuration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is believed is whole at every moment, whatever panicked elsewhere: it changes by
    /// assignments.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Believed> {
        self.believed.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head(&self) -> Head {
        self.read().head.clone()
    }

    /// A batch is about to be written. What it changes is believed once `settle` says that it is
    /// anchored.
    pub(crate) fn pend(&self, next: Next) {
        *self.pending.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// The batch was not written, and that is known.
    pub(crate) fn take_back(&self) -> Option<Next> {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        let next = pending.take()?;
        self.moves.note(next.digests.keys());
        Some(next)
    }

    /// The head that waits to be anchored.
    pub(crate) fn pending(&self) -> Option<Head> {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        pending.as_ref().map(|next| next.head.clone())
    }

    /// The same with the log that it names.
    pub(crate) fn pending_with_end(&self) -> Option<(Head, LogEnd)> {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        pending
            .as_ref()
            .map(|next| (next.head.clone(), next.end.clone()))
    }

    /// Takes over what another node has written, once nothing can take it back: head and log, and what they make of the
    /// state in these buckets.
    pub(crate) fn catch_up(
        &self,
        (head, end): (Head, LogEnd),
        (update, changed): (Update, &BTreeSet<u32>),
    ) {
        let mut believed = self
            .believed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        self.moves.note(changed);
        believed.tree.apply(update);
        (believed.head, believed.end) = (head, end);
        drop(believed);
        self.settled.send_modify(|settled| settled.batches += 1);
    }

    /// Completes a batch that changes no record and follows the pending one.
    ///
    /// # Errors
    /// Where nothing is pending.
    pub(crate) fn upon_pending(
        &self,
        mut head: Head,
        batch: &mut Batch,
    ) -> Result<Further, LedgerError> {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = pending.as_ref() else {
            return Err(LedgerError::internal("find the pending batch"));
        };
        head.state.seq = next.head.state.seq + 1;
        head.state.state_root = next.head.state.state_root;
        let previous = next.head.hash();
        head.state.previous = previous.map_err(|_| LedgerError::internal("encode a head"))?;
        let mut end = next.end.clone();
        append(&mut end, &mut head, batch)?;
        Ok(Further { head, end })
    }

    /// That batch is durable: the two are believed together, or neither.
    pub(crate) fn pend_further(&self, further: Further) {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = pending.as_mut() {
            next.head = further.head;
            next.end = further.end;
        }
    }

    /// The pending batch is anchored, in the token or by a warm anchor: from now on it is what is
    /// believed.
    pub(crate) fn settle(&self, in_token: bool) {
        if in_token {
            self.token_knows_all();
        } else {
            let mut older = self
                .in_token
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            older.get_or_insert_with(|| {
                let believed = self.read();
                (believed.head.clone(), believed.end.clone())
            });
        }
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = pending.take() {
            let mut believed = self
                .believed
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            self.moves.note(next.digests.keys());
            believed.head = next.head;
            believed.tree.apply(next.update);
            believed.end = next.end;
        }
        drop(pending);
        self.settled.send_modify(|settled| settled.batches += 1);
    }

    /// Nobody anchors anything from now on.
    pub(crate) fn ends(&self) {
        self.settled.send_modify(|settled| settled.ended = true);
    }

    /// The token has been told of what is believed, or is about to be by `settle`.
    pub(crate) fn token_knows_all(&self) {
        *self
            .in_token
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The newest head that is anchored in the token, and the log that it names. Nothing else says
    /// what a checkpoint may be signed for.
    pub(crate) fn in_token(&self) -> (Head, LogEnd) {
        let older = self.in_token.read().unwrap_or_else(PoisonError::into_inner);
        match &*older {
            Some(older) => older.clone(),
            None => {
                let believed = self.read();
                (believed.head.clone(), believed.end.clone())
            }
        }
    }

    /// Tells of each `settle` that follows, and of the end.
    pub(crate) fn settled(&self) -> watch::Receiver<Settled> {
        self.settled.subscribe()
    }

    /// Another number whenever what an honest database may show for a bucket has become another.
    pub(crate) fn moves(&self, bucket: u32) -> u64 {
        self.moves.of(bucket)
    }

    /// Whether a list that was read at some time is the newest of its bucket now.
    pub(crate) fn is_newest(&self, realm: &RealmName, bucket: u32, list: &MemberList) -> bool {
        self.read().tree.bucket(bucket) == bucket_digest(realm, bucket, &list.encode())
    }

    /// What the member list is that the database shows for a bucket.
    ///
    /// # Errors
    /// `Tampered` where the newest one does not parse: then it was not written by a custodyd.
    pub(crate) fn judge(
        &self,
        realm: &RealmName,
        bucket: u32,
        list: Option<&[u8]>,
    ) -> Result<Shown, LedgerError> {
        let list = list.unwrap_or(MemberList::EMPTY);
        let digest = bucket_digest(realm, bucket, list);
        // In this order: between the two, a pending batch may become what is believed.
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        if self.read().tree.bucket(bucket) == digest {
            let list = MemberList::parse(list)
                .map_err(|what| LedgerError::Tampered(format!("bucket {bucket}: {what}")))?;
            return Ok(Shown::Newest(list));
        }
        let coming = pending.as_ref().and_then(|next| next.digests.get(&bucket));
        Ok(if coming == Some(&digest) {
            Shown::Pending
        } else {
            Shown::Odd
        })
    }
}
