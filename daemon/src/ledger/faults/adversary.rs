//! The random adversary: real requests, and between them an administrator who edits, deletes,
//! inserts, swaps and puts back whatever he likes, and pulls the plug.
//!
//! What must hold: every answer is right for the true history (`truth`, `person`) or a refusal; no guess is
//! won back; what the ledger believes is what an honest database would hold; and with an untouched
//! database everything is served. By default 10,000 tamperings; `CUSTODYD_TAMPERINGS` says how
//! many, `CUSTODYD_ADVERSARY_FROM` with which seed they begin, `CUSTODYD_ADVERSARY_SEED` plays one run again.

mod hand;
mod nodes;
mod person;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use custodyd_hsm::AccountId;

use self::person::Person;
use super::broken::{Anchor, Commit, Script};
use super::dice::Dice;
use super::rig::Rig;
use super::tables::{ALL, BODIES, ENTRIES, MEMBERS, Tables};
use super::truth::{Ask, Violation};
use crate::ledger::log::LogEnd;
use crate::ledger::tree::bucket_digest;
use crate::ledger::weakness::Weakness;
use crate::store::admin::{Admin, Cell};

/// Tamperings of one run: then a new realm, for the log grows.
const PER_RUN: u64 = 60;
/// A run takes a part of a second; what stands still is found as well as what is wrong.
const LONGEST: Duration = Duration::from_secs(120);
const NAMES: [&str; 3] = ["ann", "bob", "eve"];

/// A realm, what is true of it, and what was done to it.
struct Run {
    rig: Rig,
    admin: Admin,
    dice: Dice,
    weakness: Weakness,
    people: Vec<Person>,
    /// Every state that an honest database was in, oldest first: the administrator's backups.
    history: Vec<Tables>,
    /// Tables that may not be what they should.
    dirty: Vec<usize>,
    trigger: bool,
    /// Something was made to fail, so a refusal is no surprise.
    faulty: bool,
    tamperings: u64,
    /// What happened, for whoever has to find out.
    trace: Vec<String>,
}

fn mirror(rig: &Rig) -> Tables {
    rig.mirror.lock().unwrap().clone()
}

impl Run {
    async fn new(template: &Rig, ids: &[AccountId], seed: u64, weakness: Weakness) -> Self {
        let mut rig = template.copy().await;
        let mut dice = Dice::new(seed);
        rig.bounded = seed % 4 == 3 && weakness == Weakness::default();
        let weakness = Weakness {
            patience: Some((Duration::from_millis(1), Duration::from_millis(4))),
            ..weakness
        };
        rig.cache = if dice.chance(30) { 1 << 20 } else { 0 };
        *rig.mirror.lock().unwrap() = rig.tables().await;
        rig.start(weakness).await.unwrap();
        let first = mirror(&rig);
        Self {
            admin: rig.admin().await,
            rig,
            dice,
            weakness,
            people: ids.iter().map(|id| Person::absent(*id)).collect(),
            history: vec![first],
            dirty: Vec::new(),
            trigger: false,
            faulty: false,
            tamperings: 0,
            trace: Vec::new(),
        }
    }

    /// Whether a refusal is to be expected.
    fn suspect(&self) -> bool {
        self.faulty || self.trigger || !self.dirty.is_empty()
    }

    fn remember(&mut self) {
        let now = mirror(&self.rig);
        if self.history.last().and_then(Tables::head) != now.head() {
            self.history.push(now);
        }
    }

    fn some_ask(&mut self) -> Ask {
        match self.dice.below(20) {
            0 | 1 => Ask::Create,
            2..=7 => Ask::Guess,
            8..=9 => Ask::Succeed,
            10 if self.dice.chance(20) => Ask::Erase,
            10 | 11 => Ask::Claim(NAMES[self.dice.below(3)]),
            12 => Ask::Release(NAMES[self.dice.below(3)]),
            13 | 14 => Ask::Events,
            15 | 16 => Ask::Find(NAMES[self.dice.below(3)]),
            _ => Ask::Read,
        }
    }

    /// One request, judged.
    async fn ask(&mut self, who: usize, ask: Ask) -> Result<(), Violation> {
        if !self.rig.is_serving() {
            return Ok(());
        }
        let suspect = self.suspect();
        self.trace.push(format!("{who} {ask:?} ..."));
        let refused = person::ask(&self.rig, &mut self.people, who, ask).await?;
        self.trace.push(format!("{who} {ask:?}: {refused:?}"));
        self.remember();
        match refused {
            Some(error) if !suspect => Err(Violation(format!(
                "{ask:?} of {who} was refused with an untouched database: {error:?}"
            ))),
            _ => Ok(()),
        }
    }

