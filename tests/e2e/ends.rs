//! The last message of a sign-in that was charged with its first, while strangers send as many as they can of the same
//! kind: with tokens of their own, which cost one beginning, or with none that opens. docs/LOAD.md.

use std::time::Duration;

use custodyd_tests::app::LIMITS;
use custodyd_tests::device::b64;
use custodyd_tests::opaque::LoggingIn;
use custodyd_tests::{Device, Setup, TestApp};
use serde_json::{Value, json};

use crate::opaque::with_pin;

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";
const FINISH: &str = "/v1/apps/{app}/sessions/opaque/finish";

fn setup(changes: &[(&str, &str)]) -> Setup {
    let mut limits = LIMITS.to_owned();
    for (line, other) in changes {
        assert!(limits.contains(line), "{line}");
        limits = limits.replace(line, other);
    }
    Setup {
        limits,
        ..Setup::default()
    }
}

/// A stranger with a login of an account that they have invented.
async fn stranger_with_a_login(app: &TestApp) -> (Device, Value) {
    let mut stranger = app.device("notes");
    stranger.account = UNKNOWN.into();
    let begun = stranger.begin_opaque("000000").await;
    assert!(begun.ended.is_none());
    (stranger, begun.started["login"].clone())
}

/// The same stranger, so many times, each by a connection of their own.
fn everywhere(app: &TestApp, stranger: &Device, times: usize) -> Vec<Device> {
    let one = |_| Device {
        http: app.device("notes").http,
        ..stranger.clone()
    };
    (0..times).map(one).collect()
}

/// Strangers' answers are held for some seconds. That takes none of the places that ends have.
#[tokio::test]
async fn a_flood_of_ends_leaves_a_place_to_one_that_was_charged() {
    const FLOOD: usize = 32;
    let app = TestApp::with(setup(&[
        ("requests_at_once = 1024", "requests_at_once = 16"),
        ("stranger_deadline = \"20ms\"", "stranger_deadline = \"2s\""),
    ]))
    .await;
    let mut owner = with_pin(&app).await;
    let whole = owner.view().await["pin"]["attempts_left"].clone();
    let (stranger, login) = stranger_with_a_login(&app).await;
    let tried = owner.begin_opaque("830517").await;
    let mut flood = tokio::task::JoinSet::new();
    for mut one in everywhere(&app, &stranger, FLOOD) {
        let login = login.clone();
        flood.spawn(async move { one.finish_opaque(&login, &b64(&[7; 64]), &[]).await });
    }
    let mut ended = Vec::new();
    // All the while; no more than are let in as ends.
    while ended.len() < 4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let login = &tried.started["login"];
        let ke3 = &tried.ended.as_ref().unwrap().ke3;
        ended.push(owner.finish_opaque(login, ke3, &[]).await.refusal());
    }
    assert_eq!(ended.first().unwrap(), "201 -", "{ended:?}");
    let again = ended.iter().skip(1);
    for refusal in again {
        assert_eq!(refusal, "401 ceremony-consumed", "{ended:?}");
    }
    flood.join_all().await;
    owner.try_device(&[]).await.expect(201);
    // The control: as many of what is held within its place fill all that one way may have.
    let mut flood = tokio::task::JoinSet::new();
    for mut one in everywhere(&app, &stranger, FLOOD) {
        flood.spawn(async move {
            one.start_opaque(&LoggingIn::start("000000"))
                .await
                .refusal()
        });
    }
    let control = flood.join_all().await;
    assert!(
        control.iter().any(|answer| answer == "503 busy"),
        "{control:?}"
    );
    let mut owner = owner;
    assert_eq!(owner.view().await["pin"]["attempts_left"], whole);
}

