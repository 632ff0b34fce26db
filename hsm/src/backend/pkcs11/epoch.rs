//! Epochs: from one login to the next, and the way back after the token went away.
//!
//! The lock around the phase is the rule of the whole backend: whoever is
//! inside the module holds it for reading, whoever finalizes or initializes the
//! module holds it for writing. So C_Finalize never runs beneath a call. A call
//! that never returns therefore also holds recovery up; the pool shows it as stuck.

mod recovery;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::session::Session;

use super::{
    Options,
    anchor::{Place, Seen},
    copies,
    keys::{KeyTable, Scan},
    mechanism::{Attempt, Trouble},
    token::{self, Connection, Module},
};
use crate::{
    backend::known_answer::KnownAnswers,
    error::{Error, Result},
    id::KeyId,
    report::TokenDescription,
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long copies alone answer. Whether the token is still there only a key itself tells.
const ON_COPIES: Duration = Duration::from_secs(1);

/// A token that is logged in and whose keys were found sound.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) number: u64,
    pub(super) connection: Connection,
    keys: RwLock<Known>,
    /// When keys themselves were last at work.
    asked: Mutex<Instant>,
    /// The anchors of the newest list, whoever made it: handles are the process's. They are where to look, and say nothing
    /// of what is there now.
    anchors: Mutex<Arc<[Seen]>>,
}

/// The keys, and what they answer. Changes when one is made or destroyed.
#[derive(Debug, Clone)]
struct Known {
    table: Arc<KeyTable>,
    /// What is worked with: the same keys, or copies of them.
    working: Arc<KeyTable>,
    answers: Arc<KnownAnswers>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Up(Box<Epoch>),
    /// What calls are told meanwhile.
    Down(Error),
}

