//! What a recovery would cost without the ledger: `ledger_on_over_off`.
//!
//! No daemon can be told to believe its database, and none should be. So the ledger's share is
//! measured by itself: a recovery's work on its account, once through the ledger, and once with
//! what remains where the database is believed, with the same token, envelopes, size of batches and
//! durable commits. Left out is what the ledger is for: the member list and the state tree, log
//! entries and their bodies, the head and its MAC, the anchor in the token, checkpoint and
//! receipt. The difference is taken off the CPU that the daemon itself was seen to take.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use custodyd::account::Account;
use custodyd::ledger::{EventKind, Ledger, LedgerError, NewEvent};
use custodyd_hsm::seal::{self, Context};
use custodyd_hsm::{AccountId, Pool, RecordId, RecordKind, mac};
use custodyd_policies::Timestamp;
use custodyd_tests::{Setup, TestApp};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::cpu::{self, Sample, sample};
use crate::load::Crowd;
use crate::realm::{self, Realm, notes};
use crate::report::Figure;
use crate::statistics::quantile;
use crate::{RECOVERIES, commit};

/// Names the job.
pub(crate) const COMPARE: &str = "compare";
/// Measures this and nothing else.
pub(crate) const LEDGER: &str = "ledger";
/// Both in turn, so often, so long each.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(2);
const TRIAL: Duration = Duration::from_millis(300);
const MAX_BATCH: usize = 256;

/// What the daemon itself was seen to do.
pub(crate) struct Seen {
    /// Changes in one transaction.
    pub(crate) batch: f64,
    /// CPU of one recovery by passkey.
    pub(crate) micros: f64,
}

/// This by itself, of a daemon that has nothing else to do: for whoever works on the ledger.
pub(crate) fn alone(runtime: &Runtime, setup: Setup) -> Vec<Figure> {
    let mut app = runtime.block_on(TestApp::with(setup));
    let server = cpu::child("custodyd");
    let mut crowd = Crowd::enrolled(&app);
    let before = runtime.block_on(commit::Seen::now(&app));
    let passkey = crowd.passkeys(server, RECOVERIES * 2);
    let after = runtime.block_on(commit::Seen::now(&app));
    let seen = Seen {
        batch: commit::Shape::between(&before, &after, passkey.sample.count).changes,
        micros: passkey.sample.micros(),
    };
    assert!(app.stop(), "{}", app.log());
    figures(&app, &crowd, &seen)
}

/// Of the daemon that was measured, and that is stopped.
pub(crate) fn figures(app: &TestApp, crowd: &Crowd, seen: &Seen) -> Vec<Figure> {
    println!("with the ledger and without ...");
    let (batch, accounts) = (seen.batch.to_string(), crowd.accounts());
    let mut arguments = vec![batch.as_str()];
    arguments.extend(accounts.iter().map(String::as_str));
    let said: Value = serde_json::from_str(&realm::job(app, COMPARE, &arguments)).unwrap();
    let micros = |name: &str| said[name].as_f64().unwrap();
    let (with, without) = (micros("with"), micros("without"));
    let whole = seen.micros;
    let ratio = (whole - (with - without)) / whole;
    let cpu = "us CPU";
    vec![
        Figure::new("ledger_on_over_off", ratio, "ratio", "aim: at least 0.7")
            .beside("passkey_cpu", ratio),
        Figure::new("account_with_ledger", with, cpu, "read, written, receipted"),
        Figure::new(
            "account_without_ledger",
            without,
            cpu,
            "read and written, sealed",
        ),
    ]
}

