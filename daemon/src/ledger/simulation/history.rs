//! The history that the clients keep, and whether one order of the requests explains every answer.
//!
//! Requests overlap, so there is no one truth at a moment: an account's history is right where each of its requests can
//! be given a moment between its question and its answer, such that one after another they say what was answered
//! (linearizability, Herlihy and Wing 1990; the search is Wing's and Gong's, with Lowe's just-in-time order). Whoever
//! was left without an answer, or with one that says nothing, may have had their way at any moment until that life of the
//! daemon ended, or never. An account's truth outlives the daemon's: what was answered before a crash explains what is
//! answered after it.

use std::collections::BTreeSet;

use crate::account::Account;
use crate::ledger::EventKind;
use crate::ledger::faults::attacks::BUDGET;
use crate::ledger::faults::names::name;
use crate::ledger::faults::truth::{Ask, Truth, Violation, after, has};

pub(super) const NAMES: [&str; 2] = ["ann", "bob"];
/// More requests without a certain end make too many orders.
pub(super) const MOST_OPEN: usize = 6;

/// An account as somebody was shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    charged: u64,
    events: u64,
    aliases: BTreeSet<&'static str>,
    /// Of all aliases, whatever their names.
    count: usize,
}

impl Picture {
    pub(super) fn of(account: &Account) -> Self {
        let listed = |alias: &&str| account.alias(&name(alias)).is_some();
        Self {
            charged: account.session_epoch,
            events: account.trail.count,
            aliases: NAMES.into_iter().filter(listed).collect(),
            count: account.aliases.len(),
        }
    }

    fn is(&self, truth: &Truth) -> bool {
        match truth {
            Truth::Living(life) => {
                life.charged == self.charged
                    && life.events.len() as u64 == self.events
                    && life.aliases == self.aliases
                    && life.aliases.len() == self.count
            }
            Truth::Absent | Truth::Erased => false,
        }
    }
}

/// What an answer says of the account at the request's moment.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The change was made, and returned this.
    Made(u64),
    /// It was not, and never will be.
    NotMade,
    /// There is no such account.
    Nobody,
    Erased,
    Exists,
    /// No guess is left.
    Spent,
    Shown(Picture),
    Trail(Vec<EventKind>),
    /// It has this name, and is this.
    Owner(&'static str, Picture),
    /// It has not.
    Without(&'static str),
}

impl Answer {
    /// The truth after the request, if it could be answered so upon `truth`.
    fn upon(&self, truth: &Truth, ask: Ask) -> Option<Truth> {
        let living = |fits: bool| fits.then(|| truth.clone());
        match self {
            Self::Made(value) => {
                let next = after(truth, ask)?;
                match (&next, ask) {
                    (Truth::Living(life), Ask::Guess) if life.charged != *value => None,
                    _ => Some(next),
                }
            }
            Self::NotMade => None,
            Self::Nobody => living(!matches!(truth, Truth::Living(_))),
            Self::Erased => living(*truth == Truth::Erased),
            Self::Exists => living(*truth != Truth::Absent),
            Self::Spent => living(matches!(truth, Truth::Living(life) if life.charged >= BUDGET)),
            Self::Shown(picture) => living(picture.is(truth)),
            Self::Trail(kinds) => {
                living(matches!(truth, Truth::Living(life) if life.events == *kinds))
            }
            Self::Owner(alias, picture) => living(has(alias)(truth) && picture.is(truth)),
            Self::Without(alias) => living(!has(alias)(truth)),
        }
    }
}

#[derive(Debug)]
struct Op {
    ask: Ask,
    answer: Option<Answer>,
    /// Successes that were answered before it was asked.
    successes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Asked(usize),
    Answered(usize),
}

/// A request, for whoever answers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    person: usize,
    op: usize,
}

/// One account's requests of one life, and all that may be true of it when that life began.
#[derive(Debug)]
struct Person {
    possible: Vec<Truth>,
    ops: Vec<Op>,
    steps: Vec<Step>,
    open: usize,
    /// Guesses that were asked and answered since the last success, while none was under way.
    evaluations: u64,
    successes: u64,
    succeeding: usize,
}

#[derive(Debug)]
pub(super) struct History {
    people: Vec<Person>,
}

/// One order so far: what is true, and which of the open requests have had their moment.
type Order = (Truth, u64);

impl History {
    pub(super) fn new(people: usize) -> Self {
        let people = (0..people).map(|_| Person {
            possible: vec![Truth::Absent],
            ops: Vec::new(),
            steps: Vec::new(),
            open: 0,
            evaluations: 0,
            successes: 0,
            succeeding: 0,
        });
        Self {
            people: people.collect(),
        }
    }

