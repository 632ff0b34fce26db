//! Going on from an anchor that still stands, without a list before.

use super::{
    steps::{Gated, Step, away},
    *,
};

/// Goes on; before its `at`-th step the store is changed. The steps: look, create, list, destroy.
fn meddled(
    rig: &Rig,
    at: usize,
    (from, to): (&Anchor, &Anchor),
    mut change: impl FnMut(&SoftAnchors) -> Result<()> + Send,
) -> (Result<Advanced>, usize) {
    let mut step = 0;
    let mut gate = |call: &mut Step<'_>| {
        let now = step;
        step += 1;
        if now == at {
            change(&rig.store)?;
        }
        call()
    };
    let mut custody = Gated {
        inner: SoftCustody::with_anchors(rig.store.clone()),
        gate: &mut gate,
    };
    let outcome = go_on(&mut custody, &rig.realm, from, (to, &[1]));
    (outcome, step)
}

#[test]
fn it_lists_once_and_leaves_the_newest_alone() {
    let mut from = anchor(1, 1);
    let mut rig = Rig::new(&[&from]);
    for serial in 2..20 {
        let to = anchor(serial, serial as u8);
        let (outcome, steps) = meddled(&rig, usize::MAX, (&from, &to), |_| Ok(()));
        assert_eq!((outcome, steps), (Ok(Advanced::Anchored), 4));
        rig.holds_only(&to);
        from = to;
    }
    // What a crash has left goes as well.
    rig.plant(&anchor(18, 18));
    rig.store.add(&[]);
    let to = anchor(20, 20);
    let (outcome, _) = meddled(&rig, usize::MAX, (&from, &to), |_| Ok(()));
    assert_eq!(outcome, Ok(Advanced::Anchored));
    rig.holds_only(&to);
}

#[test]
fn a_rival_is_seen_wherever_it_comes() {
    let (from, to, rival) = (anchor(4, 4), anchor(5, 5), anchor(5, 6));
    for further in [rival, anchor(9, 9)] {
        for (at, from_goes) in [(0, false), (1, false), (2, false), (0, true), (1, true)] {
            let mut rig = Rig::new(&[&from]);
            let (before, theirs) = (rig.sealed(&from), rig.sealed(&further));
            let (outcome, _) = meddled(&rig, at, (&from, &to), |store| {
                store.add(&theirs);
                if from_goes {
                    store.remove(&before);
                }
                Ok(())
            });
            assert_eq!(outcome, Ok(Advanced::Raced(further.clone())), "{at}");
            let left = rig.store.contents();
            assert!(left.contains(&theirs) && left.len() == 2 - usize::from(from_goes));
        }
    }
}

#[test]
fn after_an_error_anywhere_an_advance_goes_on_where_it_was() {
    let (from, to) = (anchor(4, 4), anchor(5, 5));
    for at in 0..3 {
        let mut rig = Rig::new(&[&from]);
        let (outcome, _) = meddled(&rig, at, (&from, &to), |_| Err(away()));
        assert_eq!(outcome, Err(away()));
        assert_eq!(rig.advance(Some(&from), &to), Ok(Advanced::Anchored));
        rig.holds_only(&to);
    }
    // The control: whoever went on as if nothing had happened would make a second one, and each time one more.
    let rig = Rig::new(&[&from]);
    for tries in 1..4 {
        let (outcome, _) = meddled(&rig, 2, (&from, &to), |_| Err(away()));
        assert_eq!(outcome, Err(away()));
        assert_eq!(rig.store.contents().len(), 1 + tries);
    }
}

#[test]
fn an_anchor_that_does_not_stand_is_looked_for_before_anything_is_made() {
    let (older, from, to) = (anchor(3, 3), anchor(4, 4), anchor(5, 5));
    for (there, fault) in [
        (vec![], AnchorFault::Missing),
        (vec![&older], AnchorFault::Behind),
    ] {
        let mut rig = Rig::new(&there);
        let before = rig.store.contents();
        let outcome = go_on(&mut rig.custody, &rig.realm, &from, (&to, &[1]));
        assert_eq!(fault_of(outcome), fault);
        assert_eq!(rig.store.contents(), before);
        // The control: where the look says that it stands, a token that was put back is not noticed.
        let (before, mut step) = (rig.sealed(&from), 0);
        let mut gate = |call: &mut Step<'_>| {
            step += 1;
            match step {
                1 => rig.store.add(&before),
                2 => assert_eq!(rig.store.remove(&before), 1),
                _ => {}
            }
            call()
        };
        let mut custody = Gated {
            inner: SoftCustody::with_anchors(rig.store.clone()),
            gate: &mut gate,
        };
        let outcome = go_on(&mut custody, &rig.realm, &from, (&to, &[1]));
        assert_eq!(outcome, Ok(Advanced::Anchored));
        assert_eq!(rig.newest(), Ok(Some(to.clone())));
    }
}

#[test]
fn what_was_made_and_is_not_there_does_not_count() {
    let (from, to) = (anchor(4, 4), anchor(5, 5));
    let mut rig = Rig::new(&[&from]);
    let ours = rig.sealed(&to);
    let (outcome, _) = meddled(&rig, 2, (&from, &to), |store| {
        store.remove(&ours);
        Ok(())
    });
    assert_eq!(fault_of(outcome), AnchorFault::NotKept);
    // No step that falls, either: nothing is made.
    let mut rig = Rig::new(&[&from]);
    let back = Anchor {
        seq: 1,
        ..to.clone()
    };
    for bad in [anchor(6, 6), back] {
        assert!(go_on(&mut rig.custody, &rig.realm, &from, (&bad, &[1])).is_err());
        rig.holds_only(&from);
    }
}
