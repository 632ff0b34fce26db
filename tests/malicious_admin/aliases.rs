//! Records of aliases, and envelopes of accounts with contacts: who is found by an address, and
//! where their codes go.

use std::time::Duration;

use custodyd_tests::admin::literal;
use custodyd_tests::device::Answer;
use custodyd_tests::{Admin, Device, MailServer, Setup, TestApp};
use serde_json::json;

use crate::{Row, refused, served, uncached_with};

const ANN: &str = "ann@example.com";
const BOB: &str = "bob@example.com";
const TAMPERED: &str = "500 record-tampered";
/// What a wrong code is answered, and a right address.
const HONEST: &str = "401 authentication-failed";

/// Somebody who is found by an address.
struct Person {
    device: Device,
    contact: String,
    account: Row,
    alias: Row,
}

async fn with_mail() -> (TestApp, MailServer) {
    let mail = MailServer::start();
    let suffices = "[devices]\ncode = \"suffices\"\n[delivered_codes]\ninterval = \"10s\"\n";
    let app = uncached_with(Setup {
        config: mail.config(),
        ..Setup::notes(suffices)
    })
    .await;
    (app, mail)
}

async fn all(app: &TestApp) -> Vec<Row> {
    let rows = app.admin().await.accounts().await;
    rows.into_iter()
        .map(|(id, generation, sealed)| Row {
            id,
            generation,
            sealed,
        })
        .collect()
}

/// The code in the newest of the mails to an address, once there are `count`.
async fn code(mail: &MailServer, to: &str, count: usize) -> String {
    let mut all = count;
    loop {
        let received = mail.wait_for(all).await;
        let of: Vec<_> = received.iter().filter(|m| m.to == to).collect();
        if of.len() >= count {
            return of[count - 1].body.lines().next().unwrap().trim().to_owned();
        }
        all = received.len() + 1;
    }
}

/// Enrols with a contact; `sent` mails have come to its address before.
async fn person(
    app: &TestApp,
    mail: &MailServer,
    name: &str,
    address: &str,
    sent: usize,
) -> Person {
    let before = all(app).await;
    let mut device = app.device(name);
    device.enrol().await;
    let new = |rows: &[Row], old: &[Row]| -> Row {
        let fresh = rows.iter().find(|row| old.iter().all(|o| o.id != row.id));
        fresh.unwrap().clone()
    };
    let with_account = all(app).await;
    let account = new(&with_account, &before);
    let claimed = device
        .call(
            "PUT",
            "/v1/account/contact",
            Some(json!({"email": address})),
        )
        .await
        .expect(202);
    let contact = claimed.body["id"].as_str().unwrap().to_owned();
    let body = json!({"id": contact, "code": code(mail, address, sent + 1).await});
    device
        .call("POST", "/v1/account/contact/confirm", Some(body))
        .await
        .expect(204);
    let rows = all(app).await;
    let alias = new(&rows, &with_account);
    let account = rows.into_iter().find(|row| row.id == account.id).unwrap();
    Person {
        device,
        contact,
        account,
        alias,
    }
}

/// What a stranger gets who tries a code of nobody's at an address: where it leads, as far as
/// anybody may learn it.
async fn led(app: &TestApp, name: &str, address: &str) -> String {
    try_code(&mut app.device(name), address, "AAAA-AAAA-AAAA-AAAA")
        .await
        .refusal()
}

async fn try_code(device: &mut Device, address: &str, code: &str) -> Answer {
    device.token = None;
    let body = json!({"alias": address, "code": code});
    device
        .call("POST", "/v1/apps/{app}/sessions/otp", Some(body))
        .await
}

async fn ask(device: &mut Device, address: &str) {
    device.token = None;
    let body = json!({"alias": address});
    device
        .call("POST", "/v1/apps/{app}/otp", Some(body))
        .await
        .expect(202);
}

/// Long enough for an errand and its mail.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// The honest row and its entry.
async fn mend(row: &Row, admin: &mut Admin) {
    row.restore(admin).await;
    row.vouch_for(admin, row.generation, &row.sealed).await;
}

async fn delete(row: &Row, admin: &mut Admin) {
    let sql = format!("DELETE FROM records WHERE id = {}", literal(&row.id));
    assert_eq!(admin.run(&sql).await, 1);
}