    async fn asks(&mut self, count: usize) -> Result<(), Violation> {
        for _ in 0..count {
            let who = self.dice.below(self.people.len());
            let ask = self.some_ask();
            self.ask(who, ask).await?;
        }
        Ok(())
    }

    /// A request while something fails: the token, or the database's answer.
    async fn fault(&mut self) -> Result<(), Violation> {
        self.faulty = true;
        let commits = match self.dice.below(6) {
            0 => vec![Commit::Lost; 8],
            1 => vec![Commit::AnswerLost],
            2 => vec![Commit::Full; 5],
            _ => Vec::new(),
        };
        if commits.is_empty() {
            let faults = [Anchor::Lost, Anchor::AnswerLost];
            self.rig.anchoring(&[faults[self.dice.below(2)]]);
        }
        self.trace.push(format!("fault: {commits:?}"));
        self.rig.script(Script::new(&commits, &[], &[]));
        let who = self.dice.below(self.people.len());
        let ask = if self.dice.chance(50) {
            Ask::Guess
        } else {
            Ask::Succeed
        };
        self.ask(who, ask).await?;
        self.rig.script(Script::default());
        self.rig.anchoring(&[]);
        Ok(())
    }

    /// The plug is pulled, and it starts again upon whatever is there.
    async fn restart(&mut self) -> Result<bool, Violation> {
        self.trace.push("restart ...".into());
        self.rig.crash().await;
        self.trace.push("crashed".into());
        let shown = Tables::read_head(&mut self.admin).await;
        let newest = mirror(&self.rig);
        let known = shown.and_then(|shown| {
            let mut known = self.history.iter().rev();
            known.find(|tables| tables.head() == Some(shown.clone()))
        });
        // If it is believed, the history goes on from there.
        let base = known.cloned();
        if let Some(base) = &base {
            *self.rig.mirror.lock().unwrap() = base.clone();
        }
        self.trace.push("starting ...".into());
        let started = self.rig.start(self.weakness).await;
        self.trace.push(format!("start: {started:?}"));
        match started {
            Ok(()) => {
                self.faulty = false;
                if base.is_some_and(|base| base.head() != newest.head()) {
                    // What was not put back along with the head is of a batch that never happened.
                    self.dirty = EVERYTHING.to_vec();
                }
                self.remember();
                self.agrees()?;
                Ok(true)
            }
            Err(error) => {
                if base
                    .as_ref()
                    .is_none_or(|base| base.head() != newest.head())
                {
                    *self.rig.mirror.lock().unwrap() = newest;
                }
                self.remember();
                if self.suspect() {
                    return Ok(false);
                }
                Err(Violation(format!(
                    "an untouched database was not served: {error:?}"
                )))
            }
        }
    }

    fn agrees(&self) -> Result<(), Violation> {
        agree(&self.rig, &mirror(&self.rig))
    }

    /// Everything as it should be; then it must be served.
    async fn mend(&mut self) -> Result<(), Violation> {
        if self.rig.is_serving() {
            self.rig.no_strike();
        }
        if self.trigger {
            self.admin.script("DROP TRIGGER IF EXISTS t").await;
            self.trigger = false;
        }
        self.dirty.sort_unstable();
        self.dirty.dedup();
        let dirty = std::mem::take(&mut self.dirty);
        mirror(&self.rig).write(&mut self.admin, &dirty).await;
        self.trace.push(format!("mended {dirty:?}"));
        if self.faulty || !self.rig.is_serving() || self.rig.has_stopped().await {
            self.faulty = false;
            self.restart().await?;
        }
        Ok(())
    }

    async fn round(&mut self) -> Result<(), Violation> {
        let honest = self.dice.below(3);
        self.asks(honest).await?;
        if self.dice.chance(25) {
            self.fault().await?;
        }
        if self.dice.chance(8) {
            self.give_up().await?;
        }
        for _ in 0..=self.dice.below(7) {
            self.tamper().await;
            if self.dice.chance(30) {
                self.asks(1).await?;
            }
        }
        if self.dice.chance(25) {
            let mut serving = self.restart().await?;
            // A loop of crashes.
            while !serving && self.dice.chance(40) {
                serving = self.restart().await?;
            }
        }
        let probes = 1 + self.dice.below(4);
        self.asks(probes).await?;
        self.mend().await?;
        let who = self.dice.below(self.people.len());
        self.ask(who, Ask::Read).await
    }

    async fn all(&mut self) -> Result<(), Violation> {
        while self.tamperings < PER_RUN {
            self.round().await?;
        }
        for who in 0..self.people.len() {
            self.ask(who, Ask::Read).await?;
            self.ask(who, Ask::Events).await?;
        }
        for name in NAMES {
            self.ask(0, Ask::Find(name)).await?;
        }
        self.agrees()
    }
}

