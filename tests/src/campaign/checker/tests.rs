//! Controls: each lie is found, and what may happen where an answer is missing is not taken for one.

use super::super::history::{
    Asked, By, Came, Entry, Kept, NOBODYS, Pin, Refusal, Sent, Session, Told, Visit,
};
use super::Checker;
use super::sessions::{
    CEREMONIES, CEREMONY, CREATION_FRESH, FRESH, IDLE, PASSKEYS as MOST_PASSKEYS,
};

mod logins;
mod sessions;

const MOST: u64 = 10;

#[derive(Clone)]
struct Story {
    entries: Vec<Entry>,
    /// Milliseconds since the beginning.
    now: u64,
    /// Of each node; there are two.
    lives: [u64; 2],
    clock_off: u64,
    with: Option<Session>,
}

impl Story {
    fn empty() -> Self {
        Self {
            entries: Vec::new(),
            now: 0,
            lives: [0, 0],
            clock_off: 0,
            with: Some(Session {
                by: By::Creation,
                at: 0,
                node: 0,
            }),
        }
    }

    /// An account with PIN 1, passkey 1 and version 1 of the secret.
    fn new() -> Self {
        Self::empty()
            .then(Asked::AddPasskey(1), Came::Done(Told::Yes))
            .then(Asked::SetPin(1), Came::Done(Told::Yes))
            .then(put(0, "a"), Came::Done(secret(1, "")))
    }

    fn then(self, asked: Asked, came: Came) -> Self {
        self.several(asked, vec![came])
    }

    fn several(self, asked: Asked, came: Vec<Came>) -> Self {
        let nodes = vec![0; came.len()];
        self.at(&nodes, asked, came)
    }

    fn at(mut self, nodes: &[usize], asked: Asked, came: Vec<Came>) -> Self {
        let visit = |&node: &usize| Visit {
            node,
            last: self.lives[node],
        };
        let sent = Sent {
            at: self.now,
            lives: self.lives.to_vec(),
            to: nodes.iter().map(visit).collect(),
            until: self.now + 500,
            clock_off: self.clock_off,
        };
        let with = self.with.filter(|_| asked.needs_a_session());
        self.entries.push(Entry {
            sent,
            with,
            asked,
            came,
        });
        self.now += 1000;
        self
    }

    fn wrong(self, left: u64) -> Self {
        self.then(guess(NOBODYS), told_wrong(left))
    }

    fn right(self, pin: Pin) -> Self {
        self.then(guess(pin), Came::Done(Told::Yes))
    }

    /// The first node is killed, and serves again.
    fn killed(self) -> Self {
        self.node_killed(0)
    }

    fn node_killed(mut self, node: usize) -> Self {
        self.lives[node] += 2;
        self
    }

    #[track_caller]
    fn holds(&self) {
        Checker::replay(MOST, &self.entries).unwrap();
    }

    #[track_caller]
    fn is_found(&self, word: &str) {
        let found = Checker::replay(MOST, &self.entries).unwrap_err();
        assert!(found.contains(word), "{found}");
        // It is the last answer that cannot be true.
        let before = &self.entries[..self.entries.len() - 1];
        Checker::replay(MOST, before).unwrap();
    }
}

fn guess(pin: Pin) -> Asked {
    Asked::Guess(vec![pin])
}

fn put(base: u64, content: &str) -> Asked {
    let content = content.to_owned();
    Asked::Put { base, content }
}

fn secret(version: u64, content: &str) -> Told {
    let content = content.to_owned();
    Told::Secret(Kept { version, content })
}

fn refused(code: &str, left: Option<u64>, current: Option<u64>) -> Came {
    let code = code.to_owned();
    Came::Refused(Refusal {
        code,
        left,
        current,
    })
}

fn told_wrong(left: u64) -> Came {
    refused("401 pin-wrong", Some(left), None)
}

fn exhausted() -> Came {
    refused("403 pin-exhausted", None, None)
}

fn stranger() -> Came {
    refused("401 authentication-failed", None, None)
}

