//! A host whose clock jumps: what has expired stays so, nobody who has the right time is sent away, and `/readyz` says it.

use custodyd_tests::device::now;
use custodyd_tests::shim::Clock;
use custodyd_tests::{Answer, Device, Setup, TestApp};
use serde_json::{Value, json};

const PIN: &str = "830517";
const HOUR: i64 = 3600;

async fn app() -> (TestApp, Clock) {
    Clock::of_a_daemon(Setup::notes("[[pin.rounds]]\nattempts = 20\n")).await
}

/// A read with the device's session, by a device that believes that it is so much later.
async fn read(device: &mut Device, later: i64) -> Answer {
    let mut call = device.prepare("GET", "/v1/account", None);
    call.claims = json!({"iat": now().checked_add_signed(later)});
    device.run(&call).await
}

async fn readiness(app: &TestApp) -> (u16, Value) {
    let (status, text) = app.operator("/readyz").await;
    (status, serde_json::from_str(&text).unwrap())
}

/// Ahead by an hour, and right again: what ended meanwhile has ended, and what begins does at once.
#[tokio::test]
async fn an_hour_forward_and_back_revives_no_session_and_locks_nobody_out() {
    let (mut app, clock) = app().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    read(&mut device, 0).await.expect(200);
    let session = device.token.clone();

    assert_eq!(clock.told(), 0);
    clock.is_off_by(HOUR);
    // Control: who has the right time is taken for wrong while the host has another.
    read(&mut device, 0).await.refused("401 dpop-invalid");
    read(&mut device, HOUR).await.refused("401 session-expired");
    device.token = None;
    let body = json!({"account": device.account, "pin": "111111", "release": []});
    let mut guess = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
    guess.claims = json!({"iat": now().checked_add_signed(HOUR)});
    let told = device.run(&guess).await;
    told.refused("401 pin-wrong");
    assert_eq!(told.body["attempts_left"], 19);
    assert!(clock.told() > 0);

    clock.is_off_by(0);
    for again in ["while it runs", "after a start"] {
        device.token.clone_from(&session);
        let read = read(&mut device, 0).await;
        assert_eq!(read.refusal(), "401 session-expired", "{again}");
        let told = device.try_pin("111111", &[]).await;
        told.refused("401 pin-wrong");
        let (status, said) = readiness(&app).await;
        let behind = said["clock_behind_seconds"].as_u64();
        assert!(
            status == 200 && behind.is_some_and(|behind| (3400..=3600).contains(&behind)),
            "{again}: {said}"
        );
        app.restart().await;
    }
    // Three wrong ones, and none was given back by a jump.
    let told = device.try_pin("111111", &[]).await;
    assert_eq!(told.body["attempts_left"], 16, "{}", told.body);
    device.try_pin(PIN, &[]).await.expect(201);
    read(&mut device, 0).await.expect(200);
    assert!(app.stop(), "{}", app.log());
    let verified = app.command("ledger verify --open").output().unwrap();
    assert!(verified.status.success(), "times that go back, and others");
}

/// A wait is as long as the policy says, however far the realm's time is from the host's by then.
#[tokio::test]
async fn a_wait_is_told_in_the_time_that_it_was_chosen_by() {
    let rounds = "[[pin.rounds]]\nattempts = 1\n[[pin.rounds]]\nattempts = 9\nwait = \"5m\"\n";
    let (app, clock) = Clock::of_a_daemon(Setup::notes(rounds)).await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    clock.is_off_by(HOUR);
    // Something is committed, which carries the time of that hour.
    device.token = None;
    let body = json!({"account": device.account, "pin": PIN, "release": []});
    let mut guess = device.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
    guess.claims = json!({"iat": now().checked_add_signed(HOUR)});
    device.run(&guess).await.expect(201);
    clock.is_off_by(0);
    device.try_pin("111111", &[]).await.refused("401 pin-wrong");
    let told = device.try_pin(PIN, &[]).await;
    told.refused("429 pin-wait");
    let seconds = told.body["retry_after"].as_u64().unwrap();
    assert!((240..=300).contains(&seconds), "{}", told.body);
    assert_eq!(told.header("retry-after"), seconds.to_string());
    // Control: by the host's clock it would be more than an hour.
    let until = told.body["wait_until"].as_u64().unwrap();
    assert!(until - now() > 3600, "{}", told.body);
}

/// Back by an hour, and to a time before anything that the realm has seen.
#[tokio::test]
async fn a_clock_that_is_set_back_sends_nobody_away() {
    let (mut app, clock) = app().await;
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin(PIN).await.expect(200);
    for back in [HOUR, 48 * HOUR] {
        clock.is_off_by(-back);
        read(&mut device, 0).await.expect(200);
        // Who follows the host is not told to set their clock, either.
        read(&mut device, -back).await.expect(200);
        device.try_pin(PIN, &[]).await.expect(201);
        let (status, said) = readiness(&app).await;
        let behind = said["clock_behind_seconds"].as_i64();
        assert!(
            status == 200 && behind.is_some_and(|behind| behind > back - 100),
            "{said}"
        );
        // A database's server has a clock of its own, and a start is refused that far from it (`tests/postgres/agreement.rs`).
        if app.postgres.is_some() && back > 24 * HOUR {
            clock.is_off_by(0);
        }
        app.restart().await;
        clock.is_off_by(-back);
        device.try_pin(PIN, &[]).await.expect(201);
    }
    assert!(
        app.log()
            .contains("the host's clock is behind what was committed"),
        "{}",
        app.log()
    );
    // One that was never set is none.
    clock.is_off_by(1_000_000 - i64::try_from(now()).unwrap());
    let (status, said) = readiness(&app).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.to_string().contains("never set"), "{said}");
    // Control: right again, nothing is left of it.
    clock.is_off_by(0);
    let (status, said) = readiness(&app).await;
    assert!(
        status == 200 && said.get("clock_behind_seconds").is_none(),
        "{said}"
    );
}
