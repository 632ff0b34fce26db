//! A ledger over a database and a token that fail, and the book-keeping: what was answered,
//! against what is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use custodyd_hsm::software::SoftAnchors;
use custodyd_hsm::{AccountId, AppId, Pool, PoolOptions, RealmName, SecretBytes};
use custodyd_policies::Timestamp;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::broken::{After, Anchor, Between, Faulty, Meanwhile, Script, Sluggish, Strike, Tokens};
use super::tables::{self, Tables};
use crate::account::Account;
use crate::clock::{Clock, simulated::Host};
use crate::ledger::log::LEAF_EVENT;
use crate::ledger::queue::queue;
use crate::ledger::weakness::Weakness;
use crate::ledger::{
    Cache, EventKind, Journal, Ledger, LedgerError, Mode, Moment, NewEvent, Opened, QUEUE,
    Settings, open, realm,
};
use crate::store::admin::{Kept, Place};
use crate::store::{Batch, Store};

/// One life of the ledger.
struct Serving {
    ledger: Ledger,
    store: Arc<Faulty>,
    committer: JoinHandle<Result<(), LedgerError>>,
}

/// What is known of one account's charges.
#[derive(Default, Clone, Debug)]
struct Book {
    /// Answered `Ok`: durable, whatever happens.
    answered: u64,
    /// Answered that the committer stopped: durable or not.
    unknown: u64,
    numbers: BTreeSet<u64>,
}

pub(super) struct Rig {
    dir: TempDir,
    pub(super) place: Place,
    pool: Pool,
    refuse: Arc<AtomicUsize>,
    work: Arc<AtomicUsize>,
    pub(super) anchors: SoftAnchors,
    anchoring: Arc<Mutex<VecDeque<Anchor>>>,
    pub(super) sluggish: Arc<Sluggish>,
    serving: Option<Serving>,
    /// Whose clock the lives go by.
    pub(super) host: Arc<Host>,
    books: BTreeMap<AccountId, Book>,
    pub(super) accounts: [AccountId; 2],
    /// Bytes of the cache in the lives that follow: nothing, unless a test says so.
    pub(super) cache: usize,
    /// Which defences are off in the lives that follow.
    pub(super) weakness: Weakness,
    /// How the start of the next life goes.
    pub(super) opening: Script,
    /// What an honest database would hold.
    pub(super) mirror: Arc<Mutex<Tables>>,
    /// Every batch that was written, where it is asked for.
    pub(super) written: Option<Arc<Mutex<Vec<Batch>>>>,
    /// Bytes of the largest answer with member lists.
    pub(super) largest: Arc<AtomicUsize>,
    /// Bounded anchoring in the lives that follow.
    pub(super) bounded: bool,
    /// Its interval.
    pub(super) interval: Duration,
}

/// A directory that needs no disk, where the host has one.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

pub(in crate::ledger) fn app() -> AppId {
    AppId::parse("notes").unwrap()
}

pub(in crate::ledger) fn realm_name() -> RealmName {
    RealmName::parse("realm.example").unwrap()
}

pub(in crate::ledger) fn account(id: AccountId) -> Account {
    let key = SecretBytes::from(vec![7; 32]);
    Account::new(realm_name(), app(), id, Timestamp(1000), key)
}

/// What a guess costs: it raises a number in the account and is an event.
pub(super) fn charge(
    account: &mut Account,
    _: Moment,
    journal: &mut Journal,
) -> Result<u64, LedgerError> {
    account.session_epoch += 1;
    journal.note(NewEvent::new(EventKind::PinCharged));
    Ok(account.session_epoch)
}

impl Rig {
    /// A token with nothing in its object store, and a place for a database.
    fn nothing() -> Self {
        Self::at(Place::of, SoftAnchors::default())
    }

    /// A node of a realm that several serve, on a server of its own.
    pub(super) async fn among_nodes() -> Self {
        let place = Place::shared_by_nodes();
        Self::at(|_| place, SoftAnchors::default()).founded().await
    }

