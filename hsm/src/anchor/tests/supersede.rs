//! A new log epoch over anchors that exclude each other, cut off and interfered with at every step.

use super::{
    steps::{Gated, Step, away},
    *,
};

/// Two of one number, and what a crash has left of before.
fn rivals() -> [Anchor; 3] {
    [anchor(3, 3), anchor(4, 4), anchor(4, 5)]
}

fn begins(serial: u64) -> Anchor {
    Anchor {
        log_epoch: 2,
        ..anchor(serial, 9)
    }
}

fn over(rig: &Rig) -> Vec<Anchor> {
    let mut custody = SoftCustody::with_anchors(rig.store.clone());
    all(&mut custody, &rig.realm).unwrap()
}

/// Before the step of this number the gate does something else, and may refuse. The steps: list, create, list, destroy.
fn gated(
    rig: &Rig,
    (from, to): (&[Anchor], &Anchor),
    mut gate: impl FnMut(usize, &mut Step<'_>) -> Result<()> + Send,
) -> Result<Advanced> {
    let mut step = 0;
    let mut counted = |call: &mut Step<'_>| {
        step += 1;
        gate(step - 1, call)
    };
    let mut custody = Gated {
        inner: SoftCustody::with_anchors(rig.store.clone()),
        gate: &mut counted,
    };
    supersede(&mut custody, &rig.realm, from, (to, &[1]))
}

#[test]
fn anchors_of_one_number_give_way_to_a_new_epoch_and_to_nothing_else() {
    let [older, one, other] = rivals();
    let mut rig = Rig::new(&[&one, &older, &other, &one]);
    rig.store.add(&[]);
    // The control: no way of going on that is not over all of them.
    for from in [&one, &other] {
        let next = anchor(5, 6);
        assert_eq!(
            fault_of(rig.advance(Some(from), &next)),
            AnchorFault::Ambiguous
        );
    }
    let from = over(&rig);
    assert_eq!(from, [older, one, other]);
    let to = begins(5);
    let mut custody = SoftCustody::with_anchors(rig.store.clone());
    let superseded = supersede(&mut custody, &rig.realm, &from, (&to, &[1]));
    assert_eq!(superseded, Ok(Advanced::Anchored));
    rig.holds_only(&to);
    assert_eq!(rig.newest(), Ok(Some(to)));
}

#[test]
fn only_an_anchor_that_comes_after_all_of_them_and_begins_an_epoch_does() {
    let from = rivals();
    for to in [
        anchor(5, 9),
        begins(4),
        Anchor {
            boot_epoch: 0,
            ..begins(5)
        },
    ] {
        let planted: Vec<&Anchor> = from.iter().collect();
        let rig = Rig::new(&planted);
        let mut custody = SoftCustody::with_anchors(rig.store.clone());
        let refused = supersede(&mut custody, &rig.realm, &from, (&to, &[1]));
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        assert_eq!(rig.store.contents().len(), 3);
    }
}

#[test]
fn cut_off_anywhere_it_goes_on_and_a_start_in_between_is_refused_or_finds_it() {
    let (from, to) = (rivals(), begins(5));
    for fail_at in 0..6 {
        for done in [false, true] {
            let planted: Vec<&Anchor> = from.iter().collect();
            let mut rig = Rig::new(&planted);
            let outcome = gated(&rig, (&from, &to), |step, call| {
                if step < fail_at {
                    return call();
                }
                if done && step == fail_at {
                    call()?;
                }
                Err(away())
            });
            match fail_at {
                0..3 => assert_eq!(outcome, Err(away()), "{fail_at} {done}"),
                _ => assert_eq!(outcome, Ok(Advanced::Anchored), "{fail_at} {done}"),
            }
            match fail_at > 1 || (fail_at == 1 && done) {
                true => assert_eq!(rig.newest(), Ok(Some(to.clone()))),
                false => assert_eq!(fault_of(rig.newest()), AnchorFault::Ambiguous),
            }
            // Whoever goes on knows what is left by now.
            let left: Vec<Anchor> = over(&rig).into_iter().filter(|one| *one != to).collect();
            let mut custody = SoftCustody::with_anchors(rig.store.clone());
            let again = supersede(&mut custody, &rig.realm, &left, (&to, &[1]));
            assert_eq!(again, Ok(Advanced::Anchored));
            rig.holds_only(&to);
        }
    }
}

#[test]
fn what_nobody_has_named_stops_it_wherever_it_comes_and_stays() {
    let (from, to) = (rivals(), begins(5));
    for stranger in [anchor(4, 6), anchor(7, 7), begins(6)] {
        for at in [0, 1, 2] {
            let planted: Vec<&Anchor> = from.iter().collect();
            let mut rig = Rig::new(&planted);
            let theirs = rig.sealed(&stranger);
            let store = rig.store.clone();
            let outcome = gated(&rig, (&from, &to), |step, call| {
                if step == at {
                    store.add(&theirs);
                }
                call()
            });
            assert_eq!(outcome, Ok(Advanced::Raced(stranger.clone())), "{at}");
            let left = rig.store.contents();
            assert!(left.contains(&theirs) && left.len() == 4, "{at}");
        }
    }
}

#[test]
fn one_that_was_named_and_is_gone_is_another_token() {
    let [older, one, other] = rivals();
    let rig = Rig::new(&[&older, &one]);
    let mut custody = SoftCustody::with_anchors(rig.store.clone());
    let refused = supersede(
        &mut custody,
        &rig.realm,
        &[older, one, other],
        (&begins(5), &[1]),
    );
    assert_eq!(fault_of(refused), AnchorFault::Missing);
    assert_eq!(rig.store.contents().len(), 2);
}

#[test]
fn what_older_epochs_have_against_each_other_counts_only_beneath_one_that_follows_all() {
    let [older, one, other] = rivals();
    let to = begins(5);
    let mut rig = Rig::new(&[&older, &one, &other, &to]);
    assert_eq!(rig.newest(), Ok(Some(to.clone())));
    // Two that begin an epoch are two again.
    rig.plant(&Anchor {
        head: [8; 32],
        ..to.clone()
    });
    assert_eq!(fault_of(rig.newest()), AnchorFault::Ambiguous);
    // One that follows the last of them alone, or is of their own epoch.
    for last in [
        Anchor {
            boot_epoch: 0,
            ..to
        },
        anchor(5, 5),
    ] {
        let first = Anchor {
            boot_epoch: last.boot_epoch,
            ..other.clone()
        };
        let newest = Rig::new(&[&one, &first, &last]).newest();
        assert_eq!(fault_of(newest), AnchorFault::Ambiguous, "{last:?}");
    }
}
