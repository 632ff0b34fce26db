//! Two nodes that anchor in one object store, their steps in every order.

use std::{
    sync::{Condvar, Mutex},
    thread,
};

use super::steps::{Gated, Step, Turns};
use super::*;
use crate::anchor::{
    advance::sealed_by,
    nodes::{self, Covered, Line, clear, cover, list, withdraw},
};
use crate::id::{KeyId, KeyPurpose};

fn line(heads: &[(u64, u8)]) -> Line {
    let mut line = Line::new(1);
    for (serial, head) in heads {
        line.knows(serial * 10, [*head; 32]);
    }
    line
}

const NEWEST: Covered = Covered::Covered {
    newest: true,
    rotated: false,
};

/// Runs two nodes, each of which covers a head by what it knows; one that meets a stranger ends.
fn both(rig: &Rig, schedule: usize, nodes: [(&Anchor, &Line); 2]) -> [Covered; 2] {
    let order = (0..12).map(|bit| schedule >> bit & 1).collect();
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
        let (to, line) = nodes[me];
        let outcome = cover(&mut custody, &rig.realm, (to, &[1]), (line, false), 0);
        turns.done(me);
        outcome.unwrap()
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        [run(0), other.join().unwrap()]
    })
}

fn is_covered(outcome: &Covered) -> bool {
    matches!(outcome, Covered::Covered { .. })
}

#[test]
fn of_two_forks_at_most_one_is_covered_in_every_order() {
    let from = anchor(4, 4);
    let forks = [anchor(5, 5), anchor(5, 6)];
    let lines = [line(&[(4, 4), (5, 5)]), line(&[(4, 4), (5, 6)])];
    let (mut won, mut nobody) = ([0, 0], 0);
    for schedule in 0..4096_usize {
        let mut rig = Rig::new(&[&from]);
        let told = both(
            &rig,
            schedule,
            [(&forks[0], &lines[0]), (&forks[1], &lines[1])],
        );
        // Who has lost takes its own back, once it knows that nobody was told.
        for (fork, outcome) in forks.iter().zip(&told) {
            if let Covered::Unknown { made: true, .. } = outcome {
                withdraw(&mut rig.custody, &rig.realm, fork, || true).unwrap();
            }
        }
        match (is_covered(&told[0]), is_covered(&told[1])) {
            (true, true) => panic!("both are covered: {schedule:012b}"),
            (false, false) => {
                nobody += 1;
                rig.holds_only(&from);
            }
            (first, _) => {
                let me = usize::from(!first);
                won[me] += 1;
                rig.holds_only(&forks[me]);
            }
        }
    }
    // The control: every ending was seen.
    assert!(won[0] > 0 && won[1] > 0 && nobody > 0, "{won:?} {nobody}");
}

#[test]
fn of_two_that_build_on_one_another_both_are_covered_in_every_order() {
    let from = anchor(4, 4);
    let (older, newer) = (anchor(5, 5), anchor(6, 6));
    let whole = line(&[(4, 4), (5, 5), (6, 6)]);
    let (mut met, mut not) = (0, 0);
    for schedule in 0..4096_usize {
        let mut rig = Rig::new(&[&from]);
        // The first does not know yet who has built on it.
        let partly = line(&[(4, 4), (5, 5)]);
        let told = both(&rig, schedule, [(&older, &partly), (&newer, &whole)]);
        assert!(is_covered(&told[1]), "{schedule:012b}: {told:?}");
        let again = match &told[0] {
            Covered::Unknown { strangers, made } => {
                met += 1;
                assert_eq!(strangers, std::slice::from_ref(&newer));
                cover(
                    &mut rig.custody,
                    &rig.realm,
                    (&older, &[1]),
                    (&whole, *made),
                    0,
                )
                .unwrap()
            }
            covered => {
                not += 1;
                covered.clone()
            }
        };
        assert!(is_covered(&again), "{schedule:012b}");
        // Whatever order it was: one history is left, and the next one clears what is behind it.
        let newest = rig.newest().unwrap().unwrap();
        assert!(newest == newer || told[0] == NEWEST, "{newest}");
        let last = anchor(7, 7);
        let mut line = whole.clone();
        line.knows(70, [7; 32]);
        let done = cover(
            &mut rig.custody,
            &rig.realm,
            (&last, &[1]),
            (&line, false),
            0,
        );
        assert_eq!(done, Ok(NEWEST));
        rig.holds_only(&last);
    }
    assert!(met > 0 && not > 0, "{met} {not}");
}