/// The job: prints both in microseconds of CPU.
pub(crate) fn compare(app: &Path, token: &Path, batch: f64, accounts: &[&str]) {
    let runtime = Runtime::new().unwrap();
    let ids = accounts.iter().map(|id| AccountId::parse(id).unwrap());
    let ids: Vec<AccountId> = ids.collect();
    let realm = runtime.block_on(Realm::open(app, token));
    let plain = runtime.block_on(Plain::copied(&realm, &ids));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let on = |clients, lasting| {
        let (ledger, before) = (realm.ledger.clone(), runtime.block_on(entries(&realm)));
        let recovery = move |id| through(ledger.clone(), id);
        let sample = turn(&runtime, (clients, lasting), &ids, recovery);
        let entries = runtime.block_on(entries(&realm)) - before;
        // Two events of each recovery, and of each batch one entry more.
        (
            sample.count / (entries - 2.0 * sample.count),
            sample.micros(),
        )
    };
    let off = |clients, lasting| {
        let (own, before) = (plain.clone(), plain.written.load(Ordering::Relaxed));
        let recovery = move |id| own.clone().recovery(id);
        let sample = turn(&runtime, (clients, lasting), &ids, recovery);
        let written = plain.written.load(Ordering::Relaxed) - before;
        (sample.count / written as f64, sample.micros())
    };
    let (many_on, many_off) = (clients_for(batch, on), clients_for(batch, off));
    for _ in 0..TURNS {
        with.push(on(many_on, TURN).1);
        without.push(off(many_off, TURN).1);
    }
    with.sort_by(f64::total_cmp);
    without.sort_by(f64::total_cmp);
    drop(plain);
    runtime.block_on(realm.close());
    let (with, without) = (quantile(&with, 0.5), quantile(&without, 0.5));
    println!("{}", json!({"with": with, "without": without}));
}

/// How many clients have their changes written in batches of that size. Who was answered together does not ask again
/// at one moment, so it takes more clients than a batch has changes.
fn clients_for(batch: f64, turn: impl Fn(usize, Duration) -> (f64, f64)) -> usize {
    let first = batch.round().max(1.0) as usize;
    let enough = |clients: &usize| turn(*clients, TRIAL).0 >= batch;
    (first..4 * first).find(enough).unwrap_or(4 * first)
}

/// Entries of the log that was last signed for.
async fn entries(realm: &Realm) -> f64 {
    realm.ledger.checkpoint().await.unwrap().size() as f64
}

