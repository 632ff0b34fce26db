//! What grows in the database and goes again while it serves: tiles of the log and spare pages, across kills; proofs and
//! the verification of the whole hold at each moment. docs/LOAD.md.

use std::time::{Duration, Instant};

use custodyd_tests::app::{Database, said};
use custodyd_tests::{Device, Setup, TestApp};
use serde_json::json;

const TILES: &str = "log_tiles WHERE level = 0";

async fn number(app: &TestApp, sql: &str) -> i64 {
    app.admin().await.count(sql).await
}

/// Stops, or was killed: the whole database against the token.
fn verified(app: &TestApp) {
    let output = app.command("ledger verify --open").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Entries of the log, by sign-ins of one device, so many at once.
async fn grow(device: &Device, entries: usize) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let mut own = device.clone();
        own.token = None;
        running.spawn(async move {
            for _ in 0..entries / 24 {
                // Refused while the daemon is killed; what was not answered may be there or not.
                let body = json!({"account": own.account});
                let call = own.prepare("POST", "/v1/apps/{app}/sessions/device", Some(body));
                if own.attempt(&call).await.is_none() {
                    return;
                }
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// Tiles of leaves come and go with the log; a daemon that is killed while they do goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_tiles_go_while_it_serves_and_the_log_is_proven_as_before() {
    let config = custodyd_tests::log::section();
    let mut app = TestApp::with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut most = 0;
    for kill in 0..4 {
        let growing = grow(&device, 900);
        if kill == 3 {
            growing.await;
            break;
        }
        // In the middle of it.
        let _ = tokio::time::timeout(Duration::from_millis(1500), growing).await;
        most = most.max(number(&app, TILES).await);
        app.kill();
        app.launch().await;
    }
    while number(&app, "log_entries").await < 12 * 256 {
        grow(&device, 480).await;
    }
    assert_eq!(number(&app, TILES).await, 8, "of twelve");
    assert!(most <= 8, "{most}");
    // The oldest events, whose tile is gone, are proven.
    let jwks = device.call("GET", "/.well-known/jwks.json", None).await;
    let verifier = custodyd_tests::log::Verifier::new(&jwks.expect(200).body);
    device.try_device(&[]).await.expect(201);
    let mut query = String::new();
    let oldest = loop {
        let path = format!("/v1/account/events{query}");
        let page = device.call("GET", &path, None).await.expect(200).body;
        verifier.events(&page).unwrap();
        match page["next"].as_str() {
            Some(next) => query = format!("?from={next}"),
            None => break page,
        }
    };
    let events = oldest["events"].as_array().unwrap();
    let first = events.last().unwrap();
    assert!(first["log"]["index"].as_u64().unwrap() < 256, "{first}");
    assert!(app.stop(), "{}", app.log());
    verified(&app);
}

/// Pages of a file, and those that hold nothing.
async fn pages(app: &TestApp) -> (i64, i64) {
    let mut admin = app.admin().await;
    let all = admin
        .number("SELECT page_count FROM pragma_page_count")
        .await;
    let spare = "SELECT freelist_count FROM pragma_freelist_count";
    (all, admin.number(spare).await)
}

/// Many accounts go at once: the file gets shorter while it serves, also where the daemon is killed in the middle of it,
/// and holds what it held.
#[tokio::test]
async fn a_file_whose_accounts_went_gets_shorter_across_kills() {
    let policy = "[secrets]\nmax_bytes = 12288\n";
    let mut app = TestApp::with(Setup {
        database: Database::Sqlite,
        ..Setup::notes(policy)
    })
    .await;
    let mut stays = app.device("notes");
    stays.enrol().await;
    stays.back_up("device-secret", b"stays").await.expect(200);
    let mut leaving = Vec::new();
    for _ in 0..60 {
        let mut device = app.device("notes");
        device.http = stays.http.clone();
        device.enrol().await;
        for name in ["one", "two"] {
            device.back_up(name, &[7; 12_000]).await.expect(200);
        }
        leaving.push(device);
    }
    for device in &mut leaving {
        let body = json!({"confirm": device.account});
        device
            .call("DELETE", "/v1/account", Some(body))
            .await
            .expect(204);
    }
    // A restart looks at once.
    let (before, spare) = pages(&app).await;
    assert!(spare > 300, "{spare} of {before}");
    let (mut kills, until) = (0, Instant::now() + Duration::from_secs(60));
    app.restart().await;
    loop {
        let (now, spare) = pages(&app).await;
        if spare < 64 || spare < now / 8 {
            break;
        }
        assert!(
            Instant::now() < until,
            "{spare} of {now} pages hold nothing"
        );
        if kills < 3 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            app.kill();
            verified(&app);
            kills += 1;
            app.launch().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (after, _) = pages(&app).await;
    assert!(after < before, "{after} of {before}");
    let secret = stays.recover("device-secret").await;
    // Its session may be older than the kill; the device is not.
    if secret.status != 200 {
        stays.try_device(&[]).await.expect(201);
    }
    assert!(app.stop(), "{}", app.log());
    verified(&app);
}