#[tokio::test]
async fn an_alias_that_was_deleted_or_leads_elsewhere_is_refused() {
    let (app, mail) = with_mail().await;
    let ann = person(&app, &mail, "notes", ANN, 0).await;
    let bob = person(&app, &mail, "notes", BOB, 0).await;
    let mut admin = app.admin().await;
    assert_eq!(led(&app, "notes", ANN).await, HONEST);
    delete(&ann.alias, &mut admin).await;
    assert_eq!(led(&app, "notes", ANN).await, TAMPERED);
    // Nor can it be taken by somebody who has the mailbox: it is missed, not free.
    let mut thief = app.device("notes");
    thief.enrol().await;
    let path = "/v1/account/alias";
    let claim = thief.call("PUT", path, Some(json!({"email": ANN}))).await;
    let body = json!({"id": claim.expect(202).body["id"], "code": code(&mail, ANN, 2).await});
    let path = "/v1/account/alias/confirm";
    let taken = thief.call("POST", path, Some(body)).await;
    taken.refused("401 code-wrong");
    mend(&ann.alias, &mut admin).await;
    // The record of another alias, and the envelope of the account that it shall lead to.
    for other in [&bob.alias, &bob.account, &ann.account] {
        ann.alias.set_sealed(&mut admin, &other.sealed).await;
        assert_eq!(led(&app, "notes", ANN).await, TAMPERED);
        ann.alias
            .vouch_for(&mut admin, other.generation, &other.sealed)
            .await;
        let sql = format!(
            "UPDATE records SET generation = {} WHERE id = {}",
            other.generation,
            literal(&ann.alias.id)
        );
        admin.run(&sql).await;
        assert_eq!(led(&app, "notes", ANN).await, TAMPERED, "vouched for");
        let mut stranger = app.device("notes");
        ask(&mut stranger, ANN).await;
    }
    assert_eq!(led(&app, "notes", BOB).await, HONEST, "nobody else suffers");
    a_while().await;
    let codes = |to: &str| {
        let received = mail.received();
        received.iter().filter(|m| m.to == to).count()
    };
    assert_eq!((codes(ANN), codes(BOB)), (2, 1), "no code went astray");
    // Control: the honest record leads to its owner again, with a code.
    mend(&ann.alias, &mut admin).await;
    let mut phone = app.device("notes");
    ask(&mut phone, ANN).await;
    let opened = try_code(&mut phone, ANN, &code(&mail, ANN, 3).await).await;
    assert_eq!(opened.expect(201).body["account"], ann.device.account);
}

#[tokio::test]
async fn an_alias_of_one_app_is_nothing_in_another() {
    let (app, mail) = with_mail().await;
    let here = person(&app, &mail, "notes", ANN, 0).await;
    let there = person(&app, &mail, "wallet", ANN, 1).await;
    assert_ne!(here.alias.id, there.alias.id);
    let mut admin = app.admin().await;
    here.alias.set_sealed(&mut admin, &there.alias.sealed).await;
    there.alias.set_sealed(&mut admin, &here.alias.sealed).await;
    for vouched in [false, true] {
        for name in ["notes", "wallet"] {
            assert_eq!(led(&app, name, ANN).await, TAMPERED, "{name}, {vouched}");
        }
        here.alias
            .vouch_for(&mut admin, there.alias.generation, &there.alias.sealed)
            .await;
        there
            .alias
            .vouch_for(&mut admin, here.alias.generation, &here.alias.sealed)
            .await;
    }
    mend(&here.alias, &mut admin).await;
    assert_eq!(led(&app, "notes", ANN).await, HONEST);
    assert_eq!(led(&app, "wallet", ANN).await, TAMPERED);
    mend(&there.alias, &mut admin).await;
    assert_eq!(led(&app, "wallet", ANN).await, HONEST);
}

