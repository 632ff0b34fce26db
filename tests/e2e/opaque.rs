//! The PIN by OPAQUE: registration, logins that end, do not end, or end twice, and what strangers see.

use custodyd_tests::device::{b64, sha256, unb64};
use custodyd_tests::opaque::{LoggingIn, Registering, default_cost};
use custodyd_tests::{Answer, Device, Setup, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

use crate::contacts::{add, with_mail};
use crate::delivered_codes::{ANN, by_alias, enter, fetch, new_phone};

const ROUNDS: &str = r#"
[[pin.rounds]]
attempts = 3
[[pin.rounds]]
attempts = 1
wait = "1h"
"#;
const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";
const START: &str = "/v1/account/opaque/start";
const FINISH: &str = "/v1/account/opaque/finish";

pub(crate) async fn with_pin(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device.register_pin("830517").await;
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    device
}

pub(crate) async fn signed_in(device: &mut Device, release: &[&str]) -> Answer {
    let answer = device.sign_in_by_opaque("830517", release).await;
    answer.expect("the PIN is right").expect(201)
}

fn stranger_to(app: &TestApp, account: &str) -> Device {
    let mut stranger = app.device("notes");
    stranger.account = account.to_owned();
    stranger
}

#[tokio::test]
async fn a_pin_brings_the_secret_back_and_the_export_key_with_it_after_a_restart() {
    let mut app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    let registered = device.register_pin("830517").await;
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    app.restart().await;
    let tried = device.begin_opaque("830517").await;
    assert_eq!(tried.started["key_stretching"], default_cost());
    let end = tried.ended.unwrap();
    assert_eq!(end.export_key, registered);
    let login = &tried.started["login"];
    let started = device
        .finish_opaque(login, &end.ke3, &["device-secret"])
        .await
        .expect(201);
    let secret = &started.body["secrets"]["device-secret"]["server_slot"];
    assert_eq!(*secret, b64(b"the device secret"));
    assert_eq!(started.body["session"]["factor"], "pin");
    let view = device.view().await;
    assert_eq!(view["pin"]["checked_by"], "opaque");
    let events = device.events().await;
    let wanted = [
        "pin-set",
        "pin-charged",
        "session-started",
        "secret-released",
    ];
    for kind in wanted {
        assert!(events.iter().any(|event| event == kind), "{events:?}");
    }
}

/// Three wrong ones use the round up although none of them came back: the client knew without.
#[tokio::test]
async fn wrong_pins_cost_an_attempt_each_without_being_finished() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    for left in [2, 1, 0] {
        let tried = device.begin_opaque("830518").await;
        assert!(tried.ended.is_none());
        assert_eq!(tried.started["attempts_left"], left);
        assert_eq!(tried.started["exhausted"], false);
    }
    let answer = device.start_opaque(&LoggingIn::start("830517")).await;
    answer.refused("429 pin-wait");
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_right_end_gives_its_attempt_back_and_clears_what_is_resolved() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    let left = async |device: &mut Device| device.view().await["pin"]["attempts_left"].clone();
    for _ in 0..3 {
        let tried = device.begin_opaque("830518").await;
        let login = &tried.started["login"];
        let wrong = device.finish_opaque(login, &b64(&[7; 64]), &[]).await;
        wrong.refused("401 pin-wrong");
        assert_eq!(wrong.body["attempts_left"], 2);
        signed_in(&mut device, &[]).await;
        assert_eq!(left(&mut device).await, 3);
    }
    // One that nobody has ended yet is not resolved: it may still be looked at.
    device.begin_opaque("830518").await;
    signed_in(&mut device, &[]).await;
    assert_eq!(left(&mut device).await, 2);
}

#[tokio::test]
async fn an_exhausted_pin_is_reset_by_a_passkey() {
    let app = TestApp::with(Setup::notes("[[pin.rounds]]\nattempts = 2\n")).await;
    let mut device = with_pin(&app).await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    for _ in 0..2 {
        let tried = device.begin_opaque("830518").await;
        let login = &tried.started["login"];
        let end = device.finish_opaque(login, &b64(&[7; 64]), &[]).await;
        end.refused("401 pin-wrong");
    }
    let exhausted = device.start_opaque(&LoggingIn::start("830517")).await;
    exhausted.refused("403 pin-exhausted");
    device
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    signed_in(&mut device, &[]).await;
}

