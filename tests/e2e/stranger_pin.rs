//! Strangers' PINs, where the policy has a budget for them: neither the clock nor a full queue
//! tells whether there is anything to try. The control of each test is the app without such a
//! budget, in which nobody's try is evaluated: there the same measurement shows that.

use std::time::{Duration, Instant};

use custodyd_tests::app::LIMITS;
use custodyd_tests::codes::policy;
use custodyd_tests::{Device, Setup, TestApp};
use serde_json::json;

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";
/// An evaluation that a clock can not miss, even on a busy machine.
const COST: &str = "[pin]\nmemory_kib = 65536\npasses = 2\n";
/// As many as the policy grants.
const TRIES: usize = 3;

/// `notes` evaluates strangers' PINs, `wallet` does not; no deadline hides what work takes.
async fn app(config: &str) -> TestApp {
    let tries = "[devices]\nstranger_pin = [{ attempts = 3 }]\n";
    TestApp::with(Setup {
        policies: vec![
            policy("notes", "", &format!("{COST}{tries}")),
            policy("wallet", "", COST),
        ],
        config: config.into(),
        limits: LIMITS.replace("20ms", "0s"),
        ..Setup::default()
    })
    .await
}

async fn owner(app: &TestApp, of: &str) -> Device {
    let mut device = app.device(of);
    device.enrol().await;
    device
}

async fn owner_with_pin(app: &TestApp) -> Device {
    let mut device = owner(app, "notes").await;
    device.set_pin("830517").await.expect(200);
    device
}

/// The quickest of some tries: what the work takes when nothing else is in its way.
async fn quickest(app: &TestApp, of: &str, account: &str, tries: usize) -> Duration {
    let mut stranger = app.device(of);
    stranger.account = account.to_owned();
    stranger.meet().await;
    let mut quickest = Duration::MAX;
    for _ in 0..tries {
        let began = Instant::now();
        let answer = stranger.try_pin("830518", &[]).await;
        quickest = quickest.min(began.elapsed());
        answer.refused("401 authentication-failed");
    }
    quickest
}

#[tokio::test]
async fn the_clock_does_not_tell_whether_there_is_a_pin_to_try() {
    let app = app("").await;
    let with_pin = owner_with_pin(&app).await;
    let without = owner(&app, "notes").await;
    let mut evaluated = quickest(&app, "notes", &with_pin.account, TRIES).await;
    for (what, account) in [
        ("unknown", UNKNOWN),
        ("no PIN", &without.account),
        ("all tries spent", &with_pin.account),
    ] {
        let took = quickest(&app, "notes", account, TRIES).await;
        // Other work may have been in the way of all that were evaluated before: of an account more each time.
        for _ in 0..10 {
            if took * 2 > evaluated {
                break;
            }
            let another = owner_with_pin(&app).await;
            let again = quickest(&app, "notes", &another.account, TRIES).await;
            evaluated = evaluated.min(again);
        }
        assert!(took * 2 > evaluated, "{what}: {took:?} of {evaluated:?}");
    }
    let rows = app.admin().await.count("log_entries").await;
    quickest(&app, "notes", UNKNOWN, 1).await;
    assert_eq!(app.admin().await.count("log_entries").await, rows);
    // The control: a clock sees very well where nothing is evaluated.
    let mut took = Duration::MAX;
    for _ in 0..10 {
        took = took.min(quickest(&app, "wallet", UNKNOWN, TRIES).await);
        if took * 2 < evaluated {
            break;
        }
    }
    assert!(took * 2 < evaluated, "{took:?} of {evaluated:?}");
}

#[tokio::test]
async fn a_full_queue_does_not_tell_whether_there_is_an_account() {
    let app = app("[pin]\nthreads = 1\nqueue = 0\n").await;
    let busy = async |of: &str| {
        let mut stranger = app.device(of);
        stranger.meet().await;
        let body = json!({"account": UNKNOWN, "pin": "830518"});
        let answers = stranger.at_once("pin", body, 8).await;
        let busy = answers.iter().filter(|answer| *answer == "503 busy");
        busy.count()
    };
    assert!(busy("notes").await > 0);
    assert_eq!(busy("wallet").await, 0, "the control");
}

#[tokio::test]
async fn a_flood_of_strangers_leaves_the_owner_a_place() {
    let app = app("[pin]\nthreads = 1\nqueue = 3\n").await;
    let mut owner = owner(&app, "notes").await;
    owner.set_pin("830517").await.expect(200);
    let mut stranger = app.device("notes");
    stranger.meet().await;
    let body = json!({"account": UNKNOWN, "pin": "830518"});
    let (answers, signed_in) = tokio::join!(stranger.at_once("pin", body, 24), async {
        // In the middle of it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        owner.try_pin("830517", &[]).await
    });
    assert!(
        answers.iter().any(|answer| answer == "503 busy"),
        "{answers:?}"
    );
    signed_in.expect(201);
}

/// A name that the policy does not release is refused whoever asks, before anything is looked up.
#[tokio::test]
async fn what_may_be_released_does_not_tell_whether_there_is_an_account() {
    let more =
        "[devices]\nstranger_pin = [{ attempts = 10 }]\n[release]\n\"kept\" = [\"passkey\"]\n";
    let (name, text) = policy("notes", "", "");
    let text = text.replace("[release]\n", more);
    let app = TestApp::with(Setup {
        policies: vec![(name, text)],
        ..Setup::default()
    })
    .await;
    let mut known = owner(&app, "notes").await;
    known.set_pin("830517").await.expect(200);
    for account in [known.account.as_str(), UNKNOWN] {
        let mut stranger = app.device("notes");
        stranger.account = account.to_owned();
        let answer = stranger.try_pin("830518", &["kept"]).await;
        answer.refused("403 release-forbidden");
    }
}