#[tokio::test]
async fn an_alias_that_was_given_up_does_not_come_back() {
    let (app, mail) = with_mail().await;
    let mut ann = person(&app, &mail, "notes", ANN, 0).await;
    let mut admin = app.admin().await;
    let members = ann.alias.members(&mut admin).await;
    let id = json!({"id": ann.contact});
    ann.device
        .call("DELETE", "/v1/account/contact", Some(id))
        .await
        .expect(204);
    assert_eq!(led(&app, "notes", ANN).await, HONEST, "like nobody's");
    // Its old record; and with it the list of members that named it.
    ann.alias.restore(&mut admin).await;
    assert_eq!(led(&app, "notes", ANN).await, TAMPERED);
    let now = ann.alias.members(&mut admin).await;
    ann.alias.set_members(&mut admin, &members).await;
    assert_eq!(led(&app, "notes", ANN).await, TAMPERED);
    served(&mut ann.device).await;
    // Control: without them the address is anybody's who proves it, and leads to them.
    ann.alias.set_members(&mut admin, &now).await;
    delete(&ann.alias, &mut admin).await;
    let sent = mail.received().iter().filter(|m| m.to == ANN).count();
    let second = person(&app, &mail, "notes", ANN, sent).await;
    assert_eq!(second.alias.id, ann.alias.id);
    let mut phone = app.device("notes");
    ask(&mut phone, ANN).await;
    let opened = try_code(&mut phone, ANN, &code(&mail, ANN, sent + 2).await).await;
    assert_eq!(opened.expect(201).body["account"], second.device.account);
}

/// Without its entry nobody would know that there was one: the state tree does.
#[tokio::test]
async fn an_alias_can_not_be_hidden() {
    let (app, mail) = with_mail().await;
    let mut ann = person(&app, &mail, "notes", ANN, 0).await;
    let mut admin = app.admin().await;
    let members = ann.alias.members(&mut admin).await;
    delete(&ann.alias, &mut admin).await;
    // A list of its own bucket, which is empty but for it; and no list, which says the same.
    let empty = b"CDM\x01\0\0\0\0";
    ann.alias.set_members(&mut admin, empty).await;
    assert_eq!(led(&app, "notes", ANN).await, TAMPERED);
    let bucket = ann.alias.bucket();
    let none = format!("DELETE FROM bucket_members WHERE bucket = {bucket}");
    assert_eq!(admin.run(&none).await, 1);
    assert_eq!(led(&app, "notes", ANN).await, TAMPERED);
    // Its owner is served, and so is a name that nobody has.
    served(&mut ann.device).await;
    assert_eq!(led(&app, "notes", BOB).await, HONEST);
    let back = format!(
        "INSERT INTO bucket_members VALUES ({bucket}, {})",
        literal(&members)
    );
    admin.run(&back).await;
    // Control: its record and its list again, and it leads to its account.
    ann.alias.restore(&mut admin).await;
    let mut phone = app.device("notes");
    ask(&mut phone, ANN).await;
    let opened = try_code(&mut phone, ANN, &code(&mail, ANN, 2).await).await;
    opened.expect(201);
}

#[tokio::test]
async fn swapped_envelopes_send_no_code_to_the_other_contact() {
    let (app, mail) = with_mail().await;
    let mut ann = person(&app, &mail, "notes", ANN, 0).await;
    let mut bob = person(&app, &mail, "notes", BOB, 0).await;
    let mut admin = app.admin().await;
    let (a, b) = (&ann.account, &bob.account);
    a.set_sealed(&mut admin, &b.sealed).await;
    b.set_sealed(&mut admin, &a.sealed).await;
    for vouched in [false, true] {
        for address in [ANN, BOB] {
            assert_eq!(led(&app, "notes", address).await, TAMPERED, "{vouched}");
            ask(&mut app.device("notes"), address).await;
        }
        refused(&mut ann.device).await;
        refused(&mut bob.device).await;
        for (row, other) in [(a, b), (b, a)] {
            row.vouch_for(&mut admin, other.generation, &other.sealed)
                .await;
            let sql = format!(
                "UPDATE records SET generation = {} WHERE id = {}",
                other.generation,
                literal(&row.id)
            );
            admin.run(&sql).await;
        }
    }
    a_while().await;
    assert_eq!(mail.received().len(), 2, "{:?}", mail.received());
    // Control: each envelope at its place, and the codes go where they belong.
    mend(a, &mut admin).await;
    mend(b, &mut admin).await;
    for (address, account) in [(ANN, &ann.device.account), (BOB, &bob.device.account)] {
        let mut phone = app.device("notes");
        ask(&mut phone, address).await;
        let opened = try_code(&mut phone, address, &code(&mail, address, 2).await).await;
        assert_eq!(opened.expect(201).body["account"], **account);
    }
}
