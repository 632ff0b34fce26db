//! What may be believed: the only reader and the only writer of the database.
//!
//! `service` loads an account here, decides on a copy, and commits the copy here; there is no
//! second path. Reading is in `record`, writing in `committer`, one file for each thing that
//! stands in a row. Nothing below this module speaks HTTP or knows what a PIN is.

mod aliases;
mod anchoring;
mod auditing;
mod cache;
mod checkpoint;
mod committer;
mod creating;
mod deletions;
mod erasure;
mod error;
pub mod evidence;
#[cfg(test)]
mod faults;
mod freshness;
mod head;
mod journal;
mod keys;
mod lists;
mod log;
mod looks;
mod lost;
mod members;
mod memory;
mod moves;
mod newer;
mod ordering;
mod queue;
pub mod realm;
mod receipts;
mod record;
pub mod restore;
mod retention;
pub mod rewrap;
#[cfg(test)]
mod simulation;
mod start;
mod tokens;
mod trail;
mod tree;
mod unheard;
mod unverified;
pub mod verify;
#[cfg(test)]
pub mod weakness;
mod witnessing;
mod writes;

use std::sync::{Arc, Mutex};

use custodyd_hsm::{AccountId, AppId, Lane, Pool, RealmName};
use custodyd_policies::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use self::anchoring::Mode;
#[cfg(test)]
pub use self::anchoring::Shelf;
use self::anchoring::mac_keys;
pub use self::cache::Cache;
pub use self::checkpoint::Checkpoint;
pub(crate) use self::committer::Order;
pub use self::committer::{Committer, QUEUE};
use self::erasure::Listed;
pub use self::error::LedgerError;
use self::error::shared;
pub use self::evidence::AnchorEvidence;
pub use self::head::Head;
pub use self::journal::{Event, EventKind, NewEvent};
pub use self::log::TileRow;
use self::queue::Entrance;
pub use self::receipts::{EventEntry, Noted, Proven, Receipt};
use self::record::Standing;
pub use self::record::{Loaded, Reader};
use self::retention::Step;
pub use self::retention::{Counted, Leisure, PARTS, Pass};
pub use self::start::{Opened, Settings, check, open};
pub use self::trail::{Page, Place};
pub use self::unverified::Unverified;
pub(crate) use self::witnessing::{empty_checkpoint, origin};
use crate::account::{Account, Alias, AliasName};
use crate::bytes::SharedSecret;
use crate::clock::Clock;
use crate::era::Era;
use crate::store::Store;

/// Tries of an erasure, each begun because something happened to the account meanwhile.
const ERASURE_TRIES: usize = 16;
/// Buckets are the top bits of a record identifier: 2^16 serve to about 10^6 accounts.
pub const BUCKET_BITS: u8 = 16;

/// What a decision may use besides the account: the one clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
}

/// Where a decision writes down what happened.
#[derive(Debug, Default)]
pub struct Journal {
    events: Vec<NewEvent>,
    erasure: Option<Listed>,
    retirement: Option<Step>,
}

impl Journal {
    pub fn note(&mut self, event: NewEvent) {
        self.events.push(event);
    }
}

/// A decision as the committer runs it.
pub(crate) type Decide = Box<dyn FnOnce(&mut Account, Moment, &mut Journal) -> bool + Send>;

/// What waits for the committer.
pub(crate) enum Request {
    Change(Change),
    /// Of the ledger itself, and about no account.
    Order(Order),
}

impl Request {
    fn sort_into(self, changes: &mut Vec<Change>, orders: &mut Vec<Order>) {
        match self {
            Self::Change(change) => changes.push(change),
            Self::Order(order) => orders.push(order),
        }
    }

    /// Whose turn it waits for: of an outcome, which has had its turn, nobody's.
    fn lane(&self) -> Lane {
        match self {
            Self::Change(change) if change.waits_until.is_some() => Lane::First,
            Self::Change(_) | Self::Order(_) => Lane::current(),
        }
    }
}

/// A change that waits for the committer.
pub(crate) struct Change {
    pub(crate) base: Base,
    /// Runs on a copy of the newest state; `false` leaves everything as it was.
    pub(crate) decide: Decide,
    pub(crate) reply: oneshot::Sender<Result<Option<Loaded>, Arc<LedgerError>>>,
    /// Of an outcome: where nobody can write, it is tried again until then.
    pub(crate) waits_until: Option<Instant>,
}

