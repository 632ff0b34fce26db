//! Cases about anchors: what the token keeps, and what is made of it.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use custodyd_hsm::{
    Advanced, Anchor, AnchorFault, AnchorHandle, Custody, Error, KeyId, KeyPurpose, RealmName,
    anchor::{advance, go_on, newest},
    checkpoint,
};

use super::MAC;
use crate::rig::Store;

fn realm() -> RealmName {
    RealmName::parse("realm").unwrap()
}

fn anchor(serial: u64, head: u8) -> Anchor {
    Anchor {
        serial,
        log_epoch: 1,
        seq: serial,
        head: [head; 32],
        boot_epoch: 1,
        clean: false,
        dirty: false,
    }
}

fn contents(custody: &mut dyn Custody) -> Vec<Vec<u8>> {
    let listed = custody.anchors().unwrap();
    let mut contents: Vec<_> = listed.into_iter().map(|object| object.content).collect();
    contents.sort();
    contents
}

/// The bytes of an anchor, as the token keeps them; the token is left as it was.
fn sealed(custody: &mut dyn Custody, realm: &RealmName, serial: u64, head: u8) -> Vec<u8> {
    let before = contents(custody);
    assert!(before.is_empty(), "for a token without anchors");
    for step in 1..=serial {
        let from = (step > 1).then(|| anchor(step - 1, head));
        let outcome = advance(custody, realm, from.as_ref(), &anchor(step, head));
        assert_eq!(outcome, Ok(Advanced::Anchored));
    }
    let object = custody.anchors().unwrap().remove(0);
    custody.destroy_anchor(&object).unwrap();
    object.content
}