    /// Another node of it, which does not serve yet.
    pub(super) fn beside(&self, anchors: SoftAnchors, place: Place) -> Self {
        let mut node = Self::at(|_| place, anchors);
        node.books = self.books.clone();
        node.cache = self.cache;
        node
    }

    fn at(place: impl FnOnce(&std::path::Path) -> Place, anchors: SoftAnchors) -> Self {
        let refuse = Arc::new(AtomicUsize::new(0));
        let work = Arc::new(AtomicUsize::new(0));
        let (anchoring, sluggish) = (Arc::default(), Arc::default());
        let backend = Arc::new(Tokens {
            refuse: Arc::clone(&refuse),
            work: Arc::clone(&work),
            anchors: anchors.clone(),
            anchoring: Arc::clone(&anchoring),
            sluggish: Arc::clone(&sluggish),
        });
        let options = PoolOptions {
            threads: 1,
            ..PoolOptions::default()
        };
        let dir = in_memory();
        Self {
            place: place(dir.path()),
            dir,
            pool: Pool::start(backend, options).unwrap(),
            refuse,
            work,
            anchors,
            anchoring,
            sluggish,
            serving: None,
            host: Host::new(Clock::default().now().0),
            books: BTreeMap::new(),
            accounts: [AccountId([1; 16]), AccountId([2; 16])],
            cache: 0,
            weakness: Weakness::default(),
            opening: Script::default(),
            mirror: Arc::default(),
            written: None,
            largest: Arc::default(),
            bounded: false,
            interval: Duration::from_secs(3600),
        }
    }

    pub(super) async fn new() -> Self {
        Self::nothing().founded().await
    }

    /// The same on another kind of token, or on several.
    pub(super) async fn of(pool: Pool) -> Self {
        let mut rig = Self::nothing();
        rig.pool = pool;
        rig.founded().await
    }

    /// Other tokens in the lives that follow.
    pub(super) fn serve_upon(&mut self, pool: Pool) {
        self.pool = pool;
    }

    /// A database with a realm that no token remembers yet.
    pub(super) async fn begun(pool: Pool) -> Self {
        let mut rig = Self::nothing();
        rig.pool = pool;
        let store = rig.place.create().await.unwrap();
        realm::create(&store, &rig.pool, &realm_name(), None, Timestamp(1000))
            .await
            .unwrap();
        store.close().await;
        rig
    }

    /// As `init` where there is a database; says whether there was anything to do.
    pub(super) async fn finish(&self) -> Result<bool, LedgerError> {
        let store: Arc<dyn Store> = Arc::from(self.place.open().await?);
        let begun = realm::is_begun(&store, &self.pool, &realm_name()).await;
        let finished = match begun {
            Ok(true) => realm::anchor_first(&store, &self.pool, &realm_name()).await,
            _ => Ok(()),
        };
        store.close().await;
        finished.and(begun)
    }

    /// The same at this time, by an operator who says nothing more.
    pub(super) async fn finish_at(&self, now: u64) -> Result<(), LedgerError> {
        let store: Arc<dyn Store> = Arc::from(self.place.open().await?);
        let done = realm::finish(&store, &self.pool, &realm_name(), Timestamp(now)).await;
        store.close().await;
        done
    }

    /// Its task is over; everything else goes on.
    pub(super) async fn committer_ends(&mut self) {
        let serving = self.serving.as_mut().unwrap();
        serving.committer.abort();
        let _ = (&mut serving.committer).await;
    }

    async fn founded(self) -> Self {
        let mut rig = self;
        let store = rig.place.create().await.unwrap();
        realm::create(&store, &rig.pool, &realm_name(), None, Timestamp(1000))
            .await
            .unwrap();
        realm::anchor_first(&store, &rig.pool, &realm_name())
            .await
            .unwrap();
        store.close().await;
        drop(store);
        rig.serve(Script::default()).await;
        for id in rig.accounts {
            rig.ledger()
                .create(account(id), &[], |_, _, journal| {
                    journal.note(NewEvent::new(EventKind::AccountCreated));
                    Ok::<_, LedgerError>(())
                })
                .await
                .unwrap();
            rig.books.insert(id, Book::default());
        }
        rig.stop().await;
        rig.serve(Script::default()).await;
        rig
    }