pub(crate) enum Base {
    /// The record must not exist; this is what it becomes.
    Absent(creating::Nowhere, Box<Account>),
    /// What the decision's author has read; replaced by the newest if that is newer.
    Loaded(Loaded),
}

/// The handle that services hold.
#[derive(Clone, Debug)]
pub struct Ledger {
    reader: Arc<Reader>,
    changes: Entrance<Request>,
    clock: Arc<Clock>,
    /// When this process began.
    believed: mac_keys::Believed,
}

impl Ledger {
    pub(crate) fn new(reader: Arc<Reader>, changes: Entrance<Request>, clock: Arc<Clock>) -> Self {
        Self {
            believed: mac_keys::Believed::of(&reader.memory().head()),
            reader,
            changes,
            clock,
        }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    #[must_use]
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Whether what is read here is known to be the newest; for readiness.
    ///
    /// # Errors
    /// `Unconfirmed` where the token does not say so in time, `Refused` with what it says instead; `Outgrown`; `Stopped`.
    pub async fn is_newest(&self) -> Result<(), LedgerError> {
        self.reader.freshness().confirmed_or_why().await
    }

    /// Changes that wait for the committer, for metrics.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.changes.len()
    }

    #[must_use]
    pub fn realm(&self) -> &RealmName {
        self.reader.realm()
    }

    /// Which history of the realm this process is in.
    #[must_use]
    pub fn era(&self) -> Era {
        let memory = self.reader.memory();
        Era {
            log_epoch: memory.history().log_epoch,
            boot_epoch: memory.boot_epoch(),
        }
    }

