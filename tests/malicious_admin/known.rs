//! Attacks that still succeed: rolling back to an older version of the truth. The ledger ends
//! them; then each of these tests must be turned around.

use custodyd_tests::{MailServer, Setup, SoftAuthenticator};
use serde_json::json;

use crate::{uncached, uncached_with, victim};

#[tokio::test]
async fn known_until_the_ledger_an_old_envelope_wins_pin_attempts_back() {
    let app = uncached_with(Setup::notes("[[pin.rounds]]\nattempts = 2\n")).await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let members = row.members(&mut admin).await;
    for _ in 0..2 {
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    }
    device
        .try_pin("830517", &[])
        .await
        .refused("403 pin-exhausted");
    // The row alone is not enough: the member list names the newer one.
    row.restore(&mut admin).await;
    device
        .try_pin("830517", &[])
        .await
        .refused("500 record-tampered");
    row.set_members(&mut admin, &members).await;
    device.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn known_until_the_ledger_a_whole_old_database_is_believed() {
    let mut app = uncached_with(Setup::notes("[[pin.rounds]]\nattempts = 2\n")).await;
    let (mut device, _) = victim(&app, "notes").await;
    assert!(app.stop());
    let old = std::fs::read(app.path("custodyd.sqlite")).unwrap();
    app.launch().await;
    for _ in 0..2 {
        device.try_pin("830518", &[]).await.refused("401 pin-wrong");
    }
    assert!(app.stop());
    for file in ["custodyd.sqlite-wal", "custodyd.sqlite-shm"] {
        let _ = std::fs::remove_file(app.path(file));
    }
    std::fs::write(app.path("custodyd.sqlite"), old).unwrap();
    app.launch().await;
    device.try_pin("830517", &[]).await.expect(201);
}

#[tokio::test]
async fn known_until_the_ledger_a_consumed_ceremony_comes_back_with_its_old_envelope() {
    let app = uncached().await;
    let (mut device, _) = victim(&app, "notes").await;
    let mut authenticator = SoftAuthenticator::new("notes");
    device.add_passkey(&mut authenticator).await.expect(201);
    let mut admin = app.admin().await;
    let (id, generation, sealed) = admin.accounts().await.pop().unwrap();
    let row = crate::Row {
        id,
        generation,
        sealed,
    };
    let members = row.members(&mut admin).await;
    let login = device.assertion(&mut authenticator, None).await;
    device.finish_passkey(login.clone()).await.expect(201);
    device.token = None;
    // Without the administrator's help it is spent.
    assert_eq!(device.finish_passkey(login.clone()).await.status, 401);
    row.restore(&mut admin).await;
    row.set_members(&mut admin, &members).await;
    device.finish_passkey(login).await.expect(201);
}

#[tokio::test]
async fn known_until_the_ledger_an_erased_account_comes_back_with_its_old_list() {
    let app = uncached().await;
    let (mut device, row) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let members = row.members(&mut admin).await;
    let confirm = serde_json::json!({"confirm": device.account});
    device
        .call("DELETE", "/v1/account", Some(confirm))
        .await
        .expect(204);
    // The row alone is not enough: the member list names a tombstone.
    row.restore(&mut admin).await;
    device
        .try_pin("830517", &[])
        .await
        .refused("500 record-tampered");
    row.set_members(&mut admin, &members).await;
    device.try_pin("830517", &[]).await.expect(201);
    // What was erased beside it stays erased, and is missed.
    device
        .call("GET", "/v1/account/events", None)
        .await
        .refused("500 record-tampered");
}

#[tokio::test]
async fn known_until_the_ledger_a_used_code_comes_back_with_its_old_envelope() {
    let mail = MailServer::start();
    let app = uncached_with(Setup {
        config: mail.config(),
        ..Setup::default()
    })
    .await;
    let code = |mail: &custodyd_tests::mail::Mail| mail.body.lines().next().unwrap().to_owned();
    let mut device = app.device("notes");
    device.enrol().await;
    let contact = json!({"email": "ann@example.com"});
    let claim = device
        .call("PUT", "/v1/account/contact", Some(contact))
        .await
        .expect(202);
    let first = code(&mail.wait_for(1).await[0]);
    let body = json!({"id": claim.body["id"], "code": first});
    device
        .call("POST", "/v1/account/contact/confirm", Some(body))
        .await
        .expect(204);
    device.token = None;
    let whom = json!({"account": device.account});
    device
        .call("POST", "/v1/apps/{app}/otp", Some(whom))
        .await
        .expect(202);
    let second = code(&mail.wait_for(2).await[1]);
    let login = json!({"account": device.account, "code": second});
    let path = "/v1/apps/{app}/sessions/otp";
    let mut admin = app.admin().await;
    // The alias has a row of its own: the account's is the longest.
    let accounts = admin.accounts().await;
    let longest = accounts.into_iter().max_by_key(|(.., sealed)| sealed.len());
    let (id, generation, sealed) = longest.unwrap();
    let row = crate::Row {
        id,
        generation,
        sealed,
    };
    let members = row.members(&mut admin).await;
    device
        .call("POST", path, Some(login.clone()))
        .await
        .expect(201);
    // Control: without the administrator's help it is used up.
    device
        .call("POST", path, Some(login.clone()))
        .await
        .refused("401 code-wrong");
    row.restore(&mut admin).await;
    row.set_members(&mut admin, &members).await;
    device.call("POST", path, Some(login)).await.expect(201);
}