#[test]
fn the_same_head_of_two_nodes_stands_twice_until_it_is_an_ancestor() {
    let (from, to) = (anchor(4, 4), anchor(5, 5));
    let known = line(&[(4, 4), (5, 5)]);
    for schedule in 0..4096_usize {
        let mut rig = Rig::new(&[&from]);
        let told = both(&rig, schedule, [(&to, &known), (&to, &known)]);
        assert_eq!(told, [NEWEST, NEWEST], "{schedule:012b}");
        let left = list(&mut rig.custody, &rig.realm).unwrap();
        assert!(
            !left.is_empty() && left.iter().all(|anchor| *anchor == to),
            "{left:?}"
        );
    }
}

#[test]
fn anothers_anchor_beside_its_ancestor_is_a_claim_and_covers_nothing() {
    let (from, to) = (anchor(4, 4), anchor(5, 5));
    let known = line(&[(4, 4), (5, 5)]);
    let mut rig = Rig::new(&[&from, &to]);
    assert_eq!(
        cover(
            &mut rig.custody,
            &rig.realm,
            (&to, &[1]),
            (&known, false),
            0
        ),
        Ok(NEWEST)
    );
    // One of its own, and only then the ancestor went.
    let twice = vec![rig.sealed(&to); 2];
    assert_eq!(rig.store.contents(), twice);
    // Alone it is confirmed: who has made it destroyed the ancestor, or another who had one confirmed.
    let mut rig = Rig::new(&[&to]);
    let done = cover(
        &mut rig.custody,
        &rig.realm,
        (&to, &[1]),
        (&known, false),
        0,
    );
    assert_eq!(done, Ok(NEWEST));
    rig.holds_only(&to);
}

#[test]
fn what_is_not_known_is_told_and_nothing_is_made_or_destroyed() {
    let to = anchor(5, 5);
    let known = line(&[(4, 4), (5, 5)]);
    for stranger in [anchor(3, 3), anchor(5, 6), anchor(6, 6)] {
        let mut rig = Rig::new(&[&anchor(4, 4), &stranger]);
        let before = rig.store.contents();
        let told = cover(
            &mut rig.custody,
            &rig.realm,
            (&to, &[1]),
            (&known, false),
            0,
        );
        let strangers = vec![stranger];
        let made = false;
        assert_eq!(told, Ok(Covered::Unknown { strangers, made }));
        assert_eq!(rig.store.contents(), before);
    }
    let mut rig = Rig::new(&[]);
    let none = cover(
        &mut rig.custody,
        &rig.realm,
        (&to, &[1]),
        (&known, false),
        0,
    );
    assert_eq!(fault_of(none), AnchorFault::Missing);
    // An object of no size may be one that another node is about to fill.
    let mut rig = Rig::new(&[&anchor(4, 4)]);
    rig.store.add(&[]);
    let done = cover(
        &mut rig.custody,
        &rig.realm,
        (&to, &[1]),
        (&known, false),
        0,
    );
    assert_eq!(done, Ok(NEWEST));
    assert_eq!(rig.store.contents().len(), 2);
}

#[test]
fn a_list_from_the_middle_of_anothers_steps_is_made_again_and_a_loss_is_told() {
    let (from, to) = (anchor(4, 4), anchor(5, 5));
    let known = line(&[(4, 4), (5, 5)]);
    for nothing in 0..4 {
        let mut rig = Rig::new(&[&from]);
        let (store, mut lists) = (rig.store.clone(), 0);
        let mut gate = |list: &mut Step<'_>| {
            lists += 1;
            let there = store.contents();
            if lists <= nothing {
                store.put_back(&[]);
            }
            let listed = list();
            if lists <= nothing {
                store.put_back(&there);
            }
            listed
        };
        let mut custody = Gated {
            inner: SoftCustody::with_anchors(rig.store.clone()),
            gate: &mut gate,
        };
        let told = cover(&mut custody, &rig.realm, (&to, &[1]), (&known, false), 0);
        match nothing {
            0..3 => assert_eq!(told, Ok(NEWEST), "{nothing}"),
            // Nothing was made of it: what a token has lost is not hidden.
            _ => {
                assert_eq!(fault_of(told), AnchorFault::Missing);
                rig.holds_only(&from);
            }
        }
    }
}

