//! Wrong guesses at PINs that no answer shows: of whoever does not finish, and of whoever came in with a code.

use std::time::{Duration, Instant};

use custodyd_tests::app::{Database, LIMITS};
use custodyd_tests::device::b64;
use custodyd_tests::opaque::LoggingIn;
use custodyd_tests::shim::Clock;
use custodyd_tests::{Setup, TestApp};
use serde_json::json;

use crate::contacts::{add, with_mail_and};
use crate::delivered_codes::{ANN, by_alias, enter, fetch, new_phone, pin_step};
use crate::opaque::{signed_in, with_pin};

const BEGUN: &str = "custodyd_slow_mode_begun_total 1";

fn tripped_by(failures: u32, policy: &str) -> Setup {
    let never = "slow_failures_per_minute = 1000000";
    assert!(LIMITS.contains(never));
    let limits = LIMITS.replace(never, &format!("slow_failures_per_minute = {failures}"));
    Setup {
        limits,
        ..Setup::notes(policy)
    }
}

/// Until the metrics say so.
async fn told(app: &TestApp, told: impl Fn(&str) -> bool) {
    let mut metrics = String::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        (_, metrics) = app.operator("/metrics").await;
        if told(&metrics) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{metrics}");
}

/// A spray of guesses that nobody finishes is seen all the same, once their time is over.
#[tokio::test]
async fn guesses_that_nobody_finishes_trip_the_slow_mode() {
    let more = "[pin]\nceremony = \"30s\"\nrounds = [{ attempts = 20 }]\n";
    let (app, clock) = Clock::of_a_daemon(tripped_by(5, more)).await;
    let mut device = with_pin(&app).await;
    let first = Instant::now();
    for _ in 0..8 {
        assert!(device.begin_opaque("830518").await.ended.is_none());
    }
    // One that is finished is none of them.
    signed_in(&mut device, &[]).await;
    let metric = r#"custodyd_guesses_total{factor="pin",outcome="unfinished"} 8"#;
    let all = |metrics: &str| metrics.contains(metric) && metrics.contains(BEGUN);
    let (_, metrics) = app.operator("/metrics").await;
    // On a slow machine the first ones' time is over by now.
    assert!(
        !all(&metrics) || first.elapsed() > Duration::from_secs(25),
        "{metrics}"
    );
    clock.is_off_by(31);
    told(&app, all).await;
}

/// Its charge stands, and nobody is told how it ended: to the count it was never finished.
#[tokio::test]
async fn an_end_that_could_not_be_recorded_is_none() {
    let mut setup = tripped_by(1, "[pin]\nceremony = \"60s\"\n");
    setup.database = Database::Sqlite;
    let (app, clock) = Clock::of_a_daemon(setup).await;
    let mut device = with_pin(&app).await;
    let wrong = device.begin_opaque("830518").await;
    let mut admin = app.admin().await;
    admin.run("BEGIN IMMEDIATE").await;
    let answer = device
        .finish_opaque(&wrong.started["login"], &b64(&[7; 64]), &[])
        .await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    admin.run("ROLLBACK").await;
    clock.is_off_by(61);
    let metric = r#"custodyd_guesses_total{factor="pin",outcome="unfinished"} 1"#;
    told(&app, |metrics| {
        metrics.contains(metric) && metrics.contains(BEGUN)
    })
    .await;
}

