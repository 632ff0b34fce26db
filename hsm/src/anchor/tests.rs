//! Tests of anchors on a token in memory whose object store an attacker holds,
//! and on one that fails or is shared at every step.

mod nodes;
mod standing;
mod steps;
mod supersede;
mod vectors;

use super::{advance::sealed, *};
use crate::software::{SoftAnchors, SoftCustody};

pub(super) fn realm(name: &str) -> RealmName {
    RealmName::parse(name).unwrap()
}

pub(super) fn anchor(serial: u64, head: u8) -> Anchor {
    Anchor {
        serial,
        log_epoch: 1,
        seq: serial * 10,
        head: [head; 32],
        boot_epoch: 1,
        clean: false,
        dirty: false,
    }
}

/// A token with an object store, and what is needed to work on it.
struct Rig {
    store: SoftAnchors,
    custody: SoftCustody,
    realm: RealmName,
}

impl Rig {
    fn new(planted: &[&Anchor]) -> Self {
        let store = SoftAnchors::default();
        let mut rig = Self {
            custody: SoftCustody::with_anchors(store.clone()),
            store,
            realm: realm("r"),
        };
        planted.iter().for_each(|anchor| rig.plant(anchor));
        rig
    }

    fn sealed(&mut self, anchor: &Anchor) -> Vec<u8> {
        sealed(&mut self.custody, &self.realm, anchor).unwrap()
    }

    fn plant(&mut self, anchor: &Anchor) {
        let bytes = self.sealed(anchor);
        self.store.add(&bytes);
    }

    fn newest(&mut self) -> Result<Option<Anchor>> {
        newest(&mut self.custody, &self.realm)
    }

    fn advance(&mut self, from: Option<&Anchor>, to: &Anchor) -> Result<Advanced> {
        advance(&mut self.custody, &self.realm, from, to)
    }

    #[track_caller]
    fn holds_only(&mut self, anchor: &Anchor) {
        let expected = vec![self.sealed(anchor)];
        assert_eq!(self.store.contents(), expected);
    }
}

