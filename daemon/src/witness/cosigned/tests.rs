//! The quorum: how many, how long ago, on which checkpoint; and the file that is not trusted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::super::disputes::KEPT;
use super::super::note::tests::{LOG, TEXT, cosign, key, signed_by_a_log, witness};
use super::*;

/// Witnesses `w1`, `w2`, ..., that are asked each minute and missed after ten.
fn config(quorum: usize, known: u8) -> config::Witnesses {
    let known = (1..=known).map(|seed| config::Witness {
        name: format!("w{seed}"),
        url: String::new(),
        key: key(&format!("w{seed}.example"), &witness(seed)),
    });
    config::Witnesses {
        quorum,
        period: Duration::from_secs(60),
        alert_after: Duration::from_secs(600),
        ca_file: None,
        courier: None,
        known: known.collect(),
    }
}

fn cosigned(quorum: usize) -> Cosigned {
    Cosigned::open(&config(quorum, 0), PathBuf::from("/nowhere"), "o", &[])
}

/// A life that begins with what was cosigned so many seconds ago by each witness; and whether it misses a quorum at
/// its beginning, and so many seconds later.
fn next_life(ago: &[i64], later: u64) -> (bool, bool) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kept");
    let (mut note, log) = signed_by_a_log();
    for (seed, ago) in (1..).zip(ago) {
        let time = unix_now().as_secs().checked_add_signed(-ago).unwrap();
        note.push_str(&cosign(
            &format!("w{seed}.example"),
            &witness(seed),
            time,
            TEXT,
        ));
    }
    std::fs::write(&file, note).unwrap();
    let cosigned = Cosigned::open(&config(2, 3), file, LOG, &[log]);
    assert!(cosigned.note().is_some());
    let begun = cosigned.lock().had;
    let at_once = cosigned.look(begun);
    (at_once, cosigned.look(begun + Duration::from_secs(later)))
}

#[test]
fn a_restart_does_not_begin_the_wait_for_a_quorum_anew() {
    // Missed already before: the witnesses are asked once, and then it is said.
    assert_eq!(next_life(&[3600, 3600], 60), (false, false));
    assert_eq!(next_life(&[3600, 3600], 61), (false, true));
    // The rest of the ten minutes.
    assert_eq!(next_life(&[400, 400], 190), (false, false));
    assert_eq!(next_life(&[400, 400], 205), (false, true));
    // As old as the second newest, however wrong the clock of one is.
    assert_eq!(next_life(&[-500_000, 3600, 400], 190), (false, false));
    assert_eq!(next_life(&[-500_000, 3600, 400], 205), (false, true));
    // A clock of this host that is behind all of theirs: as if it had begun now.
    assert_eq!(next_life(&[-5000, -5000], 600), (false, false));
    assert_eq!(next_life(&[-5000, -5000], 601), (false, true));
}

#[test]
fn the_first_quorum_of_a_life_ends_what_was_counted_before() {
    let cosigned = cosigned(1);
    cosigned.lock().before = Duration::from_secs(3600);
    let begun = cosigned.lock().had;
    let at = |seconds| begun + Duration::from_secs(seconds);
    assert!(cosigned.look(at(61)));
    assert!(cosigned.count("a", 5, at(62)));
    assert!(!cosigned.look(at(662)));
    assert!(cosigned.look(at(663)));
}

#[tokio::test]
async fn a_dispute_stands_until_the_witness_cosigns_whatever_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Disputes::open(&config(2, 3), dir.path().join("disputed"));
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = || {
        let life = metrics::with_local_recorder(&recorder, open);
        let lines = recorder.handle().render();
        let disputed = |name: &str| {
            lines.contains(&format!(
                "custodyd_witness_disputed{{witness=\"{name}\"}} 1"
            ))
        };
        (life, ["w1", "w2", KEPT].map(disputed))
    };
    let (life, disputes) = shown();
    assert_eq!(disputes, [false; 3]);
    for name in ["w1", "w2", "gone", KEPT] {
        life.set(name, true).await;
    }
    life.set("w2", false).await;
    drop(life);
    let (life, disputes) = shown();
    assert_eq!(disputes, [true, false, true]);
    // Of one that is not asked any more nothing is said.
    assert!(!recorder.handle().render().contains("gone"));
    // Once it cosigns it is forgotten.
    life.set("w1", false).await;
    let left = std::fs::read_to_string(dir.path().join("disputed")).unwrap();
    assert_eq!(left.lines().collect::<Vec<_>>(), [KEPT]);
}

#[test]
fn a_quorum_is_of_one_checkpoint_and_as_old_as_its_oldest() {
    let cosigned = cosigned(2);
    let begin = cosigned.lock().had;
    let at = |seconds| begin + Duration::from_secs(seconds);
    // Two of different sizes are none.
    assert!(!cosigned.count("a", 5, at(10)));
    assert!(!cosigned.count("b", 6, at(20)));
    assert!(!cosigned.look(at(600)));
    assert!(cosigned.look(at(601)));
    // One that is late for an earlier checkpoint makes one.
    assert!(cosigned.count("b", 5, at(605)));
    assert_eq!(cosigned.lock().had, at(10));
    // The same one again does not make it newer, the other does.
    assert!(cosigned.count("b", 5, at(700)));
    assert_eq!(cosigned.lock().had, at(10));
    assert!(cosigned.look(at(701)));
    assert!(cosigned.count("a", 5, at(702)));
    assert_eq!(cosigned.lock().had, at(700));
    assert!(!cosigned.look(at(1300)));
    assert!(cosigned.look(at(1301)));
    // An older quorum does not set it back.
    assert!(cosigned.count("a", 6, at(21)));
    assert_eq!(cosigned.lock().had, at(700));
}

#[test]
fn few_rounds_are_remembered() {
    let cosigned = cosigned(2);
    let now = Instant::now();
    for size in 1..100 {
        assert!(!cosigned.count("a", size, now));
    }
    assert_eq!(cosigned.lock().rounds.len(), ROUNDS);
    assert!(!cosigned.count("b", 1, now));
    assert!(cosigned.count("b", 99, now));
}

#[tokio::test]
async fn the_file_is_replaced_as_a_whole_and_a_large_one_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("custodyd.witnessed");
    assert_eq!(read(&file), None);
    for note in ["first", "second"] {
        replace(&file, note).await.unwrap();
        assert_eq!(read(&file).as_deref(), Some(note));
    }
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1);
    std::fs::write(&file, vec![b'a'; MAX_FILE as usize + 1]).unwrap();
    assert_eq!(read(&file), None);
    std::fs::write(&file, [0xff]).unwrap();
    assert_eq!(read(&file), None);
}
