//! A token that holds two anchors of one number: what two writers leave that end before either takes its own back.

use super::super::broken::Anchor;
use super::*;

/// Two histories of one state, each with its database and what the token remembered at its end.
struct Sides {
    rig: Rig,
    databases: [Kept; 2],
    anchors: [Vec<Vec<u8>>; 2],
    /// A checkpoint that was signed on each.
    notes: [String; 2],
}

/// On the first side one account was charged, on the second the other one, as often.
async fn sides() -> Sides {
    let mut rig = Rig::new().await;
    rig.stop().await;
    let (start, anchored) = (rig.database(), rig.anchors.contents());
    let (mut databases, mut anchors, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for id in rig.accounts {
        rig.put_database(&start);
        rig.anchors.put_back(&anchored);
        rig.try_serve(Script::default()).await.unwrap();
        for _ in 0..2 {
            rig.charge_only(id).await.unwrap();
        }
        notes.push(rig.ledger().checkpoint().await.unwrap().note().to_owned());
        rig.stop().await;
        databases.push(rig.database());
        anchors.push(rig.anchors.contents());
    }
    rig.anchors.put_back(&anchors.concat());
    assert_eq!(rig.anchors.contents().len(), 2);
    Sides {
        rig,
        databases: databases.try_into().unwrap(),
        anchors: anchors.try_into().unwrap(),
        notes: notes.try_into().unwrap(),
    }
}

async fn left(rig: &Rig, id: AccountId) -> (u64, u32) {
    let loaded = rig.ledger().load(&app(), id).await.unwrap().unwrap();
    assert!(loaded.account.quarantined);
    let guesses = &loaded.account.contacts.guesses;
    let standing = guesses.standing(&Rounds::default(), NOW);
    (loaded.account.session_epoch, standing.total_left)
}

#[tokio::test]
async fn approvers_decide_between_two_anchors_of_one_number() {
    for (chosen, other) in [(0, 1), (1, 0)] {
        let mut sides = sides().await;
        for database in &sides.databases {
            sides.rig.put_database(database);
            // The control: neither serves by itself.
            says(
                sides.rig.try_serve(Script::default()).await,
                "exclude each other",
            );
        }
        sides.rig.put_database(&sides.databases[chosen]);
        let made = propose(&sides.rig, &three_guesses()).await.unwrap();
        assert_eq!(made.token_remembers, None);
        let shown: Vec<bool> = made
            .token_holds
            .iter()
            .map(|claim| claim.in_database.is_some())
            .collect();
        assert_eq!(shown.iter().filter(|shown| **shown).count(), 1, "{made:?}");
        let claim = made
            .token_holds
            .iter()
            .find(|one| one.in_database.is_some());
        let (claim, adopt) = (claim.unwrap(), &made.adopt);
        assert_eq!(
            (claim.anchor.head, claim.anchor.batch),
            (adopt.head, adopt.batch)
        );
        let place = claim.in_database.as_ref().unwrap();
        assert_eq!(
            (place.log_entries, place.time),
            (adopt.log_entries, adopt.time)
        );
        assert_eq!(made.new_log_epoch, 2);
        let text = made.encode().unwrap();
        // What was signed for one side serves for no other.
        sides.rig.put_database(&sides.databases[other]);
        says(
            accept(&sides.rig, &text, &approvals(&text)).await,
            "holds other anchors",
        );
        sides.rig.put_database(&sides.databases[chosen]);
        says(
            accept(&sides.rig, &text, &approvals(&text)[..1]).await,
            "1 of 2",
        );
        assert_eq!(sides.rig.anchors.contents().len(), 2);
        accept(&sides.rig, &text, &approvals(&text)).await.unwrap();
        assert_eq!(sides.rig.anchors.contents().len(), 1);
        sides.rig.try_serve(Script::default()).await.unwrap();
        assert_eq!(sides.rig.ledger().era().log_epoch, 2);
        // Whatever was guessed on the other side, each account has what the approvers left.
        let rig = &sides.rig;
        assert_eq!(left(rig, rig.accounts[chosen]).await, (2, 3));
        assert_eq!(left(rig, rig.accounts[other]).await, (0, 3));
        sides.rig.stop().await;
        clean(&sides.rig).await;
        // The other side is none any more, with its anchor put back and without.
        let remembered = sides.rig.anchors.contents();
        for anchors in [
            remembered.clone(),
            [remembered, sides.anchors[other].clone()].concat(),
        ] {
            sides.rig.anchors.put_back(&anchors);
            sides.rig.put_database(&sides.databases[other]);
            says(sides.rig.try_serve(Script::default()).await, "a restore");
        }
    }
}

#[tokio::test]
async fn a_decision_that_was_cut_off_is_finished_by_the_same_command() {
    for cut in [Anchor::Lost, Anchor::AnswerLost] {
        let mut sides = sides().await;
        let made = propose(&sides.rig, &three_guesses()).await.unwrap();
        let text = made.encode().unwrap();
        sides.rig.anchoring(&[cut]);
        let cut_off = accept(&sides.rig, &text, &approvals(&text)).await;
        cut_off.unwrap_err();
        if cut == Anchor::Lost {
            says(
                sides.rig.try_serve(Script::default()).await,
                "exclude each other",
            );
            says(
                propose(&sides.rig, &three_guesses()).await,
                "run accept-restore",
            );
        }
        for _ in 0..2 {
            accept(&sides.rig, &text, &approvals(&text)).await.unwrap();
            assert_eq!(sides.rig.anchors.contents().len(), 1);
        }
        sides.rig.try_serve(Script::default()).await.unwrap();
        sides.rig.stop().await;
    }
}

#[tokio::test]
async fn a_statement_names_every_anchor_and_says_truly_which_the_database_has() {
    let sides = sides().await;
    let made = propose(&sides.rig, &three_guesses()).await.unwrap();
    let mut fewer = made.clone();
    fewer.token_holds.pop();
    let mut turned = made.clone();
    turned.token_holds.reverse();
    let mut silent = made.clone();
    silent
        .token_holds
        .iter_mut()
        .for_each(|claim| claim.in_database = None);
    for other in [fewer, turned, silent] {
        let text = other.encode().unwrap();
        says(
            accept(&sides.rig, &text, &approvals(&text)).await,
            "holds other anchors",
        );
    }
    // One that has come since nobody has approved to give up.
    let text = made.encode().unwrap();
    sides.rig.anchors.put_back(&sides.anchors[0]);
    says(
        accept(&sides.rig, &text, &approvals(&text)).await,
        "another batch",
    );
}

/// What was told of on one side an auditor may hold: then the other is refused.
#[tokio::test]
async fn a_checkpoint_says_which_side_was_told_of() {
    let mut sides = sides().await;
    for (chosen, other) in [(0, 1), (1, 0)] {
        sides.rig.put_database(&sides.databases[chosen]);
        let with = |note: &String| Wishes {
            checkpoints: vec![note.clone()],
            ..three_guesses()
        };
        let agrees = propose(&sides.rig, &with(&sides.notes[chosen])).await;
        assert_eq!(agrees.unwrap().token_holds.len(), 2);
        says(
            propose(&sides.rig, &with(&sides.notes[other])).await,
            "another history",
        );
    }
    sides.rig.crash().await;
}

/// The administrator keeps the approvals of such a decision, goes back to before it, and plays them once more.
async fn decision_replayed(weakness: Weakness) -> Result<Accepted, LedgerError> {
    let mut sides = sides().await;
    sides.rig.put_database(&sides.databases[0]);
    let text = restore(&sides.rig, &three_guesses()).await;
    sides.rig.try_serve(Script::default()).await.unwrap();
    sides.rig.charge_only(sides.rig.accounts[0]).await.unwrap();
    sides.rig.stop().await;
    sides.rig.put_database(&sides.databases[0]);
    sides.rig.weakness = weakness;
    accept(&sides.rig, &text, &approvals(&text)).await
}

#[tokio::test]
async fn an_approval_of_a_decision_serves_once() {
    says(
        decision_replayed(Weakness::default()).await,
        "the token remembers another batch",
    );
}

#[tokio::test]
async fn control_an_approval_that_named_no_anchors_would_serve_again() {
    let any_approval = Weakness {
        any_approval: true,
        ..Weakness::default()
    };
    decision_replayed(any_approval).await.unwrap();
}
