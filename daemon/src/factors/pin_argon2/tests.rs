//! The published vector, right and wrong PINs, bounds, capacity and cancelling.
#![allow(clippy::unwrap_used, clippy::panic)] // a test that cannot go on must stop

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use argon2::{AssociatedData, Block, ParamsBuilder};
use proptest::prelude::*;

use super::*;

fn cheap() -> PinPolicy {
    PinPolicy {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
        ..PinPolicy::default()
    }
}

fn pin(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}

fn pepper(byte: u8) -> Secret<32> {
    Secret::init(|bytes| bytes.fill(byte))
}

async fn enrolled(hasher: &PinHasher, text: &str) -> PinRecord {
    let place = hasher.reserve().unwrap();
    hasher
        .enrol(place, pin(text), pepper(1), &cheap())
        .await
        .unwrap()
}

async fn check(hasher: &PinHasher, text: &str, with: u8, record: &PinRecord) -> bool {
    let place = hasher.reserve().unwrap();
    hasher
        .evaluate(place, pin(text), pepper(with), record)
        .await
        .unwrap()
}

/// RFC 9106 section 5.3, the Argon2id test vector. Its secret is 8 bytes long
/// and it has associated data, so it goes through the same library call and the
/// same memory as ours, and not through [`Work`].
#[test]
fn published_vector() {
    let mut params = ParamsBuilder::new();
    params.m_cost(32).t_cost(3).p_cost(4).output_len(32);
    params.data(AssociatedData::new(&[4; 12]).unwrap());
    let params = params.build().unwrap();
    let argon2 =
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params.clone())
            .unwrap();
    let mut memory = Memory::default();
    // Used before and larger than needed, as a thread's memory is.
    for block in memory.blocks(100).unwrap() {
        block.as_mut().fill(0xdead_beef);
    }
    let mut tag = [0; 32];
    let blocks = memory.blocks(params.block_count()).unwrap();
    argon2
        .hash_password_into_with_memory(&[1; 32], &[2; 16], &mut tag, blocks)
        .unwrap();
    assert_eq!(
        hex::encode(tag),
        "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    );
}

/// [`Work`] is Argon2id, version 1.3, with the pepper as secret and no
/// associated data: the library's own allocation gives the same tag.
#[test]
fn work_is_the_plain_function() {
    let params = record::params(64, 2, 2).unwrap();
    let work = Work {
        pin: pin("271828"),
        pepper: pepper(7),
        salt: [9; 16],
        params: params.clone(),
    };
    let tag = work.tag(&mut Memory::default()).unwrap();
    let mut expected = [0; 32];
    Argon2::new_with_secret(&[7; 32], Algorithm::Argon2id, Version::V0x13, params)
        .unwrap()
        .hash_password_into(b"271828", &[9; 16], &mut expected)
        .unwrap();
    assert_eq!(tag.expose(), &expected);
}

#[tokio::test]
async fn only_the_right_pin_with_the_right_pepper() {
    let hasher = PinHasher::new(2, 4).unwrap();
    let record = enrolled(&hasher, "271828").await;
    assert!(check(&hasher, "271828", 1, &record).await);
    assert!(!check(&hasher, "271829", 1, &record).await);
    assert!(!check(&hasher, "271828", 2, &record).await);
    assert!(!check(&hasher, "", 1, &record).await);
    assert_eq!(hasher.taken(), 0);
}

#[tokio::test]
async fn a_record_survives_its_text_and_tells_nothing_in_debug() {
    let hasher = PinHasher::new(1, 0).unwrap();
    let record = enrolled(&hasher, "271828").await;
    let text = serde_json::to_string(&record).unwrap();
    let again: PinRecord = serde_json::from_str(&text).unwrap();
    assert!(check(&hasher, "271828", 1, &again).await);
    assert_eq!(again.device_id(), record.device_id());
    assert_eq!(record.device_id().len(), 43);
    let verifier = super::super::b64(record.verifier.expose());
    assert!(text.contains(&verifier));
    assert!(!format!("{record:?}").contains(&verifier));
}

#[tokio::test]
async fn the_same_pin_enrolled_twice_is_two_records() {
    let hasher = PinHasher::new(1, 1).unwrap();
    let (one, two) = (
        enrolled(&hasher, "271828").await,
        enrolled(&hasher, "271828").await,
    );
    assert_ne!(one.salt, two.salt);
    assert_ne!(one.device_id(), two.device_id());
}

#[tokio::test]
async fn parameters_are_bounded_before_any_memory_is_taken() {
    let hasher = PinHasher::new(1, 0).unwrap();
    let mut record = enrolled(&hasher, "271828").await;
    for (memory_kib, passes, lanes) in [
        (MAX_MEMORY_KIB + 1, 1, 1),
        (u32::MAX, 1, 1),
        (64, MAX_PASSES + 1, 1),
        (64, 1, MAX_LANES + 1),
        (64, 0, 1),
        (64, 1, 0),
        (7, 1, 1),
    ] {
        (record.memory_kib, record.passes, record.lanes) = (memory_kib, passes, lanes);
        let place = hasher.reserve().unwrap();
        let result = hasher
            .evaluate(place, pin("271828"), pepper(1), &record)
            .await;
        assert!(matches!(result, Err(PinError::Parameters { .. })));
    }
    assert_eq!(
        hasher.taken(),
        0,
        "a refused evaluation gives its place back"
    );
}