#[test]
fn a_guess_that_is_won_back_is_found() {
    let story = || Story::new().wrong(9).wrong(8);
    story().wrong(7).holds();
    story().wrong(8).is_found("won back");
    story().wrong(9).is_found("won back");
    // Whoever signs in starts anew, and only who does.
    story().right(1).wrong(9).holds();
    story().right(1).wrong(8).is_found("more than once");
}

#[test]
fn a_guess_without_an_answer_counts_once_or_not_at_all() {
    let story = || Story::new().wrong(9).then(guess(NOBODYS), Came::Lost);
    story().wrong(8).holds();
    story().wrong(7).holds();
    story().wrong(6).is_found("more than once");
    // Also later, but not once more.
    story().wrong(8).wrong(6).holds();
    story().wrong(7).wrong(5).is_found("more than once");
    // A right one may have cleared what was before it, and no more.
    let story = || Story::new().wrong(9).then(guess(1), Came::Lost);
    story().wrong(9).holds();
    story().wrong(8).holds();
    story().wrong(7).holds();
    story().wrong(10).is_found("won back");
    // Not any more, once its node was killed and the next answer was there.
    story().killed().wrong(8).wrong(8).is_found("won back");
}

/// A release of what was never written, or never said to be.
#[test]
fn who_signs_in_may_find_no_secret_unless_one_was_acknowledged() {
    for asked in [Asked::Passkey(1), guess(1), Asked::Get] {
        let nothing = || refused("404 not-found", None, None);
        let begun = Story::empty()
            .then(Asked::AddPasskey(1), Came::Done(Told::Yes))
            .then(Asked::SetPin(1), Came::Done(Told::Yes))
            .then(put(0, "a"), Came::Lost);
        begun.then(asked.clone(), nothing()).holds();
        Story::new()
            .then(asked, nothing())
            .is_found("the secret is");
    }
}

#[test]
fn of_guesses_at_once_one_may_be_the_last_and_the_others_come_too_late() {
    let story = || (1..MOST).rev().fold(Story::new(), Story::wrong);
    let at_once = |left| {
        let came = vec![exhausted(), told_wrong(left), exhausted()];
        story().several(Asked::Guess(vec![NOBODYS; 3]), came)
    };
    at_once(0).holds();
    at_once(1).is_found("won back");
    at_once(0).wrong(0).is_found("won back");
}

/// Its outcome was never written, so no success clears it before it has expired.
#[test]
fn a_charge_without_an_outcome_outlives_a_success() {
    let story = || {
        let story = Story::new().wrong(9).then(guess(NOBODYS), Came::Lost);
        story.wrong(7).right(1)
    };
    story().wrong(9).holds();
    story().wrong(8).holds();
    story().wrong(7).is_found("more than once");
}

#[test]
fn several_guesses_at_once_are_each_counted() {
    let three = || Asked::Guess(vec![NOBODYS; 3]);
    let at_once = |lefts: [u64; 3]| Story::new().several(three(), lefts.map(told_wrong).to_vec());
    at_once([9, 8, 7]).wrong(6).holds();
    at_once([7, 7, 7]).wrong(6).holds();
    at_once([9, 8, 8]).is_found("won back");
    at_once([9, 8, 6]).is_found("more than once");
}

#[test]
fn what_is_looked_at_past_the_budget_is_found() {
    let spent = || (0..MOST).rev().fold(Story::new(), Story::wrong);
    spent().then(guess(1), exhausted()).holds();
    spent().right(1).is_found("beyond the budget");
    let way_out = Asked::Passkey(1);
    let told = Came::Done(secret(1, "a"));
    spent().then(way_out, told).right(1).holds();
    Story::new()
        .wrong(9)
        .then(guess(1), exhausted())
        .is_found("more than once");
}