#[tokio::test]
async fn an_end_is_good_once() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    let tried = device.begin_opaque("830517").await;
    let (login, ke3) = (&tried.started["login"], tried.ended.unwrap().ke3);
    device.finish_opaque(login, &ke3, &[]).await.expect(201);
    // A guess of somebody else at this device, which the end of before must not pay for again.
    device.begin_opaque("830518").await;
    let again = device.finish_opaque(login, &ke3, &[]).await;
    again.refused("401 ceremony-consumed");
    let tried = device.begin_opaque("830518").await;
    assert_eq!(tried.started["attempts_left"], 1);
    // Nor may a wrong end be followed by the right one.
    let tried = device.begin_opaque("830517").await;
    let (login, ke3) = (&tried.started["login"], tried.ended.unwrap().ke3);
    let wrong = device.finish_opaque(login, &b64(&[7; 64]), &[]).await;
    wrong.refused("401 pin-wrong");
    let right = device.finish_opaque(login, &ke3, &[]).await;
    right.refused("401 ceremony-consumed");
    let wrong = device.finish_opaque(login, &b64(&[7; 64]), &[]).await;
    wrong.refused("401 ceremony-consumed");
}

#[tokio::test]
async fn n_ends_of_one_login_at_once_open_one_session() {
    let app = TestApp::with(Setup::notes("[[pin.rounds]]\nattempts = 30\n")).await;
    let mut device = with_pin(&app).await;
    let tried = device.begin_opaque("830517").await;
    let ke3 = tried.ended.unwrap().ke3;
    let body = json!({"login": tried.started["login"], "ke3": ke3});
    let answers = device.at_once("opaque/finish", body, 8).await;
    let opened = answers.iter().filter(|answer| answer.starts_with("201"));
    assert_eq!(opened.count(), 1, "{answers:?}");
}

/// Another account, another app, another device key, another purpose, another login.
#[tokio::test]
async fn an_end_fits_the_login_that_it_was_made_for_and_no_other() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    let mut other = with_pin(&app).await;
    let tried = device.begin_opaque("830517").await;
    let (login, ke3) = (tried.started["login"].clone(), tried.ended.unwrap().ke3);
    let theirs = other.finish_opaque(&login, &ke3, &[]).await;
    theirs.refused("401 ceremony-other-device");
    device.app = "wallet".to_owned();
    let elsewhere = device.finish_opaque(&login, &ke3, &[]).await;
    elsewhere.refused("401 ceremony-other-app");
    device.app = "notes".to_owned();
    let tried = device.begin_opaque("830517").await;
    let crossed = device
        .finish_opaque(&tried.started["login"], &ke3, &[])
        .await;
    crossed.refused("401 pin-wrong");
    // As a registration's token, and the other way about.
    signed_in(&mut other, &[]).await;
    let (state, body) = Registering::start("294061");
    let started = other.call("POST", START, Some(body)).await.expect(200).body;
    let misused = other
        .finish_opaque(&started["registration"], &ke3, &[])
        .await;
    misused.refused("401 ceremony-invalid");
    let mut registered = state.finish("294061", &started, &default_cost()).body;
    registered["registration"] = login.clone();
    signed_in(&mut device, &[]).await;
    let misused = device.call("POST", FINISH, Some(registered)).await;
    misused.refused("401 ceremony-invalid");
    // The control: where it belongs, it is still good.
    device.finish_opaque(&login, &ke3, &[]).await.expect(201);
}

#[tokio::test]
async fn a_login_ends_with_its_time_and_with_its_pin() {
    let app = TestApp::with(Setup::notes("[pin]\nceremony = \"30s\"\n")).await;
    let mut device = with_pin(&app).await;
    let tried = device.begin_opaque("830517").await;
    let (login, ke3) = (tried.started["login"].clone(), tried.ended.unwrap().ke3);
    let lasts = tried.started["expires"].as_u64().unwrap() - custodyd_tests::device::now();
    assert!((25..=30).contains(&lasts), "{lasts}");
    signed_in(&mut device, &[]).await;
    device.register_pin("294061").await;
    let stale = device.finish_opaque(&login, &ke3, &[]).await;
    stale.refused("401 authentication-failed");
    assert!(device.begin_opaque("830517").await.ended.is_none());
    let newest = device.begin_opaque("294061").await.ended.unwrap();
    assert_ne!(newest.ke3, ke3);
}

