//! Contacts and aliases, with a real mail server that the codes and notices go to.

use custodyd_tests::mail::Mail;
use custodyd_tests::shim::Clock;
use custodyd_tests::{Device, MailServer, Setup, TestApp};
use serde_json::{Value, json};

/// A daemon that sends its mail to a server of this test's own.
pub(crate) async fn with_mail(policy: &str) -> (TestApp, MailServer) {
    with_mail_and(Setup::notes(policy)).await
}

/// The same with other limits.
pub(crate) async fn with_mail_and(setup: Setup) -> (TestApp, MailServer) {
    let mail = MailServer::start();
    let setup = Setup {
        config: mail.config(),
        ..setup
    };
    (TestApp::with(setup).await, mail)
}

/// The same with a clock that the test sets.
pub(crate) async fn with_mail_and_clock(policy: &str) -> (TestApp, MailServer, Clock) {
    let mail = MailServer::start();
    let setup = Setup {
        config: mail.config(),
        ..Setup::notes(policy)
    };
    let (app, clock) = Clock::of_a_daemon(setup).await;
    (app, mail, clock)
}

/// The mails to an address, once there are `count` of them.
pub(crate) async fn mails(mail: &MailServer, to: &str, count: usize) -> Vec<Mail> {
    let mut all = 0;
    loop {
        let received = mail.wait_for(all).await;
        let of: Vec<Mail> = received.iter().filter(|m| m.to == to).cloned().collect();
        if of.len() >= count {
            return of;
        }
        all = received.len() + 1;
    }
}

/// The code in a mail: its first line.
pub(crate) fn code_in(mail: &Mail) -> String {
    mail.body.lines().next().unwrap().trim().to_owned()
}

pub(crate) async fn claim(device: &mut Device, what: &str, address: &str) -> String {
    let path = format!("/v1/account/{what}");
    let body = json!({"email": address});
    let answer = device.call("PUT", &path, Some(body)).await.expect(202);
    answer.body["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn confirm(
    device: &mut Device,
    what: &str,
    id: &str,
    code: &str,
) -> custodyd_tests::device::Answer {
    let path = format!("/v1/account/{what}/confirm");
    device
        .call("POST", &path, Some(json!({"id": id, "code": code})))
        .await
}

/// Names an address and proves it, and returns its identifier.
pub(crate) async fn add(
    device: &mut Device,
    mail: &MailServer,
    what: &str,
    address: &str,
) -> String {
    let before = mail.received().iter().filter(|m| m.to == address).count();
    let id = claim(device, what, address).await;
    let mails = mails(mail, address, before + 1).await;
    let code = code_in(mails.last().unwrap());
    confirm(device, what, &id, &code).await.expect(204);
    id
}

async fn owner(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device
}

async fn listed(device: &mut Device, what: &str) -> Vec<Value> {
    let answer = device.call("GET", "/v1/account", None).await.expect(200);
    answer.body[what].as_array().unwrap().clone()
}

async fn remove(device: &mut Device, what: &str, id: &str) -> u16 {
    let path = format!("/v1/account/{what}");
    device
        .call("DELETE", &path, Some(json!({"id": id})))
        .await
        .status
}

#[tokio::test]
async fn a_contact_is_a_claim_until_its_code_comes_back() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app).await;
    let id = claim(&mut device, "contact", "ann@example.com").await;
    let claimed = listed(&mut device, "contacts").await;
    assert_eq!(claimed[0]["confirmed"], Value::Null);
    assert_eq!(claimed[0]["address"], "ann@example.com");
    let sent = mails(&mail, "ann@example.com", 1).await;
    let code = code_in(&sent[0]);
    assert_eq!(code.len(), 19, "long, whoever asks: {code}");
    confirm(&mut device, "contact", &id, &code)
        .await
        .expect(204);
    assert_ne!(
        listed(&mut device, "contacts").await[0]["confirmed"],
        Value::Null
    );
    let events = device.events().await;
    for kind in ["contact-claimed", "code-charged", "contact-confirmed"] {
        assert!(events.iter().any(|event| event == kind), "{events:?}");
    }
    // Used once.
    confirm(&mut device, "contact", &id, &code)
        .await
        .refused("404 not-found");
}

#[tokio::test]
async fn a_wrong_confirmation_is_charged_and_shapeless_text_is_not() {
    let (app, mail) = with_mail("[[delivered_codes.rounds]]\nattempts = 3\n").await;
    let mut device = owner(&app).await;
    let id = claim(&mut device, "contact", "ann@example.com").await;
    confirm(&mut device, "contact", &id, "hello")
        .await
        .refused("400 malformed-request");
    for left in [2, 1, 0] {
        let answer = confirm(&mut device, "contact", &id, "0000-0000-0000-0000").await;
        answer.refused("401 code-wrong");
        assert_eq!(answer.body["attempts_left"], left);
    }
    let code = code_in(&mails(&mail, "ann@example.com", 1).await[0]);
    confirm(&mut device, "contact", &id, &code)
        .await
        .refused("403 code-exhausted");
    // Control: another claim has a budget and a code of its own.
    add(&mut device, &mail, "contact", "ann@other.example").await;
}

