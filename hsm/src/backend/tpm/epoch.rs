//! Epochs: from one connection to the next, and the way back after the TPM went away.
//!
//! A TPM does one command at a time, so workers take turns on the connection (`line`). What waits is a queue in
//! front of the TPM, and the pool bounds it. Whoever finds the TPM away ends the epoch; whoever comes next, after a
//! pause that grows, has another begun (`opening`), and all others are told at once to come back later. A refused secret is
//! never presented again.
//!
//! A command may never come back: a resource manager that died in the midst of it, a bus. No lock that others
//! need is held beneath one, and the next epoch begins beside it, but for commands that change something.

mod changes;
mod line;
mod opening;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use self::{changes::Changes, line::Line, opening::being_opened};
use super::{
    Options,
    anchor::{Anchors, store::Store, wear::Wear},
    clock::Clock,
    esys::Tr,
    index,
    keys::{KeyTable, Scan},
    mechanism, policy,
    token::Connection,
};
use crate::{
    backend::{
        attempt::{Attempt, Trouble},
        known_answer::KnownAnswers,
        patience::{ALONE, FIRST_PAUSE, hangs_alone, patiently, turn_within, watched},
    },
    error::{Error, Result},
    id::KeyId,
    report::TokenDescription,
};

/// Roots in memory answer so long after the TPM last did.
const FRESH: Duration = Duration::from_secs(1);

/// A TPM whose storage key, keys and index were found sound.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) number: u64,
    keys: RwLock<Known>,
    connection: Line<Connection>,
    /// Of that connection.
    clock: Clock,
    changes: Arc<Changes>,
    index: Tr,
    answered: Mutex<Instant>,
}

/// The keys, and what they answer. Changes when one is made or destroyed.
#[derive(Debug, Clone)]
struct Known {
    table: Arc<KeyTable>,
    answers: Arc<KnownAnswers>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Up(Arc<Epoch>),
    /// What calls are told meanwhile, until when nobody tries again, and the pause after that.
    Down(Error, Instant, Duration),
}