/// Shape and size for shape and size, and the same evaluation each time; nothing is written.
#[tokio::test]
async fn strangers_see_the_same_whether_there_is_an_account_or_not() {
    let app = TestApp::start().await;
    let known = with_pin(&app).await;
    let mut no_pin = app.device("notes");
    no_pin.enrol().await;
    let mut by_argon2 = app.device("notes");
    by_argon2.enrol().await;
    by_argon2.set_pin("830517").await.expect(200);
    let rows = app.admin().await.count("log_entries").await;
    let login = LoggingIn::start("830517");
    let mut shapes = Vec::new();
    for account in [
        known.account.as_str(),
        no_pin.account.as_str(),
        by_argon2.account.as_str(),
        UNKNOWN,
    ] {
        let mut evaluated = Vec::new();
        for _ in 0..2 {
            let mut stranger = stranger_to(&app, account);
            let answer = stranger.start_opaque(&login).await.expect(200);
            let (body, ke2) = (&answer.body, unb64(answer.body["ke2"].as_str().unwrap()));
            evaluated.push(ke2[..32].to_vec());
            assert!(login.finish(body).is_none(), "no PIN fits");
            assert_eq!(body["attempts_left"], Value::Null);
            assert_eq!(body["key_stretching"], default_cost());
            let lengths = ["login", "ke2"].map(|field| body[field].as_str().unwrap().len());
            let names: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
            shapes.push((lengths, names, answer.header("content-length").to_owned()));
            let end = stranger
                .finish_opaque(&body["login"], &b64(&[7; 64]), &[])
                .await;
            end.refused("401 authentication-failed");
        }
        assert_eq!(evaluated[0], evaluated[1], "stable");
    }
    shapes.dedup();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    assert_eq!(app.admin().await.count("log_entries").await, rows);
}

/// What a stranger is shown is under another key: else each start would be a guess that nobody pays for.
#[tokio::test]
async fn a_stranger_gets_no_evaluation_under_the_key_of_a_real_record() {
    let app = TestApp::start().await;
    let mut owner = with_pin(&app).await;
    let login = LoggingIn::start("830517");
    let evaluated = |answer: &Answer| unb64(answer.body["ke2"].as_str().unwrap())[..32].to_vec();
    let real = owner.start_opaque(&login).await.expect(200);
    let mut stranger = stranger_to(&app, &owner.account);
    let shown = stranger.start_opaque(&login).await.expect(200);
    assert_ne!(evaluated(&real), evaluated(&shown));
    // Nor does whoever may set a new PIN: each registration has a key of its own.
    signed_in(&mut owner, &[]).await;
    let body = json!({"request": b64(&unb64(&login.ke1)[..32])});
    let registering = owner
        .call("POST", START, Some(body.clone()))
        .await
        .expect(200);
    let again = owner.call("POST", START, Some(body)).await.expect(200);
    let response =
        |answer: &Answer| unb64(answer.body["response"].as_str().unwrap())[..32].to_vec();
    assert_ne!(response(&registering), evaluated(&real));
    assert_ne!(response(&registering), response(&again));
    // The control: the same request at the same record is the same evaluation.
    let control = owner.start_opaque(&login).await.expect(200);
    assert_eq!(evaluated(&real), evaluated(&control));
}

#[tokio::test]
async fn strangers_try_where_the_policy_lets_them_and_never_on_the_owners_budget() {
    let more = "[devices]\nstranger_pin = [{ attempts = 2 }]\n";
    let app = TestApp::with(Setup::notes(more)).await;
    let mut owner = with_pin(&app).await;
    let mut stranger = stranger_to(&app, &owner.account);
    let tried = stranger.begin_opaque("830517").await;
    assert_eq!(tried.started["attempts_left"], Value::Null);
    let end = tried.ended.expect("a try that is evaluated");
    let started = stranger
        .finish_opaque(&tried.started["login"], &end.ke3, &["device-secret"])
        .await
        .expect(201);
    assert_eq!(started.body["device_bound"], false);
    for _ in 0..2 {
        assert!(stranger.begin_opaque("830518").await.ended.is_none());
    }
    let spent = stranger.begin_opaque("830517").await;
    assert!(spent.ended.is_none(), "from here on it is the decoy");
    let lengths =
        |tried: &Value| ["login", "ke2"].map(|field| tried[field].as_str().unwrap().len());
    assert_eq!(lengths(&spent.started), lengths(&tried.started));
    let view = owner.view().await;
    assert_eq!(view["pin"]["attempts_left"], 5);
    signed_in(&mut owner, &[]).await;
}

