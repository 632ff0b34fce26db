//! Codes that were used, and an administrator who puts the envelope from before back.

use custodyd_tests::{Device, Setup, TestApp, codes};
use serde_json::json;

use crate::{Row, Version, uncached_with};

const TAMPERED: &str = "500 record-tampered";

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

/// The account that was made last, as it stands now.
async fn version(app: &TestApp) -> Version {
    let (row, members) = row(app).await;
    Version { row, members }
}

#[tokio::test]
async fn a_used_totp_step_does_not_come_back_with_its_old_envelope() {
    let app = app().await;
    let mut device = owner(&app).await;
    let mut authenticator = device.add_totp().await;
    let old = version(&app).await;
    let code = authenticator.show();
    device.try_totp(&code, &[]).await.expect(201);
    device.try_totp(&code, &[]).await.refused("401 totp-wrong");
    let newest = version(&app).await;
    let mut admin = app.admin().await;
    // The row alone does not fit the list; the list with it does not fit the state.
    old.row.restore(&mut admin).await;
    device.try_totp(&code, &[]).await.refused(TAMPERED);
    old.put_back(&mut admin).await;
    device.try_totp(&code, &[]).await.refused(TAMPERED);
    // Control: the newest version is served, and there it is used.
    newest.put_back(&mut admin).await;
    device.try_totp(&code, &[]).await.refused("401 totp-wrong");
}

#[tokio::test]
async fn totp_attempts_do_not_come_back_with_their_old_envelope() {
    let app = uncached_with(Setup {
        policies: vec![codes::policy("notes", "rounds = [{ attempts = 1 }]", "")],
        ..Setup::default()
    })
    .await;
    let mut device = owner(&app).await;
    let mut authenticator = device.add_totp().await;
    let old = version(&app).await;
    device
        .try_totp(&authenticator.wrong(), &[])
        .await
        .refused("401 totp-wrong");
    let code = authenticator.show();
    let exhausted = "403 totp-exhausted";
    device.try_totp(&code, &[]).await.refused(exhausted);
    let newest = version(&app).await;
    let mut admin = app.admin().await;
    old.put_back(&mut admin).await;
    device.try_totp(&code, &[]).await.refused(TAMPERED);
    // Control: the newest version is served, and nothing was won.
    newest.put_back(&mut admin).await;
    device.try_totp(&code, &[]).await.refused(exhausted);
}

#[tokio::test]
async fn a_spent_recovery_code_does_not_come_back_with_its_old_envelope() {
    let app = app().await;
    let mut device = owner(&app).await;
    let codes = device.set_recovery_codes().await;
    let old = version(&app).await;
    let mut stranger = app.device("notes");
    stranger.account.clone_from(&device.account);
    stranger
        .try_recovery_code(&codes[0], json!({}))
        .await
        .expect(201);
    let spent = "401 authentication-failed";
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused(spent);
    let newest = version(&app).await;
    let mut admin = app.admin().await;
    old.row.restore(&mut admin).await;
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused(TAMPERED);
    old.put_back(&mut admin).await;
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused(TAMPERED);
    // Control: the newest version is served; there it is spent, and the next one is not.
    newest.put_back(&mut admin).await;
    let answer = stranger.try_recovery_code(&codes[0], json!({})).await;
    answer.refused(spent);
    stranger
        .try_recovery_code(&codes[1], json!({}))
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