#[test]
fn capacity_is_threads_and_queue_and_no_more() {
    let hasher = PinHasher::new(1, 2).unwrap();
    let places: Vec<_> = (0..3).map(|_| hasher.reserve().unwrap()).collect();
    assert_eq!(hasher.taken(), 3);
    let busy = hasher.reserve().unwrap_err();
    assert!((1..=60).contains(&busy.retry_after.as_secs()));
    drop(places);
    drop(hasher.reserve().unwrap());
    assert_eq!(hasher.taken(), 0);
}

#[test]
fn strangers_leave_half_of_the_places_to_others() {
    let hasher = PinHasher::new(1, 4).unwrap();
    let strangers: Vec<_> = (0..3)
        .map(|_| hasher.reserve_for_stranger().unwrap())
        .collect();
    assert!(hasher.reserve_for_stranger().is_err());
    let others: Vec<_> = (0..2).map(|_| hasher.reserve().unwrap()).collect();
    assert!(hasher.reserve().is_err());
    // Whoever the places are taken by: there is no room for a stranger.
    drop(strangers);
    drop(hasher.reserve_for_stranger().unwrap());
    drop(others);
    let _full: Vec<_> = (0..3).map(|_| hasher.reserve().unwrap()).collect();
    assert!(hasher.reserve_for_stranger().is_err());
}

#[tokio::test]
async fn a_decoy_takes_a_place_and_gives_it_back() {
    let hasher = PinHasher::new(1, 0).unwrap();
    let release = occupy(&hasher);
    let place = hasher.reserve().unwrap();
    let policy = cheap();
    let mut decoy = Box::pin(hasher.decoy(place, pin("271828"), pepper(1), &policy));
    let polled = std::future::poll_fn(|context| Poll::Ready(decoy.as_mut().poll(context)));
    assert!(polled.await.is_pending());
    assert!(hasher.reserve().is_err());
    drop(release);
    decoy.await.unwrap();
    assert_eq!(hasher.taken(), 0);
}

#[test]
fn many_threads_never_take_more_places_than_there_are() {
    let hasher = PinHasher::new(1, 7).unwrap();
    let most = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let place = hasher.reserve();
                    most.fetch_max(hasher.taken(), Ordering::SeqCst);
                    drop(place);
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 8);
    assert_eq!(hasher.taken(), 0);
}

/// Blocks the only thread until the returned sender is dropped.
fn occupy(hasher: &PinHasher) -> std::sync::mpsc::Sender<()> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begun, wait) = std::sync::mpsc::channel();
    hasher.workers.submit(Box::new(move |_| {
        begun.send(()).unwrap();
        let _ = held.recv();
    }));
    wait.recv().unwrap();
    release
}

#[tokio::test]
async fn a_caller_who_left_is_not_evaluated_and_its_place_is_free() {
    let hasher = Arc::new(PinHasher::new(1, 1).unwrap());
    let record = Arc::new(enrolled(&hasher, "271828").await);
    let release = occupy(&hasher);
    let place = hasher.reserve().unwrap();
    let task = tokio::spawn({
        let (hasher, record) = (Arc::clone(&hasher), Arc::clone(&record));
        async move {
            hasher
                .evaluate(place, pin("271828"), pepper(1), &record)
                .await
        }
    });
    tokio::task::yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    drop(release);
    assert!(check(&hasher, "271828", 1, &record).await);
    assert_eq!(hasher.taken(), 0);
}

#[tokio::test]
async fn a_panic_costs_no_thread() {
    let hasher = PinHasher::new(1, 1).unwrap();
    hasher.workers.submit(Box::new(|_| panic!("a defect")));
    let record = enrolled(&hasher, "271828").await;
    assert!(check(&hasher, "271828", 1, &record).await);
}

#[tokio::test]
async fn memory_is_wiped_once_nothing_waits() {
    let hasher = PinHasher::new(1, 1).unwrap();
    enrolled(&hasher, "271828").await;
    // The answer comes before the thread finds that nothing waits, so it gets a moment.
    for _ in 0..500 {
        let (send, receive) = oneshot::channel();
        hasher.workers.submit(Box::new(move |memory| {
            let blocks = memory.blocks(64).unwrap();
            let clean = blocks
                .iter()
                .all(|block| block.as_ref().iter().all(|word| *word == 0));
            let _ = send.send(clean);
        }));
        if receive.await.unwrap() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the memory of an evaluation was never wiped");
}

/// Resident KiB of the mapping that begins at or before an address and contains it.
fn resident_kib(address: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut inside, mut resident) = (false, None);
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|word| word.split_once('-'));
        let hex = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (hex(from), hex(to))) {
            inside = (from..to).contains(&address);
        } else if let Some(kib) = line.strip_prefix("Rss:").filter(|_| inside) {
            resident = kib.trim().strip_suffix(" kB").unwrap().parse().ok();
        }
    }
    resident.unwrap()
}