    pub(super) fn open(&self, person: usize) -> usize {
        self.people[person].open
    }

    pub(super) fn people(&self) -> usize {
        self.people.len()
    }

    pub(super) fn asks(&mut self, person: usize, ask: Ask) -> Asked {
        let who = &mut self.people[person];
        let op = who.ops.len();
        who.ops.push(Op {
            ask,
            answer: None,
            successes: who.successes,
        });
        who.steps.push(Step::Asked(op));
        who.open += 1;
        if ask == Ask::Succeed {
            who.succeeding += 1;
        }
        Asked { person, op }
    }

    /// # Errors
    /// Where a guess was evaluated that nobody had.
    pub(super) fn answered(&mut self, asked: Asked, answer: Answer) -> Result<(), Violation> {
        let who = &mut self.people[asked.person];
        let op = &mut who.ops[asked.op];
        match (op.ask, &answer) {
            (Ask::Guess, Answer::Made(_)) => {
                let since = who.succeeding == 0 && op.successes == who.successes;
                who.evaluations += u64::from(since);
            }
            (Ask::Succeed, _) => {
                who.succeeding -= 1;
                who.successes += 1;
                who.evaluations = 0;
            }
            _ => {}
        }
        op.answer = Some(answer);
        who.steps.push(Step::Answered(asked.op));
        who.open -= 1;
        if who.evaluations > BUDGET {
            return Err(Violation(format!(
                "{} evaluations of account {} without a success",
                who.evaluations, asked.person
            )));
        }
        Ok(())
    }

    /// Whether somebody else's claim of the name could have made it taken.
    pub(super) fn may_be_taken(&self, alias: &'static str, by_others_than: usize) -> bool {
        let others = self.people.iter().enumerate();
        let mut others = others.filter(|(at, _)| *at != by_others_than);
        others.any(|(_, other)| {
            let claimed = |op: &Op| op.ask == Ask::Claim(alias);
            other.ops.iter().any(claimed) || other.possible.iter().any(has(alias))
        })
    }

    /// A life of the daemon is over: no request of it changes anything from now on.
    ///
    /// # Errors
    /// Where no order explains an account's answers, or a name is two accounts'.
    pub(super) fn ends(&mut self) -> Result<(), Violation> {
        for (at, person) in self.people.iter_mut().enumerate() {
            person
                .ends()
                .map_err(|what| Violation(format!("account {at}: {what}")))?;
        }
        for alias in NAMES {
            let owners = self.people.iter();
            let owners = owners.filter(|person| person.possible.iter().all(has(alias)));
            if owners.count() > 1 {
                return Err(Violation(format!("{alias} is the name of two accounts")));
            }
        }
        Ok(())
    }
}

impl Person {
    fn ends(&mut self) -> Result<(), String> {
        let ops = std::mem::take(&mut self.ops);
        let steps = std::mem::take(&mut self.steps);
        self.open = 0;
        if self.succeeding > 0 {
            self.evaluations = 0;
            self.successes += 1;
            self.succeeding = 0;
        }
        if ops.is_empty() {
            return Ok(());
        }
        let begun = self.possible.clone();
        let mut orders: Vec<Order> = begun.iter().map(|truth| (truth.clone(), 0)).collect();
        // Which request has which bit, while it is open.
        let mut open: Vec<Option<usize>> = Vec::new();
        for step in &steps {
            match *step {
                Step::Asked(op) => match open.iter().position(Option::is_none) {
                    Some(bit) => open[bit] = Some(op),
                    None => open.push(Some(op)),
                },
                Step::Answered(op) => {
                    let Some(bit) = open.iter().position(|at| *at == Some(op)) else {
                        continue;
                    };
                    if !matches!(ops[op].answer, Some(Answer::NotMade)) {
                        close_over(&mut orders, &open, &ops);
                        orders.retain(|(_, had)| had >> bit & 1 == 1);
                    }
                    for (_, had) in &mut orders {
                        *had &= !(1 << bit);
                    }
                    open[bit] = None;
                    tidy(&mut orders);
                    if orders.is_empty() {
                        return Err(explain(&begun, &ops, &steps, op));
                    }
                }
            }
        }
        close_over(&mut orders, &open, &ops);
        self.possible.clear();
        for (truth, _) in orders {
            if !self.possible.contains(&truth) {
                self.possible.push(truth);
            }
        }
        Ok(())
    }
}

