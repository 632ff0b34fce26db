//! A realm with two tokens, of which each may be away at any step; and the administrator with an older
//! database meanwhile.

pub(in crate::ledger) mod tokens;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use custodyd_hsm::{Member, Pool, PoolOptions};
use proptest::prelude::*;

use self::tokens::{PATIENCE, Soft, pool};
use super::broken::{Commit, Script};
use super::rig::Rig;
use crate::ledger::LedgerError;

pub(super) struct Scene {
    pub(super) rig: Rig,
    pub(super) tokens: [Soft; 2],
}

impl Scene {
    pub(super) async fn new() -> Self {
        let tokens = Soft::pair();
        let rig = Rig::of(pool(&[&tokens[0], &tokens[1]])).await;
        assert_eq!(rig.ledger().tokens(), ["A", "B"]);
        Self { rig, tokens }
    }

    pub(super) async fn charge(&self) -> Result<u64, LedgerError> {
        self.rig.charge_only(self.rig.accounts[0]).await
    }

    /// The next process logs in to both.
    pub(super) fn serve_upon_both(&mut self) {
        let both = pool(&[&self.tokens[0], &self.tokens[1]]);
        self.rig.serve_upon(both);
    }

    /// A process of before ends; another one has what is there now.
    pub(super) async fn restart(&mut self) -> Result<(), LedgerError> {
        self.rig.crash().await;
        self.rig.try_serve(Script::default()).await
    }

    fn member(&self, serial: &str) -> Arc<Member> {
        let set = self.rig.pool().set().unwrap();
        Arc::clone(set.of_id(serial).unwrap())
    }

    async fn refused(&mut self, what: &str) {
        let started = self.restart().await.unwrap_err().to_string();
        assert!(started.contains(what), "{started}");
    }
}

#[tokio::test]
async fn a_token_that_goes_is_given_up_before_anybody_is_told() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.charge().await.unwrap(), 1);
    scene.tokens[1].goes();
    assert_eq!(scene.charge().await.unwrap(), 2);
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    // From then on it is waited for no longer, nor missed at a start.
    assert_eq!(scene.charge().await.unwrap(), 3);
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.durable(scene.rig.accounts[0]).await, 3);
    // Back, it is used for nothing until it is taken in.
    scene.tokens[1].comes_back();
    let before = scene.tokens[1].anchors.contents();
    assert_eq!(scene.charge().await.unwrap(), 4);
    assert_eq!(scene.tokens[1].anchors.contents(), before);
    let ledger = scene.rig.ledger().clone();
    ledger.readmit(scene.member("B")).await.unwrap();
    assert_eq!(ledger.tokens(), ["A", "B"]);
    drop(ledger);
    scene.tokens[0].goes();
    assert_eq!(scene.charge().await.unwrap(), 5);
    assert_eq!(scene.rig.ledger().tokens(), ["B"]);
    scene.tokens[0].comes_back();
    scene.rig.stop().await;
}

#[tokio::test]
async fn where_none_answers_none_is_given_up() {
    let mut scene = Scene::new().await;
    scene.tokens.iter().for_each(Soft::goes);
    assert!(scene.charge().await.is_err());
    scene.tokens.iter().for_each(Soft::comes_back);
    scene.charge().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A", "B"]);
    scene.restart().await.unwrap();
}

#[tokio::test]
async fn a_crash_between_giving_up_and_anchoring_that_goes_on_without_the_token() {
    let mut scene = Scene::new().await;
    scene.tokens[1].goes();
    // The batch is anchored in A; the head that names A alone is durable, and A goes, too.
    scene.tokens[0].goes_after(1);
    assert!(scene.charge().await.is_err());
    scene.rig.crash().await;
    scene.tokens[0].comes_back();
    // Only A is needed, whose anchor the head descends from.
    scene.rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    let durable = scene.rig.durable(scene.rig.accounts[0]).await;
    assert_eq!(scene.charge().await.unwrap(), durable + 1);
    scene.rig.stop().await;
}

