//! Attacks between the reading of a list and the end of a commit.

use std::time::Duration;

use super::{BUDGET, Rig, Weakness, is_exhausted, is_tampered, says, strong};
use crate::ledger::LedgerError;
use crate::ledger::faults::broken::{After, Commit, Script};
use crate::ledger::faults::tables::{ALL, BODIES, DIGESTS, ENTRIES, HEAD, MEMBERS, RECORDS, TILES};

/// The list that was verified is the one that is written, so a neighbour that is put back in
/// between is not in the state.
#[tokio::test]
async fn a_neighbour_that_is_put_back_between_read_and_commit_is_not_laundered() {
    for rereads in [false, true] {
        let mut rig = Rig::new().await;
        rig.start(Weakness {
            rereads,
            ..strong()
        })
        .await
        .unwrap();
        let [own, neighbour] = rig.neighbours(1).await[0];
        for id in [own, neighbour] {
            rig.create(id).await;
        }
        rig.guess(neighbour).await.unwrap();
        let old = rig.tables().await;
        for _ in 1..BUDGET {
            rig.guess(neighbour).await.unwrap();
        }
        *rig.mirror.lock().unwrap() = rig.tables().await;
        rig.strike(After::Lists, &old, &[RECORDS, MEMBERS]);
        assert_eq!(rig.guess(own).await.unwrap(), 1);
        let answer = rig.guess(neighbour).await;
        // Control: with the list read once more, the neighbour's guesses are back for good.
        if rereads {
            assert_eq!(answer.unwrap(), 2);
            rig.start(strong()).await.unwrap();
            assert_eq!(rig.guess(neighbour).await.unwrap(), 3);
            continue;
        }
        assert!(is_tampered(&answer), "{answer:?}");
        // Its own row is all that was harmed.
        let honest = rig.mirror.lock().unwrap().clone();
        rig.put(&honest, &[RECORDS]).await;
        assert!(is_exhausted(&rig.guess(neighbour).await));
        assert_eq!(rig.guess(own).await.unwrap(), 2);
    }
}

/// What a trigger could do that nobody has seen, or an UPDATE that does nothing: the commit went
/// well, and afterwards a table is as it was before.
#[tokio::test]
async fn what_a_commit_wrote_can_not_be_reverted_behind_it() {
    let tables: [&[usize]; 8] = [
        &[RECORDS],
        &[MEMBERS],
        &[RECORDS, MEMBERS],
        &[RECORDS, MEMBERS, DIGESTS],
        &[HEAD],
        &[ENTRIES, BODIES],
        &[HEAD, ENTRIES, BODIES, TILES],
        &ALL,
    ];
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    for which in tables {
        rig.succeed(a).await.unwrap();
        *rig.mirror.lock().unwrap() = rig.tables().await;
        let before = rig.tables().await;
        rig.strike(After::Commit, &before, which);
        assert_eq!(rig.guess(a).await.unwrap(), 1);
        // Evaluated once; whatever else is answered comes from the true history.
        match rig.charged(a).await {
            Ok(charged) => assert_eq!(charged, Some(1), "{which:?}"),
            Err(error) => assert!(is_tampered(&Err::<(), _>(error)), "{which:?}"),
        }
        match rig.guess(a).await {
            Ok(second) => assert_eq!(second, 2, "{which:?}"),
            Err(LedgerError::Tampered(_) | LedgerError::Stopped | LedgerError::Store(_)) => {}
            other => panic!("{which:?}: {other:?}"),
        }
        // Control: an honest database, and all is served.
        let honest = rig.mirror.lock().unwrap().clone();
        rig.start_upon(&honest, strong()).await.unwrap();
        assert!(rig.charged(a).await.unwrap() >= Some(1), "{which:?}");
    }
}

#[tokio::test]
async fn without_the_state_tree_a_reverted_row_wins_a_guess_back() {
    let mut rig = Rig::new().await;
    let any_list = Weakness {
        any_list: true,
        ..strong()
    };
    rig.start(any_list).await.unwrap();
    let [a, _] = rig.accounts;
    let before = rig.tables().await;
    for _ in 0..2 * BUDGET {
        rig.strike(After::Commit, &before, &[RECORDS, MEMBERS]);
        assert_eq!(rig.guess(a).await.unwrap(), 1);
    }
}

