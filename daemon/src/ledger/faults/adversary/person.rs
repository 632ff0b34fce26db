//! An account whose requests come one after another, and each judged by what may be true then.

use custodyd_hsm::AccountId;

use super::super::attacks::{BUDGET, creating, is_exhausted};
use super::super::names::name;
use super::super::rig::{Rig, account, app};
use super::super::truth::{Ask, Truth, Violation, after, change, has, never_happened, shows};
use crate::account::Account;
use crate::ledger::{LedgerError, Loaded};

/// An account, and all that may be true of it: more than one thing where a change was neither
/// answered nor refused for certain. The first answer that shows which decides for ever.
#[derive(Debug)]
pub(super) struct Person {
    id: AccountId,
    possible: Vec<Truth>,
    /// A change that was refused is still under way, and may happen after what is shown now.
    under_way: bool,
    /// Evaluations since the last success that was answered or may have happened.
    evaluations: u64,
}

type Judged<T> = Result<T, Violation>;

impl Person {
    pub(super) fn absent(id: AccountId) -> Self {
        Self {
            id,
            possible: vec![Truth::Absent],
            under_way: false,
            evaluations: 0,
        }
    }

    /// What was shown is true, so what contradicts it is not.
    fn shown(&mut self, what: &str, fits: impl Fn(&Truth) -> bool) -> Judged<()> {
        if !self.may_be(&fits) {
            let truth = &self.possible;
            return Err(Violation(format!("{what}, but the truth is {truth:?}")));
        }
        if !self.under_way {
            self.possible.retain(fits);
        }
        Ok(())
    }

    fn observe(&mut self, loaded: Option<&Account>) -> Judged<()> {
        let Some(account) = loaded else {
            return self.shown("it is said to be nobody's", |truth| {
                !matches!(truth, Truth::Living(_))
            });
        };
        let what = format!(
            "{} guesses, {} events, {} aliases were shown",
            account.session_epoch,
            account.trail.count,
            account.aliases.len()
        );
        self.shown(&what, |truth| shows(truth, account))
    }

    /// It happened: only what it could happen to was true.
    fn happened(&mut self, ask: Ask) -> Judged<()> {
        let before = self.possible.clone();
        self.possible = before
            .iter()
            .filter_map(|truth| after(truth, ask))
            .collect();
        if self.possible.is_empty() {
            return Err(Violation(format!("{ask:?} went well upon {before:?}")));
        }
        Ok(())
    }

    /// It was refused, and may have happened all the same.
    fn may_have_happened(&mut self, ask: Ask, error: &LedgerError, pending: bool) {
        if never_happened(error) && !pending {
            return;
        }
        let more: Vec<_> = self
            .possible
            .iter()
            .filter_map(|truth| after(truth, ask))
            .collect();
        for truth in more {
            if !self.possible.contains(&truth) {
                self.possible.push(truth);
            }
        }
        if ask == Ask::Succeed {
            self.evaluations = 0;
        }
    }

    fn may_be(&self, fits: impl Fn(&Truth) -> bool) -> bool {
        self.possible.iter().any(fits)
    }
}

/// One request; what it was refused with, if that says nothing of anybody.
pub(super) async fn ask(
    rig: &Rig,
    people: &mut [Person],
    who: usize,
    ask: Ask,
) -> Judged<Option<LedgerError>> {
    ask_among(rig, (people, false), who, ask).await
}

