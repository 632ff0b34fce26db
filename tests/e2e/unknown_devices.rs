//! Devices that are not bound, and the exception for whoever forgot the PIN.

use custodyd_tests::codes::policy;
use custodyd_tests::shim::Clock;
use custodyd_tests::{Device, Setup, SoftAuthenticator, TestApp};
use serde_json::json;

const STRANGERS: &str = "[devices]\nstranger_pin = [{ attempts = 2 }]";

fn setup(more: &str) -> Setup {
    Setup {
        policies: vec![policy("notes", "", more)],
        ..Setup::default()
    }
}

async fn app(more: &str) -> TestApp {
    TestApp::with(setup(more)).await
}

async fn with_pin(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.expect(200);
    device
}

fn other(app: &TestApp, owner: &Device) -> Device {
    let mut other = app.device("notes");
    other.account.clone_from(&owner.account);
    other
}

#[tokio::test]
async fn without_a_budget_for_them_a_strangers_pin_is_not_evaluated() {
    let app = app("").await;
    let owner = with_pin(&app).await;
    let mut stranger = other(&app, &owner);
    let rows = app.admin().await.count("log_entries").await;
    for pin in ["830517", "830518"] {
        let answer = stranger.try_pin(pin, &[]).await;
        answer.refused("401 authentication-failed");
    }
    assert_eq!(app.admin().await.count("log_entries").await, rows);
}

#[tokio::test]
async fn with_one_a_right_pin_brings_the_device_in() {
    let app = app(STRANGERS).await;
    let mut owner = with_pin(&app).await;
    owner
        .back_up("device-secret", b"the secret")
        .await
        .expect(200);
    let mut new = other(&app, &owner);
    new.try_pin("830518", &[])
        .await
        .refused("401 authentication-failed");
    let started = new.try_pin("830517", &["device-secret"]).await.expect(201);
    assert_eq!(started.body["device_bound"], false);
    assert!(started.body["secrets"]["device-secret"]["server_slot"].is_string());
    // Its failures are cleared by its success, and its session may bind it.
    new.try_pin("830518", &[])
        .await
        .refused("401 authentication-failed");
    new.try_pin("830517", &[]).await.expect(201);
    new.call("POST", "/v1/account/devices", Some(json!({})))
        .await
        .expect(201);
    new.try_pin("830518", &[]).await.refused("401 pin-wrong");
}