#[test]
fn a_pin_that_was_replaced_opens_nothing_and_the_new_one_does() {
    let changed = |came| Story::new().then(Asked::SetPin(2), came);
    changed(Came::Done(Told::Yes)).right(2).holds();
    changed(Came::Done(Told::Yes)).right(1).is_found("replaced");
    changed(Came::Done(Told::Yes))
        .then(guess(2), told_wrong(9))
        .is_found("acknowledged, and is wrong");
    // Without an answer both may be, until one is seen; then the other is not.
    changed(Came::Lost).right(1).right(2).holds();
    changed(Came::Lost).right(2).right(1).is_found("replaced");
    changed(Came::Lost)
        .killed()
        .right(1)
        .right(2)
        .is_found("replaced");
}

#[test]
fn a_lost_write_is_found() {
    let read = |version, content| Came::Done(secret(version, content));
    let written = || Story::new().then(put(1, "b"), read(2, ""));
    written().then(Asked::Get, read(2, "b")).holds();
    written()
        .then(Asked::Get, read(1, "a"))
        .is_found("the secret is");
    written()
        .then(Asked::Get, read(2, "a"))
        .is_found("the secret is");
    written()
        .then(Asked::Get, refused("404 not-found", None, None))
        .is_found("the secret is");
    written()
        .then(guess(1), read(1, "a"))
        .is_found("the secret is");
    // Upon what is not the newest, or with a number that is not the next.
    written()
        .then(put(1, "c"), read(2, ""))
        .is_found("not the newest");
    written()
        .then(put(2, "c"), read(4, ""))
        .is_found("version 4");
    let said = |current| refused("412 precondition-failed", None, Some(current));
    written().then(put(1, "c"), said(2)).holds();
    written()
        .then(put(2, "c"), said(1))
        .is_found("newest version");
    // Without an answer: there or not, and then not the other way round.
    let open = || Story::new().then(put(1, "b"), Came::Open("503 busy".into()));
    open()
        .then(Asked::Get, read(1, "a"))
        .then(Asked::Get, read(2, "b"))
        .holds();
    open()
        .then(Asked::Get, read(2, "b"))
        .then(Asked::Get, read(1, "a"))
        .is_found("the secret is");
    // Another version came in between, so it never will.
    open()
        .then(put(1, "c"), read(2, ""))
        .then(Asked::Get, read(2, "b"))
        .is_found("the secret is");
}

#[test]
fn a_passkey_that_was_removed_and_one_that_is_missing_are_found() {
    let login = || Asked::Passkey(1);
    let opened = || Came::Done(secret(1, "a"));
    Story::new().then(login(), opened()).holds();
    Story::new()
        .then(login(), stranger())
        .is_found("acknowledged");
    let removed = |came| Story::new().then(Asked::RemovePasskey(1), came);
    let listed = |all: &[u32]| Came::Done(Told::Passkeys(all.to_vec()));
    removed(Came::Done(Told::Yes))
        .then(login(), stranger())
        .holds();
    removed(Came::Done(Told::Yes))
        .then(login(), opened())
        .is_found("removed");
    removed(Came::Done(Told::Yes))
        .then(Asked::List, listed(&[1]))
        .is_found("removed");
    removed(Came::Lost)
        .then(login(), stranger())
        .then(login(), opened())
        .is_found("removed");
    removed(Came::Lost)
        .then(login(), opened())
        .then(login(), stranger())
        .holds();
}

#[test]
fn an_account_that_was_erased_and_one_that_is_missing_are_found() {
    let erased = |came| Story::new().then(Asked::Erase, came);
    erased(Came::Done(Told::Yes))
        .then(guess(1), stranger())
        .holds();
    erased(Came::Done(Told::Yes)).right(1).is_found("erased");
    erased(Came::Done(Told::Yes)).wrong(9).is_found("erased");
    erased(Came::Lost)
        .right(1)
        .then(guess(1), stranger())
        .holds();
    erased(Came::Lost)
        .then(guess(1), stranger())
        .then(guess(1), Came::Done(Told::Yes))
        .is_found("erased");
    Story::new()
        .then(guess(1), stranger())
        .is_found("not known");
    let none = || refused("409 pin-not-set", None, None);
    Story::new()
        .then(guess(1), none())
        .is_found("there is none");
    Story::new()
        .then(guess(1), refused("400 malformed-request", None, None))
        .is_found("no answer");
}