/// What the workers' custodies and the backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    /// Never held while anything else is done than to look or to put another there.
    phase: RwLock<Phase>,
    /// Whose turn it is to begin an epoch, or to be alone with the TPM.
    turn: Mutex<()>,
    /// Since when an epoch is being begun.
    opening: Mutex<Option<Instant>>,
    /// Taken with the first epoch, and held from then on.
    store: Mutex<Option<Arc<Store>>>,
    wear: Wear,
    /// Whatever changes something in the TPM, in any epoch.
    changes: Arc<Changes>,
    hidden: Line<BTreeSet<u64>>,
    /// Set once, when the TPM refused the secret; nothing clears it.
    refused: Mutex<Option<Error>>,
    answers: Mutex<Arc<KnownAnswers>>,
    description: Mutex<TokenDescription>,
    attempts: AtomicU64,
    epochs: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        Self {
            wear: Wear::beside_records(options.nv_writes_per_day, &options.state_directory),
            options,
            phase: RwLock::new(Phase::Idle),
            turn: Mutex::default(),
            opening: Mutex::default(),
            store: Mutex::default(),
            changes: Arc::default(),
            hidden: Line::new(BTreeSet::new()),
            refused: Mutex::default(),
            answers: Mutex::default(),
            description: Mutex::default(),
            attempts: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
        }
    }

    pub(super) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::SeqCst)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epochs.load(Ordering::SeqCst)
    }

    pub(super) fn describe(&self) -> TokenDescription {
        let known = locked(&self.description).clone();
        TokenDescription {
            module: self.options.tcti.clone().into(),
            ..known
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Phase> {
        self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the phase before.
    fn now(&self, phase: Phase) -> Phase {
        let mut now = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, phase)
    }

    fn check_refused(&self) -> Result<()> {
        locked(&self.refused).clone().map_or(Ok(()), Err)
    }

    /// Does the work in an epoch, beginning one where that is due. Where the TPM proves to be away,
    /// the epoch is over.
    pub(super) fn settle<T>(
        self: &Arc<Self>,
        operation: &'static str,
        work: impl FnOnce(&Epoch) -> Attempt<T>,
    ) -> Result<T> {
        self.check_refused()?;
        self.begin_if_due(operation)?;
        let epoch = match &*self.read() {
            Phase::Up(epoch) => Arc::clone(epoch),
            Phase::Down(Error::Unavailable { reason, .. }, ..) => {
                return Err(Error::unavailable(operation, reason.clone()));
            }
            Phase::Down(error, ..) => return Err(error.clone()),
            Phase::Idle => {
                let reason = "the token is being recovered";
                return Err(Error::unavailable(operation, reason));
            }
        };
        let number = epoch.number;
        let reason = match work(&epoch) {
            Ok(value) => return Ok(value),
            Err(Trouble::Final(error)) => return Err(self.remember(error)),
            Err(Trouble::Sick(reason)) => reason,
        };
        // Its connection goes with the last one who has it: before the next is made.
        drop(epoch);
        self.end(number, &reason);
        Err(Error::Unavailable { operation, reason })
    }

    /// Nobody gets into this epoch any more. A command that hangs in it keeps its connection until it comes back.
    fn end(&self, sick: u64, reason: &str) {
        let ended = {
            let mut phase = self.phase.write().unwrap_or_else(PoisonError::into_inner);
            if !matches!(&*phase, Phase::Up(epoch) if epoch.number == sick) {
                return;
            }
            let down = Error::unavailable("recover", reason);
            std::mem::replace(&mut *phase, Phase::Down(down, Instant::now(), FIRST_PAUSE))
        };
        tracing::warn!(epoch = sick, reason, "the TPM is sick; connecting again");
        drop(ended);
    }

    /// A refused secret is remembered for the life of the process.
    fn remember(&self, error: Error) -> Error {
        if matches!(error, Error::PinRefused { .. }) {
            *locked(&self.refused) = Some(error.clone());
        }
        error
    }

    fn store(&self, make: bool) -> Result<Arc<Store>> {
        let mut store = locked(&self.store);
        if let Some(store) = &*store {
            return Ok(Arc::clone(store));
        }
        let taken = Store::take(&self.options.state_directory, make)?;
        Ok(Arc::clone(store.insert(Arc::new(taken))))
    }

    fn connect(&self) -> Attempt<Connection> {
        // Checked here too: no path may present a refused secret again.
        self.check_refused()?;
        self.store(false)?;
        let connection = Connection::begin(&self.options)?;
        *locked(&self.description) = connection.description.clone();
        Ok(connection)
    }

    /// One attempt at a whole epoch.
    fn begin(&self) -> Attempt<Epoch> {
        let mut connection = self.connect()?;
        let (known, index) = self.check(&mut connection)?;
        Ok(Epoch {
            number: self.epochs.fetch_add(1, Ordering::SeqCst) + 1,
            keys: RwLock::new(known),
            clock: connection.clock.clone(),
            connection: Line::new(connection),
            changes: Arc::clone(&self.changes),
            index,
            answered: Mutex::new(Instant::now()),
        })
    }

    fn check(&self, connection: &mut Connection) -> Attempt<(Known, Tr)> {
        let scan = Scan::of(connection, &self.options)?;
        policy::require(connection, &self.options)?;
        let index = index::require(connection, &self.options)?;
        self.attempts.fetch_add(1, Ordering::SeqCst);
        Ok((self.known(connection, &scan, None)?, index))
    }

    fn known(
        &self,
        connection: &mut Connection,
        scan: &Scan,
        gone: Option<KeyId>,
    ) -> Attempt<Known> {
        let table = Arc::new(scan.table(connection, &self.options)?);
        let fresh = table.answers(connection)?;
        let mut answers = locked(&self.answers);
        answers.without(gone).refuse_another_token(&fresh)?;
        *answers = Arc::new(fresh);
        let answers = Arc::clone(&answers);
        Ok(Known { table, answers })
    }

    /// Makes or destroys a key, then finds, judges and asks all of them anew.
    pub(super) fn change_keys(
        &self,
        epoch: &Epoch,
        gone: Option<KeyId>,
        change: impl FnOnce(&mut Connection) -> Attempt<()>,
    ) -> Attempt<()> {
        self.changing(epoch, |connection| {
            change(connection)?;
            if gone.is_some() {
                let mut answers = locked(&self.answers);
                *answers = Arc::new(answers.without(gone));
            }
            let scan = Scan::of(connection, &self.options);
            let known = scan.and_then(|scan| self.known(connection, &scan, gone));
            // Whatever is found wrong then ends the epoch: a root that was unsealed would go on without its key.
            let known = known.map_err(|trouble| match gone {
                Some(_) => Trouble::Sick(trouble.into_error("look again").to_string()),
                None => trouble,
            })?;
            *epoch.keys.write().unwrap_or_else(PoisonError::into_inner) = known;
            Ok(())
        })
    }

    /// Provisioning, or saying what it would make: then no file is made either.
    pub(super) fn provisioning<T>(
        &self,
        dry_run: bool,
        work: impl Fn(&Store) -> Attempt<T>,
    ) -> Result<T> {
        self.alone(work, || {
            let taken = locked(&self.store).clone();
            match (taken, dry_run) {
                (None, true) => Store::look(&self.options.state_directory).map(Arc::new),
                (Some(store), true) => Ok(store),
                (_, false) => self.store(true),
            }
        })
    }

    /// Work on the TPM outside of any epoch: it ends the present one. May be done again where it
    /// fails in passing.
    pub(super) fn exclusively<T>(&self, work: impl Fn(&Store) -> Attempt<T>) -> Result<T> {
        self.alone(work, || self.store(false))
    }

    fn alone<T>(
        &self,
        work: impl Fn(&Store) -> Attempt<T>,
        store: impl FnOnce() -> Result<Arc<Store>>,
    ) -> Result<T> {
        self.check_refused()?;
        let longest = self.options.opens_within;
        let turn = turn_within(&self.turn, longest);
        let _turn = turn.ok_or_else(|| being_opened("be alone with the TPM", longest))?;
        // Before the epoch is over: it goes on where this is refused.
        self.changes.are_over()?;
        drop(self.now(Phase::Idle));
        // One more may have begun in it, and from now on none does.
        self.changes.are_over()?;
        let store = store()?;
        watched((ALONE, hangs_alone), || {
            patiently(self.options.start_patience, || work(&store))
        })
        .map_err(|error| self.remember(error))
    }

    /// Takes a turn for what changes something in the TPM, in an epoch that stands.
    fn changing<T>(
        &self,
        epoch: &Epoch,
        work: impl FnOnce(&mut Connection) -> Attempt<T>,
    ) -> Attempt<T> {
        epoch.with(|connection| {
            let stands = || matches!(&*self.read(), Phase::Up(up) if up.number == epoch.number);
            let _changing = self.changes.begin(&epoch.clock, stands)?;
            work(connection)
        })
    }

    /// The keys with their verdicts, whatever they are.
    pub(super) fn scan(&self) -> Result<Vec<crate::report::KeyReport>> {
        self.exclusively(|_| {
            let mut connection = self.connect()?;
            Ok(Scan::of(&mut connection, &self.options)?.reports())
        })
    }

    /// Something done with the anchors.
    pub(super) fn with_anchors<T>(
        &self,
        epoch: &Epoch,
        work: impl FnOnce(&mut Anchors<'_>) -> Attempt<T>,
    ) -> Attempt<T> {
        let store = self.store(false)?;
        // This order everywhere: first what is hidden, then the connection. Of any epoch, so that there is never work on
        // anchors beside other.
        let hangs = |_| self.changes.hang();
        let done = self.hidden.turn(hangs, |hidden| {
            self.changing(epoch, |connection| {
                work(&mut Anchors {
                    connection,
                    index: epoch.index,
                    store: &store,
                    wear: &self.wear,
                    hidden,
                    epoch: epoch.number,
                })
            })
        });
        done.unwrap_or_else(|| Err(Trouble::Final(changes::hangs())))
    }
}

impl Drop for Shared {
    /// Writes down what is only hidden yet; the session goes with the epoch.
    fn drop(&mut self) {
        let epoch = match &*self.read() {
            Phase::Up(epoch) => Arc::clone(epoch),
            Phase::Idle | Phase::Down(..) => return,
        };
        if let Err(trouble) = self.with_anchors(&epoch, |anchors| anchors.settle()) {
            let reason = trouble.into_error("settle the anchors");
            tracing::warn!(%reason, "old anchors stay until the next change");
        }
    }
}

impl Epoch {
    fn all_known(&self) -> Known {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// The keys to work with now.
    pub(super) fn keys(&self) -> Arc<KeyTable> {
        self.all_known().table
    }

    /// Takes a turn on the TPM. Behind a command that hangs there is none: then this epoch is over and the next one is
    /// begun beside it, unless that command changes something (`changes`).
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Attempt<T>) -> Attempt<T> {
        let hangs = |since| self.clock.hangs(since);
        let Some(done) = self.connection.turn(hangs, work) else {
            return Err(match self.changes.are_under_way() {
                true => Trouble::Final(changes::hangs()),
                false => Trouble::Sick("a command has not come back".to_owned()),
            });
        };
        if done.is_ok() {
            *locked(&self.answered) = Instant::now();
        }
        done
    }

    /// Before a root in memory is used: the TPM that it came from is still there. Without this a
    /// daemon would serve on for ever from memory when its TPM was taken out.
    pub(super) fn be_fresh(&self) -> Attempt<()> {
        if locked(&self.answered).elapsed() < FRESH {
            return Ok(());
        }
        self.with(|connection| mechanism::random(connection, &mut [0; 8]))
    }

    /// Health by known answer.
    pub(super) fn probe(&self) -> Attempt<()> {
        let Known { table, answers } = self.all_known();
        // Where there is no turn, `with` says whether this epoch is over: behind a command that changes keys it is not, or
        // another one would begin with what that command takes away.
        let asked = self.with(|connection| Ok(table.answers(connection)))?;
        let judged = asked.and_then(|fresh| Ok(answers.refuse_another_token(&fresh)?));
        // Whatever is wrong, the next epoch finds out; this one is over.
        judged.map_err(|trouble| Trouble::Sick(trouble.into_error("probe").to_string()))
    }
}