#[tokio::test]
async fn an_account_has_one_pin_and_the_other_way_says_so() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    let other_way = "409 pin-other-way";
    device.try_pin("830517", &[]).await.refused(other_way);
    signed_in(&mut device, &[]).await;
    device.set_pin("294061").await.expect(200);
    let start = device.start_opaque(&LoggingIn::start("830517")).await;
    start.refused(other_way);
    device.try_pin("294061", &[]).await.expect(201);
    assert_eq!(device.view().await["pin"]["checked_by"], "argon2id");
    device.register_pin("830517").await;
    device.try_pin("294061", &[]).await.refused(other_way);
    signed_in(&mut device, &[]).await;
    device
        .call("DELETE", "/v1/account/pin", None)
        .await
        .expect(204);
    device.token = None;
    let none = device.start_opaque(&LoggingIn::start("830517")).await;
    none.refused("409 pin-not-set");
}

#[tokio::test]
async fn the_policy_says_which_ways_there_are() {
    let app = TestApp::with(Setup::notes("[pin]\nargon2id = false\n")).await;
    let refused = "403 not-allowed-by-policy";
    let mut device = app.device("notes");
    device.enrol().await;
    device.set_pin("830517").await.refused(refused);
    device.try_pin("830517", &[]).await.refused(refused);
    let app = TestApp::with(Setup::notes("[pin]\nopaque = false\n")).await;
    let mut device = app.device("notes");
    device.enrol().await;
    let (_, body) = Registering::start("830517");
    let start = device.call("POST", START, Some(body)).await;
    start.refused(refused);
    let start = device.start_opaque(&LoggingIn::start("830517")).await;
    start.refused(refused);
}

#[tokio::test]
async fn what_the_client_spends_is_kept_and_has_a_minimum() {
    let app = TestApp::start().await;
    let mut device = app.device("notes");
    device.enrol().await;
    for cost in [
        json!({"memory_kib": 19455, "passes": 3, "lanes": 1}),
        json!({"memory_kib": 19456, "passes": 1, "lanes": 1}),
        json!({"memory_kib": 4_000_000, "passes": 2, "lanes": 1}),
    ] {
        let (state, body) = Registering::start("830517");
        let started = device.call("POST", START, Some(body)).await.expect(200);
        let mut registered = state.finish("830517", &started.body, &default_cost()).body;
        registered["key_stretching"] = cost;
        let answer = device.call("POST", FINISH, Some(registered)).await;
        answer.refused("422 ksf-weak");
    }
    let more = json!({"memory_kib": 32768, "passes": 2, "lanes": 2});
    let (state, body) = Registering::start("830517");
    let started = device.call("POST", START, Some(body)).await.expect(200);
    let registered = state.finish("830517", &started.body, &more).body;
    let answer = device.call("POST", FINISH, Some(registered.clone())).await;
    let answer = answer.expect(200);
    // The identifier can be computed beforehand, for slots under the export key.
    let salt = unb64(started.body["salt"].as_str().unwrap());
    let record = unb64(registered["record"].as_str().unwrap());
    let mut named = Vec::new();
    for field in [
        &b"custodyd/opaque-pin-device-id/v1"[..],
        &salt,
        &32768_u32.to_be_bytes(),
        &2_u32.to_be_bytes(),
        &2_u32.to_be_bytes(),
        &record,
    ] {
        named.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        named.extend(field);
    }
    assert_eq!(answer.body["pin"]["device_id"], sha256(&named));
    device.take_session(&answer);
    // A registration is good once.
    let again = device.call("POST", FINISH, Some(registered)).await;
    again.refused("401 ceremony-consumed");
    let tried = device.begin_opaque("830517").await;
    assert_eq!(tried.started["key_stretching"], more);
    assert!(tried.ended.is_some());
}