/// What is believed is what an honest database would hold.
fn agree(rig: &Rig, tables: &Tables) -> Result<(), Violation> {
    let realm = rig.ledger().realm();
    let believed = rig.ledger().reader.memory().read();
    for row in tables.rows(MEMBERS) {
        let [Cell::Number(bucket), Cell::Bytes(list)] = row.as_slice() else {
            return Err(Violation(format!("{row:?}")));
        };
        let bucket = u32::try_from(*bucket).unwrap();
        if believed.tree.bucket(bucket) != bucket_digest(realm, bucket, list) {
            return Err(Violation(format!("bucket {bucket} is not the true one")));
        }
    }
    let mut end = LogEnd::default();
    for row in tables.rows(ENTRIES) {
        if let Cell::Bytes(leaf) = &row[1] {
            end.append(leaf);
        }
    }
    if end.root() == believed.end.root() {
        Ok(())
    } else {
        Err(Violation("the log is not the true one".into()))
    }
}

/// One run; how many tamperings there were, or what was found.
async fn run(
    template: &Rig,
    ids: &[AccountId],
    seed: u64,
    weakness: Weakness,
) -> Result<u64, String> {
    let mut run = Run::new(template, ids, seed, weakness).await;
    let done = tokio::time::timeout(LONGEST, run.all()).await;
    let done = done.unwrap_or_else(|_| Err(Violation(format!("no end after {LONGEST:?}"))));
    if done.is_ok() {
        run.rig.crash().await;
    }
    match done {
        Ok(()) => Ok(run.tamperings),
        Err(Violation(what)) => {
            let last = run.trace.len().saturating_sub(25);
            Err(format!(
                "seed {seed}: {what}\n{}",
                run.trace[last..].join("\n")
            ))
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn template() -> (Rig, Vec<AccountId>) {
    let mut rig = Rig::new().await;
    let ids = rig.neighbours(3).await.concat();
    rig.stop().await;
    (rig, ids)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn no_answer_is_wrong_and_no_guess_is_won_back() {
    let wanted = variable("CUSTODYD_TAMPERINGS").unwrap_or(10_000);
    let only = variable("CUSTODYD_ADVERSARY_SEED");
    let first = only.or(variable("CUSTODYD_ADVERSARY_FROM")).unwrap_or(1);
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                let (template, ids) = runtime.block_on(template());
                while done.load(Ordering::SeqCst) < wanted && found.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if only.is_some_and(|only| only != seed) {
                        break;
                    }
                    match runtime.block_on(run(&template, &ids, seed, Weakness::default())) {
                        Ok(count) => drop(done.fetch_add(count, Ordering::SeqCst)),
                        Err(what) => found.lock().unwrap().push(what),
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(
        found.is_empty(),
        "play it again with CUSTODYD_ADVERSARY_SEED; {}",
        found.join("\n\n")
    );
    println!(
        "{} tamperings, seeds {first} to {}",
        done.load(Ordering::SeqCst),
        next.load(Ordering::SeqCst) - 1
    );
}

/// With each defence off, the adversary wins within a few runs: so it would find such a hole.
#[test]
fn each_weakness_is_found() {
    type Off = fn(&mut Weakness);
    // With the first seed that is worth trying, for the sake of time.
    let weaknesses: [(&str, u64, Off); 10] = [
        ("any_list", 1, |w| w.any_list = true),
        ("any_content", 7, |w| w.any_content = true),
        ("any_event", 7, |w| w.any_event = true),
        ("any_head", 3, |w| w.any_head = true),
        ("any_log", 5, |w| w.any_log = true),
        ("any_state", 8, |w| w.any_state = true),
        ("any_anchor", 14, |w| w.any_anchor = true),
        ("lazy", 4, |w| w.lazy = true),
        ("rereads", 58, |w| w.rereads = true),
        ("unknown_is_done", 1, |w| w.unknown_is_done = true),
    ];
    let runtime = runtime();
    let (template, ids) = runtime.block_on(template());
    for (name, first, off) in weaknesses {
        let mut weakness = Weakness::default();
        off(&mut weakness);
        let mut found = None;
        for seed in first..first + 60 {
            if let Err(what) = runtime.block_on(run(&template, &ids, seed, weakness)) {
                found = Some(what);
                break;
            }
        }
        let what = found.unwrap_or_else(|| panic!("{name} was not found"));
        println!("{name}: {}", what.lines().next().unwrap_or_default());
    }
}

/// Which tables events are in.
const TRAIL: [usize; 2] = [ENTRIES, BODIES];
const EVERYTHING: [usize; 7] = ALL;
