//! Codes that were used, and an administrator who puts the envelope from before back. The
//! ledger ends these too; then each must be turned around.

use custodyd_tests::{Device, Setup, TestApp, codes};
use serde_json::json;

use crate::{Row, uncached_with};

async fn app() -> TestApp {
    uncached_with(Setup {
        policies: vec![codes::policy("notes", "", "")],
        ..Setup::default()
    })
    .await
}

async fn owner(app: &TestApp) -> Device {
    let mut device = app.device("notes");
    device.enrol().await;
    device
}

async fn row(app: &TestApp) -> (Row, Vec<u8>) {
    let mut admin = app.admin().await;
    let (id, generation, sealed) = admin.accounts().await.pop().unwrap();
    let row = Row {
        id,
        generation,
        sealed,
    };
    let members = row.members(&mut admin).await;
    (row, members)
}

#[tokio::test]
async fn known_until_the_ledger_a_used_totp_step_comes_back_with_its_old_envelope() {
    let app = app().await;
    let mut device = owner(&app).await;
    let mut authenticator = device.add_totp().await;
    let (row, members) = row(&app).await;
    let code = authenticator.show();
    device.try_totp(&code, &[]).await.expect(201);
    // Without the administrator's help it is used.
    device.try_totp(&code, &[]).await.refused("401 totp-wrong");
    let mut admin = app.admin().await;
    // The row alone is not enough: the member list names the newer one.
    row.restore(&mut admin).await;
    device
        .try_totp(&code, &[])
        .await
        .refused("500 record-tampered");
    row.set_members(&mut admin, &members).await;
    device.try_totp(&code, &[]).await.expect(201);
}

#[tokio::test]
async fn known_until_the_ledger_totp_attempts_come_back_with_their_old_envelope() {
    let app = uncached_with(Setup {
        policies: vec![codes::policy("notes", "rounds = [{ attempts = 1 }]", "")],
        ..Setup::default()
    })
    .await;
    let mut device = owner(&app).await;
    let mut authenticator = device.add_totp().await;
    let (row, members) = row(&app).await;
    device
        .try_totp(&authenticator.wrong(), &[])
        .await
        .refused("401 totp-wrong");
    let code = authenticator.show();
    device
        .try_totp(&code, &[])
        .await
        .refused("403 totp-exhausted");
    let mut admin = app.admin().await;
    row.restore(&mut admin).await;
    row.set_members(&mut admin, &members).await;
    device.try_totp(&code, &[]).await.expect(201);
}

#[tokio::test]
async fn known_until_the_ledger_a_spent_recovery_code_comes_back_with_its_old_envelope() {
    let app = app().await;
    let mut device = owner(&app).await;
    let codes = device.set_recovery_codes().await;
    let (row, members) = row(&app).await;
    let mut stranger = app.device("notes");
    stranger.account.clone_from(&device.account);
    stranger
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused("401 authentication-failed");
    let mut admin = app.admin().await;
    row.restore(&mut admin).await;
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused("500 record-tampered");
    row.set_members(&mut admin, &members).await;
    stranger
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
}

/// Codes of one account are nothing in another, also where the administrator says so.
#[tokio::test]
async fn an_envelope_with_codes_opens_in_no_other_account() {
    let app = app().await;
    let mut thief = owner(&app).await;
    let codes = thief.set_recovery_codes().await;
    let (thiefs, _) = row(&app).await;
    let mut victim = owner(&app).await;
    victim.add_totp().await;
    let (victims, members) = row(&app).await;
    let mut admin = app.admin().await;
    victims.set_sealed(&mut admin, &thiefs.sealed).await;
    victims
        .vouch_for(&mut admin, victims.generation, &thiefs.sealed)
        .await;
    let mut stranger = app.device("notes");
    stranger.account.clone_from(&victim.account);
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused("500 record-tampered");
    // Control: the honest row is served again.
    victims.restore(&mut admin).await;
    victims.set_members(&mut admin, &members).await;
    victim.call("GET", "/v1/account", None).await.expect(200);
    stranger.account.clone_from(&thief.account);
    stranger
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
}
