//! People who are signed in while their rows are changed, and sessions that have ended.

use custodyd_tests::admin::literal;
use custodyd_tests::device::b64;
use custodyd_tests::{Admin, Device, SoftAuthenticator, TestApp};
use serde_json::{Value, json};

use crate::{Row, Version, refused, served, uncached, victim};

const TAMPERED: &str = "500 record-tampered";

/// Another record's content at this record's place, and a list that vouches for it.
async fn put(row: &Row, other: &Row, admin: &mut Admin) {
    row.set_sealed(admin, &other.sealed).await;
    row.vouch_for(admin, other.generation, &other.sealed).await;
    let sql = format!(
        "UPDATE records SET generation = {} WHERE id = {}",
        other.generation,
        literal(&row.id)
    );
    assert_eq!(admin.run(&sql).await, 1);
}

async fn newest(admin: &mut Admin, row: &Row) -> Row {
    let rows = admin.accounts().await;
    let (id, generation, sealed) = rows.into_iter().find(|(id, ..)| *id == row.id).unwrap();
    Row {
        id,
        generation,
        sealed,
    }
}

/// Everything that a session asks for, and each way to another one.
const ROUTES: [(&str, &str); 7] = [
    ("GET", "/v1/account"),
    ("GET", "/v1/account/events"),
    ("GET", "/v1/account/secrets"),
    ("GET", "/v1/account/secrets/device-secret"),
    ("POST", "/v1/session/refresh"),
    ("DELETE", "/v1/account/pin"),
    ("DELETE", "/v1/session"),
];

async fn every_route_is_refused(device: &mut Device) {
    for (method, path) in ROUTES {
        let answer = device.call(method, path, None).await;
        assert_eq!(answer.refusal(), TAMPERED, "{method} {path}");
    }
    let session = device.token.clone();
    device.try_pin("830517", &[]).await.refused(TAMPERED);
    device.try_device(&[]).await.refused(TAMPERED);
    device.token = session;
}

#[tokio::test]
async fn who_is_signed_in_gets_nothing_from_the_others_envelope() {
    let app = uncached().await;
    let (mut alice, a) = victim(&app, "notes").await;
    let (mut mallory, m) = victim(&app, "notes").await;
    let secret = b64(b"mallory's own");
    let content = json!({"server_slot": secret});
    mallory
        .put("device-secret", "If-Match", "\"1\"", content)
        .await
        .expect(200);
    let mut admin = app.admin().await;
    let m = newest(&mut admin, &m).await;
    // Mallory's session, PIN and device key stay good for her own account: what stands at its
    // place is Alice's, and opens for nobody.
    put(&a, &m, &mut admin).await;
    put(&m, &a, &mut admin).await;
    every_route_is_refused(&mut alice).await;
    every_route_is_refused(&mut mallory).await;
    // Control: back at their places, both sessions go on, each with what is its own.
    for (row, device, own) in [
        (&a, &mut alice, b64(b"the device secret")),
        (&m, &mut mallory, secret),
    ] {
        row.restore(&mut admin).await;
        row.vouch_for(&mut admin, row.generation, &row.sealed).await;
        served(device).await;
        let released = device.recover("device-secret").await.expect(200);
        assert_eq!(released.body["server_slot"], own);
    }
}

#[tokio::test]
async fn who_is_signed_in_gets_nothing_from_an_envelope_of_their_other_app() {
    let app = uncached().await;
    let (mut here, h) = victim(&app, "notes").await;
    let (mut there, t) = victim(&app, "wallet").await;
    let mut admin = app.admin().await;
    put(&h, &t, &mut admin).await;
    put(&t, &h, &mut admin).await;
    every_route_is_refused(&mut here).await;
    every_route_is_refused(&mut there).await;
    for (row, device) in [(&h, &mut here), (&t, &mut there)] {
        row.restore(&mut admin).await;
        row.vouch_for(&mut admin, row.generation, &row.sealed).await;
        served(device).await;
    }
}