/// A real trigger, made while the daemon runs: no commit of ours runs it.
#[tokio::test]
async fn a_trigger_that_reverts_a_row_never_acts() {
    let triggers = [
        "AFTER UPDATE ON records BEGIN UPDATE records SET sealed = OLD.sealed WHERE id = OLD.id; END",
        "AFTER UPDATE ON bucket_members BEGIN DELETE FROM bucket_members; END",
        "AFTER INSERT ON log_entries BEGIN DELETE FROM log_entries WHERE idx = NEW.idx; END",
        "BEFORE INSERT ON log_entries BEGIN SELECT RAISE(IGNORE); END",
    ];
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    for trigger in triggers {
        rig.succeed(a).await.unwrap();
        let mut admin = rig.admin().await;
        admin.script(&format!("CREATE TRIGGER t {trigger}")).await;
        let answer = rig.guess(a).await;
        assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
        let charged = rig.charged(a).await;
        assert!(
            charged.is_err() || charged.as_ref().unwrap() == &Some(0),
            "{charged:?}"
        );
        let started = rig.start(strong()).await;
        assert!(started.is_err(), "{trigger}");
        // Control: without it all is served.
        admin.script("DROP TRIGGER t").await;
        rig.start(strong()).await.unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 1);
    }
}

/// Rows where the next entries of the log belong: nothing is written, which is said by name, and readiness fails. Once they are
/// gone the daemon goes on, though no change came that could have found it out.
#[tokio::test]
async fn a_row_where_an_entry_of_the_log_belongs_is_named_and_stops_nothing_for_good() {
    const NOW: Duration = Duration::ZERO;
    for ahead in [0, 1] {
        let mut rig = Rig::new().await;
        rig.start(strong()).await.unwrap();
        let [a, _] = rig.accounts;
        assert_eq!(rig.guess(a).await.unwrap(), 1);
        rig.ledger().can_write().unwrap();
        // Control: without it the scrub finds nothing.
        let clean = rig.ledger().scrub(0, NOW).await.unwrap();
        assert_eq!(clean.findings.count(), 0);
        let size = rig.ledger().reader.memory().read().end.size();
        let mut admin = rig.admin().await;
        let planted = format!(
            "INSERT INTO log_entries (idx, leaf) VALUES ({}, x'00')",
            size + ahead
        );
        admin.script(&planted).await;
        let answer = rig.guess(a).await;
        assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
        let found = rig.ledger().scrub(0, NOW).await.unwrap().findings;
        assert_eq!(
            (found.count(), found.first().unwrap().table),
            (1, "log_entries")
        );
        let trouble = becomes(&rig, |written| written.is_err()).await;
        let trouble = trouble.unwrap_err().to_string();
        assert!(trouble.contains("log_entries"), "{trouble}");
        let head = rig.ledger().reader.memory().head().state.seq;
        let taken_away = format!("DELETE FROM log_entries WHERE idx >= {size}");
        admin.script(&taken_away).await;
        becomes(&rig, |written| written.is_ok()).await.unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 2);
        // By one batch about nothing, which is part of the log, before that of the guess.
        assert_eq!(rig.ledger().reader.memory().head().state.seq, head + 2);
        rig.start(strong()).await.unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 3);
    }
}

