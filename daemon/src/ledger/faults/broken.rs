//! A database and a token that fail by a script.

mod token;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use custodyd_hsm::RecordId;
use futures_util::future::BoxFuture;

pub(super) use self::token::{Anchor, Sluggish, Tokens};
use super::tables::Tables;
use crate::ledger::Unverified;
use crate::ledger::weakness::Weakness;
use crate::store::admin::Place;
use crate::store::{
    Batch, CommitError, EventRow, HeadRow, Newer, RecordRow, Store, StoreError, StoredEntry,
    StoredRecord, TileRow,
};

/// How a commit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    Honest,
    /// Nothing is written and nobody knows.
    Lost,
    /// Everything is written and nobody knows.
    AnswerLost,
    /// Nothing is written, and that is known.
    Full,
    /// Nothing is written, that is known, and the head was shown.
    Declined,
    /// Nothing is written, and it is said to be.
    Dropped,
    /// Another batch of the same number is written instead, and nobody knows.
    Overtaken,
}

/// What happens next; once used up, nothing fails.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) commits: VecDeque<Commit>,
    /// Whether each read of the head succeeds.
    pub(super) heads: VecDeque<bool>,
    /// Whether each other read does.
    pub(super) reads: VecDeque<bool>,
    /// Whether each head that nobody has answered for is then.
    pub(super) acknowledgements: VecDeque<bool>,
}

impl Script {
    pub(super) fn new(commits: &[Commit], heads: &[bool], reads: &[bool]) -> Self {
        Self {
            commits: commits.to_vec().into(),
            heads: heads.to_vec().into(),
            reads: reads.to_vec().into(),
            acknowledgements: VecDeque::new(),
        }
    }
}

/// Honest work of others.
pub(super) struct Meanwhile {
    pub(super) during: During,
    /// So often.
    pub(super) left: usize,
    pub(super) what: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    /// It has been given its turn.
    Turn,
    /// It was shown what another node has changed.
    CatchingUp,
    /// It has found its batch, and is about to have it acknowledged.
    Acknowledging,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Debug)]
pub(super) struct Faulty {
    pub(super) inner: Box<dyn Store>,
    pub(super) script: Mutex<Script>,
    pub(super) weakness: Weakness,
    /// What the administrator does between two steps of the ledger.
    pub(super) strike: Mutex<Option<Strike>>,
    /// What others do while somebody reads a record.
    pub(super) between: Mutex<Option<Between>>,
    /// What others do once it has its turn.
    pub(super) meanwhile: Mutex<Option<Meanwhile>>,
    /// What an honest database would hold by now.
    pub(super) mirror: Arc<Mutex<Tables>>,
    /// Everything that was written, of whatever line, where somebody wants to know.
    pub(super) written: Option<Arc<Mutex<Vec<Batch>>>>,
    pub(super) largest: Arc<AtomicUsize>,
}

/// The administrator's statements, at a moment that the ledger does not expect.
#[derive(Debug)]
pub(super) struct Strike {
    pub(super) after: After,
    pub(super) place: Place,
    pub(super) put: Tables,
    pub(super) which: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Member lists have been read, to be written upon.
    Lists,
    /// A batch has been written.
    Commit,
}

/// What happens around reads of records: honest work, at the worst moment.
pub(super) struct Between {
    /// So often.
    pub(super) left: usize,
    /// Around reads of these; of all, where none is named.
    pub(super) of: Vec<RecordId>,
    /// Before the database is asked, or else after it has answered.
    pub(super) before: bool,
    pub(super) what: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Between").field("left", &self.left).finish()
    }
}

fn failed(operation: &'static str) -> StoreError {
    StoreError::Refused {
        operation,
        problem: "by the script".into(),
    }
}

impl Faulty {
    fn mirror(&self, batch: &Batch) {
        if let Some(written) = &self.written {
            written.lock().unwrap().push(batch.clone());
        }
        self.mirror.lock().unwrap().apply(batch);
    }

    fn measure(&self, sizes: impl Iterator<Item = usize>) {
        self.largest.fetch_max(sizes.sum(), Ordering::SeqCst);
    }

    async fn write(&self, batch: &Batch) -> Result<(), CommitError> {
        self.inner.commit(batch).await?;
        self.mirror(batch);
        self.strike(After::Commit).await;
        Ok(())
    }

    async fn strike(&self, now: After) {
        let strike = self
            .strike
            .lock()
            .unwrap()
            .take_if(|strike| strike.after == now);
        if let Some(strike) = strike {
            let mut admin = strike.place.admin().await;
            strike.put.write(&mut admin, &strike.which).await;
        }
    }

    async fn meanwhile(&self, now: During) {
        let wanted = |meanwhile: &mut Meanwhile| meanwhile.during == now;
        let taken = self.meanwhile.lock().unwrap().take_if(wanted);
        if let Some(mut meanwhile) = taken {
            (meanwhile.what)().await;
            meanwhile.left -= 1;
            let again = Some(meanwhile).filter(|meanwhile| meanwhile.left > 0);
            *self.meanwhile.lock().unwrap() = again;
        }
    }

    /// What is done meanwhile reads, too: around that nothing happens.
    async fn between(&self, id: &RecordId, before: bool) {
        let wanted = |between: &mut Between| {
            between.before == before
                && between.left > 0
                && (between.of.is_empty() || between.of.contains(id))
        };
        let taken = self.between.lock().unwrap().take_if(wanted);
        if let Some(mut between) = taken {
            (between.what)().await;
            between.left -= 1;
            *self.between.lock().unwrap() = Some(between);
        }
    }

