//! What is outside of the daemon and outlives it: the dice, the database, the token, the host's clocks, and the faults.
//!
//! Everything that the daemon waits for comes here, and the seed says how long it takes and whether it fails. All runs
//! in one thread, so the order of the draws is the order of the events, and a seed is a run. Nothing that the host draws
//! at random (salts, nonces, signatures) may reach the trace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use custodyd_hsm::AccountId;
use custodyd_hsm::software::{SoftAnchors, SoftCustody};
use tokio::time::Instant;

use super::disk::Disk;
use super::history::History;
use super::token::Break;
use crate::clock::simulated::Host;
use crate::ledger::anchoring::Shelf;
use crate::ledger::faults::dice::Dice;
use crate::ledger::faults::truth::Violation;

/// What fails, each at a rate of its own that the seed says: most of them never in most runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A read is not answered.
    Read,
    /// A commit is lost, and nobody knows.
    Lost,
    /// It is done, and nobody knows.
    AnswerLost,
    /// It is not done, and that is known.
    Full,
    /// The same of a server, which has seen the head.
    Declined,
    /// It is done later, and nobody knows.
    Late,
    /// It is said to be done, and is not. A lie.
    Dropped,
    /// A record and its list are put back after lists were read to be written upon. A lie.
    Between,
    /// A head that was found is not acknowledged.
    Acknowledgement,
    /// Anything takes seconds.
    Slow,
    /// A token's job is not begun.
    Token,
    /// It fails in the middle.
    Break,
    /// It is done after everybody has stopped waiting for it.
    Hang,
    /// The token may not be written so often.
    Worn,
    /// It has no quick word of an anchor that stands. No fault: whoever asks lists.
    Unseen,
}

const FAULTS: [Fault; 15] = [
    Fault::Read,
    Fault::Lost,
    Fault::AnswerLost,
    Fault::Full,
    Fault::Declined,
    Fault::Late,
    Fault::Dropped,
    Fault::Between,
    Fault::Acknowledgement,
    Fault::Slow,
    Fault::Token,
    Fault::Break,
    Fault::Hang,
    Fault::Worn,
    Fault::Unseen,
];

/// What happened, hashed; as text only where somebody will read it.
#[derive(Debug)]
pub(super) struct Trace {
    hash: DefaultHasher,
    began: Instant,
    pub(super) lines: Option<Vec<String>>,
}

impl Trace {
    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let at = self.began.elapsed().as_millis();
        let _ = writeln!(self, "{at} {what}");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9} ms  {what}", at));
        }
    }
}

impl std::fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.hash.write(text.as_bytes());
        Ok(())
    }
}

/// How a run is set up, by its seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) bounded: bool,
    /// The database is a server: another process, that goes on when the daemon is killed.
    pub(super) server: bool,
    pub(super) cache: usize,
    /// Somebody shows older states and alters rows.
    pub(super) lies: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) dice: Dice,
    pub(super) trace: Trace,
    pub(super) disk: Disk,
    pub(super) history: History,
    rates: BTreeMap<Fault, usize>,
    /// Nothing fails any more, and what is slow is not very slow.
    calm: bool,
    away_until: Option<Instant>,
    /// Commits that the server has and has not done yet.
    pub(super) in_flight: usize,
    /// Something failed since everything was last put right, so that a refusal is no surprise.
    pub(super) blamed: bool,
    /// What the token does in the middle of the job that it has now.
    pub(super) breaks: Option<Break>,
    pub(super) violation: Option<Violation>,
    /// How often what happened.
    pub(super) counts: BTreeMap<String, u64>,
}

impl State {
    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(what);
    }

    pub(super) fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(what.to_owned(), 1)),
        }
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) people: Vec<AccountId>,
    pub(super) host: Arc<Host>,
    pub(super) anchors: SoftAnchors,
    pub(super) shelf: Shelf,
    /// For looking into the token from outside.
    custody: Mutex<SoftCustody>,
    state: Mutex<State>,
}