/// What readiness says once it is so; asked again and again, as a balancer does.
async fn becomes(
    rig: &Rig,
    wanted: impl Fn(&Result<(), LedgerError>) -> bool,
) -> Result<(), LedgerError> {
    for _ in 0..600 {
        let written = rig.ledger().can_write();
        if wanted(&written) {
            return written;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it stays {:?}", rig.ledger().can_write());
}

/// A database that says "committed" and forgets: the anchor does not.
#[tokio::test]
async fn a_commit_that_is_acknowledged_and_dropped_wins_nothing() {
    for lazy in [false, true] {
        let mut rig = Rig::new().await;
        rig.start(strong()).await.unwrap();
        *rig.mirror.lock().unwrap() = rig.tables().await;
        rig.start(Weakness { lazy, ..strong() }).await.unwrap();
        let [a, _] = rig.accounts;
        rig.script(Script::new(&[Commit::Dropped], &[], &[]));
        assert_eq!(rig.guess(a).await.unwrap(), 1);
        let answer = rig.charged(a).await;
        assert!(is_tampered(&answer), "{answer:?}");
        let [_, b] = rig.accounts;
        let answer = rig.guess(b).await;
        assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
        let honest = rig.mirror.lock().unwrap().clone();
        let started = rig.start(Weakness { lazy, ..strong() }).await;
        // Control: with the anchor left for later, the guess was never made.
        if lazy {
            started.unwrap();
            assert_eq!(rig.guess(a).await.unwrap(), 1);
            continue;
        }
        says(&started, "it was rolled back");
        rig.start_upon(&honest, strong()).await.unwrap();
        assert_eq!(rig.guess(a).await.unwrap(), 2);
    }
}

/// A commit whose outcome is not known is looked up: taken for done, it would be told and gone.
#[tokio::test]
async fn a_commit_of_unknown_outcome_is_not_taken_for_done() {
    for unknown_is_done in [false, true] {
        let mut rig = Rig::new().await;
        rig.start(Weakness {
            unknown_is_done,
            ..strong()
        })
        .await
        .unwrap();
        let [a, _] = rig.accounts;
        rig.script(Script::new(&[Commit::Lost; 8], &[], &[]));
        let answer = rig.guess(a).await;
        rig.script(Script::default());
        let started = rig.start(strong()).await;
        if unknown_is_done {
            assert_eq!(answer.unwrap(), 1);
            says(&started, "it was rolled back");
        } else {
            assert!(matches!(answer, Err(LedgerError::Stopped)), "{answer:?}");
            started.unwrap();
            assert_eq!(rig.guess(a).await.unwrap(), 1);
        }
    }
}

/// The log grows from memory: a tile that is replaced before the append is written over or
/// missed, never built upon.
#[tokio::test]
async fn a_tile_that_is_replaced_before_the_append_spoils_no_root() {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    for _ in 0..130 {
        rig.succeed(a).await.unwrap();
    }
    assert_eq!(rig.number("SELECT count(*) FROM log_tiles").await, 2);
    let mut admin = rig.admin().await;
    let spoil = "UPDATE log_tiles SET data = zeroblob(length(data))";
    admin.script(spoil).await;
    assert_eq!(rig.guess(a).await.unwrap(), 1);
    admin.script(spoil).await;
    // At the start the tiles are built anew from the entries.
    rig.start(strong()).await.unwrap();
    let zeros = "SELECT count(*) FROM log_tiles WHERE data = zeroblob(length(data))";
    assert_eq!(rig.number(zeros).await, 0);
    assert_eq!(rig.guess(a).await.unwrap(), 2);
    rig.start(strong()).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 3);
}

/// Room runs out at each write: a start, a guess, an outcome; nothing is told that is not there.
#[tokio::test]
async fn a_full_disk_at_any_write_loses_nothing_that_was_told() {
    let mut rig = Rig::new().await;
    rig.start(strong()).await.unwrap();
    let [a, _] = rig.accounts;
    let full = || Script::new(&[Commit::Full; 5], &[], &[]);
    rig.script(full());
    let answer = rig.guess(a).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert_eq!(rig.guess(a).await.unwrap(), 1);
    rig.script(full());
    let answer = rig.succeed(a).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert_eq!(rig.charged(a).await.unwrap(), Some(1));
    rig.opening = full();
    let started = rig.start(strong()).await;
    assert!(matches!(started, Err(LedgerError::Store(_))), "{started:?}");
    rig.start(strong()).await.unwrap();
    assert_eq!(rig.guess(a).await.unwrap(), 2);
}
