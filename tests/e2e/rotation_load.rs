//! A key is rotated, the records move to it and the older one is ended, at the share that is the default, while people sign in
//! all the time: nobody is refused, and nobody waits long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use custodyd_tests::{Device, Setup, TestApp};
use tokio::task::JoinSet;

use crate::failover::{Seen, load, owner};
use crate::rotation::run;

const CLIENTS: usize = 6;
/// Accounts that move.
const MANY: usize = 600;
/// Six who wait for each other's PIN to be evaluated, by a program that is not optimised, have waited for 1.3 s here, with a machine that
/// was busy with other tests. One that is busier still must not fail for that; who waited for a whole pass would be refused after 30 s.
const LONGEST: Duration = Duration::from_secs(20);

async fn enrolled(app: &Arc<TestApp>, count: usize) {
    let mut making = JoinSet::new();
    for _ in 0..8 {
        let app = Arc::clone(app);
        making.spawn(async move {
            for _ in 0..count / 8 {
                app.device("notes").enrol().await;
            }
        });
    }
    while let Some(made) = making.join_next().await {
        made.unwrap();
    }
}

/// What clients saw while a command ran, and what it said.
async fn meanwhile(app: &Arc<TestApp>, devices: &[Device], arguments: &str) -> (Seen, String) {
    let stop = Arc::<AtomicBool>::default();
    let clients: Vec<_> = devices
        .iter()
        .map(|device| load(device.clone(), &stop))
        .collect();
    let (asked, command) = (Arc::clone(app), arguments.to_owned());
    let begun = Instant::now();
    let ran = tokio::task::spawn_blocking(move || run(&asked, &command)).await;
    let took = begun.elapsed();
    stop.store(true, Ordering::SeqCst);
    let mut all = Seen::default();
    for client in clients {
        let seen = client.await.unwrap();
        all.answers += seen.answers;
        all.others.extend(seen.others);
        all.longest = all.longest.max(seen.longest);
    }
    let (well, told) = ran.unwrap();
    assert!(well, "{arguments}: {told}");
    eprintln!(
        "{arguments}: {took:?}, {} answers, the longest {:?}",
        all.answers, all.longest
    );
    assert!(all.others.is_empty(), "{arguments}: {all:?}\n{}", app.log());
    assert!(all.longest < LONGEST, "{arguments}: {all:?}");
    (all, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_while_a_key_is_rotated_and_its_records_move() {
    let app = Arc::new(TestApp::with(Setup::notes("[enrolment]\nquota_per_hour = 100000\n")).await);
    enrolled(&app, MANY).await;
    let mut devices = Vec::new();
    for _ in 0..CLIENTS {
        devices.push(owner(&app).await);
    }
    let told = meanwhile(&app, &devices, "key rotate wrap").await.1;
    assert!(told.contains("custodyd-wrap-v2 is used"), "{told}");
    let (seen, told) = meanwhile(&app, &devices, "key rewrap").await;
    assert!(told.contains("no record is left"), "{told}");
    // Each had asked before records moved, and asked again as often as the machine lets them: on a slow one not once before it ended.
    assert!(seen.answers >= CLIENTS as u64, "{seen:?}");
    let retire = "key retire wrap-v1 --destroy --yes";
    let told = meanwhile(&app, &devices, retire).await.1;
    assert!(told.contains("is destroyed in the token"), "{told}");
    let mut app = Arc::into_inner(app).unwrap();
    app.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_while_the_mac_key_is_rotated() {
    let app = Arc::new(TestApp::with(Setup::notes("[enrolment]\nquota_per_hour = 100000\n")).await);
    enrolled(&app, 80).await;
    let mut devices = Vec::new();
    for _ in 0..CLIENTS {
        devices.push(owner(&app).await);
    }
    for version in 2..=3 {
        let told = meanwhile(&app, &devices, "key rotate mac").await.1;
        let expected = format!("custodyd-mac-v{version} is used");
        assert!(told.contains(&expected), "{told}");
    }
    // Each account is opened to be counted.
    let (seen, told) = meanwhile(&app, &devices, "key list").await;
    assert!(told.contains("86 accounts"), "{told}");
    assert!(seen.answers >= CLIENTS as u64, "{seen:?}");
    // Version 2 has made nothing that is left.
    let retire = "key retire mac-v2 --destroy --yes";
    let told = meanwhile(&app, &devices, retire).await.1;
    assert!(told.contains("is destroyed in the token"), "{told}");
    let mut app = Arc::into_inner(app).unwrap();
    app.verified();
}