/// Adds every order in which more of the open requests have had their moment.
fn close_over(orders: &mut Vec<Order>, open: &[Option<usize>], ops: &[Op]) {
    let mut next = 0;
    while next < orders.len() {
        let (truth, had) = orders[next].clone();
        for (bit, op) in open.iter().enumerate() {
            let Some(op) = op else { continue };
            if had >> bit & 1 == 1 {
                continue;
            }
            let op = &ops[*op];
            let then = match &op.answer {
                Some(answer) => answer.upon(&truth, op.ask),
                None => after(&truth, op.ask),
            };
            if let Some(then) = then {
                let order = (then, had | 1 << bit);
                if !orders.contains(&order) {
                    orders.push(order);
                }
            }
        }
        next += 1;
    }
}

fn tidy(orders: &mut Vec<Order>) {
    let mut kept: Vec<Order> = Vec::with_capacity(orders.len());
    for order in orders.drain(..) {
        if !kept.contains(&order) {
            kept.push(order);
        }
    }
    *orders = kept;
}

fn explain(begun: &[Truth], ops: &[Op], steps: &[Step], last: usize) -> String {
    let mut text = format!("nothing explains the answer to request {last}; it began as {begun:?}");
    for step in steps {
        let line = match step {
            Step::Asked(op) => format!("\n  {op} asks {:?}", ops[*op].ask),
            Step::Answered(op) => format!("\n  {op} is told {:?}", ops[*op].answer),
        };
        text.push_str(&line);
        if matches!(step, Step::Answered(op) if *op == last) {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn born() -> History {
        let mut history = History::new(2);
        let asked = history.asks(0, Ask::Create);
        history.answered(asked, Answer::Made(0)).unwrap();
        history.ends().unwrap();
        history
    }

    fn shown(charged: u64, events: u64) -> Answer {
        Answer::Shown(Picture {
            charged,
            events,
            aliases: BTreeSet::new(),
            count: 0,
        })
    }

    #[test]
    fn requests_that_overlap_may_have_any_order_and_others_their_own() {
        let mut history = born();
        let [a, b] = [history.asks(0, Ask::Guess), history.asks(0, Ask::Guess)];
        let reader = history.asks(0, Ask::Read);
        history.answered(a, Answer::Made(2)).unwrap();
        history.answered(b, Answer::Made(1)).unwrap();
        history.answered(reader, shown(1, 2)).unwrap();
        history.ends().unwrap();
        // The control: one that began after both were answered sees both.
        let reader = history.asks(0, Ask::Read);
        history.answered(reader, shown(1, 2)).unwrap();
        assert!(history.ends().is_err());
    }

    #[test]
    fn what_was_not_answered_may_have_happened_until_its_life_ends() {
        let mut history = born();
        history.asks(0, Ask::Guess);
        for (charged, events) in [(0, 1), (1, 2)] {
            let reader = history.asks(0, Ask::Read);
            history.answered(reader, shown(charged, events)).unwrap();
        }
        history.ends().unwrap();
        // It is not taken back.
        let reader = history.asks(0, Ask::Read);
        history.answered(reader, shown(0, 1)).unwrap();
        assert!(history.ends().is_err());
        // And one that nobody has seen is decided by the first look of the next life.
        let mut history = born();
        history.asks(0, Ask::Guess);
        history.ends().unwrap();
        for (charged, events, fits) in [(0, 1, true), (1, 2, false)] {
            let reader = history.asks(0, Ask::Read);
            history.answered(reader, shown(charged, events)).unwrap();
            assert_eq!(history.ends().is_ok(), fits);
        }
    }

    #[test]
    fn nothing_is_evaluated_beyond_the_budget_and_no_name_is_twos() {
        let mut history = born();
        for value in 1..=BUDGET {
            let asked = history.asks(0, Ask::Guess);
            history.answered(asked, Answer::Made(value)).unwrap();
        }
        let asked = history.asks(0, Ask::Guess);
        assert!(history.answered(asked, Answer::Made(BUDGET + 1)).is_err());
        let mut history = born();
        let asked = history.asks(1, Ask::Create);
        history.answered(asked, Answer::Made(0)).unwrap();
        for person in 0..2 {
            assert_eq!(history.may_be_taken("ann", person), person > 0);
            let asked = history.asks(person, Ask::Claim("ann"));
            history.answered(asked, Answer::Made(0)).unwrap();
        }
        assert!(history.ends().is_err());
    }
}