#[track_caller]
fn fault_of<T: std::fmt::Debug>(outcome: Result<T>) -> AnchorFault {
    match outcome {
        Err(Error::Anchors { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chain_of_anchors_leaves_the_newest_alone() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.newest(), Ok(None));
    let mut from: Option<Anchor> = None;
    for serial in 1..20 {
        let to = anchor(serial, serial as u8);
        assert_eq!(rig.advance(from.as_ref(), &to), Ok(Advanced::Anchored));
        // Once more, as after an answer that was lost.
        assert_eq!(rig.advance(from.as_ref(), &to), Ok(Advanced::Anchored));
        assert_eq!(rig.newest(), Ok(Some(to.clone())));
        rig.holds_only(&to);
        from = Some(to);
    }
}

#[test]
fn flags_and_the_boot_epoch_may_change_over_the_same_head() {
    let first = anchor(1, 1);
    let clean = Anchor {
        serial: 2,
        clean: true,
        ..first.clone()
    };
    let booted = Anchor {
        serial: 3,
        boot_epoch: 2,
        dirty: true,
        clean: false,
        ..clean.clone()
    };
    let mut rig = Rig::new(&[&first]);
    let done = Ok(Advanced::Anchored);
    assert_eq!(rig.advance(Some(&first), &clean), done);
    assert_eq!(rig.advance(Some(&clean), &booted), done);
    rig.holds_only(&booted);
}

#[test]
fn a_step_that_does_not_go_forward_is_refused() {
    let from = anchor(5, 1);
    let next = anchor(6, 2);
    let mut rig = Rig::new(&[&from]);
    let store = rig.store.contents();
    for bad in [
        Anchor {
            serial: 5,
            ..next.clone()
        },
        Anchor {
            serial: 7,
            ..next.clone()
        },
        Anchor {
            seq: 49,
            ..next.clone()
        },
        Anchor {
            seq: 50,
            ..next.clone()
        },
        Anchor {
            log_epoch: 0,
            ..next.clone()
        },
        Anchor {
            boot_epoch: 0,
            ..next.clone()
        },
        Anchor {
            clean: true,
            dirty: true,
            ..next.clone()
        },
    ] {
        let outcome = rig.advance(Some(&from), &bad);
        assert!(matches!(outcome, Err(Error::Invalid { .. })), "{bad:?}");
    }
    let last = Anchor {
        serial: u64::MAX,
        ..anchor(1, 1)
    };
    assert!(rig.advance(Some(&last), &last).is_err());
    assert!(rig.advance(None, &anchor(2, 1)).is_err());
    assert_eq!(rig.store.contents(), store);
    // A new log epoch may begin anywhere.
    let restored = Anchor {
        log_epoch: 2,
        seq: 3,
        ..next
    };
    assert_eq!(rig.advance(Some(&from), &restored), Ok(Advanced::Anchored));
}

#[test]
fn the_first_anchor_is_for_a_realm_that_has_none() {
    let first = anchor(1, 1);
    for there in [anchor(1, 2), anchor(7, 1)] {
        let mut rig = Rig::new(&[&there]);
        assert_eq!(
            fault_of(rig.advance(None, &first)),
            AnchorFault::Exists,
            "{there}"
        );
        rig.holds_only(&there);
    }
    // Another realm of the same token is none of its business.
    let mut rig = Rig::new(&[]);
    let foreign = sealed(&mut rig.custody, &realm("r2"), &anchor(9, 9)).unwrap();
    rig.store.add(&foreign);
    assert_eq!(rig.newest(), Ok(None));
    assert_eq!(rig.advance(None, &first), Ok(Advanced::Anchored));
    let next = anchor(2, 2);
    assert_eq!(rig.advance(Some(&first), &next), Ok(Advanced::Anchored));
    let there = vec![foreign, rig.sealed(&next)];
    assert_eq!(rig.store.contents(), there);
}

#[test]
fn what_a_crash_leaves_is_tolerated_and_removed() {
    let (older, from, to) = (anchor(3, 3), anchor(4, 4), anchor(5, 5));
    let mut rig = Rig::new(&[&from, &older, &from]);
    rig.store.add(&[]);
    assert_eq!(rig.newest(), Ok(Some(from.clone())));
    assert_eq!(rig.advance(Some(&from), &to), Ok(Advanced::Anchored));
    rig.holds_only(&to);
}

#[test]
fn an_anchor_that_is_gone_or_older_is_no_empty_realm() {
    let (older, from, to) = (anchor(3, 3), anchor(4, 4), anchor(5, 5));
    let mut rig = Rig::new(&[]);
    assert_eq!(
        fault_of(rig.advance(Some(&from), &to)),
        AnchorFault::Missing
    );
    rig.store.add(&[]);
    assert_eq!(
        fault_of(rig.advance(Some(&from), &to)),
        AnchorFault::Missing
    );
    rig.plant(&older);
    assert_eq!(fault_of(rig.advance(Some(&from), &to)), AnchorFault::Behind);
    // The same serial with another head, and a later one over another past.
    let fork = Anchor {
        head: [9; 32],
        ..from.clone()
    };
    let late_fork = Anchor {
        serial: 9,
        ..fork.clone()
    };
    for other in [fork, late_fork] {
        let mut rig = Rig::new(&[&other]);
        assert_eq!(fault_of(rig.advance(Some(&from), &to)), AnchorFault::Behind);
        rig.holds_only(&other);
    }
}

#[test]
fn anchors_that_exclude_each_other_are_refused() {
    let one = anchor(4, 4);
    for other in [
        anchor(4, 5),
        Anchor {
            dirty: true,
            ..one.clone()
        },
        Anchor {
            serial: 5,
            head: [9; 32],
            ..one.clone()
        },
        Anchor {
            serial: 5,
            seq: 39,
            ..one.clone()
        },
        Anchor {
            serial: 3,
            log_epoch: 2,
            ..one.clone()
        },
        Anchor {
            serial: 3,
            boot_epoch: 2,
            ..anchor(3, 3)
        },
    ] {
        let mut rig = Rig::new(&[&one, &other]);
        let before = rig.store.contents();
        assert_eq!(fault_of(rig.newest()), AnchorFault::Ambiguous, "{other:?}");
        let next = anchor(5, 1);
        assert_eq!(
            fault_of(rig.advance(Some(&one), &next)),
            AnchorFault::Ambiguous
        );
        assert_eq!(rig.store.contents(), before);
    }
}

#[test]
fn anything_that_the_token_did_not_make_is_named() {
    let good = anchor(4, 4);
    let mut rig = Rig::new(&[&good]);
    let bytes = rig.sealed(&good);
    let mut bad: Vec<Vec<u8>> = (0..bytes.len())
        .map(|at| {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            changed
        })
        .collect();
    bad.extend((1..bytes.len()).map(|length| bytes[..length].to_vec()));
    bad.push([&bytes[..], &[0]].concat());
    bad.push(vec![0; 100_000]);
    for content in bad {
        rig.store.put_back(&[bytes.clone(), content.clone()]);
        // Only a changed name of the realm makes it another realm's.
        let Err(error) = rig.newest() else {
            assert!(content[8] != bytes[8] && content.len() == bytes.len());
            continue;
        };
        let Error::Anchors { fault, detail } = error else {
            panic!("{error}")
        };
        assert_eq!(fault, AnchorFault::Forged);
        assert!(detail.contains(&format!("{} bytes", content.len())));
        let next = anchor(5, 5);
        assert!(rig.advance(Some(&good), &next).is_err());
        assert_eq!(rig.store.contents().len(), 2);
    }
}

#[test]
fn a_warm_anchor_opens_in_its_realm_and_boot_only() {
    let mut custody = SoftCustody::new();
    let (own, other) = (realm("r"), realm("r2"));
    let good = anchor(4, 4);
    let bytes = seal_warm(&mut custody, &own, "boot", (&good, &[1])).unwrap();
    let mut open = |realm, boot, bytes: &[u8]| open_warm(&mut custody, realm, boot, bytes);
    assert_eq!(open(&own, "boot", &bytes), Ok(Some(good.clone())));
    assert_eq!(open(&own, "boos", &bytes), Ok(None));
    let refused = Err(Error::Tampered {
        what: "warm anchor",
    });
    assert_eq!(open(&other, "boot", &bytes), refused);
    let token = sealed(&mut SoftCustody::new(), &own, &good).unwrap();
    assert_eq!(open(&own, "boot", &token), refused);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(open(&own, "boot", &changed).is_err(), "{at}");
        assert!(open(&own, "boot", &bytes[..at]).is_err(), "{at}");
    }
    for bad in ["", "a b", "ä", &"a".repeat(65)] {
        assert!(
            seal_warm(&mut custody, &own, bad, (&good, &[1])).is_err(),
            "{bad}"
        );
    }
    // And it is nothing that could be planted in the token.
    let mut rig = Rig::new(&[]);
    rig.store.add(&bytes);
    assert_eq!(fault_of(rig.newest()), AnchorFault::Forged);
}
