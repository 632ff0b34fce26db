//! An advance that is cut off at each step, and two that take turns in every order.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex},
    thread,
};

use super::*;
use crate::{
    id::{KeyId, KeyPurpose},
    public_key::PublicKey,
    report::KeyReport,
    secret::Secret,
};

pub(super) type Step<'s> = dyn FnMut() -> Result<()> + 's;

/// A custody whose steps on anchors pass through a gate.
pub(super) struct Gated<'g> {
    pub(super) inner: SoftCustody,
    pub(super) gate: &'g mut (dyn FnMut(&mut Step<'_>) -> Result<()> + Send),
}

impl Gated<'_> {
    fn step<T>(&mut self, call: impl Fn(&mut SoftCustody) -> Result<T>) -> Result<T> {
        let (inner, mut answer) = (&mut self.inner, None);
        (self.gate)(&mut || {
            answer = Some(call(inner)?);
            Ok(())
        })?;
        Ok(answer.unwrap())
    }
}

impl Custody for Gated<'_> {
    fn anchors(&mut self) -> Result<Vec<AnchorObject>> {
        self.step(|custody| custody.anchors())
    }
    fn anchor_stands(&mut self, content: &[u8]) -> Result<bool> {
        self.step(|custody| custody.anchor_stands(content))
    }
    fn create_anchor(&mut self, content: &[u8]) -> Result<()> {
        self.step(|custody| custody.create_anchor(content))
    }
    fn destroy_anchor(&mut self, object: &AnchorObject) -> Result<()> {
        self.step(|custody| custody.destroy_anchor(object))
    }
    fn hmac(&mut self, key: KeyId, message: &[u8]) -> Result<Secret<32>> {
        self.inner.hmac(key, message)
    }
    fn current(&self, purpose: KeyPurpose) -> Result<KeyId> {
        self.inner.current(purpose)
    }
    fn holds(&self, key: KeyId) -> Result<bool> {
        self.inner.holds(key)
    }
    fn sign(&mut self, key: KeyId, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.inner.sign(key, digest)
    }
    fn public_key(&mut self, key: KeyId) -> Result<PublicKey> {
        self.inner.public_key(key)
    }
    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.inner.random(out)
    }
    fn inventory(&mut self) -> Result<Vec<KeyReport>> {
        self.inner.inventory()
    }
    fn probe(&mut self) -> Result<()> {
        self.inner.probe()
    }
}

pub(super) fn away() -> Error {
    Error::unavailable("test", "by the script")
}

/// A token that fails from the given step on; the failing step is done or not.
fn advance_failing_at(
    rig: &Rig,
    fail_at: usize,
    done: bool,
    (from, to): (&Anchor, &Anchor),
) -> Result<Advanced> {
    let mut step = 0;
    let mut gate = |call: &mut Step<'_>| {
        step += 1;
        if step <= fail_at {
            return call();
        }
        if done && step == fail_at + 1 {
            call()?;
        }
        Err(away())
    };
    let mut custody = Gated {
        inner: SoftCustody::with_anchors(rig.store.clone()),
        gate: &mut gate,
    };
    advance(&mut custody, &rig.realm, Some(from), to)
}

#[test]
fn an_advance_that_was_cut_off_anywhere_goes_on() {
    let (older, from, to) = (anchor(3, 3), anchor(4, 4), anchor(5, 5));
    // List, create, list; then two to destroy, which may fail unnoticed.
    for fail_at in 0..5 {
        for done in [false, true] {
            let mut rig = Rig::new(&[&older, &from]);
            let outcome = advance_failing_at(&rig, fail_at, done, (&from, &to));
            match fail_at {
                0..3 => assert_eq!(outcome, Err(away()), "{fail_at} {done}"),
                _ => assert_eq!(outcome, Ok(Advanced::Anchored), "{fail_at} {done}"),
            }
            // A start in between finds one of the two, and nothing amiss.
            let found = rig.newest().unwrap().unwrap();
            let made = fail_at > 1 || (fail_at == 1 && done);
            assert_eq!(found, if made { to.clone() } else { from.clone() });
            assert_eq!(rig.advance(Some(&from), &to), Ok(Advanced::Anchored));
            rig.holds_only(&to);
        }
    }
}

/// Runs an advance; before its `at`-th step the store is changed.
fn advance_meddled(
    rig: &Rig,
    at: usize,
    (from, to): (&Anchor, &Anchor),
    mut change: impl FnMut(&SoftAnchors) + Send,
) -> Result<Advanced> {
    let mut step = 0;
    let mut gate = |call: &mut Step<'_>| {
        if step == at {
            change(&rig.store);
        }
        step += 1;
        call()
    };
    let mut custody = Gated {
        inner: SoftCustody::with_anchors(rig.store.clone()),
        gate: &mut gate,
    };
    advance(&mut custody, &rig.realm, Some(from), to)
}