/// Of the same address, and to the same app: neither what ends nothing nor what ends a stranger's login again and again.
#[tokio::test]
async fn no_rate_refuses_an_end_for_what_others_send() {
    for rate in ["app", "address"] {
        let [second, burst] = ["per_second", "burst"].map(|of| format!("{rate}_{of} = "));
        let app = TestApp::with(setup(&[
            (&format!("{second}1000000"), &format!("{second}1")),
            (&format!("{burst}1000000"), &format!("{burst}30")),
        ]))
        .await;
        let mut owner = with_pin(&app).await;
        let whole = owner.view().await["pin"]["attempts_left"].clone();
        let (mut stranger, login) = stranger_with_a_login(&app).await;
        let tried = owner.begin_opaque("830517").await;
        let mut last = Vec::new();
        for login in [json!("junk"), login] {
            let body = json!({"login": login, "ke3": b64(&[7; 64])});
            let mut answers = Vec::new();
            for _ in 0..60 {
                let answer = stranger.call("POST", FINISH, Some(body.clone())).await;
                answers.push(answer.refusal());
            }
            last.push(answers);
        }
        // The control: these have used it up.
        let refused = |answers: &[String]| {
            answers
                .iter()
                .filter(|one| *one == "429 rate-limited")
                .count()
        };
        let [junk, own] = last.as_slice() else {
            panic!()
        };
        assert!(refused(junk) > 5 && refused(own) > 5, "{last:?}");
        let mut control = Vec::new();
        for _ in 0..5 {
            control.push(stranger.try_opaque_start("000000").await.refusal());
        }
        assert!(
            control.iter().any(|one| one == "429 rate-limited"),
            "{control:?}"
        );
        let ke3 = tried.ended.unwrap().ke3;
        let ended = owner
            .finish_opaque(&tried.started["login"], &ke3, &[])
            .await;
        ended.expect(201);
        assert_eq!(owner.view().await["pin"]["attempts_left"], whole);
    }
}

/// Past the few that are let in as ends, one that is sent again is any request, and served where there is room.
#[tokio::test]
async fn an_end_may_be_sent_again_as_often_as_anything() {
    let app = TestApp::start().await;
    let mut owner = with_pin(&app).await;
    let tried = owner.begin_opaque("830517").await;
    let ke3 = tried.ended.unwrap().ke3;
    let login = &tried.started["login"];
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(owner.finish_opaque(login, &ke3, &[]).await.refusal());
    }
    let expected = ["201 -"].into_iter().chain(["401 ceremony-consumed"; 7]);
    assert!(
        answers.iter().map(String::as_str).eq(expected),
        "{answers:?}"
    );
}

/// Whichever memory has heard of it.
#[tokio::test]
async fn the_proof_of_an_end_is_good_once() {
    let app = TestApp::start().await;
    let mut owner = with_pin(&app).await;
    let tried = owner.begin_opaque("830517").await;
    let body = json!({"login": tried.started["login"], "ke3": b64(&[7; 64])});
    for _ in 0..3 {
        // Of ends that are let in as such, and of two that are past these.
        let mut call = owner.prepare("POST", FINISH, Some(body.clone()));
        call.proof = Some(owner.proof(&call));
        let first = owner.send(&call).await;
        assert!(["401 pin-wrong", "401 ceremony-consumed"].contains(&first.refusal().as_str()));
        owner.send(&call).await.refused("401 dpop-replayed");
        call.proof = None;
    }
}

#[tokio::test]
async fn an_end_has_a_small_body() {
    let app = TestApp::start().await;
    let mut owner = with_pin(&app).await;
    let tried = owner.begin_opaque("830517").await;
    let login = &tried.started["login"];
    let length = login.as_str().unwrap().len();
    assert!(length < 4 << 10, "{length}");
    let names: Vec<String> = (0..300).map(|name| format!("{name:064}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ke3 = tried.ended.unwrap().ke3;
    let large = owner.finish_opaque(login, &ke3, &names).await;
    large.refused("413 body-too-large");
    owner.finish_opaque(login, &ke3, &[]).await.expect(201);
}
