//! Epochs: from one connection to the next, and the way back after the TPM went away.
//!
//! A TPM does one command at a time, so the connection is behind a lock and workers take turns. What
//! waits is a queue in front of the TPM, and the pool bounds it. Whoever finds the TPM
//! away ends the epoch; whoever comes next, after a pause that grows, tries to begin another, and all
//! others are told at once to come back later. A refused secret is never presented again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Options,
    anchor::{Anchors, store::Store, wear::Wear},
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
    },
    error::{Error, Result},
    id::KeyId,
    report::TokenDescription,
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Roots in memory answer so long after the TPM last did.
const FRESH: Duration = Duration::from_secs(1);

/// A TPM whose storage key, keys and index were found sound.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) number: u64,
    keys: RwLock<Known>,
    connection: Mutex<Connection>,
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
    Up(Box<Epoch>),
    /// What calls are told meanwhile, until when nobody tries again, and the pause after that.
    Down(Error, Instant, Duration),
}

/// What the workers' custodies and the backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    phase: RwLock<Phase>,
    /// Taken with the first epoch, and held from then on.
    store: Mutex<Option<Arc<Store>>>,
    wear: Wear,
    hidden: Mutex<BTreeSet<u64>>,
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
            store: Mutex::default(),
            hidden: Mutex::default(),
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

    fn write(&self) -> RwLockWriteGuard<'_, Phase> {
        self.phase.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_refused(&self) -> Result<()> {
        locked(&self.refused).clone().map_or(Ok(()), Err)
    }

    /// Does the work in an epoch, beginning one where that is due. Where the TPM proves to be away,
    /// the epoch is over.
    pub(super) fn settle<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Epoch) -> Attempt<T>,
    ) -> Result<T> {
        self.check_refused()?;
        self.begin_if_due(operation)?;
        let phase = match self.phase.try_read() {
            Ok(phase) => phase,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(recovering(operation)),
        };
        let epoch = match &*phase {
            Phase::Up(epoch) => epoch,
            Phase::Down(Error::Unavailable { reason, .. }, ..) => {
                return Err(Error::unavailable(operation, reason.clone()));
            }
            Phase::Down(error, ..) => return Err(error.clone()),
            Phase::Idle => return Err(recovering(operation)),
        };
        let number = epoch.number;
        let reason = match work(epoch) {
            Ok(value) => return Ok(value),
            Err(Trouble::Final(error)) => return Err(self.remember(error)),
            Err(Trouble::Sick(reason)) => reason,
        };
        drop(phase);
        self.end(number, &reason);
        Err(Error::Unavailable { operation, reason })
    }

    /// Begins the next epoch where none stands and the pause is over; one caller at a time.
    fn begin_if_due(&self, operation: &'static str) -> Result<()> {
        let due = |phase: &Phase| match phase {
            Phase::Up(_) => false,
            Phase::Idle => true,
            Phase::Down(_, until, _) => Instant::now() >= *until,
        };
        if !self.phase.try_read().is_ok_and(|phase| due(&phase)) {
            return Ok(());
        }
        let Ok(mut phase) = self.phase.try_write() else {
            return Err(recovering(operation));
        };
        if !due(&phase) {
            return Ok(());
        }
        let (begun, pause) = match &*phase {
            // The first one is waited for.
            Phase::Idle => (self.patiently(|| self.begin()), FIRST_PAUSE),
            Phase::Up(_) => return Ok(()),
            Phase::Down(_, _, pause) => (
                self.begin()
                    .map_err(|trouble| trouble.into_error("recover")),
                pause.saturating_mul(2).min(self.options.recovery_pause),
            ),
        };
        match begun {
            Ok(epoch) => {
                tracing::info!(epoch = epoch.number, "the TPM is there");
                *phase = Phase::Up(Box::new(epoch));
                Ok(())
            }
            Err(error) => {
                let error = self.remember(error);
                if let Phase::Down(..) = &*phase {
                    tracing::warn!(%error, "the TPM is not back yet");
                    *phase = Phase::Down(error.clone(), Instant::now() + pause, pause);
                }
                Err(error)
            }
        }
    }

    fn end(&self, sick: u64, reason: &str) {
        let mut phase = self.write();
        if !matches!(&*phase, Phase::Up(epoch) if epoch.number == sick) {
            return;
        }
        tracing::warn!(epoch = sick, reason, "the TPM is sick; connecting again");
        let down = Phase::Down(
            Error::unavailable("recover", reason),
            Instant::now(),
            FIRST_PAUSE,
        );
        if let Phase::Up(epoch) = std::mem::replace(&mut *phase, down) {
            epoch.connection().end();
        }
    }

    /// Repeats what fails in passing: at the start the TPM's daemon may be a moment late.
    fn patiently<T>(&self, attempt: impl Fn() -> Attempt<T>) -> Result<T> {
        let give_up = Instant::now() + self.options.start_patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Trouble::Sick(_)) if Instant::now() + pause < give_up => {
                    thread::sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                Err(trouble) => return Err(self.remember(trouble.into_error("start"))),
            }
        }
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
        match self.check(&mut connection) {
            Ok((known, index)) => Ok(Epoch {
                number: self.epochs.fetch_add(1, Ordering::SeqCst) + 1,
                keys: RwLock::new(known),
                connection: Mutex::new(connection),
                index,
                answered: Mutex::new(Instant::now()),
            }),
            Err(trouble) => {
                connection.end();
                Err(trouble)
            }
        }
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
        epoch.with(|connection| {
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
        let mut phase = self.write();
        if let Phase::Up(epoch) = std::mem::replace(&mut *phase, Phase::Idle) {
            epoch.connection().end();
        }
        let store = store()?;
        self.patiently(|| work(&store))
    }

    /// The keys with their verdicts, whatever they are.
    pub(super) fn scan(&self) -> Result<Vec<crate::report::KeyReport>> {
        self.exclusively(|_| {
            let mut connection = self.connect()?;
            let scan = Scan::of(&mut connection, &self.options);
            connection.end();
            Ok(scan?.reports())
        })
    }

    /// Something done with the anchors.
    pub(super) fn with_anchors<T>(
        &self,
        epoch: &Epoch,
        work: impl FnOnce(&mut Anchors<'_>) -> Attempt<T>,
    ) -> Attempt<T> {
        let store = self.store(false)?;
        // This order everywhere: first what is hidden, then the connection.
        let mut hidden = locked(&self.hidden);
        epoch.with(|connection| {
            work(&mut Anchors {
                connection,
                index: epoch.index,
                store: &store,
                wear: &self.wear,
                hidden: &mut hidden,
                epoch: epoch.number,
            })
        })
    }
}

impl Drop for Shared {
    /// Writes down what is only hidden yet, and gives the session back.
    fn drop(&mut self) {
        let phase = std::mem::replace(&mut *self.write(), Phase::Idle);
        let Phase::Up(epoch) = phase else {
            return;
        };
        if let Err(trouble) = self.with_anchors(&epoch, |anchors| anchors.settle()) {
            let reason = trouble.into_error("settle the anchors");
            tracing::warn!(%reason, "old anchors stay until the next change");
        }
        epoch.connection().end();
    }
}

fn recovering(operation: &'static str) -> Error {
    Error::unavailable(operation, "the token is being recovered")
}

impl Epoch {
    fn connection(self) -> Connection {
        self.connection
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn all_known(&self) -> Known {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// The keys to work with now.
    pub(super) fn keys(&self) -> Arc<KeyTable> {
        self.all_known().table
    }

    /// Takes a turn on the TPM.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Connection) -> Attempt<T>) -> Attempt<T> {
        let done = work(&mut locked(&self.connection));
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
        let asked = self.with(|connection| table.answers(connection));
        let judged = asked.and_then(|fresh| Ok(answers.refuse_another_token(&fresh)?));
        // Whatever is wrong, the next epoch finds out; this one is over.
        judged.map_err(|trouble| Trouble::Sick(trouble.into_error("probe").to_string()))
    }
}