    /// The seed of the realm's OPAQUE keys, the same for ever.
    ///
    /// # Errors
    /// Token or store unavailable, or a realm record that is not ours.
    pub async fn opaque_seed(&self) -> Result<SharedSecret, LedgerError> {
        realm::opaque_seed(self).await
    }

    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.reader.pool()
    }

    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        self.reader.store()
    }

    /// From now on decisions are made under other policies: the next batch's head names their
    /// digest, and an entry of the log both.
    pub fn decides_under(&self, configuration: [u8; 32]) {
        self.reader.memory().decides_under(configuration);
    }

    /// The digest of the policies that decisions are made under.
    #[must_use]
    pub fn configuration(&self) -> [u8; 32] {
        self.reader.memory().configuration()
    }

    /// The account, opened and verified; `None` if it is proven absent. What its owner did at another node a moment ago is
    /// seen here: nobody is refused, or shown, what was so before.
    ///
    /// # Errors
    /// Token or store unavailable, or stored bytes that are not ours.
    pub async fn load(
        &self,
        app: &AppId,
        account: AccountId,
    ) -> Result<Option<Loaded>, LedgerError> {
        self.reader.follows_others().await?;
        Ok(self.reader.load(app, account).await?.account())
    }

    /// As `load`, for somebody who must not learn whether there is such an account: one that does
    /// not exist, and one that was erased, cost the token what a living one does.
    ///
    /// # Errors
    /// As `load`.
    pub async fn look_up(
        &self,
        app: &AppId,
        account: AccountId,
    ) -> Result<Option<Loaded>, LedgerError> {
        self.reader.follows_others().await?;
        match self.reader.load(app, account).await? {
            Standing::Account(loaded) => Ok(Some(loaded)),
            Standing::Erased => Ok(None),
            Standing::Absent => self.reader.decoy().await.map(|()| None),
        }
    }

    /// That a server which may be away answers: for somebody who must not learn from an outage which accounts are in memory.
    /// Beside other nodes it was asked before the account was read.
    ///
    /// # Errors
    /// Store unavailable, as for an account that is not there.
    pub async fn is_reached(&self) -> Result<(), LedgerError> {
        if self.store().comes_back() && !self.store().is_shared() {
            self.store().head().await?;
        }
        Ok(())
    }

    /// The account that has this alias, for somebody who must not learn whether one has: a name
    /// that nobody has costs the token what a known one does.
    ///
    /// # Errors
    /// As `load`; `Tampered` where the account does not list the alias that leads to it.
    pub async fn find_alias(
        &self,
        app: &AppId,
        name: &AliasName,
    ) -> Result<Option<Loaded>, LedgerError> {
        self.reader.follows_others().await?;
        self.reader.by_alias(app, name).await
    }

    /// An alias, to be listed by a commit: `account.add_alias(alias)`. Until then it is nobody's;
    /// the commit fails with `AliasTaken` where another account has it. Giving one up is
    /// `account.drop_alias(&name)`.
    ///
    /// # Errors
    /// Token unavailable.
    pub async fn alias(&self, app: &AppId, name: AliasName) -> Result<Alias, LedgerError> {
        let mut ids = self.reader.alias_ids(app, &name).await?.into_iter();
        let current = ids.next();
        let (mac_key, record) = current.ok_or(LedgerError::internal("name a record"))?;
        let elsewhere = ids.map(|(_, id)| id).collect();
        Ok(Alias::new(name, record, self.now()).under(mac_key, elsewhere))
    }

    /// Runs `decide` on the newest state of the account and makes its change durable.
    ///
    /// `decide` must be pure and quick: it runs inside the committer, between other accounts'
    /// decisions. If it refuses, nothing is written and its refusal is returned. When this
    /// returns `Ok`, the change and its events are durable.
    ///
    /// # Errors
    /// The decision's own refusal, or why nothing could be committed.
    pub async fn commit<T, E>(
        &self,
        loaded: Loaded,
        decide: impl FnOnce(&mut Account, Moment, &mut Journal) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Loaded), E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        self.submit(Base::Loaded(loaded), None, decide).await?
    }

    /// As `commit`, of the outcome of what was charged before: where nobody can write at the moment, it waits for some
    /// seconds, because a charge without its outcome counts as a failure.
    ///
    /// # Errors
    /// As `commit`.
    pub async fn record_outcome<T, E>(
        &self,
        loaded: Loaded,
        decide: impl FnOnce(&mut Account, Moment, &mut Journal) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Loaded), E>
    where
        T: Send + 'static,
        E: From<LedgerError> + Send + 'static,
    {
        let waits_until = Some(committer::patience());
        self.submit(Base::Loaded(loaded), waits_until, decide)
            .await?
    }

    /// Erases the account for good, if `decide` agrees: its envelope becomes a tombstone, its
    /// aliases are free, the bodies of its events go. Returns the account as it was last, for
    /// whoever has to be told. `decide` may run several times, on a newer state each.
    ///
    /// # Errors
    /// As `commit`. Where the trail is broken the bodies below the break stay: their key goes with the envelope.
    pub async fn erase<E>(
        &self,
        mut loaded: Loaded,
        decide: impl Fn(&Account, Moment) -> Result<(), E> + Clone + Send + 'static,
    ) -> Result<Loaded, E>
    where
        E: From<LedgerError> + Send + 'static,
    {
        let mut entries: Vec<u64> = Vec::new();
        for _ in 0..ERASURE_TRIES {
            let trail = &loaded.account.trail;
            entries.retain(|index| trail.keeps_entry(*index));
            let known = entries.first().copied();
            let (mut newer, broken) = self.reader.trail(&loaded, known).await?;
            if let Some(broken) = broken {
                match self.meanwhile(&loaded, Err::<(), _>(broken)).await {
                    Ok(Meanwhile::Nothing(())) => {}
                    Ok(Meanwhile::Retired(newest)) => {
                        loaded = newest;
                        continue;
                    }
                    // Whoever takes one body away must not keep an owner's envelope with it.
                    Err(LedgerError::Tampered(what)) => {
                        tracing::error!(
                            what,
                            "an account is erased whose trail is broken: what lies below stays, and nobody can open it any more"
                        );
                        metrics::counter!("custodyd_tampered_total").increment(1);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            newer.append(&mut entries);
            entries = newer;
            let listed = Listed {
                count: trail.count,
                oldest: trail.oldest,
                entries: entries.clone(),
            };
            let (app, record) = (loaded.account.app.clone(), loaded.record);
            let decide = decide.clone();
            let submitted = self
                .submit(
                    Base::Loaded(loaded),
                    None,
                    move |account, moment, journal| {
                        decide(account, moment)?;
                        journal.erasure = Some(listed);
                        Ok(())
                    },
                )
                .await;
            match submitted {
                Ok(erased) => return erased.map(|((), last)| last),
                // Something happened to the account meanwhile, and that has to go as well.
                Err(LedgerError::Stale) => {
                    let newest = self.reader.open(&app, record).await?.account();
                    loaded = newest.ok_or(LedgerError::Erased)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(LedgerError::Overtaken.into())
    }

    fn send(&self, request: Request) -> Result<(), LedgerError> {
        self.changes.put(request.lane(), request)
    }

    /// Leaves a change to the committer, and waits for its answer. The outer error is the ledger's, the inner one the decision's.
    async fn submit<T, E>(
        &self,
        base: Base,
        waits_until: Option<Instant>,
        decide: impl FnOnce(&mut Account, Moment, &mut Journal) -> Result<T, E> + Send + 'static,
    ) -> Result<Result<(T, Loaded), E>, LedgerError>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let verdict = Arc::new(Mutex::new(None));
        let (reply, answer) = oneshot::channel();
        let change = Change {
            base,
            decide: Box::new({
                let verdict = Arc::clone(&verdict);
                move |account, moment, journal| {
                    let decided = decide(account, moment, journal);
                    let keep = decided.is_ok();
                    if let Ok(mut slot) = verdict.lock() {
                        *slot = Some(decided);
                    }
                    keep
                }
            }),
            reply,
            waits_until,
        };
        self.send(Request::Change(change))?;
        let committed = answer
            .await
            .map_err(|_| LedgerError::Stopped)?
            .map_err(shared)?;
        let decided = verdict
            .lock()
            .ok()
            .and_then(|mut slot| slot.take())
            .ok_or(LedgerError::internal("take the decision back"))?;
        match (decided, committed) {
            (Ok(value), Some(loaded)) => Ok(Ok((value, loaded))),
            (Err(refusal), _) => Ok(Err(refusal)),
            (Ok(_), None) => Err(LedgerError::internal("commit a decision")),
        }
    }

    /// The account's events, newest first; `from` continues where an earlier page ended.
    ///
    /// # Errors
    /// `Tampered` where an event is missing, cut, reordered or altered.
    pub async fn events(
        &self,
        loaded: &Loaded,
        from: Option<Place>,
        limit: usize,
    ) -> Result<Page, LedgerError> {
        self.page(loaded, from, limit, false).await
    }

    /// As `events`, with what is needed to prove each.
    ///
    /// # Errors
    /// As `events`.
    pub async fn events_with_bodies(
        &self,
        loaded: &Loaded,
        from: Option<Place>,
        limit: usize,
    ) -> Result<Page, LedgerError> {
        self.page(loaded, from, limit, true).await
    }

    async fn page(
        &self,
        loaded: &Loaded,
        from: Option<Place>,
        limit: usize,
        keep: bool,
    ) -> Result<Page, LedgerError> {
        let page = self.reader.events(loaded, from, limit, keep).await;
        match self.meanwhile(loaded, page).await? {
            Meanwhile::Nothing(page) => Ok(page),
            Meanwhile::Retired(newest) => self.reader.events(&newest, from, limit, keep).await,
        }
    }

    /// The bodies of an account that was erased meanwhile are rightly gone, and so are those
    /// that retention has taken.
    async fn meanwhile<T>(
        &self,
        loaded: &Loaded,
        read: Result<T, LedgerError>,
    ) -> Result<Meanwhile<T>, LedgerError> {
        let Err(LedgerError::Tampered(_)) = &read else {
            return read.map(Meanwhile::Nothing);
        };
        // A batch that is durable has taken its bodies along, and is not what is believed before it is anchored; be it of
        // another node.
        self.reader.until_settled().await?;
        self.reader.catches_up().await;
        let oldest = loaded.account.trail.oldest;
        match self.reader.open(&loaded.account.app, loaded.record).await? {
            Standing::Erased => Err(LedgerError::Erased),
            Standing::Account(newest) if newest.account.trail.oldest != oldest => {
                Ok(Meanwhile::Retired(newest))
            }
            Standing::Absent | Standing::Account(_) => read.map(Meanwhile::Nothing),
        }
    }
}

/// What happened to an account while its trail was read.
enum Meanwhile<T> {
    Nothing(T),
    /// Retention moved on; this is how the account stands now.
    Retired(Loaded),
}