#[tokio::test]
async fn a_session_that_is_too_weak_or_stale_registers_nothing() {
    let app = TestApp::start().await;
    let mut device = with_pin(&app).await;
    let (_, body) = Registering::start("294061");
    device.try_device(&[]).await.expect(201);
    let read_only = device.call("POST", START, Some(body.clone())).await;
    read_only.refused("403 read-only-session");
    device.token = None;
    let nobody = device.call("POST", START, Some(body)).await;
    nobody.refused("401 session-missing");
    signed_in(&mut device, &[]).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_before_anything_is_charged() {
    let app = TestApp::with(Setup::notes(ROUNDS)).await;
    let mut device = with_pin(&app).await;
    let good = LoggingIn::start("830517");
    let truncated = good.ke1[..good.ke1.len() - 4].to_owned();
    for ke1 in [
        String::new(),
        b64(&[0; 96]),
        b64(&[0xff; 96]),
        truncated,
        format!("{}AAAA", good.ke1),
        format!("{}=", good.ke1),
        "{}".to_owned(),
    ] {
        device.token = None;
        let body = json!({"account": device.account, "ke1": ke1});
        let path = "/v1/apps/{app}/sessions/opaque/start";
        let answer = device.call("POST", path, Some(body)).await;
        answer.refused("400 malformed-request");
    }
    let tried = device.begin_opaque("830517").await;
    assert_eq!(tried.started["attempts_left"], 2);
    let login = &tried.started["login"];
    let short = device.finish_opaque(login, "AAAA", &[]).await;
    short.refused("400 malformed-request");
    let forged = json!("cc1.1.AAAA");
    let forged = device.finish_opaque(&forged, &b64(&[0; 64]), &[]).await;
    forged.refused("401 ceremony-invalid");
    let ke3 = tried.ended.unwrap().ke3;
    device.finish_opaque(login, &ke3, &[]).await.expect(201);
}

/// A code opens half a session, and the PIN the other half.
#[tokio::test]
async fn after_a_code_the_pin_goes_on() {
    let (app, mail) = with_mail("").await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    owner.register_pin("830517").await;
    add(&mut owner, &mail, "contact", ANN).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    let half = enter(&mut phone, by_alias(), &code, json!({})).await;
    assert_eq!(half.expect(201).body["session"]["scope"], "pin-only");
    let typed = json!({"pin": "830517"});
    let other = phone.call("POST", "/v1/session/pin", Some(typed)).await;
    other.refused("409 pin-other-way");
    let (start, finish) = ("/v1/session/opaque/start", "/v1/session/opaque/finish");
    let wrong = LoggingIn::start("830518");
    let body = json!({"ke1": wrong.ke1});
    let started = phone.call("POST", start, Some(body)).await.expect(200).body;
    assert_eq!(started["attempts_left"], Value::Null);
    assert!(wrong.finish(&started).is_none());
    let body = json!({"login": started["login"], "ke3": b64(&[7; 64])});
    let end = phone.call("POST", finish, Some(body)).await;
    end.refused("401 authentication-failed");
    let right = LoggingIn::start("830517");
    let body = json!({"ke1": right.ke1});
    let started = phone.call("POST", start, Some(body)).await.expect(200).body;
    let ke3 = right.finish(&started).unwrap().ke3;
    // It is half a session's, not a sign-in's.
    let session = phone.token.clone();
    let misused = phone.finish_opaque(&started["login"], &ke3, &[]).await;
    misused.refused("401 ceremony-other-purpose");
    phone.token = session;
    let body = json!({"login": started["login"], "ke3": ke3, "bind_device": {}});
    let full = phone.call("POST", finish, Some(body)).await.expect(201);
    assert_eq!(full.body["session"]["scope"], "full");
    assert_eq!(full.body["device_bound"], true);
}

#[tokio::test]
async fn after_a_code_a_forgotten_pin_is_replaced() {
    let (app, mail) = with_mail("").await;
    let mut owner = app.device("notes");
    owner.enrol().await;
    owner.register_pin("830517").await;
    add(&mut owner, &mail, "contact", ANN).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
    phone.register_pin("294061").await;
    assert!(owner.begin_opaque("830517").await.ended.is_none());
    let newest = owner.sign_in_by_opaque("294061", &[]).await;
    newest.expect("the new PIN is right").expect(201);
}
