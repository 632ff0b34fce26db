//! A login's share of a commit: the store alone, with transactions of the size and shape that
//! the daemon's own had a moment before.

use std::sync::Mutex;
use std::time::Duration;

use custodyd::store::{Batch, BodyRow, Exclusive, Sqlite, Store as _};
use custodyd_hsm::RecordId;
use custodyd_tests::TestApp;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::cpu::{Sample, cores, on_all_cores};
use crate::load::ACCOUNTS;

/// What the daemon had written at one moment.
#[derive(Debug)]
pub(crate) struct Seen {
    batches: f64,
    changes: f64,
    events: i64,
    /// Bytes of the newest of each: record, member list, head, leaf, salt and body.
    sealed: usize,
    members: usize,
    head: usize,
    leaf: usize,
    salt: usize,
    body: usize,
}

impl Seen {
    pub(crate) async fn now(app: &TestApp) -> Self {
        let (_, metrics) = app.operator("/metrics").await;
        let metric = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse().unwrap()
        };
        let mut admin = app.admin().await;
        Self {
            batches: metric("custodyd_commit_batch_changes_count"),
            changes: metric("custodyd_commit_batch_changes_sum"),
            events: admin.count("log_entries").await,
            sealed: admin
                .blob("SELECT sealed FROM records ORDER BY generation DESC LIMIT 1")
                .await
                .len(),
            members: admin
                .blob("SELECT members FROM bucket_members LIMIT 1")
                .await
                .len(),
            head: admin.blob("SELECT body FROM head").await.len(),
            leaf: admin
                .blob("SELECT leaf FROM log_entries ORDER BY idx DESC LIMIT 1")
                .await
                .len(),
            salt: admin
                .blob("SELECT salt FROM log_bodies ORDER BY idx DESC LIMIT 1")
                .await
                .len(),
            body: admin
                .blob("SELECT body FROM log_bodies ORDER BY idx DESC LIMIT 1")
                .await
                .len(),
        }
    }
}

/// One transaction of the daemon.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Changes in it, on average.
    pub(crate) changes: f64,
    records: usize,
    events_each: usize,
    seen: Seen,
}

impl Shape {
    pub(crate) fn between(before: &Seen, after: &Seen, recoveries: f64) -> Self {
        let changes = (after.changes - before.changes) / (after.batches - before.batches);
        let events = (after.events - before.events) as f64 / recoveries;
        Self {
            changes,
            records: changes.round().max(1.0) as usize,
            events_each: events.round() as usize,
            seen: Seen { ..*after },
        }
    }

    /// The same change in a transaction of its own.
    pub(crate) fn alone(&self) -> Self {
        Self {
            changes: 1.0,
            records: 1,
            events_each: self.events_each,
            seen: Seen { ..self.seen },
        }
    }
}

/// A store of its own for each core: the daemon's writer has a core's neighbour at work too.
struct Writer {
    runtime: Runtime,
    store: Sqlite,
    ids: Vec<RecordId>,
    seq: u64,
    size: u64,
    _dir: TempDir,
}

/// The sample counts changes.
pub(crate) fn commits(shape: &Shape, lasting: Duration) -> Sample {
    let writers: Vec<_> = (0..cores()).map(|_| Mutex::new(Writer::new())).collect();
    // Every record is there before the clock runs: a login replaces rows.
    for writer in &writers {
        for _ in 0..ACCOUNTS.div_ceil(shape.records) {
            writer.lock().unwrap().commit(shape);
        }
    }
    let mut sample = on_all_cores(lasting, usize::MAX, |worker, _| {
        writers[worker].lock().unwrap().commit(shape);
    });
    sample.count *= shape.records as f64;
    sample
}

impl Writer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let lock = Exclusive::take(&dir.path().join("bench.sqlite")).unwrap();
        let store = runtime.block_on(Sqlite::create(lock)).unwrap();
        let ids = (0..ACCOUNTS)
            .map(|_| {
                let mut id = [0; 32];
                aws_lc_rs::rand::fill(&mut id).unwrap();
                RecordId(id)
            })
            .collect();
        Self {
            runtime,
            store,
            ids,
            seq: 0,
            size: 0,
            _dir: dir,
        }
    }

    fn commit(&mut self, shape: &Shape) {
        let batch = self.batch(shape);
        self.runtime.block_on(self.store.commit(&batch)).unwrap();
    }

    fn batch(&mut self, shape: &Shape) -> Batch {
        let (seen, parent) = (&shape.seen, self.seq);
        self.seq += 1;
        let mut batch = Batch::after(parent);
        batch.head.body = vec![b'h'; seen.head];
        for change in 0..shape.records {
            let turn = parent as usize * shape.records + change;
            let id = self.ids[turn % self.ids.len()];
            batch.records.push((id, self.seq, vec![1; seen.sealed]));
            batch.members.push((id.bucket(16), vec![2; seen.members]));
            for _ in 0..shape.events_each {
                let body = BodyRow {
                    salt: vec![3; seen.salt],
                    body: vec![4; seen.body],
                };
                batch.entries.push((self.size, vec![5; seen.leaf]));
                batch.bodies.push((self.size, body));
                self.size += 1;
            }
        }
        batch
    }
}
