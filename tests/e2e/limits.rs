//! What strangers may do, and what they learn: deadlines, sizes, rates, slow mode.

use std::time::{Duration, Instant};

use custodyd_tests::app::LIMITS;
use custodyd_tests::{Answer, Device, Setup, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_millis(300);

/// Limits out of the way, but for the given lines, which replace those of the same key.
fn limits(lines: &[&str]) -> Setup {
    let key = |line: &str| line.split(' ').next().unwrap().to_owned();
    let kept = LIMITS
        .lines()
        .filter(|line| !lines.iter().any(|other| key(other) == key(line)));
    Setup {
        limits: kept
            .chain(lines.iter().copied())
            .collect::<Vec<_>>()
            .join("\n"),
        ..Setup::default()
    }
}

async fn with_pin(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device.token = None;
    device
}

async fn timed(device: &mut Device, path: &str, body: Value) -> (Answer, Duration) {
    let began = Instant::now();
    let answer = device.call("POST", path, Some(body)).await;
    (answer, began.elapsed())
}

/// Each route that takes an account, asked by a stranger for one that exists and one that does not.
#[tokio::test]
async fn strangers_learn_nothing_from_time_size_or_content() {
    let app = TestApp::with(limits(&["stranger_deadline = \"300ms\""])).await;
    let owner = with_pin(&app).await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for (path, more) in [
        ("/v1/apps/{app}/sessions/pin", json!({"pin": "830517"})),
        ("/v1/apps/{app}/sessions/device", json!({})),
        ("/v1/apps/{app}/sessions/passkey/options", json!({})),
    ] {
        let mut seen = Vec::new();
        for account in [owner.account.as_str(), unknown] {
            let mut stranger = app.device("notes");
            stranger.meet().await;
            let mut body = more.clone();
            body["account"] = json!(account);
            let (answer, took) = timed(&mut stranger, path, body).await;
            assert!(took >= DEADLINE, "{path}: {took:?}");
            let mut content = answer.body.clone();
            // Random by their nature; their lengths are compared with the whole.
            for random in ["ceremony", "publicKey"] {
                if content[random].is_string() || content[random].is_object() {
                    content[random] = json!(content[random].to_string().len());
                }
            }
            seen.push((
                answer.status,
                answer.header("content-length").to_owned(),
                content,
            ));
        }
        assert!(!seen[0].1.is_empty(), "{path}");
        assert_eq!(seen[0], seen[1], "{path}");
    }
}

#[tokio::test]
async fn a_new_devices_success_is_held_as_well_and_a_bound_devices_answers_are_not() {
    let app = TestApp::with(limits(&["stranger_deadline = \"2s\""])).await;
    let deadline = Duration::from_secs(2);
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    // Each by itself, and far from the deadline: a busy machine is not taken for a held answer.
    let mut longest = Duration::ZERO;
    for step in 0..4 {
        let began = Instant::now();
        match step {
            0 => device.try_pin("830518", &[]).await.refused("401 pin-wrong"),
            1 => drop(device.try_pin("830517", &[]).await.expect(201)),
            2 => drop(device.try_device(&[]).await.expect(201)),
            _ => drop(
                device
                    .try_passkey(&mut authenticator, json!({}))
                    .await
                    .expect(201),
            ),
        }
        longest = longest.max(began.elapsed());
    }
    assert!(longest < deadline, "an answer was held: {longest:?}");

    let mut new = app.device("notes");
    new.account = device.account.clone();
    let began = Instant::now();
    new.try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    assert!(began.elapsed() >= deadline, "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_before_a_proof_is_looked_at() {
    let app = TestApp::with(limits(&["address_per_second = 1", "address_burst = 10"])).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut call = device.prepare("POST", "/v1/apps/{app}/sessions/device", Some(json!({})));
    call.proof = Some("not a proof".into());
    call.headers = vec![("Origin".into(), "https://notes.example.com".into())];
    let mut refused = device.send(&call).await;
    for _ in 0..20 {
        if refused.status == 429 {
            break;
        }
        refused.refused("401 dpop-invalid");
        refused = device.send(&call).await;
    }
    refused.refused("429 rate-limited");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(
        refused.header("access-control-allow-origin"),
        "https://notes.example.com"
    );
    assert!(
        refused
            .header("access-control-expose-headers")
            .contains("retry-after")
    );
    // A session is not asked for anything at this door.
    device.call("GET", "/v1/account", None).await.expect(200);
    let (_, metrics) = app.operator("/metrics").await;
    assert!(
        metrics.contains("custodyd_rate_limited_total{by=\"address\"}"),
        "{metrics}"
    );
    // And it is served again after that wait.
    tokio::time::sleep(Duration::from_secs(wait)).await;
    device.send(&call).await.refused("401 dpop-invalid");
}

#[tokio::test]
async fn one_apps_flood_is_not_the_other_apps() {
    let app = TestApp::with(limits(&["app_per_second = 1", "app_burst = 10"])).await;
    let mut notes = app.device("notes");
    let call = notes.prepare("POST", "/v1/apps/{app}/sessions/device", Some(json!({})));
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(notes.send(&call).await.status);
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    app.device("wallet").enrol().await;
}

#[tokio::test]
async fn many_wrong_guesses_slow_strangers_down_and_no_bound_device() {
    let app = TestApp::with(limits(&[
        "stranger_deadline = \"200ms\"",
        "slow_failures_per_minute = 10",
        "slow_factor = 10",
        "address_per_second = 1000000",
        "address_burst = 1000",
    ]))
    .await;
    let mut owner = with_pin(&app).await;
    let mut stranger = app.device("notes");
    stranger.meet().await;
    let path = "/v1/apps/{app}/sessions/pin";
    let slow = Duration::from_secs(2);
    let body = json!({"account": owner.account, "pin": "000000"});
    let (answer, took) = timed(&mut stranger, path, body.clone()).await;
    answer.refused("401 authentication-failed");
    assert!(took < slow, "{took:?}");
    for _ in 0..10 {
        timed(&mut stranger, path, body.clone()).await;
    }
    let (_, took) = timed(&mut stranger, path, body).await;
    assert!(took >= slow, "{took:?}");
    let (_, metrics) = app.operator("/metrics").await;
    assert!(metrics.contains("custodyd_slow_mode 1"), "{metrics}");
    assert!(
        app.log().contains("strangers are slowed down"),
        "{}",
        app.log()
    );
    let began = Instant::now();
    owner.try_pin("830517", &[]).await.expect(201);
    assert!(began.elapsed() < slow, "{:?}", began.elapsed());
}

#[tokio::test]
async fn in_slow_mode_one_address_may_try_less() {
    let app = TestApp::with(limits(&[
        "stranger_deadline = \"10ms\"",
        "slow_failures_per_minute = 5",
        "slow_factor = 10",
        "address_per_second = 1",
        "address_burst = 100",
    ]))
    .await;
    let mut owner = with_pin(&app).await;
    let mut stranger = app.device("notes");
    stranger.meet().await;
    let body = json!({"account": owner.account, "pin": "000000"});
    let mut refusals = Vec::new();
    for _ in 0..20 {
        let answer = stranger
            .call("POST", "/v1/apps/{app}/sessions/pin", Some(body.clone()))
            .await;
        refusals.push(answer.refusal());
    }
    assert_eq!(refusals[0], "401 authentication-failed");
    assert_eq!(refusals[19], "429 rate-limited", "{refusals:?}");
    owner.try_pin("830517", &[]).await.expect(201);
}

/// Nobody leaves a row without an account of their own. 5,000 here, because a debug build on a
/// busy machine takes two minutes for 20,000; it holds for any number, since no path of a
/// stranger commits.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_requests_of_strangers_leave_no_row() {
    const REQUESTS: usize = 5_000;
    const AT_ONCE: usize = 64;
    let app = TestApp::with(limits(&["stranger_deadline = \"0s\""])).await;
    let owner = with_pin(&app).await;
    let before = rows(&app).await;
    let mut met = app.device("notes");
    met.meet().await;
    let mut running = tokio::task::JoinSet::new();
    for worker in 0..AT_ONCE {
        let mut stranger = app.device("notes");
        // One connection for all: HTTP/2 streams.
        stranger.http = met.http.clone();
        stranger.nonce = met.nonce.clone();
        let account = match worker % 2 {
            0 => owner.account.clone(),
            _ => "00000000-0000-4000-8000-000000000000".into(),
        };
        running.spawn(async move {
            let body = json!({"account": account, "pin": "000000"});
            let call = stranger.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
            let url = format!("{}{}", stranger.url, call.path);
            for round in 0..REQUESTS / AT_ONCE {
                // Some pay for a signature; the others show what costs nothing.
                if round % 16 == 0 {
                    assert_eq!(stranger.run(&call).await.status, 401);
                    continue;
                }
                let junk = stranger.http.post(&url).header("DPoP", "not a proof");
                let body = call.body.clone().unwrap();
                assert_eq!(junk.body(body).send().await.unwrap().status(), 401);
            }
        });
    }
    running.join_all().await;
    assert_eq!(rows(&app).await, before);
}

async fn rows(app: &TestApp) -> Vec<i64> {
    let mut admin = app.admin().await;
    let mut counts = Vec::new();
    for table in ["records", "bucket_members", "log_entries", "log_bodies"] {
        counts.push(admin.count(table).await);
    }
    counts
}