    /// The same realm as this one is now, elsewhere; this one must rest meanwhile.
    pub(super) async fn copy(&self) -> Self {
        let mut copy = Self::at(|dir| self.place.another(dir), SoftAnchors::default());
        match (&self.place, &copy.place) {
            (Place::File(_), Place::File(_)) => copy.place.put_back(&self.place.keep()),
            _ => {
                copy.place.create().await.unwrap().close().await;
                copy.put(&self.tables().await, &tables::ALL).await;
            }
        }
        copy.anchors.put_back(&self.anchors.contents());
        copy.books = self.books.clone();
        copy.cache = self.cache;
        copy.serve(Script::default()).await;
        copy
    }

    pub(super) fn file(&self) -> PathBuf {
        self.place.file()
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.serving.as_ref().unwrap().ledger
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.serving.as_ref().unwrap().store.inner
    }

    /// It is later by so many seconds.
    pub(super) fn later(&self, seconds: u64) {
        self.host.sleeps(seconds * 1000);
    }

    /// How often the token has been asked for something that tells records apart.
    pub(super) fn token_work(&self) -> usize {
        self.work.load(Ordering::SeqCst)
    }

    pub(super) fn script(&self, script: Script) {
        *self.serving.as_ref().unwrap().store.script.lock().unwrap() = script;
    }

    /// How much of the script has not happened yet.
    pub(super) fn script_left(&self, of: impl Fn(&Script) -> usize) -> usize {
        of(&self.serving.as_ref().unwrap().store.script.lock().unwrap())
    }

    /// The wrap key's `nth` use from now fails, with a fault of that record alone.
    pub(super) fn refuse_derivation(&self, nth: usize) {
        self.refuse.store(nth, Ordering::SeqCst);
    }