/// Of a token in which every node anchors, a list has what its caller's head stands upon: a clone's has not, or one that was put back.
#[test]
fn a_token_that_remembers_too_little_is_told_of_and_nothing_is_made_in_it() {
    let to = anchor(6, 6);
    let known = line(&[(3, 3), (4, 4), (5, 5), (6, 6), (7, 7)]);
    for (listed, since, behind) in [
        (&[anchor(4, 4)][..], anchor(5, 5).seq, true),
        (&[anchor(3, 3), anchor(4, 4)], anchor(5, 5).seq, true),
        (&[anchor(3, 3), anchor(5, 5)], anchor(5, 5).seq, false),
        (&[anchor(7, 7)], anchor(5, 5).seq, false),
        // The control asks for nothing, and takes the clone's word.
        (&[anchor(4, 4)], 0, false),
    ] {
        let mut rig = Rig::new(&listed.iter().collect::<Vec<_>>());
        let before = rig.store.contents();
        let told = cover(
            &mut rig.custody,
            &rig.realm,
            (&to, &[1]),
            (&known, false),
            since,
        );
        match behind {
            true => {
                let newest = anchor(4, 4).seq;
                assert_eq!(told, Ok(Covered::Behind { newest }));
                assert_eq!(rig.store.contents(), before);
            }
            false => assert!(is_covered(&told.unwrap())),
        }
    }
}

/// Whoever was shown the newest state once, and older ones before and after, must not take an anchor of that line for one that
/// stands upon a head of its own.
#[test]
fn what_was_remembered_of_another_line_covers_nothing() {
    let (from, theirs, ours) = (anchor(4, 4), anchor(6, 6), anchor(5, 7));
    let shown = line(&[(4, 4), (5, 5), (6, 6)]);
    let mut rig = Rig::new(&[&theirs]);
    let mut goes_on = shown.clone();
    goes_on.goes_on(ours.seq, ours.head);
    let told = cover(
        &mut rig.custody,
        &rig.realm,
        (&ours, &[1]),
        (&goes_on, false),
        0,
    )
    .unwrap();
    assert!(
        matches!(&told, Covered::Unknown { strangers, .. } if *strangers == [theirs.clone()]),
        "{told:?}"
    );
    // The control: put into its place among those of the other line, it counts as covered by them.
    let mut mixed = shown.clone();
    mixed.knows(ours.seq, ours.head);
    let told = cover(
        &mut rig.custody,
        &rig.realm,
        (&ours, &[1]),
        (&mixed, false),
        0,
    )
    .unwrap();
    assert!(is_covered(&told), "{told:?}");
    // Upon its own line, what was found to follow stays.
    let mut same = shown.clone();
    same.goes_on(50, [5; 32]);
    assert_eq!(same, shown);
    assert!(same.has(&from) && same.has(&theirs));
}

#[test]
fn an_ancestor_of_long_before_is_looked_up_once() {
    let (late, from, to) = (anchor(1, 1), anchor(1500, 4), anchor(1501, 5));
    let mut rig = Rig::new(&[&from, &late]);
    let mut long = Line::new(1);
    for seq in 10_000..=15_010 {
        let head = match seq {
            15_000 => 4,
            15_010 => 5,
            _ => 0,
        };
        long.knows(seq, [head; 32]);
    }
    let told = cover(&mut rig.custody, &rig.realm, (&to, &[1]), (&long, false), 0);
    let Ok(Covered::Unknown { strangers, made }) = told else {
        panic!("{told:?}")
    };
    assert_eq!(strangers, std::slice::from_ref(&late));
    // The log says that it is of the line: and so it is from now on.
    long.knows(late.seq, late.head);
    let told = cover(&mut rig.custody, &rig.realm, (&to, &[1]), (&long, made), 0);
    assert_eq!(told, Ok(NEWEST));
    rig.holds_only(&to);
    long.ends_before(late.seq);
    assert!(!long.has(&late));
}

#[test]
fn what_never_counted_is_cleared_away_beside_what_does_and_never_alone() {
    let (orphan, stands) = (anchor(5, 6), anchor(5, 5));
    let known = line(&[(4, 4), (5, 5)]);
    let mut rig = Rig::new(&[&orphan, &stands, &orphan]);
    let cleared = clear(&mut rig.custody, &rig.realm, &orphan, (&known, &[1]));
    assert_eq!(cleared, Ok(true));
    rig.holds_only(&stands);
    // One of the line is no orphan, whatever is asked.
    let cleared = clear(&mut rig.custody, &rig.realm, &stands, (&known, &[1]));
    assert_eq!(cleared, Ok(true));
    rig.holds_only(&stands);
    let mut rig = Rig::new(&[&orphan]);
    let cleared = clear(&mut rig.custody, &rig.realm, &orphan, (&known, &[1]));
    assert_eq!(cleared, Ok(false));
    rig.holds_only(&orphan);
}

