//! Somebody has the database and knows the MAC key that was rotated away from: they write any log behind what is there, under
//! heads that name that key alone. Each is tagged as the token would tag it. As control nobody asks what tagged last.

mod unheard;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use custodyd_hsm::{KeyPurpose, KeyVersions, Pool};

use super::attacks::is_tampered;
use super::broken::{Commit, Script};
use super::mac_keys::{another_pool, another_process, mac, rotated};
use super::nodes::{anchored, anchors::loaded, charge, two};
use super::rig::{Rig, charge as deciding, realm_name};
use super::several::Scene;
use super::tables::ALL;
use crate::ledger::LedgerError;
use crate::ledger::head::Head;
use crate::ledger::log::StateLeaf;
use crate::ledger::memory::Believed;
use crate::ledger::start;
use crate::store::{Batch, Store};

/// Who knows the key, at the database. What they ask of a pool is to tag by that key.
struct Forger {
    pool: Pool,
    store: Arc<dyn Store>,
}

impl Forger {
    async fn of(rig: &Rig) -> Self {
        Self {
            pool: another_pool(rig.anchors.clone()).await,
            store: Arc::from(rig.place.open().await.unwrap()),
        }
    }

    async fn found(&self) -> Believed {
        let found = start::find(&self.store, &self.pool, &realm_name()).await;
        found.unwrap().believed
    }

    /// A batch upon the head that the database shows.
    async fn writes(&self, change: impl FnOnce(&mut Head)) {
        let found = self.found().await;
        let mut head = found.head.clone();
        head.state.keys = KeyVersions::first();
        change(&mut head);
        let mut batch = Batch::after(found.head.state.seq);
        let next = found.next(head, &mut batch).unwrap();
        self.commit(batch, &next.head).await;
    }

    /// The same, whose log names this as the head before it.
    async fn writes_upon(&self, previous: [u8; 32]) {
        let Believed {
            mut head, mut end, ..
        } = self.found().await;
        let mut batch = Batch::after(head.state.seq);
        head.state.seq += 1;
        head.state.previous = previous;
        let leaf = StateLeaf {
            state: head.state.clone(),
            size: end.size(),
            log_root: end.root(),
        };
        let leaf = leaf.encode().unwrap();
        batch.entries.push((end.size(), leaf.clone()));
        end.append(&leaf);
        (head.size, head.log_root) = (end.size(), end.root());
        batch.tiles = end.take_rows();
        self.commit(batch, &head).await;
    }

    async fn commit(&self, mut batch: Batch, head: &Head) {
        assert_eq!(head.tagged_by(), [1]);
        batch.head = head.authenticate(&self.pool).await.unwrap();
        self.store.commit(&batch).await.unwrap();
    }

    async fn goes(self) {
        self.store.close().await;
    }
}

/// The older key is accepted still. The head descends from the anchor.
#[tokio::test]
async fn nobody_goes_on_from_the_anchor_by_the_older_key_alone() {
    for defended in [true, false] {
        let mut rig = rotated().await;
        rig.stop().await;
        let forger = Forger::of(&rig).await;
        forger.writes(|_| {}).await;
        forger.goes().await;
        another_process(&mut rig).await;
        rig.weakness.older_mac_keys = !defended;
        let started = rig.try_serve(Script::default()).await;
        match defended {
            true => assert!(is_tampered(&started), "{started:?}"),
            // The control: it would be served, and the newer key given up.
            false => {
                started.unwrap();
                assert_eq!(rig.ledger().keys(), KeyVersions::first());
            }
        }
    }
}