/// What the workers' custodies, the recovery thread and the backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    module: Mutex<Option<Module>>,
    phase: RwLock<Phase>,
    recovering: AtomicBool,
    /// Set once, when the token refused the PIN; nothing clears it.
    refused: Mutex<Option<Error>>,
    answers: Mutex<Arc<KnownAnswers>>,
    description: Mutex<TokenDescription>,
    logins: AtomicU64,
    epochs: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            module: Mutex::default(),
            phase: RwLock::new(Phase::Idle),
            recovering: AtomicBool::new(false),
            refused: Mutex::default(),
            answers: Mutex::default(),
            description: Mutex::default(),
            logins: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
        }
    }

    pub(super) fn login_attempts(&self) -> u64 {
        self.logins.load(Ordering::SeqCst)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epochs.load(Ordering::SeqCst)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Phase> {
        self.phase.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call inside the module, if the token is up. Never waits: during a
    /// recovery the lock is held for writing, and the caller is told so at once.
    pub(super) fn with_epoch<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Epoch) -> T,
    ) -> Result<T> {
        self.check_refused()?;
        let phase = match self.phase.try_read() {
            Ok(phase) => phase,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::unavailable(
                    operation,
                    "the token is being recovered",
                ));
            }
        };
        match &*phase {
            Phase::Up(epoch) => Ok(call(epoch)),
            Phase::Down(Error::Unavailable { reason, .. }) => {
                Err(Error::unavailable(operation, reason.clone()))
            }
            Phase::Down(error) => Err(error.clone()),
            Phase::Idle => Err(Error::unavailable(operation, "no epoch has begun")),
        }
    }

    /// No epoch stands and nobody is at work on the next: after `provision`, or
    /// where the recovery thread could not be started.
    pub(super) fn lies_idle(&self) -> bool {
        match self.phase.try_read() {
            Ok(phase) => !matches!(*phase, Phase::Up(_)),
            Err(_) => false,
        }
    }

    fn check_refused(&self) -> Result<()> {
        locked(&self.refused).clone().map_or(Ok(()), Err)
    }

    /// Begins the first epoch, patient with errors that pass.
    pub(super) fn ensure_up(&self) -> Result<()> {
        self.check_refused()?;
        let present = self.with_epoch("open", |_| ());
        if present.is_ok() || self.recovering.load(Ordering::SeqCst) {
            return present;
        }
        let mut phase = self.write();
        if matches!(*phase, Phase::Up(_)) {
            return Ok(());
        }
        let epoch = self.patiently(|| self.begin())?;
        *phase = Phase::Up(Box::new(epoch));
        Ok(())
    }

    /// Repeats what fails in passing. Two processes that start on one SoftHSM
    /// token disturb each other, and a network token may be a moment late.
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

    /// A refused PIN is remembered for the life of the process.
    fn remember(&self, error: Error) -> Error {
        if matches!(error, Error::PinRefused { .. }) {
            *locked(&self.refused) = Some(error.clone());
        }
        error
    }

    fn module(&self) -> Result<Module> {
        let mut module = locked(&self.module);
        if let Some(module) = &*module {
            return Ok(module.clone());
        }
        Ok(module.insert(Module::load(&self.options.module)?).clone())
    }

    fn connect(&self) -> Attempt<Connection> {
        // Checked here too: no path may present a refused PIN again.
        self.check_refused()?;
        let connection = Connection::begin(&self.module()?, &self.options, &self.logins)?;
        *locked(&self.description) = connection.description.clone();
        Ok(connection)
    }

    /// One attempt at a whole epoch. On any failure the module is finalized again.
    fn begin(&self) -> Attempt<Epoch> {
        let connection = self.connect()?;
        match self.check_keys(&connection) {
            Ok(known) => Ok(Epoch {
                number: self.epochs.fetch_add(1, Ordering::SeqCst) + 1,
                connection,
                keys: RwLock::new(known),
                asked: Mutex::new(Instant::now()),
                anchors: Mutex::default(),
            }),
            Err(trouble) => {
                connection.end();
                Err(trouble)
            }
        }
    }

    fn check_keys(&self, connection: &Connection) -> Attempt<Known> {
        let session = connection.open_session()?;
        let checked = self.check_keys_on(&session, (connection, None), None);
        let _ = session.close();
        checked
    }

    fn check_keys_on(
        &self,
        session: &Session,
        (connection, earlier): (&Connection, Option<&Known>),
        gone: Option<KeyId>,
    ) -> Attempt<Known> {
        let table = Arc::new(Scan::of(session, self.options.origin)?.table()?);
        let fresh = table.answers(session)?;
        let mut answers = locked(&self.answers);
        answers.without(gone).refuse_another_token(&fresh)?;
        *answers = Arc::new(fresh);
        let answers = Arc::clone(&answers);
        let working = self.working(session, (connection, earlier), (&table, &answers))?;
        Ok(Known {
            table,
            working,
            answers,
        })
    }

    /// Copies of the keys where they are worth while, which answer as the keys do; else the keys.
    fn working(
        &self,
        session: &Session,
        (connection, earlier): (&Connection, Option<&Known>),
        (table, answers): (&Arc<KeyTable>, &KnownAnswers),
    ) -> Attempt<Arc<KeyTable>> {
        if !copies::worth_while(&connection.description) {
            return Ok(Arc::clone(table));
        }
        let earlier = earlier.map(|known| (&*known.table, &*known.working));
        let copies = connection.on_the_login(|login| {
            let copies = copies::of(login, table, earlier, self.options.origin);
            copies::sound((session, login), copies, (table, answers))
        });
        Ok(Arc::new(copies))
    }

    /// After a key was made or brought in, or this one destroyed: all are found, judged and asked anew. Whatever is
    /// found wrong after a key was destroyed ends the epoch, or its working copy would go on without it.
    pub(super) fn look_again(
        &self,
        session: &Session,
        epoch: &Epoch,
        gone: Option<KeyId>,
    ) -> Attempt<()> {
        if gone.is_some() {
            let mut answers = locked(&self.answers);
            *answers = Arc::new(answers.without(gone));
        }
        let connection = &epoch.connection;
        let known = self.check_keys_on(session, (connection, Some(&epoch.known())), gone);
        let known = known.map_err(|trouble| match gone {
            Some(_) => Trouble::Sick(trouble.into_error("look again").to_string()),
            None => trouble,
        })?;
        *epoch.keys.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Work on the token outside of any epoch: it ends the present one.
    pub(super) fn exclusively<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.check_refused()?;
        let mut phase = self.write();
        end(&mut phase, Phase::Idle);
        let connection = self.patiently(|| self.connect())?;
        let outcome = work(&connection);
        connection.end();
        outcome
    }

    pub(super) fn describe(&self) -> TokenDescription {
        let known = locked(&self.description).clone();
        if !known.label.is_empty() {
            return known;
        }
        let phase = self.write();
        let seen = match *phase {
            Phase::Idle => self
                .module()
                .ok()
                .and_then(|module| token::glance(&module, &self.options).ok()),
            Phase::Up(_) | Phase::Down(_) => None,
        };
        drop(phase);
        seen.unwrap_or_else(|| TokenDescription {
            module: self.options.module.clone(),
            ..TokenDescription::default()
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        end(phase, Phase::Idle);
    }
}

/// Ends the epoch, if there is one. Workers notice by its number.
fn end(phase: &mut Phase, next: Phase) {
    if let Phase::Up(epoch) = std::mem::replace(phase, next) {
        epoch.connection.end();
    }
}

impl Epoch {
    /// Where this token keeps anchors.
    pub(super) fn place(&self) -> Place {
        Place::of(&self.connection.description)
    }

    /// Whether this token keeps each object in a file of its own and looks at it each time: SoftHSM2.
    pub(super) fn is_in_files(&self) -> bool {
        copies::worth_while(&self.connection.description)
    }

    pub(super) fn saw_anchors(&self, listed: Vec<Seen>) {
        *locked(&self.anchors) = listed.into();
    }

    pub(super) fn seen_anchors(&self) -> Arc<[Seen]> {
        Arc::clone(&locked(&self.anchors))
    }

    fn known(&self) -> Known {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// The keys that there are; who looks one up does nothing with it.
    pub(super) fn keys(&self) -> Arc<KeyTable> {
        self.known().table
    }

    /// What is asked to do something now: copies of the keys, where there are any, and once a second the keys.
    pub(super) fn at_work(&self) -> Arc<KeyTable> {
        let known = self.known();
        let mut asked = locked(&self.asked);
        if asked.elapsed() < ON_COPIES {
            return known.working;
        }
        *asked = Instant::now();
        known.table
    }

    /// Health by known answer, on this session.
    pub(super) fn probe(&self, session: &Session) -> Attempt<()> {
        let Known { table, answers, .. } = self.known();
        let asked = table.answers(session);
        let judged = asked.and_then(|fresh| Ok(answers.refuse_another_token(&fresh)?));
        // Whatever is wrong, the next epoch finds out; this one is over.
        judged.map_err(|trouble| Trouble::Sick(trouble.into_error("probe").to_string()))
    }
}
