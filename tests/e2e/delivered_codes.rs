//! Codes to sign in with: asked for by anybody, read by whoever has the mailbox.

use custodyd_tests::device::{Answer, b64};
use custodyd_tests::{Device, MailServer, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

use crate::contacts::{add, code_in, mails, with_mail};

pub(crate) const ANN: &str = "ann@example.com";
/// An unknown device comes in by a code alone.
pub(crate) const SUFFICES: &str = "[devices]\ncode = \"suffices\"\n";

pub(crate) async fn owner(app: &TestApp, mail: &MailServer) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    add(&mut device, mail, "contact", ANN).await;
    device.set_pin("830517").await.expect(200);
    device
        .back_up("device-secret", b"the device secret")
        .await
        .expect(200);
    mails(mail, ANN, 2).await;
    device
}

/// Another device of the same person, who remembers the address alone.
pub(crate) fn new_phone(app: &TestApp) -> Device {
    app.device("notes")
}

pub(crate) async fn ask(device: &mut Device, whom: Value) -> Answer {
    device.token = None;
    device.call("POST", "/v1/apps/{app}/otp", Some(whom)).await
}

/// Asks for a code and reads it in the mailbox.
pub(crate) async fn fetch(device: &mut Device, mail: &MailServer, whom: Value) -> String {
    let before = mail.received().iter().filter(|m| m.to == ANN).count();
    ask(device, whom).await.expect(202);
    code_in(mails(mail, ANN, before + 1).await.last().unwrap())
}

pub(crate) async fn enter(device: &mut Device, whom: Value, code: &str, more: Value) -> Answer {
    device.token = None;
    let mut body = whom;
    body["code"] = json!(code);
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = device
        .call("POST", "/v1/apps/{app}/sessions/otp", Some(body))
        .await;
    if answer.status == 201 {
        device.take_session(&answer);
    }
    answer
}

pub(crate) async fn pin_step(device: &mut Device, body: Value) -> Answer {
    let answer = device.call("POST", "/v1/session/pin", Some(body)).await;
    if answer.status == 201 {
        device.take_session(&answer);
    }
    answer
}

pub(crate) fn by_alias() -> Value {
    json!({"alias": ANN})
}

#[tokio::test]
async fn a_bound_device_gets_digits_and_a_full_session_once() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app, &mail).await;
    let code = fetch(&mut device, &mail, by_alias()).await;
    assert!(code.len() == 8 && code.bytes().all(|b| b.is_ascii_digit()));
    let started = enter(&mut device, by_alias(), &code, json!({}))
        .await
        .expect(201);
    assert_eq!(started.body["session"]["scope"], "full");
    assert_eq!(started.body["session"]["factor"], "delivered-code");
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .refused("401 code-wrong");
}

