//! The quorum: how many, how long ago, on which checkpoint; and the file that is not trusted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn cosigned(quorum: usize) -> Cosigned {
    let config = config::Witnesses {
        quorum,
        period: Duration::from_secs(60),
        alert_after: Duration::from_secs(600),
        ca_file: None,
        courier: None,
        known: Vec::new(),
    };
    Cosigned::open(&config, PathBuf::from("/nowhere"), "o", &[])
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
