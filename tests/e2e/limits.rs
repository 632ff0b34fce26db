//! What strangers may do, and what they learn: deadlines, sizes, rates, slow mode.

use std::time::{Duration, Instant};

use custodyd_tests::app::LIMITS;
use custodyd_tests::{Answer, Device, Setup, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

use crate::app_keys::{CREDENTIAL, look_up, with_backend};
use crate::opaque;

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

/// An attempt is charged with the first message of a sign-in. What a flood takes from the app and from the address, it
/// must not take from the last one, or a right PIN would count as a wrong one.
#[tokio::test]
async fn a_flood_takes_nothing_from_a_sign_in_that_was_charged() {
    for rates in [
        ["app_per_second = 1", "app_burst = 20"],
        ["address_per_second = 1", "address_burst = 20"],
    ] {
        let app = TestApp::with(limits(&rates)).await;
        let mut owner = opaque::with_pin(&app).await;
        let whole = owner.view().await["pin"]["attempts_left"].clone();
        let tried = owner.begin_opaque("830517").await;
        let mut flood = app.device("notes");
        let call = flood.prepare("POST", "/v1/apps/{app}/sessions/device", Some(json!({})));
        for _ in 0..30 {
            flood.send(&call).await;
        }
        let control = owner.try_opaque_start("830517").await;
        control.refused("429 rate-limited");
        let login = &tried.started["login"];
        let ended = owner
            .finish_opaque(login, &tried.ended.unwrap().ke3, &[])
            .await;
        ended.expect(201);
        assert_eq!(owner.view().await["pin"]["attempts_left"], whole);
    }
}

/// Where a session is wanted and none is brought that opens, the address counts as a stranger's.
#[tokio::test]
async fn what_brings_no_session_is_a_strangers_wherever_it_goes() {
    let app = TestApp::with(limits(&["address_per_second = 1", "address_burst = 20"])).await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    let mut junk = app.device("notes");
    junk.token = Some("junk".into());
    let call = junk.prepare("PUT", "/v1/account/pin", Some(json!({})));
    let mut last = String::new();
    for _ in 0..30 {
        last = junk.send(&call).await.refusal();
    }
    assert_eq!(last, "429 rate-limited");
    owner.view().await;
}

#[tokio::test]
async fn an_app_may_have_a_rate_of_its_own() {
    let app = TestApp::with(limits(&[
        "app_per_second = 1",
        "app_burst = 10",
        "[limits.apps.wallet]\nper_second = 1000\nburst = 1000",
    ]))
    .await;
    let last = async |name: &str| {
        let mut device = app.device(name);
        let call = device.prepare("POST", "/v1/apps/{app}/sessions/device", Some(json!({})));
        for _ in 0..19 {
            device.send(&call).await;
        }
        device.send(&call).await.refusal()
    };
    assert_ne!(last("wallet").await, "429 rate-limited");
    assert_eq!(last("notes").await, "429 rate-limited", "the control");
}

/// Requests of the limiter's own count: how many were refused, by which rate.
async fn refused_by(app: &TestApp, by: &str) -> u64 {
    let (_, metrics) = app.operator("/metrics").await;
    let name = format!("custodyd_rate_limited_total{{by=\"{by}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// A backend asks for all its people from one address, so it is not limited by that. Who only
/// says that they are one is; and what they are refused takes nothing from the app.
#[tokio::test]
async fn a_flood_of_look_ups_without_a_credential_is_any_strangers() {
    let rates = limits(&[
        "address_per_second = 1",
        "address_burst = 20",
        "app_per_second = 1",
        "app_burst = 60",
    ]);
    let app = TestApp::with(Setup {
        limits: rates.limits,
        ..with_backend()
    })
    .await;
    let mut device = app.device("notes");
    device.enrol().await;
    let id = device.key.thumbprint();
    let path = format!("/v1/apps/notes/bindings/{id}?account={}", device.account);
    let mut let_in = 0;
    for round in 0..90 {
        let claims = [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic x")];
        let answer = look_up(&device, &path, claims[round % claims.len()]).await;
        match answer.refusal().as_str() {
            "401 credential-invalid" => let_in += 1,
            other => assert_eq!(other, "429 rate-limited"),
        }
    }
    assert!((1..30).contains(&let_in), "{let_in}");
    assert!(refused_by(&app, "address").await >= 60);
    // Control: the backend, from the same address and past its rate, with what the app has left.
    // The scheme is written as it likes.
    for scheme in ["Bearer", "bearer"] {
        for _ in 0..13 {
            let good = format!("{scheme} {CREDENTIAL}");
            look_up(&device, &path, Some(&good)).await.expect(200);
        }
    }
    assert_eq!(refused_by(&app, "app").await, 0);
    // And its own flood is the app's.
    let good = format!("Bearer {CREDENTIAL}");
    let mut last = 200;
    for _ in 0..60 {
        last = look_up(&device, &path, Some(&good)).await.status;
    }
    assert_eq!(last, 429);
    assert!(refused_by(&app, "app").await > 0);
}

/// A session is no licence to keep the token and the committer busy, nor to make the log grow.
#[tokio::test]
async fn a_device_with_a_session_has_a_rate_of_its_own() {
    let app = TestApp::with(limits(&["device_per_second = 1", "device_burst = 30"])).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut neighbour = app.device("notes");
    neighbour.enrol().await;
    // Whoever has the token alone proves another key: that takes nothing from its owner.
    let mut thief = app.device("notes");
    thief.token.clone_from(&device.token);
    for _ in 0..40 {
        let answer = thief.call("GET", "/v1/account", None).await;
        assert!([401, 429].contains(&answer.status), "{}", answer.body);
    }
    let rows_before = rows(&app).await;
    let mut refreshed = 0;
    let refused = loop {
        let answer = device.call("POST", "/v1/session/refresh", None).await;
        if answer.status != 200 {
            break answer;
        }
        refreshed += 1;
        assert!(refreshed < 100, "no rate");
    };
    assert!(refreshed >= 29, "{refreshed}");
    refused.refused("429 rate-limited");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(rows(&app).await, rows_before, "a refresh leaves no row");
    // One rate for all that a session may ask: a burst of writes ends as well.
    let mut statuses = Vec::new();
    for call in 0..10 {
        let name = format!("secret-{call}");
        statuses.push(device.back_up(&name, b"a secret").await.status);
    }
    // Not all of them: a slow machine is served again in between.
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(refused_by(&app, "device").await >= 2);
    neighbour.call("GET", "/v1/account", None).await.expect(200);
    tokio::time::sleep(Duration::from_secs(3)).await;
    device.call("DELETE", "/v1/session", None).await.expect(204);
}

/// How many proofs are remembered, of sessions or of strangers.
async fn remembered(app: &TestApp, of: &str) -> u64 {
    let (_, metrics) = app.operator("/metrics").await;
    let name = format!("custodyd_proofs_remembered{{of=\"{of}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.trim().parse().unwrap())
}

/// What is refused takes no place among the proofs that must not come again: else one device would fill it for
/// its app, and so would whoever has a token and makes keys for it.
#[tokio::test]
async fn what_is_refused_for_its_rate_or_its_key_is_not_remembered() {
    let app = TestApp::with(limits(&["device_per_second = 1", "device_burst = 30"])).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let mut neighbour = app.device("notes");
    neighbour.enrol().await;
    let (strangers, before) = (
        remembered(&app, "strangers").await,
        remembered(&app, "sessions").await,
    );
    let mut thief = app.device("notes");
    thief.token.clone_from(&device.token);
    for _ in 0..40 {
        let answer = thief.call("GET", "/v1/account", None).await;
        answer.refused("401 session-invalid");
    }
    assert_eq!(remembered(&app, "strangers").await, strangers);
    assert_eq!(remembered(&app, "sessions").await, before);
    let (mut served, mut refused) = (0, 0);
    for _ in 0..100 {
        match device.call("GET", "/v1/account", None).await.status {
            200 => served += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused >= 20, "{refused} of {served}");
    // What is served is remembered: the count counts.
    assert_eq!(remembered(&app, "sessions").await, before + served);
    neighbour.call("GET", "/v1/account", None).await.expect(200);
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
    // The quickest of some, here and below: a busy machine is not taken for the slow mode, which would hold each.
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let (answer, took) = timed(&mut stranger, path, body.clone()).await;
        answer.refused("401 authentication-failed");
        quickest = quickest.min(took);
    }
    assert!(quickest < slow, "{quickest:?}");
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
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        owner.try_pin("830517", &[]).await.expect(201);
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < slow, "{quickest:?}");
}

/// Who does not wait for the answer has guessed all the same.
#[tokio::test]
async fn wrong_guesses_of_those_who_hang_up_count_for_slow_mode() {
    let app = TestApp::with(limits(&[
        "stranger_deadline = \"2s\"",
        "slow_failures_per_minute = 10",
        "address_per_second = 1000000",
        "address_burst = 1000",
    ]))
    .await;
    let owner = with_pin(&app).await;
    let mut stranger = app.device("notes");
    stranger.meet().await;
    let body = json!({"account": owner.account, "pin": "000000"});
    let gone = "its client went away before the answer";
    let began = Instant::now();
    // On a slow machine some of them hang up before they are heard.
    loop {
        let mut left = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let (mut stranger, body) = (stranger.clone(), body.clone());
            left.spawn(async move {
                let call = stranger.call("POST", "/v1/apps/{app}/sessions/pin", Some(body));
                tokio::time::timeout(Duration::from_secs(1), call).await
            });
        }
        for waited in left.join_all().await {
            assert!(waited.is_err(), "answered before the deadline");
        }
        let (_, metrics) = app.operator("/metrics").await;
        if metrics.contains("custodyd_slow_mode 1") && app.log().matches(gone).count() >= 10 {
            break;
        }
        let late = began.elapsed() > Duration::from_secs(40);
        assert!(!late, "{metrics}\n{}", app.log());
    }
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

/// How many requests the flood has: `CUSTODYD_FLOOD`, or 5,000, because a debug build on a busy
/// machine takes two minutes for 20,000.
fn flood() -> usize {
    match std::env::var("CUSTODYD_FLOOD") {
        Ok(count) => count.parse().expect("CUSTODYD_FLOOD: a number of requests"),
        Err(_) => 5_000,
    }
}

/// Nobody leaves a row without an account of their own; it holds for any number, since no path
/// of a stranger commits.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_requests_of_strangers_leave_no_row() {
    const AT_ONCE: usize = 64;
    let requests = flood();
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
        // Together exactly as many as were asked for.
        let rounds = (requests + worker) / AT_ONCE;
        let account = match worker % 2 {
            0 => owner.account.clone(),
            _ => "00000000-0000-4000-8000-000000000000".into(),
        };
        running.spawn(async move {
            let body = json!({"account": account, "pin": "000000"});
            let call = stranger.prepare("POST", "/v1/apps/{app}/sessions/pin", Some(body));
            let url = format!("{}{}", stranger.url, call.path);
            for round in 0..rounds {
                // Some pay for a signature; the others show what costs nothing.
                if round % 16 == 0 {
                    assert_eq!(stranger.run(&call).await.status, 401);
                    continue;
                }
                let junk = stranger.http.post(&url).header("DPoP", "not a proof");
                let body = call.body.clone().unwrap();
                let answer = junk.body(body).send().await.unwrap();
                assert_eq!(answer.status(), 401);
                // Read to its end: answers that are left lying reset their streams, and after a
                // thousand of those the server ends the connection.
                answer.bytes().await.unwrap();
            }
            rounds
        });
    }
    let sent: usize = running.join_all().await.into_iter().sum();
    assert_eq!(sent, requests);
    assert_eq!(rows(&app).await, before);
    // Control: whoever has an account leaves one.
    let mut owner = owner;
    owner.try_pin("000000", &[]).await.refused("401 pin-wrong");
    assert_ne!(rows(&app).await, before);
}

async fn rows(app: &TestApp) -> Vec<i64> {
    let mut admin = app.admin().await;
    let mut counts = Vec::new();
    for table in ["records", "bucket_members", "log_entries", "log_bodies"] {
        counts.push(admin.count(table).await);
    }
    counts
}
