//! Epochs: from one login to the next, and the way back after the token went away.
//!
//! The rule of the whole backend: whoever is inside the module has the epoch meanwhile, and the epoch has a seat in
//! the module, which is finalised when there is none any more. So C_Finalize never runs beneath a call.
//! An epoch that is over is waited for, but not for long: where a call hangs in it, or in beginning it, the next one begins
//! beside it, in the module as it stands, and the old one ends when that call returns. No lock is held while
//! anybody is inside, but for the turn of those who begin an epoch, for which no call waits.

mod beginning;
mod opening;
mod recovery;
mod spare;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::session::Session;

use self::spare::Spare;
use super::{
    Options,
    anchor::{Place, Seen},
    copies,
    keys::{KeyTable, Scan},
    mechanism::{Attempt, Trouble},
    pin::{Pin, Ticket},
    token::{self, Connection, Module},
};
use crate::{
    backend::{
        known_answer::KnownAnswers,
        patience::{ALONE, hangs_alone, patiently, turn_within, watched},
    },
    custody::AnchorObject,
    error::{Error, Result},
    id::KeyId,
    report::TokenDescription,
};

/// How long those inside are waited for when an epoch is over. Only without them can the module be initialised anew, which
/// some tokens want after they were away; whoever takes longer hangs.
const LEAVING: Duration = Duration::from_millis(500);
/// How long a copy alone answers. Whether the token is still there, and the key in it, only the key itself tells.
const ON_COPIES: Duration = Duration::from_secs(1);

/// A token that is logged in and whose keys were found sound.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) number: u64,
    /// Before the connection: it goes first.
    spare: Spare,
    pub(super) connection: Connection,
    keys: RwLock<Known>,
    /// When each key itself was last at work.
    asked: Mutex<BTreeMap<KeyId, Instant>>,
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
    Up(Arc<Epoch>),
    /// What calls are told meanwhile.
    Down(Error),
}

