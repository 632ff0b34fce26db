//! The one token that has heard of the rotation is kept away while a daemon starts on a head that leaves it out.

use std::time::Duration;

use super::*;

/// A realm of two tokens, of which B was given up before the rotation. The head that the database shows is by who knows the
/// older key, upon the newest there is, and names B alone.
async fn left_out() -> Scene {
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
    scene.charge().await.unwrap();
    scene.rig.crash().await;
    let forger = Forger::of(&scene.rig).await;
    forger
        .writes(|head| head.state.tokens = vec!["B".into()])
        .await;
    forger.goes().await;
    scene
}

/// A process that reaches no more than these, and A by its name once it is back.
async fn starts_without_a(scene: &mut Scene) {
    scene.tokens[0].goes();
    scene.serve_upon_both();
    // Nobody can tell this from a loss for good.
    scene.restart().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["B"]);
    assert!(a(scene).is_unheard());
}

fn a(scene: &Scene) -> Arc<custodyd_hsm::Member> {
    Arc::clone(scene.rig.pool().set().unwrap().called("a").unwrap())
}

async fn comes_back(scene: &Scene) {
    scene.tokens[0].comes_back();
    let a = a(scene);
    let until = Instant::now() + Duration::from_secs(10);
    while !a.is_open() && Instant::now() < until {
        a.open_by_and_by();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn says_which(told: LedgerError) {
    let why = told.to_string();
    assert!(
        why.contains("custodyd-mac-v2") && why.contains("the token a"),
        "{why}"
    );
}

#[tokio::test]
async fn what_it_knows_ends_the_daemon_once_it_is_back() {
    for defended in [true, false] {
        let mut scene = left_out().await;
        scene.rig.weakness.older_mac_keys = !defended;
        starts_without_a(&mut scene).await;
        // Away, it stops nobody.
        scene.rig.ledger().hear_the_unheard().await.unwrap();
        scene.charge().await.unwrap();
        comes_back(&scene).await;
        let heard = scene.rig.ledger().hear_the_unheard().await;
        let charged = scene.charge().await;
        match defended {
            true => {
                says_which(heard.unwrap_err());
                assert!(matches!(charged, Err(LedgerError::Stopped)), "{charged:?}");
                says_which(scene.restart().await.unwrap_err());
            }
            // The control: nobody asks, and it is served on.
            false => {
                heard.unwrap();
                charged.unwrap();
            }
        }
    }
}

/// The forged head's log names what A has anchored as its past: by that alone it would be taken in, and what it knows overwritten.
#[tokio::test]
async fn it_is_not_taken_in_before_it_was_asked() {
    for defended in [true, false] {
        let mut scene = left_out().await;
        scene.rig.weakness.older_mac_keys = !defended;
        starts_without_a(&mut scene).await;
        comes_back(&scene).await;
        let ledger = scene.rig.ledger().clone();
        let taken_in = ledger.readmit(a(&scene)).await;
        match defended {
            true => {
                says_which(taken_in.unwrap_err());
                assert!(matches!(scene.charge().await, Err(LedgerError::Stopped)));
            }
            // The control.
            false => {
                taken_in.unwrap();
                assert_eq!(ledger.tokens(), ["B", "A"]);
            }
        }
    }
}

/// One that was given up, and heard of no rotation, is heard once and then let be; one that is given up later was heard all the while.
#[tokio::test]
async fn one_that_knows_nothing_newer_stops_nobody() {
    let mut scene = Scene::new().await;
    scene.tokens[0].goes();
    scene.charge().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["B"]);
    assert!(!a(&scene).is_unheard());
    starts_without_a(&mut scene).await;
    comes_back(&scene).await;
    scene.rig.ledger().hear_the_unheard().await.unwrap();
    assert!(!a(&scene).is_unheard());
    scene.rig.ledger().readmit(a(&scene)).await.unwrap();
    scene.charge().await.unwrap();
    assert_eq!(scene.rig.ledger().tokens(), ["B", "A"]);
}