/// So many clients, each with accounts of its own, for a while.
fn turn<F>(
    runtime: &Runtime,
    (clients, lasting): (usize, Duration),
    ids: &[AccountId],
    recovery: impl Fn(AccountId) -> F + Clone + Send + 'static,
) -> Sample
where
    F: Future<Output = ()> + Send,
{
    let done = Arc::new(AtomicUsize::new(0));
    sample(std::process::id(), || {
        let end = Instant::now() + lasting;
        let tasks = ids.chunks(ids.len().div_ceil(clients)).map(|own| {
            let (own, recovery, done) = (own.to_vec(), recovery.clone(), Arc::clone(&done));
            runtime.spawn(async move {
                for id in own.into_iter().cycle() {
                    recovery(id).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    if Instant::now() >= end {
                        return;
                    }
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        done.load(Ordering::Relaxed) as f64
    })
}

/// What a sign-in by passkey changes in an account.
fn sign_in(account: &mut Account, now: Timestamp) {
    for passkey in &mut account.passkeys {
        passkey.last_used = now;
    }
}

async fn through(ledger: Ledger, id: AccountId) {
    let loaded = ledger.load(&notes(), id).await.unwrap().unwrap();
    let committed = ledger.commit::<(), LedgerError>(loaded, |account, moment, journal| {
        sign_in(account, moment.now);
        journal.note(NewEvent::new(EventKind::SessionStarted));
        journal.note(NewEvent::new(EventKind::SecretReleased));
        Ok(())
    });
    let ((), loaded) = committed.await.unwrap();
    assert!(ledger.receipt(&loaded).await.unwrap().proof.is_some());
}

type Envelopes = Arc<Mutex<HashMap<RecordId, (u64, Vec<u8>)>>>;

/// Sealed accounts in one table that is believed, as in the daemon's cache.
#[derive(Clone)]
struct Plain {
    pool: Pool,
    envelopes: Envelopes,
    changes: mpsc::Sender<Change>,
    /// Transactions.
    written: Arc<AtomicUsize>,
}

struct Change {
    record: RecordId,
    account: Account,
    done: oneshot::Sender<()>,
}

impl Plain {
    /// With what these accounts are now.
    async fn copied(realm: &Realm, ids: &[AccountId]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(dir.path().join("plain.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let table = "CREATE TABLE records(id BLOB PRIMARY KEY, generation INTEGER, sealed BLOB) \
             WITHOUT ROWID";
        sqlx::query(table).execute(&mut database).await.unwrap();
        let envelopes = Envelopes::default();
        let (changes, queue) = mpsc::channel(custodyd::ledger::QUEUE);
        let written = Arc::<AtomicUsize>::default();
        let writer = Writer {
            pool: realm.pool.clone(),
            envelopes: Arc::clone(&envelopes),
            written: Arc::clone(&written),
            database,
            _dir: dir,
        };
        tokio::spawn(writer.run(queue));
        let plain = Self {
            pool: realm.pool.clone(),
            envelopes,
            changes,
            written,
        };
        for id in ids {
            let loaded = realm.ledger.load(&notes(), *id).await.unwrap().unwrap();
            plain
                .write(*loaded.record(), Account::clone(&loaded.account))
                .await;
        }
        plain
    }

    async fn recovery(self, id: AccountId) {
        let envelopes = Arc::clone(&self.envelopes);
        let opening = self.pool.call("load", move |custody| {
            let record = record(custody, id)?;
            let (generation, sealed) = envelopes.lock().unwrap()[&record].clone();
            let (realm, app) = (realm::realm(), notes());
            let context = context(&realm, &app, &record, generation);
            Ok((record, seal::open(custody, &context, &sealed)?))
        });
        let (record, opened) = opening.await.unwrap();
        let mut account = Account::decode(opened.expose()).unwrap();
        sign_in(&mut account, Timestamp(0));
        self.write(record, account).await;
    }

    async fn write(&self, record: RecordId, account: Account) {
        let (done, wait) = oneshot::channel();
        let change = Change {
            record,
            account,
            done,
        };
        self.changes.send(change).await.unwrap();
        wait.await.unwrap();
    }
}

fn record(
    custody: &mut dyn custodyd_hsm::Custody,
    id: AccountId,
) -> Result<RecordId, custodyd_hsm::Error> {
    let kind = RecordKind::Account;
    mac::record_id(custody, &realm::realm(), &notes(), kind, id.as_bytes())
}

fn context<'a>(
    realm: &'a custodyd_hsm::RealmName,
    app: &'a custodyd_hsm::AppId,
    record: &'a RecordId,
    generation: u64,
) -> Context<'a> {
    Context {
        realm,
        app,
        kind: RecordKind::Account,
        record,
        generation,
    }
}

/// Seals what has queued up in one visit to the token, and writes it in one durable transaction.
struct Writer {
    pool: Pool,
    envelopes: Envelopes,
    written: Arc<AtomicUsize>,
    database: SqliteConnection,
    _dir: tempfile::TempDir,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Change>) {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        while queue.recv_many(&mut waiting, MAX_BATCH).await > 0 {
            let (mut rows, mut done) = (Vec::new(), Vec::new());
            for mut change in waiting.drain(..) {
                change.account.generation += 1;
                let plaintext = change.account.encode().unwrap();
                rows.push((change.record, change.account.generation, plaintext));
                done.push(change.done);
            }
            let sealing = self.pool.call("seal-batch", move |custody| {
                let (realm, app) = (realm::realm(), notes());
                let sealed = rows.into_iter().map(|(record, generation, plaintext)| {
                    let context = context(&realm, &app, &record, generation);
                    Ok((
                        record,
                        generation,
                        seal::seal(custody, &context, plaintext.expose())?,
                    ))
                });
                sealed.collect::<Result<Vec<_>, custodyd_hsm::Error>>()
            });
            let sealed = sealing.await.unwrap();
            let mut transaction = self.database.begin().await.unwrap();
            for (record, generation, sealed) in &sealed {
                sqlx::query("REPLACE INTO records(id, generation, sealed) VALUES (?, ?, ?)")
                    .bind(record.as_bytes().as_slice())
                    .bind(*generation as i64)
                    .bind(sealed.as_slice())
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
            }
            transaction.commit().await.unwrap();
            self.written.fetch_add(1, Ordering::Relaxed);
            let mut envelopes = self.envelopes.lock().unwrap();
            for (record, generation, sealed) in sealed {
                envelopes.insert(record, (generation, sealed));
            }
            drop(envelopes);
            for done in done {
                done.send(()).unwrap();
            }
        }
    }
}