#[test]
fn the_second_list_is_believed_and_not_the_first() {
    let (from, to, rival) = (anchor(4, 4), anchor(5, 5), anchor(5, 6));
    // Before the create, and between it and the second list.
    for at in [1, 2] {
        let mut rig = Rig::new(&[&from]);
        let bytes = rig.sealed(&rival);
        let outcome = advance_meddled(&rig, at, (&from, &to), |store| store.add(&bytes));
        assert_eq!(outcome, Ok(Advanced::Raced(rival.clone())));
        // Ours went, theirs stands, and so does what both built on.
        let there = vec![rig.sealed(&from), bytes];
        assert_eq!(rig.store.contents(), there);
    }
    // After it nothing was there, so this anchor counts.
    let mut rig = Rig::new(&[&from]);
    let bytes = rig.sealed(&rival);
    let outcome = advance_meddled(&rig, 3, (&from, &to), |store| store.add(&bytes));
    assert_eq!(outcome, Ok(Advanced::Anchored));
    assert_eq!(fault_of(rig.newest()), AnchorFault::Ambiguous);
    // Made, acknowledged, and gone.
    let mut rig = Rig::new(&[&from]);
    let ours = rig.sealed(&to);
    let outcome = advance_meddled(&rig, 2, (&from, &to), |store| {
        store.remove(&ours);
    });
    assert_eq!(fault_of(outcome), AnchorFault::NotKept);
}

#[test]
fn somebody_who_went_further_is_told() {
    let (from, to) = (anchor(4, 4), anchor(5, 5));
    let mut rig = Rig::new(&[&anchor(6, 6)]);
    let raced = Ok(Advanced::Raced(anchor(6, 6)));
    assert_eq!(rig.advance(Some(&from), &to), raced);
    rig.holds_only(&anchor(6, 6));
    // An equal anchor of another node is not taken away from it.
    let mut rig = Rig::new(&[&from, &to]);
    let bytes = rig.sealed(&anchor(6, 6));
    let outcome = advance_meddled(&rig, 1, (&from, &to), |store| store.add(&bytes));
    assert_eq!(outcome, raced);
    assert_eq!(rig.store.contents().len(), 3);
}

/// Whose turn each step is. Who is done is skipped.
pub(super) struct Turns {
    pub(super) state: Mutex<(VecDeque<usize>, [bool; 2])>,
    pub(super) changed: Condvar,
}

impl Turns {
    pub(super) fn take(&self, me: usize, call: &mut Step<'_>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        loop {
            while state.0.front().is_some_and(|next| state.1[*next]) {
                state.0.pop_front();
            }
            match state.0.front() {
                Some(next) if *next != me => state = self.changed.wait(state).unwrap(),
                _ => break,
            }
        }
        state.0.pop_front();
        let outcome = call();
        self.changed.notify_all();
        outcome
    }

    pub(super) fn done(&self, me: usize) {
        self.state.lock().unwrap().1[me] = true;
        self.changed.notify_all();
    }
}

type Way = fn(&mut dyn Custody, &RealmName, &Anchor, &Anchor) -> Result<Advanced>;

/// Every order in which two advances can take their steps, whichever of them lists before it creates.
#[test]
fn of_two_rivals_at_most_one_wins_in_every_order() {
    let lists: Way = |custody, realm, from, to| advance(custody, realm, Some(from), to);
    let knows: Way = |custody, realm, from, to| go_on(custody, realm, from, (to, &[1]));
    for ways in [[lists, lists], [knows, knows], [knows, lists]] {
        race(ways);
    }
}

fn race(ways: [Way; 2]) {
    let from = anchor(4, 4);
    let rivals = [anchor(5, 5), anchor(5, 6)];
    let (mut won, mut nobody) = ([0, 0], 0);
    for schedule in 0..256_usize {
        let mut rig = Rig::new(&[&from]);
        let order = (0..8).map(|bit| schedule >> bit & 1).collect();
        let turns = Turns {
            state: Mutex::new((order, [false; 2])),
            changed: Condvar::new(),
        };
        let run = |me: usize| {
            let mut gate = |call: &mut Step<'_>| turns.take(me, call);
            let mut custody = Gated {
                inner: SoftCustody::with_anchors(rig.store.clone()),
                gate: &mut gate,
            };
            let outcome = ways[me](&mut custody, &rig.realm, &from, &rivals[me]);
            turns.done(me);
            outcome
        };
        let (one, two) = thread::scope(|scope| {
            let other = scope.spawn(|| run(1));
            (run(0), other.join().unwrap())
        });
        let winners: Vec<usize> = [&one, &two]
            .into_iter()
            .enumerate()
            .filter(|(_, outcome)| **outcome == Ok(Advanced::Anchored))
            .map(|(me, _)| me)
            .collect();
        match winners[..] {
            [me] => {
                won[me] += 1;
                rig.holds_only(&rivals[me]);
            }
            [] => {
                nobody += 1;
                rig.holds_only(&from);
                let again = rig.advance(Some(&from), &rivals[0]);
                assert_eq!(again, Ok(Advanced::Anchored));
            }
            _ => panic!("both won: {schedule:08b}"),
        }
    }
    // The control: every ending was seen.
    assert!(won[0] > 0 && won[1] > 0 && nobody > 0, "{won:?} {nobody}");
}