#[test]
fn memory_that_nobody_needs_is_given_back_and_reads_as_zero() {
    // Large enough for a mapping of its own.
    const BLOCKS: usize = 48 * 1024;
    let mut memory = Memory::default();
    let blocks = memory.blocks(BLOCKS).unwrap();
    let address = blocks.as_ptr().addr() + 4096;
    let mut full = Block::new();
    full.as_mut().fill(u64::MAX);
    blocks.fill(full);
    assert!(
        resident_kib(address) > BLOCKS / 2,
        "what is written is there"
    );
    memory.give_back();
    assert!(resident_kib(address) < BLOCKS / 64, "and then gone");
    let blocks = memory.blocks(BLOCKS).unwrap();
    assert_eq!(blocks.as_ptr().addr() + 4096, address, "the addresses stay");
    let mut whole_pages = blocks.iter().skip(4).take(BLOCKS - 8);
    assert!(whole_pages.all(|block| block.as_ref().iter().all(|word| *word == 0)));
}

#[tokio::test]
async fn a_thread_without_work_gives_its_memory_back() {
    const BLOCKS: usize = 48 * 1024;
    let hasher = PinHasher::new(1, 1).unwrap();
    let (send, receive) = oneshot::channel();
    hasher.workers.submit(Box::new(move |memory| {
        let blocks = memory.blocks(BLOCKS).unwrap();
        let _ = send.send(blocks.as_ptr().addr() + 4096);
    }));
    let address = receive.await.unwrap();
    let given_back = async {
        while resident_kib(address) >= BLOCKS / 64 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), given_back).await;
    assert!(
        in_time.is_ok(),
        "the memory of an evaluation was never given back"
    );
}

#[tokio::test]
async fn ending_tells_those_who_wait() {
    let hasher = PinHasher::new(1, 1).unwrap();
    let record = enrolled(&hasher, "271828").await;
    let release = occupy(&hasher);
    let place = hasher.reserve().unwrap();
    let work = Work {
        pin: pin("271828"),
        pepper: pepper(1),
        salt: record.salt,
        params: record.params().unwrap(),
    };
    let mut waiting = Box::pin(hasher.run(place, work));
    // Let it hand its job in, then end the threads behind its back.
    let polled = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context)));
    assert!(polled.await.is_pending());
    hasher.workers.close_for_test();
    assert!(matches!(waiting.await, Err(PinError::Stopped)));
    drop(release);
}

proptest! {
    #[test]
    fn a_stored_record_never_panics(text in ".{0,200}") {
        let _ = serde_json::from_str::<PinRecord>(&text);
    }

    #[test]
    fn numbers_out_of_range_are_refused(memory: u32, passes: u32, lanes: u32) {
        if let Ok(params) = record::params(memory, passes, lanes) {
            prop_assert!(params.m_cost() <= MAX_MEMORY_KIB);
            prop_assert!(params.t_cost() <= MAX_PASSES && params.p_cost() <= MAX_LANES);
        }
    }
}

/// One app's PINs wait for each other, and another app's find a place and have their turn.
#[tokio::test]
async fn an_apps_flood_leaves_places_and_turns_to_another() {
    use custodyd_hsm::{AppId, Lane};
    let lane = |name| Lane::of(&AppId::parse(name).unwrap());
    let (notes, wallet) = (lane("notes"), lane("wallet"));
    let hasher = Arc::new(PinHasher::new(1, 7).unwrap());
    let release = occupy(&hasher);
    let taken = notes.during(async {
        let all = std::iter::from_fn(|| hasher.reserve().ok());
        all.collect::<Vec<_>>()
    });
    let taken = taken.await;
    assert_eq!(taken.len(), 4, "half of eight");
    let place = wallet.during(async { hasher.reserve().unwrap() }).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let evaluate = |name: &'static str, lane: Lane, place| {
        let (hasher, order) = (Arc::clone(&hasher), Arc::clone(&order));
        tokio::spawn(lane.during(async move {
            let policy = cheap();
            let decoy = hasher.decoy(place, pin("271828"), pepper(1), &policy);
            decoy.await.unwrap();
            order.lock().unwrap().push(name);
        }))
    };
    let mut tasks: Vec<_> = (taken.into_iter())
        .map(|place| evaluate("notes", notes, place))
        .collect();
    tasks.push(evaluate("wallet", wallet, place));
    tokio::task::yield_now().await;
    drop(release);
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap().clone();
    let at = order.iter().position(|name| *name == "wallet").unwrap();
    assert!(at <= 1, "{order:?}");
}