#[tokio::test]
async fn a_crash_between_two_tokens_leaves_a_start_that_serves() {
    let mut scene = Scene::new().await;
    scene.tokens[1].goes();
    // Nobody is told: the head that would give it up can not be written.
    scene.rig.script(Script::new(
        &[&[Commit::Honest][..], &[Commit::Full; 32]].concat(),
        &[],
        &[],
    ));
    assert!(scene.charge().await.is_err());
    assert_eq!(scene.rig.ledger().tokens(), ["A", "B"]);
    scene.rig.crash().await;
    scene.tokens[1].comes_back();
    scene.rig.try_serve(Script::default()).await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A", "B"]);
    assert_eq!(scene.rig.durable(scene.rig.accounts[0]).await, 1);
    scene.rig.stop().await;
}

/// The attack that the rule of starts is about; as control the operator's word, which it is about as well.
#[tokio::test]
async fn a_token_that_was_given_up_does_not_bring_its_database_back() {
    let mut scene = Scene::new().await;
    scene.charge().await.unwrap();
    scene.rig.crash().await;
    scene.rig.try_serve(Script::default()).await.unwrap();
    scene.rig.crash().await;
    let older = scene.rig.database();
    scene.rig.try_serve(Script::default()).await.unwrap();
    // B remembers that state, and is given up.
    let then = scene.tokens[1].anchors.contents();
    scene.tokens[1].goes();
    let spent = scene.charge().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    scene.rig.crash().await;
    let newest = scene.rig.database();
    scene.tokens[1].comes_back();
    scene.tokens[1].anchors.put_back(&then);
    scene.rig.put_database(&older);
    // The older database is not the one that B has last anchored; the boot batch of its last life is lost.
    scene.refused("rolled back").await;
    // With A away, B and the database agree; and B can not know.
    let alone = pool(&[&scene.tokens[1]]);
    scene.rig.serve_upon(alone);
    scene.refused("one of the realm's, and is not there").await;
    // Control: the newest database and A.
    scene.rig.put_database(&newest);
    scene
        .rig
        .serve_upon(pool(&[&scene.tokens[0], &scene.tokens[1]]));
    scene.restart().await.unwrap();
    assert_eq!(scene.charge().await.unwrap(), spent + 1);
    scene.rig.crash().await;
    // B alone is none of the realm's.
    scene.rig.serve_upon(pool(&[&scene.tokens[1]]));
    scene.refused("is one of the realm's").await;
}

#[tokio::test]
async fn a_wrong_word_that_a_token_is_lost_is_what_brings_guesses_back() {
    let mut scene = Scene::new().await;
    scene.charge().await.unwrap();
    // Both have anchored exactly this; then B is given up.
    scene.rig.crash().await;
    let older = scene.rig.database();
    let then = scene.tokens[1].anchors.contents();
    scene.tokens[1].goes();
    scene
        .rig
        .serve_upon(pool(&[&scene.tokens[0], &scene.tokens[1]]));
    // A start wants B: so it is there for it, and goes at once.
    scene.refused("is not there").await;
    scene.tokens[1].comes_back();
    scene
        .rig
        .serve_upon(pool(&[&scene.tokens[0], &scene.tokens[1]]));
    scene.restart().await.unwrap();
    scene.tokens[1].goes();
    for _ in 0..3 {
        scene.charge().await.unwrap();
    }
    scene.rig.crash().await;
    scene.tokens[1].comes_back();
    scene.tokens[1].anchors.put_back(&then);
    scene.rig.put_database(&older);
    let alone = pool(&[&scene.tokens[1]]);
    scene.rig.serve_upon(alone.clone());
    scene.refused("is not there").await;
    alone.set().unwrap().is_lost("A".into());
    scene.restart().await.unwrap();
    assert_eq!(
        scene.charge().await.unwrap(),
        2,
        "three charges are forgotten"
    );
    // A is not taken in again as if nothing had been: it knows more.
    scene.rig.crash().await;
    let both = pool(&[&scene.tokens[0], &scene.tokens[1]]);
    scene.rig.serve_upon(both);
    scene.restart().await.unwrap();
    let ledger = scene.rig.ledger().clone();
    let why = ledger.readmit(scene.member("A")).await.unwrap_err();
    assert!(why.to_string().contains("has anchored"), "{why}");
    drop(ledger);
    scene.rig.stop().await;
}