/// A token that was given up before the rotation answers again, and is in the configuration still. It has heard of no newer
/// key; a head that names it alone has everybody else who knows better not asked.
#[tokio::test]
async fn a_token_that_was_given_up_before_the_rotation_vouches_for_nothing() {
    for (retired, defended) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut scene = Scene::new().await;
        scene.charge().await.unwrap();
        scene.tokens[1].goes();
        scene.charge().await.unwrap();
        scene.rig.crash().await;
        for token in &mut scene.tokens {
            token.comes_back();
            token.takes_in(KeyPurpose::Mac, 2);
        }
        scene.serve_upon_both();
        scene.restart().await.unwrap();
        scene.rig.rotate(mac(2)).await.unwrap();
        let spent = scene.charge().await.unwrap();
        if retired {
            scene.rig.retire_key(mac(1)).await.unwrap();
        }
        // What an honest head does not name may remember the older key.
        scene.serve_upon_both();
        scene.restart().await.unwrap();
        assert_eq!(scene.rig.ledger().tokens(), ["A"]);
        // With the key goes what is found by it.
        if !retired {
            assert_eq!(scene.rig.durable(scene.rig.accounts[0]).await, spent);
        }
        scene.rig.crash().await;
        let forger = Forger::of(&scene.rig).await;
        forger
            .writes(|head| head.state.tokens = vec!["B".into()])
            .await;
        forger.goes().await;
        scene.serve_upon_both();
        scene.rig.weakness.older_mac_keys = !defended;
        let started = scene.restart().await;
        match defended {
            true => {
                assert!(is_tampered(&started), "{started:?}");
                let why = started.unwrap_err().to_string();
                assert!(
                    why.contains("custodyd-mac-v2") && why.contains("the token a"),
                    "{why}"
                );
            }
            // The control: whatever that head says of the state is served, by the token that was given up.
            false => {
                started.unwrap();
                assert_eq!(scene.rig.ledger().tokens(), ["B"]);
            }
        }
    }
}

/// Two nodes of a realm whose key was rotated; the second one with this defence.
async fn two_rotated(defended: bool) -> [Rig; 2] {
    let [one, mut other] = two().await;
    other.crash().await;
    other.weakness.older_mac_keys = !defended;
    for node in [&one, &other] {
        node.make(mac(2)).await;
    }
    one.rotate(mac(2)).await.unwrap();
    other.try_serve(Script::default()).await.unwrap();
    assert_eq!(charge(&one).await, 1);
    assert_eq!(charge(&other).await, 2);
    [one, other]
}

/// How long the token of the node that is lied to takes for its anchor: less than it may.
const SLOW: Duration = Duration::from_secs(4);

/// One node has a batch that is durable and about to be anchored; the database loses it, and the other node goes on without it.
/// Then the first is shown its own batch again, and a head whose log says that the other's anchor comes after that. Gives what
/// the first was told; nothing where all that took too long.
async fn shown_two_lines_as_one(defended: bool) -> Option<Result<u64, LedgerError>> {
    let [one, other] = two_rotated(defended).await;
    let before = one.tables().await;
    let (first, base) = (newest(&one), loaded(&other).await);
    let millis = u64::try_from(SLOW.as_millis()).unwrap();
    other.sluggish.makes.store(millis, SeqCst);
    let began = Instant::now();
    let (told, in_time) = tokio::join!(other.ledger().commit(base, deciding), async {
        // They are not read in one moment: twice the same is what stands.
        let (mut last, mut mine) = (one.tables().await, one.tables().await);
        while mine == before || mine != last {
            tokio::time::sleep(Duration::from_millis(20)).await;
            last = std::mem::replace(&mut mine, one.tables().await);
        }
        one.put(&before, &ALL).await;
        assert_eq!([charge(&one).await, charge(&one).await], [3, 4]);
        let theirs = anchored(&one).pop().unwrap();
        one.put(&mine, &ALL).await;
        let forger = Forger::of(&one).await;
        forger.writes(|_| {}).await;
        forger.writes_upon(theirs.head).await;
        forger.goes().await;
        let in_time = began.elapsed() < SLOW;
        assert!(!in_time || theirs.seq == first + 2);
        in_time
    });
    other.sluggish.makes.store(0, SeqCst);
    for mut node in [one, other] {
        node.crash().await;
    }
    in_time.then_some(told.map(|(number, ..)| number))
}

