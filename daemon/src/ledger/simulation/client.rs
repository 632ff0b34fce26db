//! The clients: each asks one thing after another, all at once, and the history keeps what they were told.

use std::sync::Arc;
use std::time::Duration;

use super::history::{Answer, MOST_OPEN, NAMES, Picture};
use super::world::World;
use crate::ledger::faults::attacks::{creating, is_exhausted};
use crate::ledger::faults::names::name;
use crate::ledger::faults::rig::{account, app};
use crate::ledger::faults::truth::{Ask, change, never_happened};
use crate::ledger::{Ledger, LedgerError};

/// Longer nobody waits for an answer, whatever fails.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) ledger: Ledger,
    pub(super) number: usize,
}

fn some_name(world: &World) -> &'static str {
    NAMES[world.below(NAMES.len())]
}

fn some_ask(world: &World) -> Ask {
    match world.below(24) {
        0..=2 => Ask::Create,
        3..=10 => Ask::Guess,
        11..=12 => Ask::Succeed,
        13 if world.chance(30) => Ask::Erase,
        13..=15 => Ask::Claim(some_name(world)),
        16 => Ask::Release(some_name(world)),
        17 | 18 => Ask::Events,
        19 | 20 => Ask::Find(some_name(world)),
        _ => Ask::Read,
    }
}

impl Client {
    /// So many requests, one after another.
    pub(super) async fn asks(self, count: usize) {
        for _ in 0..count {
            let (who, ask) = {
                let people = self.world.people.len();
                (self.world.below(people), some_ask(&self.world))
            };
            if self.world.chance(40) {
                self.world.passes().await;
            }
            self.ask(who, ask).await;
        }
    }

    /// One request; `None` says that it was answered with something that says nothing of anybody.
    pub(super) async fn ask(&self, who: usize, ask: Ask) -> Option<()> {
        let many = {
            let history = &self.world.state().history;
            (0..history.people()).any(|person| history.open(person) >= MOST_OPEN)
        };
        if many {
            return Some(());
        }
        let number = self.number;
        self.world
            .note(format_args!("client {number}: {who} {ask:?}"));
        let answered = tokio::time::timeout(PATIENCE, self.answered(who, ask)).await;
        let Ok(answered) = answered else {
            self.world
                .violated(format!("client {number}: no answer to {ask:?} of {who}"));
            return None;
        };
        if answered.is_ok() {
            self.is_anchored();
        }
        match answered {
            Ok(()) => Some(()),
            Err(error) => {
                self.world
                    .note(format_args!("client {number}: {}", kind(&error)));
                if !self.world.is_blamed() {
                    self.world.violated(format!(
                        "client {number}: {ask:?} of {who} was refused, and nothing had failed: {error:?}"
                    ));
                }
                None
            }
        }
    }

    /// What the daemon believes while it answers is a state that was written, and that its token, or in bounded mode
    /// this host, remembers; and tree and log are those that its head names.
    fn is_anchored(&self) {
        let (head, whole) = {
            let believed = self.ledger.reader.memory().read();
            let head = believed.head.clone();
            let whole = believed.tree.root() == head.state.state_root
                && believed.end.root() == head.log_root;
            (head, whole)
        };
        if !whole {
            self.world.violated(format!(
                "it believes what the head of batch {} does not name",
                head.state.seq
            ));
        }
        let Ok(hash) = head.hash() else { return };
        let anchored = super::run::anchored(&self.world);
        let told = {
            let disk = &self.world.state().disk;
            disk.with_head(&hash)
                .map(|at| anchored.iter().any(|anchor| disk.descends(*anchor, at)))
        };
        match told {
            Some(true) => {}
            Some(false) => self.world.violated(format!(
                "it answers from batch {}, which nobody remembers",
                head.state.seq
            )),
            None => self.world.violated(format!(
                "it believes a batch {} that nobody wrote",
                head.state.seq
            )),
        }
    }

    fn told(&self, asked: super::history::Asked, answer: Answer) {
        let number = self.number;
        self.world
            .note(format_args!("client {number} is told {answer:?}"));
        let judged = self.world.state().history.answered(asked, answer);
        self.world.judge(judged);
    }

    fn asked(&self, who: usize, ask: Ask) -> super::history::Asked {
        self.world.state().history.asks(who, ask)
    }

    async fn answered(&self, who: usize, ask: Ask) -> Result<(), LedgerError> {
        match ask {
            Ask::Find(alias) => self.finds(alias).await,
            Ask::Create => self.creates(who).await,
            _ => self.changes(who, ask).await,
        }
    }