#[tokio::test]
async fn an_older_or_an_empty_token_is_refused_at_a_start_and_brought_up_when_it_is_taken_in() {
    let mut scene = Scene::new().await;
    let older = scene.tokens[1].anchors.contents();
    for _ in 0..2 {
        scene.charge().await.unwrap();
    }
    scene.rig.crash().await;
    let newest = scene.tokens[1].anchors.contents();
    scene.tokens[1].anchors.put_back(&older);
    scene.refused("was put back to an older state").await;
    scene.tokens[1].anchors.put_back(&[]);
    scene.refused("holds no anchor").await;
    // Control.
    scene.tokens[1].anchors.put_back(&newest);
    scene.restart().await.unwrap();
    // Found while it serves, too.
    scene.tokens[1].anchors.put_back(&older);
    scene.charge().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    let ledger = scene.rig.ledger().clone();
    ledger.readmit(scene.member("B")).await.unwrap();
    scene.tokens[1].anchors.put_back(&[]);
    scene.charge().await.unwrap();
    assert_eq!(ledger.tokens(), ["A"]);
    ledger.readmit(scene.member("B")).await.unwrap();
    drop(ledger);
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A", "B"]);
    scene.rig.stop().await;
}

/// Both tokens are there, and the operator says of the one that knows better that it is lost.
#[tokio::test]
async fn a_lost_token_that_is_there_is_asked_all_the_same() {
    let mut scene = Scene::new().await;
    scene.charge().await.unwrap();
    scene.rig.crash().await;
    let older = scene.rig.database();
    let then = scene.tokens[1].anchors.contents();
    scene.restart().await.unwrap();
    scene.charge().await.unwrap();
    scene.rig.crash().await;
    let newest = scene.rig.database();
    scene.tokens[1].anchors.put_back(&then);
    scene.rig.put_database(&older);
    let both = pool(&[&scene.tokens[0], &scene.tokens[1]]);
    both.set().unwrap().is_lost("A".into());
    scene.rig.serve_upon(both);
    scene.refused("has anchored").await;
    // Control: of a database that descends from it, it may be lost.
    scene.rig.put_database(&newest);
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["B"]);
    scene.rig.stop().await;
}

/// The first daemon ends before any token knows of its batch, the second one between the two tokens.
#[tokio::test]
async fn two_ends_in_a_row_accuse_no_token() {
    let mut scene = Scene::new().await;
    for token in &scene.tokens {
        token.goes_after(0);
    }
    assert!(scene.charge().await.is_err());
    scene.rig.crash().await;
    scene.tokens[0].comes_back();
    // It is there to be read, and goes when it is to be written; nor can it be given up.
    scene.tokens[1].comes_back();
    scene.tokens[1].goes_after(0);
    let full = [&[Commit::Honest][..], &[Commit::Full; 32]].concat();
    scene.rig.opening = Script::new(&full, &[], &[]);
    assert!(scene.restart().await.is_err());
    scene.rig.crash().await;
    scene.tokens[1].comes_back();
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A", "B"]);
    scene.rig.stop().await;
}

/// `init` was stopped between two tokens, and is run again; never of a realm that is in use.
#[tokio::test]
async fn a_realm_that_was_half_made_is_finished_and_none_that_is_in_use() {
    let tokens = Soft::pair();
    let mut rig = Rig::begun(pool(&[&tokens[0], &tokens[1]])).await;
    let first = rig.database();
    tokens[1].goes_after(0);
    let why = rig.finish().await.unwrap_err().to_string();
    assert!(
        why.contains("the token b") && why.contains("`custodyd init` again"),
        "{why}"
    );
    let made = tokens[0].anchors.contents();
    assert_eq!((made.len(), tokens[1].anchors.contents().len()), (1, 0));
    // It does not serve meanwhile.
    tokens[1].comes_back();
    let why = rig
        .try_serve(Script::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("holds no anchor"), "{why}");
    // Of long ago it may as well have been put back: then somebody has to say which it is.
    for late in [999, 1000 + 3601] {
        let why = rig.finish_at(late).await.unwrap_err().to_string();
        assert!(why.contains("init --finish"), "{why}");
    }
    assert!(tokens[1].anchors.contents().is_empty());
    rig.finish_at(1060).await.unwrap();
    assert_eq!(tokens[0].anchors.contents(), made);
    assert!(!rig.finish().await.unwrap());
    rig.try_serve(Script::default()).await.unwrap();
    rig.stop().await;
    // A token that has forgotten is not a half made realm, with this database or with the first one.
    tokens[1].anchors.put_back(&[]);
    assert!(!rig.finish().await.unwrap());
    rig.put_database(&first);
    let why = rig.finish().await.unwrap_err().to_string();
    assert!(why.contains("should be new"), "{why}");
    assert!(tokens[1].anchors.contents().is_empty());
}