#[track_caller]
fn fault_of<T: std::fmt::Debug>(outcome: Result<T, Error>) -> AnchorFault {
    match outcome {
        Err(Error::Anchors { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn anchors_are_made_listed_and_destroyed(store: &impl Store) {
    let backend = store.backend();
    let mut custody = backend.open().unwrap();
    assert_eq!(contents(&mut *custody), Vec::<Vec<u8>>::new());
    let longest = vec![7; 512];
    for content in [&b"one"[..], b"two", b"two", &longest] {
        custody.create_anchor(content).unwrap();
    }
    for bad in [&b""[..], &[0; 513]] {
        let outcome = custody.create_anchor(bad);
        assert!(matches!(outcome, Err(Error::Invalid { .. })));
    }
    let expected = vec![longest.clone(), b"one".into(), b"two".into(), b"two".into()];
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(contents(&mut *custody), sorted);
    // Another worker sees the same, and what is destroyed is gone for both.
    let mut other = backend.open().unwrap();
    for object in other.anchors().unwrap() {
        assert_eq!(object.size, object.content.len() as u64);
        if object.content != b"one" {
            other.destroy_anchor(&object).unwrap();
            other.destroy_anchor(&object).unwrap();
        }
    }
    assert_eq!(contents(&mut *custody), vec![b"one".to_vec()]);
    custody.mac(MAC, b"the session is well").unwrap();
}

pub(crate) fn only_objects_of_our_label_are_listed(store: &impl Store) {
    store.plant(b"planted");
    store.plant_beside(b"beside");
    let too_long = vec![1; 1000];
    store.plant(&too_long);
    let mut custody = store.backend().open().unwrap();
    let mut listed = custody.anchors().unwrap();
    listed.sort_by_key(|object| object.size);
    let seen: Vec<_> = listed.iter().map(|o| (o.size, &o.content[..])).collect();
    assert_eq!(seen, [(7, &b"planted"[..]), (1000, b"")]);
    assert_eq!(
        fault_of(newest(&mut *custody, &realm())),
        AnchorFault::Forged
    );
}

pub(crate) fn a_handle_destroys_only_what_was_listed(store: &impl Store) {
    let backend = store.backend();
    let mut custody = backend.open().unwrap();
    custody.create_anchor(b"kept").unwrap();
    let object = custody.anchors().unwrap().remove(0);
    let mut other_content = object.clone();
    other_content.content = b"lost".into();
    custody.destroy_anchor(&other_content).unwrap();
    // Handles of other objects, keys among them, are no way to destroy those.
    for number in 0..40 {
        let mut other = object.clone();
        other.handle = AnchorHandle {
            object: number,
            ..object.handle
        };
        if other.handle != object.handle {
            custody.destroy_anchor(&other).unwrap();
        }
    }
    assert_eq!(contents(&mut *custody), vec![b"kept".to_vec()]);
    custody.probe().unwrap();
    for purpose in KeyPurpose::REQUIRED {
        assert!(custody.holds(KeyId::new(purpose, 1)).unwrap());
    }
    drop((custody, backend));
    store.backend().open().unwrap().probe().unwrap();
}

pub(crate) fn an_anchor_survives_a_restart(store: &impl Store) {
    let first = anchor(1, 1);
    for _ in 0..2 {
        // The backend before this one is gone: module finalized, sessions closed.
        let mut custody = store.backend().open().unwrap();
        let outcome = advance(&mut *custody, &realm(), None, &first);
        assert_eq!(outcome, Ok(Advanced::Anchored));
    }
    let mut custody = store.backend().open().unwrap();
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(first)));
}

pub(crate) fn an_anchor_advances_step_by_step(store: &impl Store) {
    let mut custody = store.backend().open().unwrap();
    let mut from: Option<Anchor> = None;
    for serial in 1..=50 {
        let to = anchor(serial, serial as u8);
        let outcome = advance(&mut *custody, &realm(), from.as_ref(), &to);
        assert_eq!(outcome, Ok(Advanced::Anchored));
        assert_eq!(newest(&mut *custody, &realm()), Ok(Some(to.clone())));
        assert_eq!(contents(&mut *custody).len(), 1);
        from = Some(to);
    }
    let late = advance(&mut *custody, &realm(), Some(&anchor(9, 9)), &anchor(10, 1));
    assert_eq!(late, Ok(Advanced::Raced(anchor(50, 50))));
}

pub(crate) fn an_anchor_goes_on_from_one_that_stands(store: &impl Store) {
    let backend = store.backend();
    let mut workers = [backend.open().unwrap(), backend.open().unwrap()];
    let done = advance(&mut *workers[0], &realm(), None, &anchor(1, 1));
    assert_eq!(done, Ok(Advanced::Anchored));
    for serial in 2..=20 {
        // Whichever worker made the last one.
        let custody = &mut *workers[usize::from(serial % 3 == 0)];
        let object = custody.anchors().unwrap().remove(0);
        let quick = store.tells_of_one();
        assert_eq!(custody.anchor_stands(&object.content), Ok(quick));
        let (from, to) = (anchor(serial - 1, 1), anchor(serial, 1));
        let done = go_on(custody, &realm(), &from, (&to, &[1]));
        assert_eq!(done, Ok(Advanced::Anchored));
        assert_eq!(newest(custody, &realm()), Ok(Some(to)));
        assert_eq!(contents(custody).len(), 1);
    }
    // What is not there does not stand, and is missed; nothing was made then.
    let [mut custody, mut other] = workers;
    assert_eq!(custody.anchor_stands(b"another"), Ok(false));
    let object = custody.anchors().unwrap().remove(0);
    other.destroy_anchor(&object).unwrap();
    assert_eq!(custody.anchor_stands(&object.content), Ok(false));
    let gone = go_on(
        &mut *custody,
        &realm(),
        &anchor(20, 1),
        (&anchor(21, 1), &[1]),
    );
    assert_eq!(fault_of(gone), AnchorFault::Missing);
    assert_eq!(contents(&mut *custody), Vec::<Vec<u8>>::new());
    // Somebody put it back: a list finds it.
    store.plant(&object.content);
    let done = go_on(
        &mut *custody,
        &realm(),
        &anchor(20, 1),
        (&anchor(21, 1), &[1]),
    );
    assert_eq!(done, Ok(Advanced::Anchored));
    assert_eq!(contents(&mut *custody).len(), 1);
}

pub(crate) fn a_crash_between_create_and_destroy_is_mended(store: &impl Store) {
    let mut custody = store.backend().open().unwrap();
    let older = sealed(&mut *custody, &realm(), 1, 1);
    let newer = sealed(&mut *custody, &realm(), 2, 1);
    drop(custody);
    store.plant(&newer);
    store.plant(&older);
    let mut custody = store.backend().open().unwrap();
    let found = newest(&mut *custody, &realm()).unwrap().unwrap();
    assert_eq!(found, anchor(2, 1));
    // Asked again, as by a caller whose answer was lost: it goes on.
    let again = advance(&mut *custody, &realm(), Some(&anchor(1, 1)), &found);
    assert_eq!(again, Ok(Advanced::Anchored));
    assert_eq!(contents(&mut *custody), vec![newer]);
}

pub(crate) fn two_newest_anchors_are_refused(store: &impl Store) {
    let mut custody = store.backend().open().unwrap();
    let one = sealed(&mut *custody, &realm(), 1, 1);
    let other = sealed(&mut *custody, &realm(), 1, 2);
    store.plant(&one);
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(anchor(1, 1))));
    store.plant(&other);
    assert_eq!(
        fault_of(newest(&mut *custody, &realm())),
        AnchorFault::Ambiguous
    );
    let outcome = advance(&mut *custody, &realm(), Some(&anchor(1, 1)), &anchor(2, 2));
    assert_eq!(fault_of(outcome), AnchorFault::Ambiguous);
    assert_eq!(contents(&mut *custody).len(), 2);
}

pub(crate) fn a_forged_anchor_is_refused(store: &impl Store) {
    let mut custody = store.backend().open().unwrap();
    let good = sealed(&mut *custody, &realm(), 1, 1);
    let (serial, tag) = (4 + 4 + "realm".len() + 7, good.len() - 1);
    for at in [serial, tag] {
        let mut forged = good.clone();
        forged[at] ^= 2;
        store.plant(&forged);
        assert_eq!(
            fault_of(newest(&mut *custody, &realm())),
            AnchorFault::Forged
        );
        store.plant(&good);
        let outcome = advance(&mut *custody, &realm(), Some(&anchor(1, 1)), &anchor(2, 2));
        assert_eq!(fault_of(outcome), AnchorFault::Forged);
        store.clear();
    }
    // The control: without it all is well.
    store.plant(&good);
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(anchor(1, 1))));
}