#[tokio::test]
async fn strangers_use_up_their_own_budget_only() {
    let mut app = app(STRANGERS).await;
    let mut owner = with_pin(&app).await;
    let mut stranger = other(&app, &owner);
    let wrong = stranger.try_pin("830518", &[]).await;
    wrong.refused("401 authentication-failed");
    stranger
        .try_pin("830518", &[])
        .await
        .refused("401 authentication-failed");
    app.restart().await;
    let rows = app.admin().await.count("log_entries").await;
    // Spent: even the right PIN is not looked at, is answered alike, and leaves nothing.
    let spent = stranger.try_pin("830517", &[]).await;
    stranger.account = "00000000-0000-4000-8000-000000000000".into();
    let nobody = stranger.try_pin("830517", &[]).await;
    for answer in [&spent, &nobody] {
        assert_eq!((answer.status, &answer.body), (wrong.status, &wrong.body));
    }
    assert_eq!(app.admin().await.count("log_entries").await, rows);
    let answer = owner.try_pin("830518", &[]).await;
    assert_eq!(answer.body["attempts_left"], 4);
    owner.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn the_bound_devices_do_not_use_up_the_strangers_budget() {
    let app = app(&format!(
        "{STRANGERS}\n[pin]\nrounds = [{{ attempts = 1 }}]"
    ))
    .await;
    let mut owner = with_pin(&app).await;
    owner.try_pin("830518", &[]).await.refused("401 pin-wrong");
    owner
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
    other(&app, &owner).try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn strangers_get_their_tries_back_when_the_owner_stands_where_they_do() {
    let app = app(STRANGERS).await;
    let mut owner = with_pin(&app).await;
    let mut passkey = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut passkey).await.expect(201);
    let mut new = other(&app, &owner);
    for _ in 0..2 {
        new.try_pin("830518", &[])
            .await
            .refused("401 authentication-failed");
    }
    // An ordinary sign-in of the owner buys nobody more guesses.
    owner.try_pin("830517", &[]).await.expect(201);
    owner.try_passkey(&mut passkey, json!({})).await.expect(201);
    new.try_pin("830517", &[])
        .await
        .refused("401 authentication-failed");
    new.try_passkey(&mut passkey, json!({})).await.expect(201);
    new.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn a_new_pin_starts_the_strangers_count_again() {
    let app = app(STRANGERS).await;
    let mut owner = with_pin(&app).await;
    let mut new = other(&app, &owner);
    for _ in 0..2 {
        new.try_pin("830518", &[])
            .await
            .refused("401 authentication-failed");
    }
    owner.set_pin("294061").await.expect(200);
    new.try_pin("294061", &[]).await.expect(201);
}

#[tokio::test]
async fn n_strangers_at_once_are_evaluated_no_more_often_than_granted() {
    let app = app("[devices]\nstranger_pin = [{ attempts = 3 }]").await;
    let mut owner = with_pin(&app).await;
    let mut stranger = other(&app, &owner);
    stranger.meet().await;
    let body = json!({"account": owner.account, "pin": "830518"});
    let answers = stranger.at_once("pin", body, 16).await;
    assert!(
        answers
            .iter()
            .all(|a| a == "401 authentication-failed" || a == "503 busy"),
        "{answers:?}"
    );
    owner.try_pin("830517", &[]).await.expect(201);
    let events = owner.events().await;
    let refused = events.iter().filter(|kind| *kind == "pin-refused").count();
    assert_eq!(refused, 3);
}

#[tokio::test]
async fn a_forgotten_pin_is_replaced_by_a_weaker_factor_where_the_policy_says_so() {
    let app = app("[recover]\nby = [\"totp\"]").await;
    let mut owner = with_pin(&app).await;
    let mut authenticator = owner.add_totp().await;
    owner.try_pin("830518", &[]).await.refused("401 pin-wrong");
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    owner.set_pin("294061").await.expect(200);
    owner.try_pin("294061", &[]).await.expect(201);
    let events = owner.events().await;
    assert!(events.contains(&"recover-used".to_owned()), "{events:?}");
    // And nothing else: the PIN is not removed by it.
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    let answer = owner.call("DELETE", "/v1/account/pin", None).await;
    answer.refused("403 step-up-required");
}

#[tokio::test]
async fn a_factor_that_the_policy_does_not_list_replaces_nothing() {
    let app = app("[recover]\nby = [\"passkey\"]").await;
    let mut owner = with_pin(&app).await;
    let mut authenticator = owner.add_totp().await;
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    owner
        .set_pin("294061")
        .await
        .refused("403 step-up-required");
    // Nor does a listed one add a first PIN where there is something stronger.
    owner.try_pin("830517", &[]).await.expect(201);
    owner.set_pin("294061").await.expect(200);
}

#[tokio::test]
async fn where_the_policy_delays_it_the_change_waits_until_it_is_due() {
    let delayed = setup("[recover]\nby = [\"totp\"]\ndelay = \"8s\"");
    let (mut app, clock) = Clock::of_a_daemon(delayed).await;
    let mut owner = with_pin(&app).await;
    let mut authenticator = owner.add_totp().await;
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    let asked = owner.set_pin("294061").await;
    asked.refused("409 recovery-waits");
    assert!(asked.header("retry-after").parse::<u64>().unwrap() <= 8);
    let view = owner.view().await;
    assert_eq!(view["waiting"][0]["change"], "replace-pin");
    assert_eq!(view["waiting"][0]["due"], asked.body["due"]);
    assert_eq!(view["waiting"][0]["factor"], "totp");
    // Asking again neither helps nor puts it off; a restart neither.
    let again = owner.set_pin("294061").await;
    again.refused("409 recovery-waits");
    assert_eq!(again.body["due"], asked.body["due"]);
    app.restart().await;
    clock.is_off_by(8);
    owner.set_pin("294061").await.expect(200);
    assert_eq!(owner.view().await["waiting"], json!([]));
    owner.try_pin("294061", &[]).await.expect(201);
}

#[tokio::test]
async fn any_session_cancels_what_waits() {
    let delayed = setup("[recover]\nby = [\"totp\"]\ndelay = \"2s\"");
    let (app, clock) = Clock::of_a_daemon(delayed).await;
    let mut owner = with_pin(&app).await;
    let mut authenticator = owner.add_totp().await;
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    let thief = owner.token.clone();
    owner.set_pin("294061").await.refused("409 recovery-waits");
    owner.try_device(&[]).await.expect(201);
    let cancel = "/v1/account/recovery";
    owner.call("DELETE", cancel, None).await.expect(204);
    let answer = owner.call("DELETE", cancel, None).await;
    answer.refused("404 not-found");
    clock.is_off_by(3);
    owner.token = thief;
    // It has to be asked for again, and waits again.
    owner.set_pin("294061").await.refused("409 recovery-waits");
    owner.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn whoever_knows_the_pin_does_not_wait_and_ends_what_waits() {
    let app = app("[recover]\nby = [\"totp\"]\ndelay = \"30d\"").await;
    let mut owner = with_pin(&app).await;
    let mut authenticator = owner.add_totp().await;
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    owner.set_pin("294061").await.refused("409 recovery-waits");
    owner.try_pin("830517", &[]).await.expect(201);
    owner.set_pin("294061").await.expect(200);
    assert_eq!(owner.view().await["waiting"], json!([]));
}

#[tokio::test]
async fn a_change_waits_for_the_device_that_asked_and_goes_with_it() {
    let delayed = setup("[recover]\nby = [\"totp\"]\ndelay = \"1s\"");
    let (app, clock) = Clock::of_a_daemon(delayed).await;
    let mut owner = with_pin(&app).await;
    let mut second = other(&app, &owner);
    let mut passkey = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut passkey).await.expect(201);
    let bind = json!({"bind_device": {}});
    second.try_passkey(&mut passkey, bind).await.expect(201);
    let mut authenticator = owner.add_totp().await;
    owner.try_totp(&authenticator.show(), &[]).await.expect(201);
    owner.set_pin("294061").await.refused("409 recovery-waits");
    clock.is_off_by(2);
    // Due for the one that asked, not for another.
    second
        .try_totp(&authenticator.show(), &[])
        .await
        .expect(201);
    second.set_pin("294061").await.refused("409 recovery-waits");
    second
        .try_passkey(&mut passkey, json!({}))
        .await
        .expect(201);
    let path = format!("/v1/account/devices/{}", owner.key.thumbprint());
    second.call("DELETE", &path, None).await.expect(204);
    let waiting = second.view().await["waiting"].clone();
    assert_eq!(waiting.as_array().unwrap().len(), 1, "{waiting}");
    assert_eq!(waiting[0]["device_id"], second.key.thumbprint());
}

#[tokio::test]
async fn an_account_is_told_whether_its_devices_are_all_it_has() {
    let app = app("").await;
    let mut owner = with_pin(&app).await;
    owner.add_totp().await;
    // No stranger's PIN is evaluated here, and never a code of the authenticator app.
    assert_eq!(owner.view().await["recovery_incomplete"], true);
    let mut passkey = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut passkey).await.expect(201);
    assert_eq!(owner.view().await["recovery_incomplete"], false);
}