#[tokio::test]
async fn a_lost_token_is_meant_by_its_name_too() {
    let mut scene = Scene::new().await;
    scene.charge().await.unwrap();
    scene.rig.crash().await;
    scene.tokens[1].goes();
    for (said, why) in [("c", "none of the realm's"), ("a", "is not there")] {
        let both = pool(&[&scene.tokens[0], &scene.tokens[1]]);
        both.set().unwrap().is_lost(said.into());
        scene.rig.serve_upon(both);
        scene.refused(why).await;
    }
    let both = pool(&[&scene.tokens[0], &scene.tokens[1]]);
    both.set().unwrap().is_lost("b".into());
    scene.rig.serve_upon(both);
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    scene.rig.stop().await;
}

/// An anchor that it was asked for could still come, beside the one that it is brought up to.
#[tokio::test]
async fn a_token_that_still_hangs_is_not_taken_in() {
    let mut scene = Scene::new().await;
    scene.charge().await.unwrap();
    scene.tokens[1].hangs.store(true, Ordering::SeqCst);
    scene.charge().await.unwrap();
    let ledger = scene.rig.ledger().clone();
    assert_eq!(ledger.tokens(), ["A"]);
    let why = ledger.readmit(scene.member("B")).await.unwrap_err();
    assert!(why.to_string().contains("has not come back yet"), "{why}");
    scene.tokens[1].hangs.store(false, Ordering::SeqCst);
    // The control: once it has come back it is.
    for _ in 0..2000 {
        if scene.member("B").stuck() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ledger.readmit(scene.member("B")).await.unwrap();
    assert_eq!(ledger.tokens(), ["A", "B"]);
    drop(ledger);
    scene.rig.stop().await;
}

async fn bounded() -> Scene {
    let mut scene = Scene::new().await;
    scene.rig.bounded = true;
    scene.restart().await.unwrap();
    scene
}

#[tokio::test]
async fn a_flag_that_one_token_has_lost_is_no_flag() {
    let mut scene = Scene::new().await;
    scene.rig.bounded = true;
    scene.rig.interval = Duration::from_millis(100);
    scene.restart().await.unwrap();
    let [a, b] = scene.rig.accounts;
    scene.rig.charge_only(a).await.unwrap();
    // At the interval the first is told that nothing can be forgotten any more, and the second is spent.
    let flagged = scene.tokens[0].written.load(Ordering::SeqCst);
    scene.tokens[1].worn.store(true, Ordering::SeqCst);
    while scene.tokens[0].written.load(Ordering::SeqCst) == flagged {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(PATIENCE).await;
    // The next charge has to raise the flag again, in both, before anybody is told.
    assert!(scene.rig.charge_only(b).await.is_err());
    scene.tokens[1].worn.store(false, Ordering::SeqCst);
    let told = scene.rig.charge_only(b).await.unwrap();
    let epoch = scene.rig.ledger().era().boot_epoch;
    scene.rig.crash().await;
    scene.rig.lose_power();
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().era().boot_epoch, epoch + 1);
    assert!(scene.rig.durable(b).await >= told);
    scene.rig.stop().await;
}

#[tokio::test]
async fn a_token_is_not_worn_out_by_waiting_for_another() {
    let scene = bounded().await;
    scene.tokens[1].worn.store(true, Ordering::SeqCst);
    assert!(scene.charge().await.is_err());
    let written = scene.tokens[0].written.load(Ordering::SeqCst);
    // Each waits as long as a charge may: all at once.
    let [one, two, three] = [(); 3].map(|()| scene.charge());
    let refused = tokio::join!(one, two, three, scene.charge(), scene.charge());
    assert!(refused.0.is_err() && refused.1.is_err() && refused.2.is_err());
    assert!(refused.3.is_err() && refused.4.is_err());
    assert_eq!(scene.tokens[0].written.load(Ordering::SeqCst), written);
}

#[tokio::test]
async fn a_token_that_misses_the_clean_stop_stops_no_start() {
    let mut scene = bounded().await;
    scene.charge().await.unwrap();
    scene.tokens[1].goes();
    scene.rig.stop().await;
    scene.tokens[1].comes_back();
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A", "B"]);
    // The same where it is gone for good, and an operator says so.
    scene.tokens[1].goes();
    scene.rig.stop().await;
    let alone = pool(&[&scene.tokens[0]]);
    alone.set().unwrap().is_lost("B".into());
    scene.rig.serve_upon(alone);
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    scene.rig.stop().await;
}

#[tokio::test]
async fn a_realm_of_one_token_takes_in_a_second() {
    let tokens = Soft::pair();
    let mut scene = Scene {
        rig: Rig::of(Pool::start(Arc::new(tokens[0].clone()), PoolOptions::default()).unwrap())
            .await,
        tokens,
    };
    assert!(scene.rig.ledger().tokens().is_empty());
    scene
        .rig
        .serve_upon(pool(&[&scene.tokens[0], &scene.tokens[1]]));
    scene.restart().await.unwrap();
    // Named before anything is anchored in another: no head means "whichever is first" any more.
    assert_eq!(scene.rig.ledger().tokens(), ["A"]);
    scene.charge().await.unwrap();
    assert!(scene.tokens[1].anchors.contents().is_empty());
    let ledger = scene.rig.ledger().clone();
    ledger.readmit(scene.member("B")).await.unwrap();
    drop(ledger);
    scene.tokens[0].goes();
    assert_eq!(scene.charge().await.unwrap(), 2);
    scene.rig.stop().await;
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Goes(usize),
    Back(usize),
    GoesAfter(usize, usize),
    Charge,
    Readmit(usize),
    Crash,
    Rollback,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..2).prop_map(Step::Goes),
        3 => (0usize..2).prop_map(Step::Back),
        1 => (0usize..2, 0usize..3).prop_map(|(which, after)| Step::GoesAfter(which, after)),
        4 => Just(Step::Charge),
        2 => (0usize..2).prop_map(Step::Readmit),
        2 => Just(Step::Crash),
        1 => Just(Step::Rollback),
    ]
}