pub(crate) fn an_anchor_that_is_gone_is_missed(store: &impl Store) {
    let mut custody = store.backend().open().unwrap();
    let older = sealed(&mut *custody, &realm(), 1, 1);
    let second = anchor(2, 1);
    sealed(&mut *custody, &realm(), 2, 1);
    let outcome = advance(&mut *custody, &realm(), Some(&second), &anchor(3, 1));
    assert_eq!(fault_of(outcome), AnchorFault::Missing);
    store.plant(&older);
    let outcome = advance(&mut *custody, &realm(), Some(&second), &anchor(3, 1));
    assert_eq!(fault_of(outcome), AnchorFault::Behind);
    let outcome = advance(&mut *custody, &realm(), None, &anchor(1, 9));
    assert_eq!(fault_of(outcome), AnchorFault::Exists);
    assert_eq!(contents(&mut *custody), vec![older]);
}

pub(crate) fn realms_of_one_token_leave_each_other_alone(store: &impl Store) {
    let other = RealmName::parse("realm2").unwrap();
    let mut custody = store.backend().open().unwrap();
    for serial in 1..5 {
        for (realm, head) in [(realm(), 1), (other.clone(), 2)] {
            let from = (serial > 1).then(|| anchor(serial - 1, head));
            let to = anchor(serial, head);
            let outcome = advance(&mut *custody, &realm, from.as_ref(), &to);
            assert_eq!(outcome, Ok(Advanced::Anchored));
        }
    }
    assert_eq!(contents(&mut *custody).len(), 2);
    assert_eq!(newest(&mut *custody, &realm()), Ok(Some(anchor(4, 1))));
    assert_eq!(newest(&mut *custody, &other), Ok(Some(anchor(4, 2))));
}

pub(crate) fn of_two_advances_at_once_one_wins(store: &impl Store) {
    let backend = store.backend();
    let mut from = anchor(1, 0);
    let mut custody = backend.open().unwrap();
    advance(&mut *custody, &realm(), None, &from).unwrap();
    for serial in 2..20 {
        let start = Arc::new(Barrier::new(2));
        let rivals = [1, 2].map(|head| {
            let (backend, start, from) = (Arc::clone(&backend), Arc::clone(&start), from.clone());
            thread::spawn(move || {
                let mut custody = backend.open().unwrap();
                start.wait();
                contend(&mut *custody, &from, anchor(serial, head))
            })
        });
        let won: Vec<Anchor> = rivals
            .into_iter()
            .filter_map(|rival| rival.join().unwrap())
            .collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(contents(&mut *custody).len(), 1);
        from = won[0].clone();
        assert_eq!(newest(&mut *custody, &realm()), Ok(Some(from.clone())));
    }
}

/// Tries until this anchor or another one is there. Each may take its own back
/// for the other's sake, and then both try again.
fn contend(custody: &mut dyn Custody, from: &Anchor, to: Anchor) -> Option<Anchor> {
    for pause in 0..100 {
        match advance(custody, &realm(), Some(from), &to) {
            Ok(Advanced::Anchored) => return Some(to),
            Ok(Advanced::Raced(_)) => {}
            // Both are there for a moment, until one is taken back; and while another session
            // changes them, SoftHSM2 may list none at all. A daemon refuses either, rightly.
            Err(Error::Anchors {
                fault: AnchorFault::Ambiguous | AnchorFault::Missing,
                ..
            }) => {}
            // SoftHSM2 also fails in the middle of another session's change. Then nobody knows
            // what was done, and the same call is made again.
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let own = u64::from(to.head[0]);
        thread::sleep(std::time::Duration::from_millis(pause % 7 * own));
        match newest(custody, &realm()) {
            Ok(Some(there)) if there.serial == to.serial && there != to => {
                thread::sleep(std::time::Duration::from_millis(20));
                if newest(custody, &realm()) == Ok(Some(there)) {
                    return None;
                }
            }
            _ => {}
        }
    }
    panic!("nobody won in a hundred tries")
}

pub(crate) fn checkpoints_verify_under_the_published_key(store: &impl Store) {
    let mut custody = store.backend().open().unwrap();
    let text = b"realm/1\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    let (signature, key) = checkpoint::sign(&mut *custody, text).unwrap();
    assert_eq!(checkpoint::keys(&mut *custody).unwrap(), [key]);
    assert!(key.verifies(text, &signature));
    let note = checkpoint::note_signature(&key, &signature);
    let (id, der) = note.split_at(4);
    assert_eq!(id, checkpoint::key_id(&key));
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.as_point());
    verifier.verify(text, der).unwrap();
    assert!(verifier.verify(b"another\n", der).is_err());
}