#[tokio::test]
async fn a_bound_devices_wrong_codes_are_charged_and_a_stronger_factor_resets_them() {
    let (app, mail) = with_mail("[[delivered_codes.rounds]]\nattempts = 2\n").await;
    let mut device = owner(&app, &mail).await;
    let code = fetch(&mut device, &mail, by_alias()).await;
    for left in [1, 0] {
        let answer = enter(&mut device, by_alias(), "00000000", json!({})).await;
        answer.refused("401 code-wrong");
        assert_eq!(answer.body["attempts_left"], left);
    }
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .refused("403 code-exhausted");
    device.try_pin("830517", &[]).await.expect(201);
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_code_is_worth_nothing_on_another_device() {
    let (app, mail) = with_mail(SUFFICES).await;
    let _owner = owner(&app, &mail).await;
    let (mut phone, mut thief) = (new_phone(&app), new_phone(&app));
    let code = fetch(&mut phone, &mail, by_alias()).await;
    enter(&mut thief, by_alias(), &code, json!({}))
        .await
        .refused("401 authentication-failed");
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn then_pin_opens_a_session_that_may_try_the_pin_and_nothing_else() {
    let (app, mail) = with_mail("").await;
    let _owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    assert_eq!(code.len(), 19, "a stranger's code is long");
    let bind = json!({"bind_device": {}});
    let started = enter(&mut phone, by_alias(), &code, bind).await.expect(201);
    assert_eq!(started.body["session"]["scope"], "pin-only");
    assert_eq!(started.body["device_bound"], false);
    for (method, path, body) in [
        ("GET", "/v1/account", None),
        ("GET", "/v1/account/events", None),
        ("GET", "/v1/account/secrets", None),
        ("GET", "/v1/account/secrets/app-key", None),
        ("POST", "/v1/session/refresh", None),
        ("DELETE", "/v1/sessions", None),
        ("DELETE", "/v1/account/pin", None),
        (
            "PUT",
            "/v1/account/contact",
            Some(json!({"email": "x@example.com"})),
        ),
    ] {
        phone
            .call(method, path, body)
            .await
            .refused("403 pin-only-session");
    }
    pin_step(&mut phone, json!({"pin": "830518"}))
        .await
        .refused("401 authentication-failed");
    let body =
        json!({"pin": "830517", "release": ["device-secret"], "bind_device": {"name": "new"}});
    let limited = phone.token.clone();
    let full = pin_step(&mut phone, body.clone()).await.expect(201);
    assert_eq!(full.body["session"]["scope"], "full");
    assert_eq!(full.body["device_bound"], true);
    let secret = &full.body["secrets"]["device-secret"]["server_slot"];
    assert_eq!(*secret, b64(b"the device secret"));
    pin_step(&mut phone, body.clone())
        .await
        .refused("409 session-complete");
    phone.token = limited;
    pin_step(&mut phone, body)
        .await
        .refused("401 session-ended");
}

#[tokio::test]
async fn pins_after_a_code_have_few_tries_and_never_cost_the_owner_any() {
    let (app, mail) = with_mail("[[pin.rounds]]\nattempts = 2\n").await;
    let mut owner = owner(&app, &mail).await;
    let mut thief = new_phone(&app);
    let code = fetch(&mut thief, &mail, by_alias()).await;
    enter(&mut thief, by_alias(), &code, json!({}))
        .await
        .expect(201);
    for _ in 0..5 {
        pin_step(&mut thief, json!({"pin": "830518"}))
            .await
            .refused("401 authentication-failed");
    }
    pin_step(&mut thief, json!({"pin": "830517"}))
        .await
        .refused("401 authentication-failed");
    owner.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn where_a_code_suffices_it_opens_and_binds() {
    let (app, mail) = with_mail(SUFFICES).await;
    let _owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    let started = enter(&mut phone, by_alias(), &code, json!({"bind_device": {}}))
        .await
        .expect(201);
    assert_eq!(started.body["session"]["scope"], "full");
    assert_eq!(started.body["device_bound"], true);
    let notice = mails(&mail, ANN, 4).await;
    assert!(notice[3].body.contains("A device was added"));
    phone.call("GET", "/v1/account", None).await.expect(200);
}

#[tokio::test]
async fn where_the_policy_says_no_a_stranger_gets_no_code() {
    let (app, mail) = with_mail("[devices]\ncode = \"no\"\n").await;
    let mut owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    ask(&mut phone, by_alias()).await.expect(202);
    // Control: the owner's own request is served, and is the only mail.
    fetch(&mut owner, &mail, by_alias()).await;
    assert_eq!(mails(&mail, ANN, 3).await.len(), 3);
}

#[tokio::test]
async fn an_unknown_alias_is_answered_alike_and_gets_no_mail() {
    let (app, mail) = with_mail("").await;
    let owner = owner(&app, &mail).await;
    let mut stranger = new_phone(&app);
    stranger.meet().await;
    let known = ask(&mut stranger, by_alias()).await.expect(202);
    let sent = mails(&mail, ANN, 3).await.len();
    let unknown = ask(&mut stranger, json!({"alias": "eve@example.com"}))
        .await
        .expect(202);
    let account = json!({"account": "018f2c6e-0000-7000-8000-000000000000"});
    let nobody = ask(&mut stranger, account).await.expect(202);
    let own = json!({"account": owner.account});
    let again = ask(&mut stranger, own).await.expect(202);
    for other in [&unknown, &nobody, &again] {
        assert_eq!(known.body, other.body);
        let names = |answer: &Answer| {
            let names = answer.headers.iter();
            names
                .map(|(name, value)| (name.to_string(), value.len()))
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(names(&known), names(other));
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(mail.received().len(), sent, "{:?}", mail.received());
}

#[tokio::test]
async fn wrong_codes_of_strangers_are_answered_alike_and_write_nothing() {
    let (app, mail) = with_mail("").await;
    let mut owner = owner(&app, &mail).await;
    let mut stranger = new_phone(&app);
    fetch(&mut stranger, &mail, by_alias()).await;
    let before = owner.events().await.len();
    let wrong = "0000-0000-0000-0000";
    let mut bodies = Vec::new();
    for whom in [
        by_alias(),
        json!({"account": owner.account}),
        json!({"alias": "eve@example.com"}),
        json!({"account": "018f2c6e-0000-7000-8000-000000000000"}),
    ] {
        let answer = enter(&mut stranger, whom, wrong, json!({})).await;
        answer.refused("401 authentication-failed");
        bodies.push(answer.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(owner.events().await.len(), before);
}

#[tokio::test]
async fn a_flood_of_requests_and_guesses_never_keeps_the_owner_out() {
    let (app, mail) = with_mail("[[delivered_codes.rounds]]\nattempts = 2\n").await;
    let mut owner = owner(&app, &mail).await;
    let mut flooder = new_phone(&app);
    let code = fetch(&mut flooder, &mail, by_alias()).await;
    for _ in 0..20 {
        ask(&mut flooder, by_alias()).await.expect(202);
        enter(&mut flooder, by_alias(), "0000-0000-0000-0000", json!({}))
            .await
            .refused("401 authentication-failed");
    }
    // Too soon for another code: the owner is let in on the flooder's, which only the owner
    // can read. So is the owner's new phone.
    let mut phone = new_phone(&app);
    ask(&mut phone, by_alias()).await.expect(202);
    ask(&mut owner, by_alias()).await.expect(202);
    let mut tries = 0;
    loop {
        let answer = enter(&mut phone, by_alias(), &code, json!({})).await;
        if answer.status == 201 {
            break;
        }
        tries += 1;
        assert!(tries < 50, "the errand never ran: {}", answer.body);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(mails(&mail, ANN, 3).await.len(), 3, "one code was sent");
}

#[tokio::test]
async fn a_crowd_of_keys_never_keeps_the_owner_from_the_code() {
    let (app, mail) = with_mail(SUFFICES).await;
    let _owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    // More keys than are remembered ask after the owner, before the code is typed.
    for _ in 0..18 {
        let mut thief = new_phone(&app);
        ask(&mut thief, by_alias()).await.expect(202);
        enter(&mut thief, by_alias(), "AAAA-AAAA-AAAA-AAAA", json!({}))
            .await
            .refused("401 authentication-failed");
    }
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_forgotten_pin_is_replaced_by_mail_on_a_new_phone() {
    let (app, mail) = with_mail("").await;
    let mut owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
    phone.set_pin("294061").await.expect(200);
    let told = mails(&mail, ANN, 4).await;
    assert!(told[3].body.contains("The PIN of your"));
    let body = json!({"pin": "294061", "release": ["device-secret"], "bind_device": {}});
    let full = pin_step(&mut phone, body).await.expect(201);
    let secret = &full.body["secrets"]["device-secret"]["server_slot"];
    assert_eq!(*secret, b64(b"the device secret"));
    owner.try_pin("830517", &[]).await.refused("401 pin-wrong");
    owner.try_pin("294061", &[]).await.expect(201);
}

#[tokio::test]
async fn a_policy_without_codes_in_recover_keeps_the_pin() {
    let policy = "[recover]\nby = [\"pin\", \"passkey\"]\n";
    let (app, mail) = with_mail(policy).await;
    let mut owner = owner(&app, &mail).await;
    let mut thief = new_phone(&app);
    let code = fetch(&mut thief, &mail, by_alias()).await;
    enter(&mut thief, by_alias(), &code, json!({}))
        .await
        .expect(201);
    thief
        .set_pin("294061")
        .await
        .refused("403 step-up-required");
    thief
        .call("POST", "/v1/account/devices", None)
        .await
        .refused("403 step-up-required");
    owner.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn a_code_survives_a_restart_and_a_kill() {
    let (mut app, mail) = with_mail("").await;
    let _owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    app.kill();
    app.launch().await;
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
}

#[tokio::test]
async fn a_session_by_code_ends_with_its_contact() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app, &mail).await;
    let account = device.call("GET", "/v1/account", None).await.expect(200);
    let id = account.body["contacts"][0]["id"].clone();
    let code = fetch(&mut device, &mail, by_alias()).await;
    enter(&mut device, by_alias(), &code, json!({}))
        .await
        .expect(201);
    let by_code = device.token.clone();
    device.try_pin("830517", &[]).await.expect(201);
    device
        .call("DELETE", "/v1/account/contact", Some(json!({"id": id})))
        .await
        .expect(204);
    device.token = by_code;
    device
        .call("GET", "/v1/account", None)
        .await
        .refused("401 session-ended");
    // Nor is anybody found by it any more.
    let mut phone = new_phone(&app);
    ask(&mut phone, by_alias()).await.expect(202);
    let before = mail.received().len();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(mail.received().len(), before.max(4));
}

#[tokio::test]
async fn a_contact_that_is_no_alias_is_found_by_account_only() {
    let (app, mail) = with_mail("[contacts]\nalias = false\n").await;
    let mut owner = owner(&app, &mail).await;
    let mut phone = new_phone(&app);
    ask(&mut phone, by_alias()).await.expect(202);
    let own = json!({"account": owner.account});
    fetch(&mut owner, &mail, own).await;
    assert_eq!(mails(&mail, ANN, 3).await.len(), 3);
}

#[tokio::test]
async fn a_passkey_opens_the_after_code_budget_again() {
    let (app, mail) = with_mail("").await;
    let mut owner = owner(&app, &mail).await;
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await.expect(201);
    mails(&mail, ANN, 3).await;
    let mut phone = new_phone(&app);
    phone.account.clone_from(&owner.account);
    let code = fetch(&mut phone, &mail, by_alias()).await;
    enter(&mut phone, by_alias(), &code, json!({}))
        .await
        .expect(201);
    let limited = phone.token.clone();
    for _ in 0..4 {
        pin_step(&mut phone, json!({"pin": "830518"}))
            .await
            .refused("401 authentication-failed");
    }
    pin_step(&mut phone, json!({"pin": "830517"}))
        .await
        .refused("401 authentication-failed");
    phone
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    phone.token = limited;
    pin_step(&mut phone, json!({"pin": "830517"}))
        .await
        .expect(201);
}

#[tokio::test]
async fn malformed_requests_say_so_to_everybody() {
    let (app, _mail) = with_mail("").await;
    let mut stranger = new_phone(&app);
    for body in [
        json!({}),
        json!({"alias": "nobody"}),
        json!({"alias": ANN, "account": "018f2c6e-0000-7000-8000-000000000000"}),
        json!({"alias": ANN, "channel": "fax"}),
    ] {
        ask(&mut stranger, body)
            .await
            .refused("400 malformed-request");
    }
    enter(&mut stranger, by_alias(), "abc", json!({}))
        .await
        .refused("400 malformed-request");
}