/// What was answered stays, whatever goes; and the database of the beginning is never served again.
async fn play(steps: Vec<Step>) {
    let mut scene = Scene::new().await;
    scene.rig.crash().await;
    let first = scene.rig.database();
    scene.rig.try_serve(Script::default()).await.unwrap();
    let answered = Mutex::new(0);
    let check = |durable: u64| {
        let answered = *answered.lock().unwrap();
        assert!(durable >= answered, "{durable} of {answered}");
    };
    for step in steps {
        match step {
            Step::Goes(which) => scene.tokens[which].goes(),
            Step::Back(which) => scene.tokens[which].comes_back(),
            Step::GoesAfter(which, after) => scene.tokens[which].goes_after(after),
            Step::Charge => {
                if let Ok(number) = scene.charge().await {
                    check(number);
                    *answered.lock().unwrap() = number;
                }
            }
            Step::Readmit(which) => {
                let ledger = scene.rig.ledger().clone();
                let member = scene.member(["A", "B"][which]);
                let _ = ledger.readmit(member).await;
            }
            Step::Crash | Step::Rollback => {
                scene.rig.crash().await;
                if matches!(step, Step::Rollback) {
                    let newest = scene.rig.database();
                    scene.rig.put_database(&first);
                    assert!(scene.rig.try_serve(Script::default()).await.is_err());
                    scene.rig.put_database(&newest);
                }
                // With both there it always starts.
                scene.tokens.iter().for_each(Soft::comes_back);
                scene.rig.try_serve(Script::default()).await.unwrap();
                check(scene.rig.durable(scene.rig.accounts[0]).await);
            }
        }
    }
    scene.rig.crash().await;
    scene.tokens.iter().for_each(Soft::comes_back);
    scene.rig.try_serve(Script::default()).await.unwrap();
    check(scene.rig.durable(scene.rig.accounts[0]).await);
    scene.rig.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_was_answered_stays_whichever_token_goes(steps in prop::collection::vec(step(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