#[tokio::test]
async fn only_the_device_that_asked_confirms() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app).await;
    let id = claim(&mut device, "contact", "ann@example.com").await;
    let code = code_in(&mails(&mail, "ann@example.com", 1).await[0]);
    // Somebody else's account can not use it, whatever identifier they give.
    let mut other = owner(&app).await;
    confirm(&mut other, "contact", &id, &code)
        .await
        .refused("404 not-found");
    let own = claim(&mut other, "contact", "ann@example.com").await;
    confirm(&mut other, "contact", &own, &code)
        .await
        .refused("401 code-wrong");
    confirm(&mut device, "contact", &id, &code)
        .await
        .expect(204);
}

#[tokio::test]
async fn what_no_mail_can_reach_or_no_policy_allows_is_refused() {
    let app = TestApp::with(Setup::notes(
        "[contacts]\nchannels = [\"email\", \"sms\"]\n",
    ))
    .await;
    let mut device = owner(&app).await;
    let mut put = async |body: Value| device.call("PUT", "/v1/account/contact", Some(body)).await;
    put(json!({"email": "ann@example.com"}))
        .await
        .refused("422 channel-unreachable");
    put(json!({"phone": "+4915112345678"}))
        .await
        .refused("422 channel-unreachable");
    put(json!({"email": "not an address"}))
        .await
        .refused("400 malformed-request");
    put(json!({})).await.refused("400 malformed-request");
    let mut wallet = app.device("wallet");
    wallet.enrol().await;
    wallet
        .call(
            "PUT",
            "/v1/account/contact",
            Some(json!({"phone": "+4915112345678"})),
        )
        .await
        .refused("403 not-allowed-by-policy");
}

#[tokio::test]
async fn a_contact_needs_a_fresh_factor() {
    let (app, _mail) = with_mail("").await;
    let mut device = owner(&app).await;
    device.set_pin("830517").await.expect(200);
    device.try_device(&[]).await.expect(201);
    device
        .call(
            "PUT",
            "/v1/account/contact",
            Some(json!({"email": "thief@example.com"})),
        )
        .await
        .refused("403 read-only-session");
}

#[tokio::test]
async fn a_replaced_contact_is_told_at_its_old_address() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app).await;
    let old = add(&mut device, &mail, "contact", "old@example.com").await;
    let body = json!({"email": "new@example.com", "replaces": old});
    let answer = device
        .call("PUT", "/v1/account/contact", Some(body))
        .await
        .expect(202);
    let id = answer.body["id"].as_str().unwrap().to_owned();
    let code = code_in(&mails(&mail, "new@example.com", 1).await[0]);
    // Nothing is said before it is so.
    assert_eq!(mails(&mail, "old@example.com", 1).await.len(), 1);
    confirm(&mut device, "contact", &id, &code)
        .await
        .expect(204);
    let told = mails(&mail, "old@example.com", 2).await;
    assert!(
        told[1].body.contains("does not belong to"),
        "{}",
        told[1].body
    );
    let contacts = listed(&mut device, "contacts").await;
    assert_eq!(contacts.len(), 1);
    assert_eq!(contacts[0]["address"], "new@example.com");
}

#[tokio::test]
async fn changes_of_factors_are_told_to_the_contact_after_they_are_made() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app).await;
    add(&mut device, &mail, "contact", "ann@example.com").await;
    device.set_pin("830517").await.expect(200);
    let added = &mails(&mail, "ann@example.com", 2).await[1];
    assert!(added.body.contains("A way to sign in was added"));
    device.set_pin("294061").await.expect(200);
    let replaced = &mails(&mail, "ann@example.com", 3).await[2];
    assert!(replaced.body.contains("The PIN of your"));
    device.set_pin("1").await.refused("422 pin-weak");
    device
        .call("DELETE", "/v1/account/pin", None)
        .await
        .expect(204);
    let removed = &mails(&mail, "ann@example.com", 4).await[3];
    assert!(removed.body.contains("was removed from"));
}