    pub(super) fn mode(&self) -> Mode<'_> {
        match self.bounded {
            false => Mode::Strict,
            true => Mode::Bounded {
                runtime_directory: self.dir.path(),
                interval: self.interval,
            },
        }
    }

    async fn serve(&mut self, script: Script) {
        self.try_serve(script).await.unwrap();
    }

    /// As `startup::open`, with a store that begins to fail only afterwards.
    pub(super) async fn try_serve(&mut self, script: Script) -> Result<(), LedgerError> {
        let faulty = Arc::new(Faulty {
            inner: self.place.open().await?,
            script: Mutex::new(std::mem::take(&mut self.opening)),
            weakness: self.weakness,
            strike: Mutex::default(),
            between: Mutex::default(),
            meanwhile: Mutex::default(),
            mirror: Arc::clone(&self.mirror),
            written: self.written.clone(),
            largest: Arc::clone(&self.largest),
        });
        let store: Arc<dyn Store> = Arc::<Faulty>::clone(&faulty);
        let clock = Arc::new(self.host.clock());
        let settings = Settings {
            cache: Cache::new(self.cache),
            mode: self.mode(),
            configuration: [7; 32],
            public_log: false,
            escrowed: false,
        };
        let opened = open(&store, &self.pool, &realm_name(), &clock, settings).await;
        let Opened {
            reader,
            mut committer,
        } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let (changes, queue) = queue(QUEUE);
        committer.wait_at_first(Duration::from_micros(10));
        *faulty.script.lock().unwrap() = script;
        self.serving = Some(Serving {
            ledger: Ledger::new(reader, changes, clock),
            store: faulty,
            committer: tokio::spawn(committer.run(queue)),
        });
        Ok(())
    }

    /// The daemon is killed: nothing is anchored or said any more.
    pub(super) async fn crash(&mut self) {
        let Some(serving) = self.serving.take() else {
            return;
        };
        serving.committer.abort();
        let _ = serving.committer.await;
        drop(serving.ledger);
        serving.store.close().await;
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving.is_some()
    }

    /// How many of those that `anchoring` was given have not been used up.
    pub(super) fn anchoring_left(&self) -> usize {
        self.anchoring.lock().unwrap().len()
    }

    /// Whether the warm anchor can be written.
    pub(super) fn warm(&self, works: bool) {
        let draft = self.dir.path().join("custodyd.anchor-new");
        match works {
            true => std::fs::remove_dir(draft).unwrap(),
            false => std::fs::create_dir(draft).unwrap(),
        }
    }

    /// How the making of the next anchors goes.
    pub(super) fn anchoring(&self, next: &[Anchor]) {
        *self.anchoring.lock().unwrap() = next.to_vec().into();
    }

    /// What the administrator's backup holds.
    pub(super) async fn tables(&self) -> Tables {
        Tables::read(&mut self.admin().await).await
    }

    /// Puts tables of a backup back.
    pub(super) async fn put(&self, tables: &Tables, which: &[usize]) {
        tables.write(&mut self.admin().await, which).await;
    }

    /// Puts tables of a backup back at a moment that the ledger does not expect.
    pub(super) fn strike(&self, after: After, put: &Tables, which: &[usize]) {
        let strike = Strike {
            after,
            place: self.place.clone(),
            put: put.clone(),
            which: which.to_vec(),
        };
        let store = &self.serving.as_ref().unwrap().store;
        *store.strike.lock().unwrap() = Some(strike);
    }

    /// What others do once, while this node has its turn or catches up.
    pub(super) fn meanwhile(&self, meanwhile: Meanwhile) {
        let store = &self.serving.as_ref().unwrap().store;
        *store.meanwhile.lock().unwrap() = Some(meanwhile);
    }

    /// What others do while somebody reads; `None` ends it.
    pub(super) fn between(&self, between: Option<Between>) {
        let store = &self.serving.as_ref().unwrap().store;
        *store.between.lock().unwrap() = between;
    }

    /// The administrator thinks better of it.
    pub(super) fn no_strike(&self) {
        let store = &self.serving.as_ref().unwrap().store;
        *store.strike.lock().unwrap() = None;
        *store.script.lock().unwrap() = Script::default();
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) async fn stop(&mut self) -> Script {
        let serving = self.serving.take().unwrap();
        drop(serving.ledger);
        let _ = serving.committer.await;
        serving.store.close().await;
        let script = std::mem::take(&mut *serving.store.script.lock().unwrap());
        assert_eq!(
            Arc::strong_count(&serving.store),
            1,
            "somebody holds the store"
        );
        script
    }

    /// What the kernel forgets when the power fails.
    pub(super) fn lose_power(&self) {
        let _ = std::fs::remove_file(self.dir.path().join("custodyd.anchor"));
    }

    /// The database as it is, while nobody serves; and put back.
    pub(super) fn database(&self) -> Kept {
        self.place.keep()
    }

    pub(super) fn put_database(&self, kept: &Kept) {
        self.place.put_back(kept);
    }

    /// As `restart`, where this account may be erased and is counted no longer.
    pub(super) async fn restart_without(&mut self, id: AccountId) {
        let script = self.stop().await;
        self.serve(script).await;
        self.books.remove(&id);
    }

    /// The daemon ends and starts again; whatever was still to fail, fails then.
    pub(super) async fn restart(&mut self) {
        let script = self.stop().await;
        self.serve(Script::default()).await;
        for id in self.accounts {
            let durable = self.durable(id).await;
            let book = self.books.get_mut(&id).unwrap();
            let most = book.answered + book.unknown;
            assert!(
                (book.answered..=most).contains(&durable),
                "{durable}: {book:?}"
            );
            book.answered = durable;
            book.unknown = 0;
        }
        self.script(script);
    }

    pub(super) async fn has_stopped(&self) -> bool {
        // The committer answers before it ends.
        tokio::task::yield_now().await;
        self.serving.as_ref().unwrap().committer.is_finished()
    }

    pub(super) async fn one(&mut self, id: AccountId) -> Result<u64, LedgerError> {
        let charged = self.charge(id).await;
        self.book(id, &charged);
        charged
    }

    async fn charge(&self, id: AccountId) -> Result<u64, LedgerError> {
        // Without a look at the head: what fails there is the committer's.
        let loaded = self.ledger().reader.load(&app(), id).await?;
        let loaded = loaded.account().unwrap();
        Ok(self.ledger().commit(loaded, charge).await?.0)
    }

    /// A charge that is not booked yet.
    pub(super) async fn charge_only(&self, id: AccountId) -> Result<u64, LedgerError> {
        self.charge(id).await
    }

    /// Charges all at once, so that they share batches; returns how many were answered `Ok`.
    pub(super) async fn burst(&mut self, accounts: &[AccountId]) -> usize {
        let charges = accounts.iter().map(|id| self.charge(*id));
        let answers = futures_util::future::join_all(charges).await;
        for (id, answer) in accounts.iter().zip(&answers) {
            self.book(*id, answer);
        }
        answers.iter().filter(|answer| answer.is_ok()).count()
    }

    pub(super) fn book(&mut self, id: AccountId, answer: &Result<u64, LedgerError>) {
        let book = self.books.get_mut(&id).unwrap();
        match answer {
            Ok(number) => {
                book.answered += 1;
                assert!(book.numbers.insert(*number), "charge {number} sold twice");
            }
            Err(LedgerError::Stopped) => book.unknown += 1,
            // Refused by a committer that goes on, or to who waited to read upon a batch of one that has ended: it
            // must never have happened.
            Err(LedgerError::Store(_) | LedgerError::Overtaken | LedgerError::Late(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Another writer moves the head.
    pub(super) async fn overtake(&self) {
        let inner = &self.serving.as_ref().unwrap().store.inner;
        let row = inner.head().await.unwrap().examine().unwrap();
        let mut batch = Batch::after(row.seq);
        batch.head.body = row.body;
        inner.commit(&batch).await.unwrap();
    }

    pub(super) async fn durable(&self, id: AccountId) -> u64 {
        let loaded = self.ledger().load(&app(), id).await.unwrap().unwrap();
        loaded.account.session_epoch
    }

    /// With every fault behind us: it serves, and a fresh start finds exactly what was answered.
    pub(super) async fn check(mut self) {
        self.script(Script::default());
        if self.has_stopped().await {
            self.restart().await;
        }
        let all: Vec<_> = self.accounts.into();
        assert_eq!(self.burst(&all).await, all.len(), "it does not serve");
        self.restart().await;
        let mut entries = BTreeSet::new();
        for id in self.accounts {
            let loaded = self.ledger().load(&app(), id).await.unwrap().unwrap();
            let account = &loaded.account;
            assert_eq!(account.session_epoch, self.books[&id].answered);
            // One event for the account's creation, one for each charge, one generation each
            // at the most, and every one opens as what its number says.
            assert_eq!(account.trail.count, 1 + account.session_epoch);
            assert!(account.generation <= account.trail.count);
            let page = self
                .ledger()
                .events(&loaded, None, usize::MAX)
                .await
                .unwrap();
            let numbers: Vec<u64> = page.events.iter().rev().map(|event| event.number).collect();
            let expected: Vec<u64> = (1..=account.trail.count).collect();
            assert_eq!(numbers, expected);
            entries.extend(page.events.iter().filter_map(|event| event.previous));
            entries.extend(account.trail.last_index);
        }
        // The accounts' events are all events of the log: no entry is nobody's.
        let log = self.store().leaves(0, u64::MAX).await.unwrap().examine();
        let places: Vec<u64> = log.iter().map(|(index, _)| *index).collect();
        assert_eq!(places, (0..places.len() as u64).collect::<Vec<_>>());
        let events = log.iter().filter(|(_, leaf)| leaf[0] == LEAF_EVENT);
        assert_eq!(entries, events.map(|(index, _)| *index).collect());
        self.stop().await;
    }
}