    fn read(&self) -> Result<(), StoreError> {
        answers(self.script.lock().unwrap().reads.pop_front())
    }
}

fn answers(next: Option<bool>) -> Result<(), StoreError> {
    match next {
        Some(false) => Err(failed("read")),
        _ => Ok(()),
    }
}

/// A batch that only its content tells from `batch`.
fn other(batch: &Batch) -> Batch {
    let mut other = Batch::after(batch.parent);
    let text = String::from_utf8(batch.head.body.clone()).unwrap();
    let at = text.find("\"log_root\":\"").unwrap() + 12;
    let body = format!("{}{}{}", &text[..at], "a".repeat(64), &text[at + 64..]);
    other.head.body = body.into_bytes();
    other
}

#[async_trait]
impl Store for Faulty {
    async fn record(
        &self,
        id: &RecordId,
        bucket: u32,
    ) -> Result<Unverified<RecordRow>, StoreError> {
        self.read()?;
        self.between(id, true).await;
        let row = self.inner.record(id, bucket).await;
        self.between(id, false).await;
        row
    }

    async fn members(
        &self,
        buckets: &[u32],
    ) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError> {
        self.read()?;
        let members = self.inner.members(buckets).await;
        self.strike(After::Lists).await;
        let members = members?.of_a_test();
        self.measure(members.iter().map(|(_, list)| list.len()));
        Ok(Unverified::new(members))
    }

    async fn head(&self) -> Result<Unverified<Option<HeadRow>>, StoreError> {
        answers(self.script.lock().unwrap().heads.pop_front())?;
        self.inner.head().await
    }

    async fn event(&self, index: u64) -> Result<Unverified<Option<EventRow>>, StoreError> {
        self.read()?;
        self.inner.event(index).await
    }

    async fn leaves(
        &self,
        from: u64,
        count: u64,
    ) -> Result<Unverified<Vec<(u64, Vec<u8>)>>, StoreError> {
        self.read()?;
        self.inner.leaves(from, count).await
    }

    async fn tiles(&self, tiles: &[(u8, u64)]) -> Result<Unverified<Vec<TileRow>>, StoreError> {
        self.read()?;
        self.inner.tiles(tiles).await
    }

    async fn digests(&self) -> Result<Unverified<Vec<(u32, Vec<u8>)>>, StoreError> {
        self.read()?;
        self.inner.digests().await
    }

    async fn entries(
        &self,
        from: u64,
        to: u64,
    ) -> Result<Unverified<Vec<StoredEntry>>, StoreError> {
        self.read()?;
        self.inner.entries(from, to).await
    }

    async fn lists(
        &self,
        from: u32,
        to: u32,
    ) -> Result<Unverified<Vec<(u32, Option<Vec<u8>>)>>, StoreError> {
        self.read()?;
        if let Some(time) = self.weakness.slow_lists {
            tokio::time::sleep(time).await;
        }
        let lists = self.inner.lists(from, to).await?.of_a_test();
        self.measure(
            lists
                .iter()
                .map(|(_, list)| list.as_ref().map_or(0, Vec::len)),
        );
        Ok(Unverified::new(lists))
    }

    async fn records(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Unverified<Vec<StoredRecord>>, StoreError> {
        self.read()?;
        self.inner.records(from, to).await
    }

    async fn strays(&self, size: u64) -> Result<Unverified<Vec<(&'static str, u64)>>, StoreError> {
        self.read()?;
        self.inner.strays(size).await
    }

    async fn commit(&self, batch: &Batch) -> Result<(), CommitError> {
        let next = self.script.lock().unwrap().commits.pop_front();
        match next.unwrap_or(Commit::Honest) {
            Commit::Honest => self.write(batch).await,
            Commit::Dropped => {
                self.mirror(batch);
                Ok(())
            }
            Commit::Lost => Err(CommitError::Unknown(failed("commit"))),
            Commit::AnswerLost => {
                self.write(batch).await?;
                Err(CommitError::Unknown(failed("commit")))
            }
            Commit::Full => Err(CommitError::NotWritten(failed("write"))),
            Commit::Declined => Err(CommitError::Declined(failed("write"))),
            Commit::Overtaken => {
                self.inner.commit(&other(batch)).await?;
                Err(CommitError::Unknown(failed("commit")))
            }
        }
    }

    async fn acknowledge(&self, head: &HeadRow) -> Result<(), CommitError> {
        let next = self.script.lock().unwrap().acknowledgements.pop_front();
        answers(next).map_err(CommitError::Unknown)?;
        self.meanwhile(During::Acknowledging).await;
        self.inner.acknowledge(head).await
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn comes_back(&self) -> bool {
        self.inner.is_shared()
    }

    async fn take_turn(&self) -> Result<Unverified<Option<HeadRow>>, StoreError> {
        let shown = self.inner.take_turn().await?;
        self.meanwhile(During::Turn).await;
        Ok(shown)
    }

    fn connections(&self) -> u64 {
        self.inner.connections()
    }

    fn readers(&self) -> u64 {
        self.inner.readers()
    }

    async fn end_turn(&self) {
        self.inner.end_turn().await;
    }

    async fn newer(&self, after: Option<u64>) -> Result<Unverified<Newer>, StoreError> {
        self.read()?;
        let newer = self.inner.newer(after).await;
        self.meanwhile(During::CatchingUp).await;
        newer
    }

    async fn further(&self) -> Result<Unverified<Vec<String>>, StoreError> {
        self.inner.further().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn weakness(&self) -> Weakness {
        self.weakness
    }
}