/// What memory makes of the same: each is served what the daemon committed, never the other's.
#[tokio::test]
async fn in_memory_each_keeps_their_own_while_their_rows_are_swapped() {
    let app = TestApp::start().await;
    let (mut alice, a) = victim(&app, "notes").await;
    let (mut bob, b) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    put(&a, &b, &mut admin).await;
    put(&b, &a, &mut admin).await;
    for device in [&mut alice, &mut bob] {
        let view = device.view().await;
        assert_eq!(view["account"], json!(device.account));
        let devices = view["devices"].as_array().unwrap();
        assert_eq!(devices[0]["device_id"], json!(device.key.thumbprint()));
    }
    // Control: whoever reads the rows sees it.
    let mut app = app;
    app.restart().await;
    refused(&mut alice).await;
    refused(&mut bob).await;
}

/// An owner with a second device that is bound, and the row as it was then.
async fn two_devices(app: &TestApp) -> (Device, Device, Row, Vec<u8>) {
    let (mut owner, row) = victim(app, "notes").await;
    let mut authenticator = SoftAuthenticator::new("notes");
    owner.add_passkey(&mut authenticator).await.expect(201);
    let mut second = app.device("notes");
    second.account.clone_from(&owner.account);
    second
        .try_passkey(&mut authenticator, json!({"bind_device": {}}))
        .await
        .expect(201);
    owner
        .try_passkey(&mut authenticator, json!({}))
        .await
        .expect(201);
    let mut admin = app.admin().await;
    let row = newest(&mut admin, &row).await;
    let members = row.members(&mut admin).await;
    (owner, second, row, members)
}

/// The row alone is refused, and the list with it. With the newest of both the session has ended.
async fn does_not_come_back(app: &TestApp, ended: &mut Device, old: &Version) {
    let session = ended.token.clone();
    let answer = ended.call("GET", "/v1/account", None).await;
    answer.refused("401 session-ended");
    let mut admin = app.admin().await;
    let now = Version::of(&mut admin, &old.row).await;
    old.row.restore(&mut admin).await;
    ended.token.clone_from(&session);
    refused(ended).await;
    old.put_back(&mut admin).await;
    refused(ended).await;
    // Control.
    now.put_back(&mut admin).await;
    let answer = ended.call("GET", "/v1/account", None).await;
    answer.refused("401 session-ended");
}

#[tokio::test]
async fn a_session_of_a_removed_device_does_not_come_back() {
    let app = uncached().await;
    let (mut owner, mut second, row, members) = two_devices(&app).await;
    let path = format!("/v1/account/devices/{}", second.key.thumbprint());
    owner.call("DELETE", &path, None).await.expect(204);
    does_not_come_back(&app, &mut second, &Version { row, members }).await;
    served(&mut owner).await;
}

#[tokio::test]
async fn a_session_that_was_signed_out_does_not_come_back() {
    let app = uncached().await;
    let (mut owner, mut second, row, members) = two_devices(&app).await;
    second.call("DELETE", "/v1/session", None).await.expect(204);
    does_not_come_back(&app, &mut second, &Version { row, members }).await;
    // Control: the other device's session has not ended.
    served(&mut owner).await;
}

/// The token of another device of this account, and that of another account: nothing with this
/// device's key, also while the administrator has put the other account's row here.
#[tokio::test]
async fn a_token_opens_the_account_and_the_device_it_was_made_for() {
    let app = uncached().await;
    let (mut owner, second, row, _) = two_devices(&app).await;
    let (mut other, o) = victim(&app, "notes").await;
    let mut admin = app.admin().await;
    let tokens: [Option<String>; 2] = [second.token.clone(), other.token.clone()];
    let own = owner.token.clone();
    for honest in [true, false] {
        if !honest {
            put(&row, &o, &mut admin).await;
        }
        for token in &tokens {
            owner.token.clone_from(token);
            let answer = owner.call("GET", "/v1/account", None).await;
            answer.refused("401 session-invalid");
        }
    }
    other.call("GET", "/v1/account", None).await.expect(200);
    row.restore(&mut admin).await;
    row.vouch_for(&mut admin, row.generation, &row.sealed).await;
    owner.token = own;
    let view: Value = owner.view().await;
    assert_eq!(view["account"], json!(owner.account));
}