/// What the workers' custodies, the recovery thread and the backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    module: Mutex<Option<Module>>,
    /// Never held while anything else is done than to look or to put another there.
    phase: RwLock<Phase>,
    /// Whose turn it is to end an epoch or to begin one.
    turn: Mutex<()>,
    recovering: AtomicBool,
    /// Since when an epoch is being begun.
    opening: Mutex<Option<Instant>>,
    /// Threads that are at it: more than one where one hangs.
    beginning: AtomicUsize,
    /// Set once, when the token refused the PIN; nothing clears it.
    refused: Mutex<Option<Error>>,
    answers: Mutex<Arc<KnownAnswers>>,
    description: Mutex<TokenDescription>,
    pin: Pin,
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
            turn: Mutex::default(),
            recovering: AtomicBool::new(false),
            opening: Mutex::default(),
            beginning: AtomicUsize::new(0),
            refused: Mutex::default(),
            answers: Mutex::default(),
            description: Mutex::default(),
            pin: Pin::new(),
            epochs: AtomicU64::new(0),
        }
    }

    pub(super) fn login_attempts(&self) -> u64 {
        self.pin.presented()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epochs.load(Ordering::SeqCst)
    }

    /// The epoch that stands, for somebody who has the turn.
    fn standing(&self) -> Option<Arc<Epoch>> {
        match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Up(epoch) => Some(Arc::clone(epoch)),
            Phase::Idle | Phase::Down(_) => None,
        }
    }

    fn is_idle(&self) -> bool {
        let phase = self.phase.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*phase, Phase::Idle)
    }

    /// Gives the phase before.
    fn now(&self, phase: Phase) -> Phase {
        let mut now = self.phase.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, phase)
    }

    /// Ends the epoch, if there is one: nobody gets into it any more, and those inside have some time to leave.
    /// Workers notice by its number.
    fn end(&self, next: Phase) {
        let Phase::Up(epoch) = self.now(next) else {
            return;
        };
        let give_up = Instant::now() + LEAVING;
        while Arc::strong_count(&epoch) > 1 {
            if Instant::now() > give_up {
                tracing::warn!(
                    epoch = epoch.number,
                    "a call hangs inside the module; the token is opened anew beside it"
                );
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs a call inside the module, if the token is up. Never waits: during a
    /// recovery the caller is told so at once.
    pub(super) fn with_epoch<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&Epoch) -> T,
    ) -> Result<T> {
        self.check_refused()?;
        let epoch = match &*self.phase.read().unwrap_or_else(PoisonError::into_inner) {
            Phase::Up(epoch) => Arc::clone(epoch),
            Phase::Down(Error::Unavailable { reason, .. }) => {
                let reason = self.hangs().unwrap_or_else(|| reason.clone());
                return Err(Error::unavailable(operation, reason));
            }
            Phase::Down(error) => return Err(error.clone()),
            Phase::Idle => {
                let reason = self.hangs();
                let reason = reason.unwrap_or_else(|| "no epoch has begun".to_owned());
                return Err(Error::unavailable(operation, reason));
            }
        };
        Ok(call(&epoch))
    }

    /// No epoch stands and nobody is at work on the next: after `provision`, or
    /// where the recovery thread could not be started.
    pub(super) fn lies_idle(&self) -> bool {
        self.standing().is_none()
    }

    fn check_refused(&self) -> Result<()> {
        locked(&self.refused).clone().map_or(Ok(()), Err)
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

    fn connect(&self, ticket: Ticket) -> Attempt<Connection> {
        // Checked here too: no path may present a refused PIN again.
        self.check_refused()?;
        let pin = (&self.pin, ticket);
        let connection = Connection::begin(&self.module()?, &self.options, pin)?;
        *locked(&self.description) = connection.description.clone();
        Ok(connection)
    }

    /// All of it, in this thread. It has its number when it stands.
    fn begin_now(&self, ticket: Ticket) -> Attempt<Epoch> {
        let connection = self.connect(ticket)?;
        let session = connection.open_closing()?;
        let known = self.check_keys(&session, (&connection, None), None)?;
        Ok(Epoch {
            number: 0,
            spare: Spare::new(session),
            connection,
            keys: RwLock::new(known),
            asked: Mutex::default(),
            anchors: Mutex::default(),
        })
    }

    fn check_keys(
        &self,
        session: &Session,
        (connection, earlier): (&Connection, Option<&Known>),
        gone: Option<KeyId>,
    ) -> Attempt<Known> {
        let table = Arc::new(Scan::of(session, self.options.origin)?.table()?);
        let fresh = table.answers(session)?;
        // Not beyond this: copies are made in the module, where a call may hang.
        let answers = {
            let mut answers = locked(&self.answers);
            answers.without(gone).refuse_another_token(&fresh)?;
            *answers = Arc::new(fresh);
            Arc::clone(&answers)
        };
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
        let known = self.check_keys(session, (connection, Some(&epoch.known())), gone);
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
        let turn = turn_within(&self.turn, self.options.opens_within);
        let _turn = turn.ok_or_else(|| {
            let reason = self.hangs();
            let reason =
                reason.unwrap_or_else(|| "somebody else is alone with the token".to_owned());
            Error::unavailable("be alone with the token", reason)
        })?;
        self.end(Phase::Idle);
        watched((ALONE, hangs_alone), || {
            let connection = || self.connect(self.pin.ticket());
            let connection = patiently(self.options.start_patience, connection);
            work(&connection.map_err(|error| self.remember(error))?)
        })
    }

    pub(super) fn describe(&self) -> TokenDescription {
        let known = locked(&self.description).clone();
        if !known.label.is_empty() {
            return known;
        }
        // Whoever has the turn may hang in the module.
        let turn = self.turn.try_lock();
        let idle = turn.is_ok() && self.is_idle();
        let module = idle.then(|| self.module().ok()).flatten();
        let seen = module.and_then(|module| token::glance(&module, &self.options).ok());
        seen.unwrap_or_else(|| TokenDescription {
            module: self.options.module.clone(),
            ..TokenDescription::default()
        })
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

    /// Runs something on the session that is kept for those who get none.
    pub(super) fn on_the_spare<T>(
        &self,
        reason: &str,
        work: impl FnOnce(&Session) -> Attempt<T>,
    ) -> Attempt<T> {
        self.spare.lend(reason, work)
    }

    pub(super) fn saw_anchors(&self, listed: Vec<Seen>) {
        *locked(&self.anchors) = listed.into();
    }

    /// It is not missed by the next list.
    pub(super) fn destroyed_anchor(&self, object: &AnchorObject) {
        let mut seen = locked(&self.anchors);
        let left = seen.iter().filter(|(_, other)| other != object);
        *seen = left.cloned().collect();
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

    /// What this key is asked by now: its copy, where there is one, and once a second the key itself, so that one
    /// that was deleted from the token is missed as soon, however busy others are.
    pub(super) fn at_work(&self, key: KeyId) -> Arc<KeyTable> {
        let known = self.known();
        let now = Instant::now();
        let mut asked = locked(&self.asked);
        let recent = asked
            .get(&key)
            .is_some_and(|at| now.duration_since(*at) < ON_COPIES);
        if recent || !known.table.holds(key) {
            return known.working;
        }
        asked.insert(key, now);
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
