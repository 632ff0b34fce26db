//! Codes by text message, through a gateway that checks the daemon's signature.

use std::time::{Duration, Instant};

use custodyd_tests::webhook::Call;
use custodyd_tests::{Device, MailServer, Setup, TestApp, Webhook};
use serde_json::{Value, json};

use crate::contacts::add;
use crate::delivered_codes::{ANN, ask, enter};

const NUMBER: &str = "+4915112345678";
const POLICY: &str = r#"[contacts]
channels = ["email", "sms"]
[devices]
code = "suffices"
"#;

async fn with_gateway() -> (TestApp, MailServer, Webhook) {
    let (mail, gateway) = (MailServer::start(), Webhook::start().await);
    let setup = Setup {
        config: format!("{}{}", mail.config(), gateway.config()),
        ..Setup::notes(POLICY)
    };
    (TestApp::with(setup).await, mail, gateway)
}

async fn jwks(device: &mut Device) -> Value {
    let token = device.token.take();
    let answer = device.call("GET", "/.well-known/jwks.json", None).await;
    device.token = token;
    answer.expect(200).body
}

/// The text, of a call that the realm signed for this gateway.
fn text(call: &Call, gateway: &Webhook, jwks: &Value) -> String {
    let claims = call.verified(jwks).expect("the realm's signature");
    let body = call.json();
    assert_eq!(claims["aud"], gateway.url());
    assert_eq!(claims["jti"], body["id"]);
    assert_eq!(
        (&body["channel"], &body["to"]),
        (&json!("sms"), &json!(NUMBER))
    );
    body["text"].as_str().unwrap().to_owned()
}

/// The code is its first word.
fn code(text: &str) -> &str {
    text.split(' ').next().unwrap()
}

/// An owner whose number is a confirmed contact.
async fn owner(app: &TestApp, gateway: &Webhook, jwks: &mut Value) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    *jwks = self::jwks(&mut device).await;
    let body = Some(json!({"phone": NUMBER}));
    let claimed = device.call("PUT", "/v1/account/contact", body).await;
    let claimed = claimed.expect(202);
    let sent = text(&gateway.wait_for(1).await[0], gateway, jwks);
    assert!(sent.contains("to confirm this address"), "{sent}");
    let body = json!({"id": claimed.body["id"], "code": code(&sent)});
    device
        .call("POST", "/v1/account/contact/confirm", Some(body))
        .await
        .expect(204);
    device
}

#[tokio::test]
async fn a_new_phone_comes_in_by_a_text_message() {
    let (app, _mail, gateway) = with_gateway().await;
    let mut keys = Value::Null;
    let owner = owner(&app, &gateway, &mut keys).await;
    let mut phone = app.device("notes");
    let whom = json!({"alias": NUMBER});
    ask(&mut phone, whom.clone()).await.expect(202);
    let calls = gateway.wait_for(2).await;
    let sent = text(&calls[1], &gateway, &keys);
    assert!(sent.contains("to sign in"), "{sent}");
    assert_eq!(code(&sent).len(), 19, "a stranger's code is long: {sent}");
    // Whoever changes the call on its way is found out.
    let mut changed = calls[1].clone();
    changed.body = String::from_utf8(changed.body)
        .unwrap()
        .replace(NUMBER, "+4915100000000")
        .into_bytes();
    assert!(changed.verified(&keys).is_none());
    let mut thief = app.device("notes");
    enter(&mut thief, whom.clone(), code(&sent), json!({}))
        .await
        .refused("401 authentication-failed");
    let opened = enter(&mut phone, whom, code(&sent), json!({"bind_device": {}})).await;
    let opened = opened.expect(201);
    assert_eq!(opened.body["account"], owner.account);
    assert_eq!(opened.body["device_bound"], true);
    let log = app.log();
    assert!(!log.contains(NUMBER) && !log.contains(code(&sent)));
}

#[tokio::test]
async fn the_channel_that_is_asked_for_gets_the_code() {
    let (app, mail, gateway) = with_gateway().await;
    let mut keys = Value::Null;
    let mut owner = owner(&app, &gateway, &mut keys).await;
    add(&mut owner, &mail, "contact", ANN).await;
    // What tells of changes comes when it comes, and is not counted.
    const CODE: &str = "code to sign in";
    let texts = |keys: &Value| -> Vec<String> {
        let received = gateway.received();
        let texts = received.iter().map(|call| text(call, &gateway, keys));
        texts.filter(|text| text.contains(CODE)).collect()
    };
    let letters = || {
        let received = mail.received();
        received
            .iter()
            .filter(|mail| mail.body.contains(CODE))
            .count()
    };
    let come = async |all: &dyn Fn() -> usize| {
        let give_up = Instant::now() + Duration::from_secs(60);
        while all() == 0 {
            assert!(Instant::now() < give_up, "{:?}", mail.received());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let account = json!({"account": owner.account});
    let by = |channel: &str| {
        let mut whom = account.clone();
        whom["channel"] = json!(channel);
        whom
    };
    ask(&mut owner, by("sms")).await.expect(202);
    come(&|| texts(&keys).len()).await;
    let sent = texts(&keys).remove(0);
    let digits = code(&sent);
    assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(letters(), 0, "and the mailbox nothing");
    enter(&mut owner, account.clone(), digits, json!({}))
        .await
        .expect(201);
    // Control: the other channel of the same account.
    ask(&mut owner, by("email")).await.expect(202);
    come(&letters).await;
    assert_eq!((letters(), texts(&keys).len()), (1, 1));
}

#[tokio::test]
async fn where_the_gateway_is_busy_the_code_comes_late_and_once() {
    let (app, _mail, gateway) = with_gateway().await;
    let mut keys = Value::Null;
    let _owner = owner(&app, &gateway, &mut keys).await;
    gateway.answer(&[503]);
    let mut phone = app.device("notes");
    let whom = json!({"alias": NUMBER});
    ask(&mut phone, whom.clone()).await.expect(202);
    let calls = gateway.wait_for(3).await;
    assert_eq!(calls[1].json()["id"], calls[2].json()["id"]);
    let sent = text(&calls[2], &gateway, &keys);
    enter(&mut phone, whom, code(&sent), json!({}))
        .await
        .expect(201);
}