#[tokio::test]
async fn a_taken_alias_is_claimed_alike_and_fails_like_a_wrong_code() {
    let (app, mail) = with_mail("").await;
    let mut ann = owner(&app).await;
    add(&mut ann, &mail, "alias", "ann@example.com").await;
    let mut second = owner(&app).await;
    let path = "/v1/account/alias";
    let free = json!({"email": "bob@example.com"});
    let free = second.call("PUT", path, Some(free)).await.expect(202);
    let taken = json!({"email": "ann@example.com"});
    let taken = second.call("PUT", path, Some(taken)).await.expect(202);
    assert_eq!(free.body.to_string().len(), taken.body.to_string().len());
    let sent = mails(&mail, "ann@example.com", 2).await;
    assert_eq!(sent[0].subject, sent[1].subject);
    let id = taken.body["id"].as_str().unwrap().to_owned();
    let wrong = confirm(&mut second, "alias", &id, "0000-0000-0000-0000").await;
    let right = confirm(&mut second, "alias", &id, &code_in(&sent[1])).await;
    assert_eq!(wrong.refusal(), right.refusal());
    right.refused("401 code-wrong");
    assert_eq!(
        listed(&mut second, "aliases").await[0]["confirmed"],
        Value::Null
    );
}

#[tokio::test]
async fn a_removed_alias_is_free_for_another_account() {
    let (app, mail) = with_mail("").await;
    let mut ann = owner(&app).await;
    let id = add(&mut ann, &mail, "alias", "ann@example.com").await;
    assert_eq!(remove(&mut ann, "alias", &id).await, 204);
    assert_eq!(remove(&mut ann, "alias", &id).await, 404);
    let mut second = owner(&app).await;
    add(&mut second, &mail, "alias", "ann@example.com").await;
    let events = ann.events().await;
    assert!(
        events.ends_with(&["alias-removed".to_owned()]),
        "{events:?}"
    );
}

#[tokio::test]
async fn two_accounts_may_have_one_contact_and_neither_learns_it() {
    let (app, mail) = with_mail("").await;
    let mut first = owner(&app).await;
    add(&mut first, &mail, "contact", "ann@example.com").await;
    let mut second = owner(&app).await;
    add(&mut second, &mail, "contact", "ann@example.com").await;
    let (one, two) = (
        listed(&mut first, "contacts").await,
        listed(&mut second, "contacts").await,
    );
    let shown = |list: &[Value]| {
        let contact = list[0].as_object().unwrap();
        contact.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(shown(&one), shown(&two));
}

#[tokio::test]
async fn contacts_and_deliveries_are_bounded() {
    let (app, mail) = with_mail("[contacts]\nmax_per_account = 1\n").await;
    let mut device = owner(&app).await;
    let claimed = claim(&mut device, "contact", "ann@example.com").await;
    let again = json!({"email": "ann@example.com"});
    let answer = device.call("PUT", "/v1/account/contact", Some(again)).await;
    answer.refused("429 delivery-wait");
    assert_ne!(answer.header("retry-after"), "");
    let code = code_in(&mails(&mail, "ann@example.com", 1).await[0]);
    confirm(&mut device, "contact", &claimed, &code)
        .await
        .expect(204);
    let other = json!({"email": "bob@example.com"});
    device
        .call("PUT", "/v1/account/contact", Some(other))
        .await
        .refused("409 too-many");
    let same = json!({"email": "ann@EXAMPLE.com", "replaces": claimed});
    device
        .call("PUT", "/v1/account/contact", Some(same))
        .await
        .refused("409 address-known");
}

#[tokio::test]
async fn the_address_is_not_shown_to_whoever_only_holds_the_device() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app).await;
    add(&mut device, &mail, "contact", "ann@example.com").await;
    device.try_device(&[]).await.expect(201);
    let contacts = listed(&mut device, "contacts").await;
    assert_eq!(contacts[0]["address"], Value::Null);
    assert_eq!(contacts[0]["channel"], "email");
}

#[tokio::test]
async fn no_log_holds_an_address_or_a_code() {
    let (app, mail) = with_mail("").await;
    let mut device = owner(&app).await;
    add(&mut device, &mail, "contact", "ann@example.com").await;
    let code = code_in(&mails(&mail, "ann@example.com", 1).await[0]);
    let log = app.log();
    assert!(!log.is_empty() && !log.contains("ann@") && !log.contains(&code));
}

#[tokio::test]
async fn an_erased_account_says_so_once_and_leaves_its_alias_free() {
    let (app, mail) = with_mail("").await;
    let mut ann = owner(&app).await;
    add(&mut ann, &mail, "contact", "ann@example.com").await;
    let confirm = json!({"confirm": ann.account});
    ann.call("DELETE", "/v1/account", Some(confirm))
        .await
        .expect(204);
    let told = mails(&mail, "ann@example.com", 2).await;
    assert!(told[1].body.contains("was erased"), "{}", told[1].body);
    let mut again = owner(&app).await;
    add(&mut again, &mail, "alias", "ann@example.com").await;
}