    async fn finds(&self, alias: &'static str) -> Result<(), LedgerError> {
        let people = self.world.people.len();
        let all: Vec<_> = (0..people)
            .map(|who| self.asked(who, Ask::Find(alias)))
            .collect();
        let found = self.ledger.find_alias(&app(), &name(alias)).await;
        let owner = match &found {
            Ok(Some(owner)) => {
                let mut people = self.world.people.iter();
                let at = people.position(|id| *id == owner.account.id);
                if at.is_none() {
                    self.world.violated(format!("{alias} leads to a stranger"));
                }
                at.map(|at| (at, Picture::of(&owner.account)))
            }
            _ => None,
        };
        for (who, asked) in all.into_iter().enumerate() {
            let answer = match (&found, &owner) {
                (Ok(None), _) => Answer::Without(alias),
                (_, Some((at, picture))) if *at == who => Answer::Owner(alias, picture.clone()),
                _ => Answer::NotMade,
            };
            self.told(asked, answer);
        }
        found.map(drop)
    }

    async fn creates(&self, who: usize) -> Result<(), LedgerError> {
        let asked = self.asked(who, Ask::Create);
        let account = account(self.world.people[who]);
        match self.ledger.create(account, &[], creating).await {
            Ok(_) => self.told(asked, Answer::Made(0)),
            Err(LedgerError::Exists) => self.told(asked, Answer::Exists),
            Err(error) => return self.refused(asked, error),
        }
        Ok(())
    }

    /// A refusal that says nothing of the account; it may have been done all the same, or not.
    fn refused(&self, asked: super::history::Asked, error: LedgerError) -> Result<(), LedgerError> {
        let never = match &error {
            // Of a file that was not written, that is known; a server may have it in the end.
            LedgerError::Store(_) => !self.world.setup.server,
            error => never_happened(error),
        };
        if never {
            self.told(asked, Answer::NotMade);
        }
        Err(error)
    }

    async fn changes(&self, who: usize, ask: Ask) -> Result<(), LedgerError> {
        let looks = self.asked(who, Ask::Read);
        let trail = (ask == Ask::Events).then(|| self.asked(who, ask));
        let loaded = self.ledger.load(&app(), self.world.people[who]).await;
        let answer = match &loaded {
            Ok(Some(loaded)) => Answer::Shown(Picture::of(&loaded.account)),
            Ok(None) => Answer::Nobody,
            Err(_) => Answer::NotMade,
        };
        self.told(looks, answer);
        let loaded = match loaded {
            Ok(Some(loaded)) => loaded,
            other => {
                if let Some(trail) = trail {
                    self.told(trail, Answer::NotMade);
                }
                return other.map(drop);
            }
        };
        if let Some(trail) = trail {
            let page = self.ledger.events(&loaded, None, usize::MAX).await;
            let page = match page {
                Ok(page) => page,
                Err(LedgerError::Erased) => {
                    self.told(trail, Answer::Erased);
                    return Ok(());
                }
                Err(error) => {
                    self.told(trail, Answer::NotMade);
                    return Err(error);
                }
            };
            if !page
                .events
                .iter()
                .rev()
                .is_sorted_by_key(|event| event.at.0)
            {
                self.world.violated(format!("time went back for {who}"));
            }
            let kinds = page.events.iter().rev().map(|event| event.kind);
            self.told(trail, Answer::Trail(kinds.collect()));
            return Ok(());
        }
        if ask == Ask::Read {
            return Ok(());
        }
        let asked = self.asked(who, ask);
        let changed = change(&self.ledger, loaded, ask).await;
        if is_exhausted(&changed) {
            self.told(asked, Answer::Spent);
            return Ok(());
        }
        match (changed, ask) {
            (Ok(value), _) => self.told(asked, Answer::Made(value)),
            (Err(LedgerError::Erased), _) => self.told(asked, Answer::Erased),
            (Err(LedgerError::AliasTaken), Ask::Claim(alias)) => {
                self.told(asked, Answer::NotMade);
                if !self.world.state().history.may_be_taken(alias, who) {
                    self.world
                        .violated(format!("{alias} is said to be taken, and is nobody's"));
                }
            }
            (Err(error), _) => return self.refused(asked, error),
        }
        Ok(())
    }
}

/// Without its text, which may name what was drawn at random.
fn kind(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::Token(_) => "token",
        LedgerError::Store(_) => "store",
        LedgerError::Tampered(_) => "tampered",
        LedgerError::Refused(_) => "refused",
        LedgerError::Outgrown(_) => "outgrown",
        LedgerError::Busy => "busy",
        LedgerError::Overtaken => "overtaken",
        LedgerError::Late(_) => "late",
        LedgerError::Stale => "stale",
        LedgerError::Unconfirmed => "unconfirmed",
        LedgerError::Stopped => "stopped",
        _ => "other",
    }
}