/// A rotation was anchored by both keys; what is said to come after it, or in its place, is by the older one alone.
#[test]
fn what_a_newer_key_has_tagged_gives_way_to_no_older_one() {
    let (rotation, next, other) = (anchor(5, 5), anchor(6, 6), anchor(5, 7));
    let known = line(&[(4, 4), (5, 5), (6, 6)]);
    for (keys, gives_way) in [(&[1][..], false), (&[1, 2], true), (&[2], true)] {
        let mut rig = Rig::new(&[]);
        rig.custody.add_version(KeyPurpose::Mac, 2);
        let both = sealed_by(&mut rig.custody, &rig.realm, &[1, 2], &rotation).unwrap();
        rig.store.add(&both);
        let told = cover(
            &mut rig.custody,
            &rig.realm,
            (&next, keys),
            (&known, false),
            0,
        );
        match gives_way {
            true => assert_eq!(told, Ok(NEWEST)),
            false => assert!(matches!(
                told,
                Err(Error::Anchors {
                    fault: AnchorFault::Behind,
                    ..
                })
            )),
        }
        assert_eq!(rig.store.contents() == [both.clone()], !gives_way);
        // The same where it is said to be of no line.
        let mut rig = Rig::new(&[&other]);
        rig.custody.add_version(KeyPurpose::Mac, 2);
        rig.store.add(&both);
        let lost = line(&[(4, 4), (5, 7)]);
        let cleared = clear(&mut rig.custody, &rig.realm, &rotation, (&lost, keys));
        assert_eq!(cleared, Ok(gives_way));
        assert_eq!(rig.store.contents().contains(&both), !gives_way);
    }
}

/// A node has looked for keys before another one has made the newest, and tagged an anchor by it.
#[test]
fn what_a_key_has_tagged_that_was_made_since_is_no_forgery() {
    let newest = KeyId::new(KeyPurpose::Mac, 2);
    let mut rig = Rig::new(&[]);
    let open = |store: &SoftAnchors| SoftCustody::with_anchors(store.clone());
    let (mut early, mut control) = (open(&rig.store), open(&rig.store));
    rig.custody.make_key(newest).unwrap();
    let both = sealed_by(&mut rig.custody, &rig.realm, &[1, 2], &anchor(5, 5)).unwrap();
    rig.store.add(&both);
    let listed = list(&mut early, &rig.realm).unwrap();
    assert_eq!(listed, [anchor(5, 5)]);
    // The control does not look again.
    let forged = Survey::of(&mut control, &rig.realm);
    assert!(matches!(
        forged,
        Err(Error::Anchors {
            fault: AnchorFault::Forged,
            ..
        })
    ));
    // Nor is anything believed by a key that the token does not hold.
    let alone = sealed_by(&mut rig.custody, &rig.realm, &[2], &anchor(6, 6)).unwrap();
    rig.store.add(&alone);
    assert!(list(&mut control, &rig.realm).is_ok());
}

#[test]
fn what_is_covered_is_told_by_one_list_and_nothing_is_made() {
    let (before, to, after) = (anchor(4, 4), anchor(5, 5), anchor(6, 6));
    let known = line(&[(4, 4), (5, 5), (6, 6)]);
    let fork = anchor(6, 7);
    let older = Covered::Covered {
        newest: false,
        rotated: false,
    };
    let cases: [(&[&Anchor], Option<Covered>); 7] = [
        (&[&to], Some(NEWEST)),
        (&[&to, &after], Some(older.clone())),
        (&[&after], Some(older)),
        // Its maker has not made it, or has not destroyed what was before: it may find a fork yet.
        (&[&before], None),
        (&[&before, &to], None),
        (&[&before, &after], None),
        (
            &[&before, &fork],
            Some(Covered::Unknown {
                strangers: vec![fork.clone()],
                made: false,
            }),
        ),
    ];
    for (stand, told) in cases {
        let mut rig = Rig::new(stand);
        let held = rig.store.contents();
        let asked = nodes::is_covered(&mut rig.custody, &rig.realm, (&to, &[1]), &known);
        assert_eq!(asked.unwrap(), told);
        assert_eq!(rig.store.contents(), held);
    }
    let mut none = Rig::new(&[]);
    let asked = nodes::is_covered(&mut none.custody, &none.realm, (&to, &[1]), &known);
    assert_eq!(asked.unwrap(), None);
}