/// The same of a guess whose outcome comes with its request: that it was wrong is counted, whatever it is answered.
#[tokio::test]
async fn a_wrong_pin_that_could_not_be_recorded_is_counted() {
    let mut setup = tripped_by(1, "[pin]\nmemory_kib = 65536\npasses = 4\n");
    setup.database = Database::Sqlite;
    let app = TestApp::with(setup).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let mut admin = app.admin().await;
    let charged = admin.number("SELECT seq FROM head").await + 1;
    let locked = async {
        while admin.number("SELECT seq FROM head").await < charged {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        admin.run("BEGIN IMMEDIATE").await;
        // Long before it is answered, and also where its request comes to its time meanwhile.
        told(&app, |metrics| metrics.contains(BEGUN)).await;
    };
    let (answer, ()) = tokio::join!(device.try_pin("830518", &[]), locked);
    assert_eq!(answer.status, 503, "{}", answer.body);
    admin.run("ROLLBACK").await;
    // And once.
    let metric = r#"custodyd_guesses_total{factor="pin",outcome="wrong"} 1"#;
    told(&app, |metrics| metrics.contains(metric)).await;
}

/// Where it was recorded, its answer says once more that it was wrong.
#[tokio::test]
async fn a_wrong_pin_is_counted_once() {
    let app = TestApp::with(tripped_by(2, "")).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    for (wrong, slow) in [("830518", false), ("830519", true)] {
        device.try_pin(wrong, &[]).await.refused("401 pin-wrong");
        let (_, metrics) = app.operator("/metrics").await;
        assert_eq!(metrics.contains(BEGUN), slow, "{metrics}");
    }
}

/// The same by OPAQUE, however often its end is sent; one that is none of a guess is not counted at all.
#[tokio::test]
async fn a_wrong_pin_by_opaque_is_counted_once() {
    let app = TestApp::with(tripped_by(2, "")).await;
    let mut device = with_pin(&app).await;
    for (wrong, slow) in [("830518", false), ("830519", true)] {
        let begun = device.begin_opaque(wrong).await;
        let login = &begun.started["login"];
        let mut refused = Vec::new();
        for _ in 0..3 {
            let answer = device.finish_opaque(login, &b64(&[7; 64]), &[]).await;
            refused.push(answer.refusal());
        }
        let consumed = "401 ceremony-consumed";
        assert_eq!(refused, ["401 pin-wrong", consumed, consumed]);
        let nothing = json!(b64(&[7; 64]));
        let answer = device.finish_opaque(&nothing, &b64(&[7; 64]), &[]).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        let (_, metrics) = app.operator("/metrics").await;
        assert_eq!(metrics.contains(BEGUN), slow, "{metrics}");
    }
}

/// A stranger's guess by OPAQUE is counted as it begins, whether it can be right or not. Its end is no second one.
#[tokio::test]
async fn a_strangers_guess_by_opaque_is_counted_once() {
    let tries = "[devices]\nstranger_pin = [{ attempts = 3 }]\n";
    let app = TestApp::with(tripped_by(5, tries)).await;
    let owner = with_pin(&app).await;
    let mut stranger = app.device("notes");
    stranger.account.clone_from(&owner.account);
    stranger.meet().await;
    // The last ones are decoys.
    for tried in 0..5 {
        let (_, metrics) = app.operator("/metrics").await;
        assert!(!metrics.contains(BEGUN), "{tried}: {metrics}");
        let begun = stranger.begin_opaque("830518").await;
        let login = &begun.started["login"];
        let answer = stranger.finish_opaque(login, &b64(&[7; 64]), &[]).await;
        answer.refused("401 authentication-failed");
    }
    let (_, metrics) = app.operator("/metrics").await;
    assert!(metrics.contains(BEGUN), "{metrics}");
}

/// Whoever reads a mailbox may try PINs behind it: these are seen like those of the front door.
#[tokio::test]
async fn wrong_pins_after_a_code_trip_the_slow_mode() {
    for opaque in [false, true] {
        let (app, mail) = with_mail_and(tripped_by(3, "")).await;
        let mut owner = app.device("notes");
        owner.enrol().await;
        match opaque {
            true => drop(owner.register_pin("830517").await),
            false => drop(owner.set_pin("830517").await.expect(200)),
        }
        add(&mut owner, &mail, "contact", ANN).await;
        let mut phone = new_phone(&app);
        let code = fetch(&mut phone, &mail, by_alias()).await;
        let half = enter(&mut phone, by_alias(), &code, json!({})).await;
        assert_eq!(half.expect(201).body["session"]["scope"], "pin-only");
        for tried in 0..3 {
            let (_, metrics) = app.operator("/metrics").await;
            assert!(!metrics.contains(BEGUN), "{tried}: {metrics}");
            let answer = match opaque {
                true => {
                    let body = json!({"ke1": LoggingIn::start("830518").ke1});
                    let started = phone.call("POST", "/v1/session/opaque/start", Some(body));
                    let login = &started.await.expect(200).body["login"];
                    let body = json!({"login": login, "ke3": b64(&[7; 64])});
                    phone
                        .call("POST", "/v1/session/opaque/finish", Some(body))
                        .await
                }
                false => pin_step(&mut phone, json!({"pin": "830518"})).await,
            };
            answer.refused("401 authentication-failed");
        }
        let (_, metrics) = app.operator("/metrics").await;
        assert!(metrics.contains(BEGUN), "{metrics}");
    }
}