impl World {
    pub(super) fn new(seed: u64, people: &[AccountId], disk: Disk, keep: bool) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let setup = Setup {
            bounded: dice.chance(35),
            server: dice.chance(50),
            cache: if dice.chance(40) { 1 << 20 } else { 0 },
            lies: dice.chance(40),
        };
        let quiet = dice.chance(12);
        let mut rates = BTreeMap::new();
        for fault in FAULTS {
            let rate = match fault {
                // There is seldom anything to acknowledge.
                Fault::Acknowledgement => 500,
                _ => [4, 30, 150][dice.below(3)],
            };
            let possible = match fault {
                Fault::Declined | Fault::Late | Fault::Acknowledgement => setup.server,
                Fault::Dropped | Fault::Between => setup.lies,
                _ => true,
            };
            if dice.chance(35) && possible && !quiet {
                rates.insert(fault, rate);
            }
        }
        let trace = Trace {
            hash: DefaultHasher::new(),
            began: Instant::now(),
            lines: keep.then(Vec::new),
        };
        let anchors = SoftAnchors::default();
        let world = Arc::new(Self {
            setup,
            custody: Mutex::new(SoftCustody::with_anchors(anchors.clone())),
            people: people.to_vec(),
            host: Host::new(1_700_000_000),
            anchors,
            shelf: Shelf::default(),
            state: Mutex::new(State {
                dice,
                trace,
                disk,
                history: History::new(people.len()),
                rates: rates.clone(),
                calm: false,
                away_until: None,
                in_flight: 0,
                blamed: false,
                breaks: None,
                violation: None,
                counts: BTreeMap::new(),
            }),
        });
        world.note(format_args!("seed {seed}: {setup:?} {rates:?}"));
        world
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.state().trace.note(what);
    }

    pub(super) fn below(&self, limit: usize) -> usize {
        self.state().dice.below(limit)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.state().dice.chance(percent)
    }

    /// Nothing ever fails in this run: it is only killed.
    pub(super) fn is_quiet(&self) -> bool {
        self.state().rates.is_empty()
    }

    pub(super) fn custody(&self) -> MutexGuard<'_, SoftCustody> {
        self.custody.lock().unwrap()
    }

    pub(super) fn count(&self, what: &str) {
        self.state().count(what);
    }

    /// Whether it fails now.
    pub(super) fn strikes(&self, fault: Fault) -> bool {
        let mut state = self.state();
        if state.calm {
            return false;
        }
        let Some(rate) = state.rates.get(&fault).copied() else {
            return false;
        };
        let strikes = state.dice.below(1000) < rate;
        if strikes {
            state.blamed |= fault != Fault::Unseen;
            state.trace.note(format_args!("fault: {fault:?}"));
            state.count(&format!("{fault:?}"));
        }
        strikes
    }

    /// What must never happen did; the first one counts.
    pub(super) fn violated(&self, what: String) {
        let mut state = self.state();
        state.trace.note(format_args!("violation"));
        state.violation.get_or_insert(Violation(what));
    }

    pub(super) fn judge(&self, judged: Result<(), Violation>) {
        if let Err(Violation(what)) = judged {
            self.violated(what);
        }
    }

    pub(super) fn is_blamed(&self) -> bool {
        self.state().blamed
    }

    pub(super) fn blame(&self, what: &str) {
        let mut state = self.state();
        state.blamed = true;
        state.trace.note(format_args!("{what}"));
    }

    /// Everything was put right.
    pub(super) fn healed(&self) {
        let mut state = self.state();
        state.away_until = None;
        state.blamed = false;
        state.note(format_args!("healed"));
    }

    /// From now on nothing fails.
    pub(super) fn calms(&self, calm: bool) {
        let mut state = self.state();
        state.calm = calm;
        if calm {
            state.away_until = None;
        }
    }

    pub(super) fn goes_away(&self, duration: Duration) {
        let mut state = self.state();
        if state.calm {
            return;
        }
        state.away_until = Some(Instant::now() + duration);
        state.blamed = true;
        state.count("away");
        state.note(format_args!("the store is away for {duration:?}"));
    }

    pub(super) fn is_away(&self) -> bool {
        let state = self.state();
        state.away_until.is_some_and(|until| Instant::now() < until)
    }

    /// A step of somebody else's takes its time: mostly none, but others come in between.
    pub(super) async fn passes(&self) {
        let drawn = self.below(100);
        let millis = match drawn {
            _ if self.strikes(Fault::Slow) => 1000 + self.below(9000),
            0..=74 => 0,
            75..=94 => 1 + self.below(4),
            _ => 5 + self.below(60),
        };
        match millis {
            0 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_millis(millis as u64)).await,
        }
    }

    /// The run's whole trace, as a number.
    pub(super) fn hash(&self) -> u64 {
        self.state().trace.hash.finish()
    }
}
