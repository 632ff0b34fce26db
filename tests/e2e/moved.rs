//! A realm that was moved to another machine, and both run: one token, two copies of the database.

use std::time::{Duration, Instant};

use custodyd_tests::app::Database;
use custodyd_tests::token::SoftToken;
use custodyd_tests::{Setup, TestApp};

fn setup() -> Setup {
    Setup {
        database: Database::Sqlite,
        ..Setup::default()
    }
}

/// A copy of the database as it is now, on the same token.
fn moved(from: &TestApp) -> TestApp {
    let to = TestApp::prepared(setup(), SoftToken::attach(from.token.dir()));
    for name in [
        "custodyd.sqlite",
        "custodyd.sqlite-wal",
        "custodyd.sqlite-shm",
    ] {
        if from.path(name).exists() {
            std::fs::copy(from.path(name), to.path(name)).unwrap();
        }
    }
    to
}

/// By a device that is new; what it is told.
async fn enrols(app: &TestApp) -> u16 {
    let mut device = app.device("notes");
    device.meet().await;
    let body =
        serde_json::json!({"app_key_proof": device.app_key_proof(), "device_name": "a device"});
    let call = device.prepare("POST", "/v1/apps/{app}/accounts", Some(body));
    device
        .attempt(&call)
        .await
        .map_or(0, |answer| answer.status)
}

/// Ends by itself; what it leaves in its log.
async fn has_stopped(app: &mut TestApp) -> String {
    let began = Instant::now();
    while app.process().is_some() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", app.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.log()
}

#[tokio::test]
async fn of_two_daemons_on_one_token_the_one_that_was_left_behind_stops() {
    let mut old = TestApp::with(setup()).await;
    // Alone it serves, and nothing is wrong with its database.
    assert_eq!(enrols(&old).await, 201);
    let mut new = moved(&old);
    new.launch().await;
    assert_eq!(enrols(&new).await, 201);
    // Nobody is told that they have an account which the other daemon does not know.
    assert_ne!(enrols(&old).await, 201);
    let log = has_stopped(&mut old).await;
    assert!(log.contains("somebody else has moved the anchor"), "{log}");
    assert_eq!(enrols(&new).await, 201);
    // Nor does it start again, upon what it has.
    assert_eq!(old.try_launch().await, Err("the daemon ended"));
    assert!(old.log().contains("it was rolled back"), "{}", old.log());
    assert_eq!(enrols(&new).await, 201);
    new.verified();
}