#[tokio::test]
async fn a_log_by_the_older_key_makes_no_line_of_two() {
    for defended in [true, false] {
        let told = loop {
            if let Some(told) = shown_two_lines_as_one(defended).await {
                break told;
            }
        };
        // What that node is told is evaluated. The control evaluates a third guess that the main line does not know of.
        match defended {
            true => assert!(told.is_err(), "{told:?}"),
            false => assert_eq!(told.unwrap(), 3),
        }
    }
}

/// A node that believes in the state of before the rotation takes a head by the older key for the next but one. It finds the
/// rotation's anchor to be of the line, and by a newer key than that head's.
#[tokio::test]
async fn a_node_that_has_not_heard_of_the_rotation_undoes_none() {
    for forged in [true, false] {
        let [one, mut other] = two().await;
        for node in [&one, &other] {
            node.make(mac(2)).await;
        }
        assert_eq!([charge(&one).await, charge(&other).await], [1, 2]);
        let base = loaded(&other).await;
        one.rotate(mac(2)).await.unwrap();
        let rotation = one.anchors.contents();
        if forged {
            let forger = Forger::of(&one).await;
            forger.writes(|_| {}).await;
            forger.goes().await;
        }
        let told = other.ledger().commit(base, deciding).await;
        let why = told.err().map(|error| error.to_string());
        assert!(why.is_some(), "it serves");
        assert_eq!(one.anchors.contents(), rotation, "{why:?}");
        // The control: by the true head it ends, and goes on once it is started again.
        if !forged {
            other.crash().await;
            other.try_serve(Script::default()).await.unwrap();
            assert_eq!(charge(&other).await, 3);
        }
        for mut node in [one, other] {
            node.crash().await;
        }
    }
}

fn newest(rig: &Rig) -> u64 {
    anchored(rig).iter().map(|anchor| anchor.seq).max().unwrap()
}

/// The rotation's own anchor, and beside it the one of before: a crash has left that. By the log of the head that is shown the
/// rotation never was.
#[tokio::test]
async fn no_start_destroys_an_anchor_by_the_word_of_the_older_key() {
    for defended in [true, false] {
        let [mut one, mut other] = two().await;
        other.crash().await;
        charge(&one).await;
        let (before, then) = (one.tables().await, one.anchors.contents());
        one.make(mac(2)).await;
        one.rotate(mac(2)).await.unwrap();
        one.crash().await;
        then.iter().for_each(|content| one.anchors.add(content));
        let both = one.anchors.contents();
        assert_eq!(both.len(), 2);
        one.put(&before, &ALL).await;
        let forger = Forger::of(&one).await;
        for _ in 0..2 {
            forger.writes(|_| {}).await;
        }
        forger.goes().await;
        another_process(&mut one).await;
        one.weakness.older_mac_keys = !defended;
        // Nor may what was written ahead of any anchor speak against it.
        one.weakness.any_lag = !defended;
        let started = one.try_serve(Script::default()).await;
        match defended {
            true => {
                assert!(is_tampered(&started), "{started:?}");
                assert_eq!(one.anchors.contents(), both);
            }
            // The control takes it for an orphan, and serves.
            false => {
                started.unwrap();
                assert!(
                    both.iter()
                        .all(|content| !one.anchors.contents().contains(content))
                );
                one.crash().await;
            }
        }
    }
}

/// The database takes the batch of a rotation late, when the pool has gone back to the older key: by nothing but its head and
/// that head's anchor is it known until the next batch.
#[tokio::test]
async fn a_rotation_that_is_written_late_is_anchored_by_both_keys() {
    let mut rig = Rig::new().await;
    rig.make(mac(2)).await;
    let before = newest(&rig);
    rig.script(Script::new(&[Commit::Declined; 5], &[], &[]));
    let late = rig.rotate(mac(2)).await;
    assert!(matches!(late, Err(LedgerError::Store(_))), "{late:?}");
    assert_eq!(*rig.pool().versions().unwrap(), KeyVersions::first());
    while newest(&rig) == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.crash().await;
    let forger = Forger::of(&rig).await;
    forger.writes(|_| {}).await;
    forger.goes().await;
    another_process(&mut rig).await;
    let started = rig.try_serve(Script::default()).await;
    assert!(is_tampered(&started), "{started:?}");
}