/// The same where another node may still do what it has refused.
pub(super) async fn ask_among(
    rig: &Rig,
    (people, elsewhere): (&mut [Person], bool),
    who: usize,
    ask: Ask,
) -> Judged<Option<LedgerError>> {
    let under_way = elsewhere || rig.ledger().reader.memory().pending().is_some();
    for person in people.iter_mut() {
        person.under_way = under_way;
    }
    match ask {
        Ask::Find(alias) => return find(rig, people, alias).await,
        Ask::Create => return create(rig, &mut people[who]).await,
        _ => {}
    }
    let loaded = match rig.ledger().load(&app(), people[who].id).await {
        Ok(loaded) => loaded,
        Err(error) => return Ok(Some(error)),
    };
    people[who].observe(loaded.as_ref().map(|loaded| &*loaded.account))?;
    let Some(loaded) = loaded else {
        return Ok(None);
    };
    match ask {
        Ask::Read => return Ok(None),
        Ask::Events => return events(rig, &mut people[who], &loaded).await,
        _ => {}
    }
    let answer = change(rig.ledger(), loaded, ask).await;
    let person = &mut people[who];
    if is_exhausted(&answer) {
        let spent = |truth: &Truth| matches!(truth, Truth::Living(life) if life.charged >= BUDGET);
        return person
            .shown("no guess is said to be left", spent)
            .map(|()| None);
    }
    match answer {
        Ok(_) => {
            person.happened(ask)?;
            person.evaluations = match ask {
                Ask::Guess => person.evaluations + 1,
                Ask::Succeed => 0,
                _ => person.evaluations,
            };
            if person.evaluations > BUDGET {
                return Err(Violation(format!("{} evaluations", person.evaluations)));
            }
            Ok(None)
        }
        Err(LedgerError::Erased) => person
            .shown("it is said to be erased", |truth| *truth == Truth::Erased)
            .map(|()| None),
        Err(LedgerError::AliasTaken) => {
            let Ask::Claim(alias) = ask else {
                return Err(Violation(format!("{ask:?} took a name")));
            };
            let others = people.iter().enumerate().filter(|(at, _)| *at != who);
            if others
                .into_iter()
                .any(|(_, other)| other.may_be(has(alias)))
            {
                return Ok(None);
            }
            Err(Violation(format!(
                "{alias} is said to be taken, and is nobody's"
            )))
        }
        Err(error) => {
            person.may_have_happened(ask, &error, is_pending(rig));
            Ok(Some(error))
        }
    }
}

/// Whether a batch is durable and may yet count, whatever was said of it.
fn is_pending(rig: &Rig) -> bool {
    rig.ledger().reader.memory().pending().is_some()
}

async fn create(rig: &Rig, person: &mut Person) -> Judged<Option<LedgerError>> {
    match rig.ledger().create(account(person.id), &[], creating).await {
        Ok(_) => person.happened(Ask::Create).map(|()| None),
        Err(LedgerError::Exists) => person
            .shown("it is said to exist", |truth| *truth != Truth::Absent)
            .map(|()| None),
        Err(error) => {
            person.may_have_happened(Ask::Create, &error, is_pending(rig));
            Ok(Some(error))
        }
    }
}

async fn events(rig: &Rig, person: &mut Person, loaded: &Loaded) -> Judged<Option<LedgerError>> {
    let page = match rig.ledger().events(loaded, None, usize::MAX).await {
        Ok(page) => page,
        Err(error) => return Ok(Some(error)),
    };
    let kinds: Vec<_> = page.events.iter().rev().map(|event| event.kind).collect();
    person
        .shown(
            "other events were shown",
            |truth| matches!(truth, Truth::Living(life) if life.events == kinds),
        )
        .map(|()| None)
}

async fn find(
    rig: &Rig,
    people: &mut [Person],
    alias: &'static str,
) -> Judged<Option<LedgerError>> {
    let found = match rig.ledger().find_alias(&app(), &name(alias)).await {
        Ok(found) => found,
        Err(error) => return Ok(Some(error)),
    };
    let Some(loaded) = found else {
        for person in people {
            person.shown("nobody is said to have the name", |truth| {
                !has(alias)(truth)
            })?;
        }
        return Ok(None);
    };
    let owner = people
        .iter_mut()
        .find(|person| person.id == loaded.account.id);
    let Some(owner) = owner else {
        return Err(Violation(format!("{alias} leads to a stranger")));
    };
    owner.shown("the name is said to lead there", has(alias))?;
    owner.observe(Some(&loaded.account)).map(|()| None)
}
