//! From one version to the next, node by node and under load: what the newer one adds to the tables, it adds beside
//! nodes that write; and where it says that older ones may not go on, they say so.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use custodyd_tests::app::{DATABASE, said};
use custodyd_tests::postgres::USER;
use custodyd_tests::{Device, TestApp};

use super::nodes::{at, budget, first, verified};
use super::{PIN, WRONG, again, enrolled};

/// Where requests go, as something in front of the nodes knows it.
#[derive(Debug)]
struct Front {
    urls: Mutex<Vec<Option<String>>>,
    /// Requests on their way, and those that were answered as they should be, by node.
    on_the_way: [AtomicUsize; 3],
    answered: [AtomicUsize; 3],
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Front {
    fn of(nodes: &[TestApp]) -> Arc<Self> {
        Arc::new(Self {
            urls: Mutex::new(nodes.iter().map(|node| Some(node.url.clone())).collect()),
            on_the_way: Default::default(),
            answered: Default::default(),
            failed: Mutex::default(),
            stop: AtomicBool::new(false),
        })
    }

    /// One that is up, and counts what is sent there.
    fn choose(&self, turn: usize) -> (usize, String) {
        let urls = self.urls.lock().unwrap();
        let mut from = (0..urls.len()).map(|step| (turn + step) % urls.len());
        let chosen = from.find_map(|node| Some((node, urls[node].clone()?)));
        let (node, url) = chosen.unwrap();
        self.on_the_way[node].fetch_add(1, Ordering::SeqCst);
        (node, url)
    }

    async fn takes_out(&self, node: usize) {
        self.urls.lock().unwrap()[node] = None;
        while self.on_the_way[node].load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn takes_in(&self, node: usize, url: &str) {
        self.urls.lock().unwrap()[node] = Some(url.into());
    }

    /// Recoveries and wrong guesses, at one node after the other.
    async fn load(self: Arc<Self>, mut device: Device, of: usize) -> Device {
        let mut turn = of;
        while !self.stop.load(Ordering::SeqCst) {
            turn += 1;
            let (node, url) = self.choose(turn);
            if device.url != url {
                device.url = url;
                device.nonce.clear();
            }
            let (pin, wanted) = match turn % 4 {
                0 => (WRONG, 401),
                _ => (PIN, 201),
            };
            let answer = device.try_pin(pin, &["device-secret"]).await;
            self.on_the_way[node].fetch_sub(1, Ordering::SeqCst);
            match answer.status == wanted {
                true => _ = self.answered[node].fetch_add(1, Ordering::SeqCst),
                false => self
                    .failed
                    .lock()
                    .unwrap()
                    .push(format!("{node}: {answer:?}")),
            }
        }
        device
    }

    /// Every node that is up serves, from now on.
    async fn everyone_serves(&self) {
        let up: Vec<usize> = {
            let urls = self.urls.lock().unwrap();
            (0..urls.len())
                .filter(|node| urls[*node].is_some())
                .collect()
        };
        let count = |node: &usize| self.answered[*node].load(Ordering::SeqCst);
        let before: Vec<usize> = up.iter().map(count).collect();
        for _ in 0..2000 {
            if up
                .iter()
                .map(count)
                .zip(&before)
                .all(|(now, then)| now > then + 3)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{self:?}");
    }
}

fn tables(app: &TestApp) -> String {
    let sql = "SELECT string_agg(column_name, ' ' ORDER BY table_name, ordinal_position) \
               FROM information_schema.columns WHERE table_schema = 'custodyd' AND table_name IN ('records', 'notes', 'more')";
    let shown = app.postgres.as_ref().unwrap().sql(DATABASE, sql);
    shown.trim().to_owned()
}

fn later_log(file: &std::path::Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// Statements of somebody who thinks of nobody else.
fn naively(app: &TestApp, sql: &str) -> Child {
    let server = app.postgres.as_ref().unwrap();
    server
        .program("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d"])
        .args([DATABASE, "-p", &server.port().to_string(), "-h"])
        .arg(server.folder())
        .args(["-c", sql])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Until the server answers so.
fn until_shown(app: &TestApp, sql: &str, answer: &str) {
    let server = app.postgres.as_ref().unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while server.sql(DATABASE, sql).trim() != answer {
        assert!(Instant::now() < give_up, "{sql}: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the next version alters, the other way round than a commit takes it. It is taken back if it comes to its end.
const CROSSING: &str = "BEGIN; ALTER TABLE custodyd.bucket_members ADD COLUMN hint bytea; SELECT pg_sleep(0.5); \
                        ALTER TABLE custodyd.records ADD COLUMN hint bytea; ROLLBACK";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_the_next_version_extend_the_tables_at_once_and_no_deadlock_is_met() {
    let mut one = first(budget(100)).await;
    let front = Front::of(std::slice::from_ref(&one));
    let mut load = Vec::new();
    for of in 0..3 {
        let device = enrolled(&one).await;
        load.push(tokio::spawn(Arc::clone(&front).load(device, of)));
    }
    front.everyone_serves().await;
    let deadlocks = || {
        let log = one.postgres.as_ref().unwrap().log();
        log.matches("deadlock detected").count()
    };
    // Control: the same tables, in another order and without a limit. Whoever of the two the server ends.
    for _ in 0..20 {
        let done = tokio::task::block_in_place(|| naively(&one, CROSSING).wait_with_output());
        done.unwrap();
        if deadlocks() > 0 {
            break;
        }
    }
    let before = deadlocks();
    assert!(before > 0, "nobody met");
    front.everyone_serves().await;
    // What was refused was so for that.
    front.failed.lock().unwrap().clear();
    let mut later = [(), ()].map(|()| one.another(budget(100), DATABASE));
    for node in &mut later {
        node.later = Some(1);
    }
    let [second, third] = &mut later;
    tokio::join!(second.launch(), third.launch());
    front.everyone_serves().await;
    front.stop.store(true, Ordering::SeqCst);
    let mut devices = Vec::new();
    for device in load {
        devices.push(device.await.unwrap());
    }
    assert_eq!(*front.failed.lock().unwrap(), Vec::<String>::new());
    assert_eq!(deadlocks(), before);
    assert_eq!(tables(&one), "id note id generation sealed hint");
    // One of them has made it, and the other has found it.
    let made: Vec<usize> = later
        .iter()
        .map(|node| node.log().matches("what this version adds").count())
        .collect();
    assert_eq!(made.iter().sum::<usize>(), 1, "{made:?}");
    for (device, node) in devices.iter().zip([&later[0], &later[1], &one]) {
        at(device, node)
            .try_pin(PIN, &["device-secret"])
            .await
            .expect(201);
    }
    let [second, third] = &mut later;
    verified(&mut [&mut one, second, third]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_become_the_next_version_one_by_one_under_load_and_no_request_fails() {
    let mut nodes = vec![first(budget(100)).await];
    for _ in 0..2 {
        let mut node = nodes[0].another(budget(100), DATABASE);
        node.launch().await;
        nodes.push(node);
    }
    let front = Front::of(&nodes);
    let mut load = Vec::new();
    for of in 0..4 {
        let device = enrolled(&nodes[0]).await;
        load.push(tokio::spawn(Arc::clone(&front).load(device, of)));
    }
    front.everyone_serves().await;
    assert_eq!(tables(&nodes[0]), "id generation sealed");
    // Those of the version before serve on beside the first, and the second; and the first one of them that starts again.
    for node in [0, 1, 2] {
        front.takes_out(node).await;
        assert!(nodes[node].stop(), "{}", nodes[node].log());
        if node == 1 {
            nodes[node].launch().await;
            assert!(nodes[node].stop(), "{}", nodes[node].log());
        }
        nodes[node].later = Some(1);
        nodes[node].launch().await;
        front.takes_in(node, &nodes[node].url);
        front.everyone_serves().await;
        assert_eq!(tables(&nodes[0]), "id note id generation sealed hint");
    }
    front.stop.store(true, Ordering::SeqCst);
    for (device, node) in load.into_iter().zip([0, 1, 2, 0]) {
        let device = device.await.unwrap();
        at(&device, &nodes[node])
            .try_pin(PIN, &["device-secret"])
            .await
            .expect(201);
    }
    assert_eq!(*front.failed.lock().unwrap(), Vec::<String>::new());
    let log: String = nodes.iter().map(TestApp::log).collect();
    assert_eq!(log.matches("what this version adds").count(), 1, "{log}");
    let server = nodes[0].postgres.as_ref().unwrap().log();
    assert!(!server.contains("deadlock detected"), "{server}");
    let [one, two, three] = &mut nodes[..] else {
        panic!();
    };
    // By the real one, which may.
    one.later = None;
    verified(&mut [one, two, three]);
}

#[tokio::test]
async fn a_version_that_older_ones_can_not_serve_beside_is_named_by_them() {
    let mut one = first(budget(100)).await;
    let mut other = one.another(budget(100), DATABASE);
    other.launch().await;
    let mut here = enrolled(&one).await;
    let mut there = at(&here, &other);
    // Control: they serve beside each other.
    assert_eq!(there.try_pin(WRONG, &[]).await.status, 401);
    // Two steps at once are as good as one after the other.
    assert!(other.stop(), "{}", other.log());
    other.later = Some(2);
    other.launch().await;
    there.url.clone_from(&other.url);
    there.nonce.clear();
    again(&mut there, WRONG).await.refused("401 pin-wrong");
    // Its clients are told what is wrong, and that another node serves them; its operator which version it takes.
    let session = here.token.clone();
    here.try_pin(PIN, &[]).await.refused("503 node-outgrown");
    here.token = session;
    let read = here.call("GET", "/v1/account", None).await;
    read.refused("503 node-outgrown");
    assert!(read.body["detail"].as_str().unwrap().contains("too old"));
    const WHY: &str = "the database has schema 7, which takes a custodyd of schema 7 or later; this one knows 5: install \
                       the newer version here as well";
    assert!(one.log().contains(WHY), "{}", one.log());
    let (status, text) = one.operator("/readyz").await;
    assert!(status == 503 && text.contains("newest"), "{text}");
    assert!(text.contains(WHY), "{text}");
    assert!(one.stop(), "{}", one.log());
    let start = one.command("serve").output().unwrap();
    assert!(
        !start.status.success() && said(&start).contains(WHY),
        "{start:?}"
    );
    one.later = Some(1);
    let start = one.command("serve").output().unwrap();
    let knows_6 = WHY.replace("knows 5", "knows 6");
    assert!(
        !start.status.success() && said(&start).contains(&knows_6),
        "{start:?}"
    );
    // And with that version it serves.
    one.later = Some(2);
    one.launch().await;
    here.url.clone_from(&one.url);
    here.nonce.clear();
    here.try_pin(PIN, &["device-secret"]).await.expect(201);
    verified(&mut [&mut one, &mut other]);
}

#[tokio::test]
async fn what_somebody_has_put_where_a_version_adds_is_refused_and_a_table_in_use_is_waited_for() {
    let mut one = first(budget(100)).await;
    let mut here = enrolled(&one).await;
    let mut other = one.another(budget(100), DATABASE);
    other.later = Some(1);
    let log_of_other = other.path("log");
    let mut admin = one.admin().await;
    admin
        .run("CREATE TABLE custodyd.notes (id text PRIMARY KEY)")
        .await;
    let start = other.command("serve").output().unwrap();
    let why = said(&start);
    assert!(
        !start.status.success() && why.contains("something else of its name (notes)"),
        "{why}"
    );
    admin.run("DROP TABLE custodyd.notes").await;
    assert_eq!(tables(&one), "id generation sealed");
    // A dump, or whoever else looks at a table for long: nobody who writes waits for the one that waits for it.
    admin.run("BEGIN").await;
    admin.run("SELECT count(*) FROM custodyd.records").await;
    // Control: the same without a thought for the others waits for the table, and everybody for it.
    let naive = naively(&one, "ALTER TABLE custodyd.records ADD COLUMN hint bytea");
    const WAITS: &str = "FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted AND relation = 'custodyd.records'::regclass";
    until_shown(&one, &format!("SELECT count(*) {WAITS}"), "1");
    let refused = here.try_pin(PIN, &["device-secret"]).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let server = one.postgres.as_ref().unwrap();
    server.sql(DATABASE, &format!("SELECT pg_cancel_backend(pid) {WAITS}"));
    assert!(!naive.wait_with_output().unwrap().status.success());
    again(&mut here, PIN).await.expect(201);
    let starting = tokio::spawn(async move {
        other.launch().await;
        other
    });
    // It has met the table at least once before these are asked.
    while !later_log(&log_of_other).contains("it is tried again") {
        assert!(!starting.is_finished());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..5 {
        here.try_pin(PIN, &["device-secret"]).await.expect(201);
    }
    assert!(!starting.is_finished());
    assert_eq!(tables(&one), "id generation sealed");
    admin.run("COMMIT").await;
    let mut other = starting.await.unwrap();
    assert!(other.log().contains("it is tried again"), "{}", other.log());
    at(&here, &other)
        .try_pin(PIN, &["device-secret"])
        .await
        .expect(201);
    verified(&mut [&mut one, &mut other]);
}
